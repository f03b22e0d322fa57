//! Real Kubernetes clusters on one machine, for tests.
//!
//! A [`Federation`] is one *run*: a hub network (a network namespace with a bridge, where control-plane members and
//! clients sit) and any number of [`Cluster`]s, each in a network namespace of its own, joined to the hub by one link that
//! can be cut. Inside a cluster run the real etcd, API server, controller manager, scheduler, containerd and kubelet. Pods
//! reach their own cluster's host address, so agents are started in the cluster's namespace ([`Cluster::command`]).
//!
//! Everything a run makes carries its name and lies below one folder. It is removed when the federation is dropped, or
//! by the next run (or `testcluster down --all`) when its owner died. Processes are ended by recorded id and start time, or
//! because they are members of the run's own control groups and namespaces, never by name.
//!
//! Needs root, network namespaces and the packages of `tests/kubernetes/packages`; [`unavailable`] says what is missing.
//! Addresses: hub 10.200.0.1, cluster `i` 10.200.i.1 (services 10.96.i.0/24, Pods 10.(100+i).0.0/16). They exist in the run's
//! namespaces only, so runs beside each other do not meet.

mod certificates;
pub mod chaos;
mod components;
mod images;
pub mod network;
mod plugin;
mod record;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use images::{BUSYBOX_NAMES, DRIVER_IMAGE, EXECUTOR_IMAGE, PAUSE_NAME};
pub use plugin::executor_plugin;

/// Highest index of a cluster in one federation.
pub const CLUSTER_INDEX_MAX: u8 = 50;
/// How long a cluster may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Why clusters can't be started here, or nothing.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: network namespaces and containerd need it".into());
    }
    let programs = ["ip", "nsenter", "containerd", "ctr", "runc", "busybox", "tar", "mount", "umount"];
    let missing: Vec<_> =
        programs.iter().filter(|program| find_program(program).is_none()).copied().collect();
    if !missing.is_empty() {
        return Some(format!(
            "programs are missing: {}; install tests/kubernetes/packages",
            missing.join(", ")
        ));
    }
    if !Path::new("/usr/lib/cni/bridge").exists() {
        return Some("/usr/lib/cni/bridge is missing; install containernetworking-plugins".into());
    }
    network::probe().err().map(|error| format!("no network namespaces here: {error:#}"))
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists())
}

/// Runs a command to its end and gives its standard output; a failure carries the standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Asks until the answer is yes, or fails naming what was waited for.
pub fn wait_until(what: &str, timeout: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !ready() {
        if start.elapsed() > timeout {
            bail!("waited {timeout:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// One run: the hub network and its folder. Dropping it removes everything, unless it was made by [`Federation::attach`].
pub struct Federation {
    run: String,
    folder: PathBuf,
    binaries: PathBuf,
    owned: bool,
}

impl Federation {
    /// Starts a run of this process, after clearing away runs whose owner died. Builds the clusters' programs if the
    /// machine does not have them yet (minutes).
    ///
    /// # Errors
    /// What could not be made. Ask [`unavailable`] first.
    pub fn start() -> Result<Self> {
        record::clear_dead_runs(false)?;
        let run = format!("{:x}", std::process::id());
        let mut federation = Self::named(&run, true)?;
        record::write_owner(&federation.folder)?;
        federation.make_hub()?;
        federation.owned = true;
        Ok(federation)
    }

    /// The run of that name without an owner, made if it is not there: it outlives this process until
    /// [`Federation::remove`] or `testcluster down`.
    ///
    /// # Errors
    /// What could not be made.
    pub fn attach(run: &str) -> Result<Self> {
        let federation = Self::named(run, false)?;
        if !network::exists(&federation.hub()) {
            federation.make_hub()?;
        }
        Ok(federation)
    }

    /// Removes the runs of dead owners and those without an owner.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove_leftovers() -> Result<()> {
        record::clear_dead_runs(true)
    }

    fn named(run: &str, owned: bool) -> Result<Self> {
        let folder = record::runs_folder().join(run);
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { run: run.to_owned(), folder, binaries: components::binaries()?, owned })
    }

    fn make_hub(&self) -> Result<()> {
        network::make_hub(&self.hub())
    }

    /// The hub's network namespace.
    #[must_use]
    pub fn hub(&self) -> String {
        record::namespace(&self.run, "hub")
    }

    /// Where members and clients of the hub listen.
    #[must_use]
    pub fn hub_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, 0, 1)
    }

    /// Gives the hub one more address, of 10.200.0.0/16, that no cluster has.
    ///
    /// # Errors
    /// When it is taken.
    pub fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        network::add_hub_address(&self.hub(), address)
    }

    /// A place beside the clusters, with a namespace and a link of its own: for a control-plane member. `index` is no
    /// cluster's. Gives the name of the namespace.
    ///
    /// # Errors
    /// What could not be made.
    pub fn add_place(&self, name: &str, index: u8) -> Result<String> {
        let namespace = record::namespace(&self.run, name);
        network::make_cluster(&self.hub(), &namespace, index)?;
        Ok(namespace)
    }

    /// The run's folder, for what a test wants removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program to be run in the hub's network.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        network::command_in(&self.hub(), program)
    }

    /// Starts a recorded program (its output goes to `log`): it ends with the run at the latest.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, command: &mut Command, log: &Path) -> Result<Child> {
        record::spawn(command, &self.folder, log)
    }

    /// Starts a cluster and waits until its host is ready and the default service account exists.
    ///
    /// # Errors
    /// What failed; the logs lie in the cluster's folder.
    pub fn start_cluster(&self, name: &str, index: u8) -> Result<Cluster> {
        if index == 0 || index > CLUSTER_INDEX_MAX {
            bail!("cluster index {index} is out of range: use 1 to {CLUSTER_INDEX_MAX}");
        }
        let cluster = self.cluster(name, index);
        components::start(&cluster, &self.hub()).with_context(|| format!("start cluster {name}"))?;
        Ok(cluster)
    }

    /// The handle of a cluster that was started in this run.
    #[must_use]
    pub fn cluster(&self, name: &str, index: u8) -> Cluster {
        Cluster {
            name: name.to_owned(),
            index,
            namespace: record::namespace(&self.run, name),
            hub: self.hub(),
            folder: self.folder.join(name),
            binaries: self.binaries.clone(),
        }
    }

    /// Starts a second host of a cluster: one more kubelet and containerd, in a network of their own. `index` is no cluster's.
    ///
    /// # Errors
    /// What failed; the logs lie in the host's folder.
    pub fn start_second_host(&self, cluster: &Cluster, index: u8) -> Result<Host> {
        let place = self.cluster(&cluster.second_host_name(), index);
        components::start_host(&place, cluster, &self.hub())
            .with_context(|| format!("start host {}", place.name))?;
        Ok(Host { place })
    }

    /// Starts several clusters at the same time: names in order get the indexes 1, 2, ...
    ///
    /// # Errors
    /// The first failure.
    pub fn start_clusters(&self, names: &[&str]) -> Result<Vec<Cluster>> {
        std::thread::scope(|scope| {
            let starts: Vec<_> = (1u8..)
                .zip(names)
                .map(|(index, name)| scope.spawn(move || self.start_cluster(name, index)))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().expect("starting a cluster returns errors, it does not panic"))
                .collect()
        })
    }

    /// Makes and runs a future on a runtime all of whose threads are in the hub's network, and so reach every cluster that is
    /// not cut off.
    ///
    /// # Errors
    /// When the network can't be entered.
    pub fn block_on<T: Send, F: Future<Output = T>>(&self, make: impl FnOnce() -> F + Send) -> Result<T> {
        network::block_on(&self.hub(), make)
    }

    /// Ends every process of the run and removes what it made.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&mut self) -> Result<()> {
        self.owned = false;
        record::remove_run(&self.run)
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.remove()
        {
            eprintln!("run {} was not removed whole: {error:#}", self.run);
        }
    }
}

/// A second host of a cluster. A handle: dropping it stops nothing.
pub struct Host {
    /// Name, folder, namespace and addresses; no control plane runs there.
    place: Cluster,
}

impl Host {
    /// Its name as a Kubernetes Node.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Nothing passes between it and the rest of its cluster, the agent and the API server. Its Pods go on.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn cut(&self) -> Result<()> {
        self.place.cut()
    }

    /// Brings the link back.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn restore(&self) -> Result<()> {
        self.place.restore()
    }

    /// It dies: kubelet, containerd and all its Pods end at once.
    ///
    /// # Errors
    /// What could not be ended.
    pub fn kill(&self) -> Result<()> {
        self.place.kill_host()
    }
}

/// One Kubernetes cluster of a federation. A handle: dropping it stops nothing.
pub struct Cluster {
    /// Its name, also its host's name.
    pub name: String,
    /// Its number, which fixes its addresses.
    pub index: u8,
    namespace: String,
    hub: String,
    folder: PathBuf,
    binaries: PathBuf,
}

impl Cluster {
    /// The cluster's folder: configuration, logs, state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name that its second host has, should there be one.
    pub(crate) fn second_host_name(&self) -> String {
        format!("{}-2", self.name)
    }

    /// Its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The host's address: API server, and agents started by [`Cluster::command`]. Pods reach it, cut or not.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.index, 1)
    }

    /// Administrator's access.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// Gives the agent's service account the rights of `deploy/agent/rbac.yaml` and no others; the file that is returned
    /// acts as that account.
    ///
    /// # Errors
    /// kubectl's own words.
    pub fn agent_kubeconfig(&self) -> Result<PathBuf> {
        let rights = components::source("deploy/agent/rbac.yaml");
        self.kubectl(&["apply", "-f", &rights.to_string_lossy()])?;
        Ok(self.folder.join("agent.kubeconfig"))
    }

    /// Gives the agent the right of `deploy/agent/secrets.yaml` as well.
    ///
    /// # Errors
    /// kubectl's own words.
    pub fn let_agent_read_secrets(&self) -> Result<()> {
        let right = components::source("deploy/agent/secrets.yaml");
        self.kubectl(&["apply", "-f", &right.to_string_lossy()]).map(drop)
    }

    /// Makes the Lease of `deploy/agent/lease.yaml`, and gives the agent its rights on it.
    ///
    /// # Errors
    /// kubectl's own words.
    pub fn let_agent_hold_its_lease(&self) -> Result<()> {
        let right = components::source("deploy/agent/lease.yaml");
        self.kubectl(&["apply", "-f", &right.to_string_lossy()]).map(drop)
    }

    /// A program to be run inside the cluster's network, as an agent is.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        network::command_in(&self.namespace, program)
    }

    /// Starts a recorded program (its output goes to `log`): it ends with the cluster at the latest.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self, command: &mut Command, log: &Path) -> Result<Child> {
        record::spawn(command, &self.folder, log)
    }

    /// Runs kubectl inside the cluster's network, so also while the cluster is cut off.
    ///
    /// # Errors
    /// kubectl's own words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(
            self.command(self.binaries.join("kubectl"))
                .arg("--kubeconfig")
                .arg(self.kubeconfig())
                .args(arguments),
        )
    }

    /// Makes and runs a future inside the cluster's network, as an agent is run.
    ///
    /// # Errors
    /// When the network can't be entered.
    pub fn block_on<T: Send, F: Future<Output = T>>(&self, make: impl FnOnce() -> F + Send) -> Result<T> {
        network::block_on(&self.namespace, make)
    }

    /// Takes the link between the cluster and everything outside it down. Pods, hosts and the API server go on.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn cut(&self) -> Result<()> {
        network::set_link(&self.hub, self.index, false)
    }

    /// Brings the link back.
    ///
    /// # Errors
    /// When the link is not there.
    pub fn restore(&self) -> Result<()> {
        network::set_link(&self.hub, self.index, true)
    }

    /// The host dies: kubelet, containerd and all Pods end at once; etcd and the API server stay.
    ///
    /// # Errors
    /// What could not be ended.
    pub fn kill_host(&self) -> Result<()> {
        record::kill_recorded(&self.folder, &["kubelet", "containerd"])?;
        record::kill_pods(&self.folder, &self.namespace)
    }

    /// kill -9 of the API server. Hosts and Pods go on.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill_api_server(&self) -> Result<()> {
        components::stop_api_server(self)
    }

    /// Starts the API server again and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn start_api_server(&self) -> Result<()> {
        components::bring_up_api_server(self)
    }

    /// A signal to the API server.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_api_server(&self, signal: Signal) -> Result<()> {
        record::signal(&self.folder, components::API_SERVER, signal)
    }

    /// Restarts the API server over an etcd that has forgotten all but its newest revision: clients lose their watches,
    /// and resuming from an older revision is answered with 410 Gone.
    ///
    /// # Errors
    /// What failed.
    pub fn restart_api_server_compacted(&self) -> Result<()> {
        components::stop_api_server(self)?;
        components::compact(self)?;
        components::bring_up_api_server(self)
    }

    /// Loads an image archive under the names it holds.
    ///
    /// # Errors
    /// containerd's own words.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        images::load(&self.folder, archive)
    }

    /// Makes an image ([`DRIVER_IMAGE`]) of an artifact driver's program, and loads it.
    ///
    /// # Errors
    /// What could not be made, or containerd's own words.
    pub fn load_driver(&self, program: &Path) -> Result<()> {
        self.load_image(&images::make_driver(&self.folder, program)?)
    }

    /// Ends the cluster and removes what it made.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn delete(&self) -> Result<()> {
        network::remove_link(&self.hub, self.index);
        record::remove_cluster(&self.folder, &self.namespace)
    }
}
