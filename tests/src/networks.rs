//! A network for a cell: each member and each cluster in a network namespace of its own, joined by a bridge in the hub's,
//! where the test itself is. Links are taken down and packets dropped there; nothing outside is touched.
//!
//! Real Kubernetes clusters have such a network already: members join it ([`Network::over`]).
//!
//! Failure model: what can't be made fails with its command's own words. Everything is removed at the end, and what a
//! killed test left behind when the next one starts.

use anyhow::{Context, ensure};
use argosy_testcluster::{Cluster, Federation, network};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

const PREFIX: &str = "argosy-net";
/// Clusters come after the members.
const FIRST_CLUSTER: u8 = 11;
/// Members come after real clusters.
const FIRST_MEMBER_BESIDE_CLUSTERS: u8 = 101;

/// Why such a network can't be made here, or nothing.
#[must_use]
pub fn unavailable() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root: network namespaces need it".into());
    }
    for program in ["ip", "nsenter", "iptables", "tc"] {
        // `-V` is known to all of them; what is asked is whether it can be started.
        let mut command = Command::new(program);
        if command.arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Some(format!("{program} is missing"));
        }
    }
    network::probe().err().map(|error| format!("no network namespaces: {error:#}"))
}

/// The place of a member.
#[must_use]
pub fn member_place(member: u64) -> String {
    format!("member-{member}")
}

#[derive(Debug)]
struct Place {
    index: u8,
    namespace: String,
}

/// The network of one cell.
#[derive(Debug)]
pub struct Network {
    /// What is removed at the end; nothing if another does.
    run: Option<String>,
    hub: String,
    places: BTreeMap<String, Place>,
    environments: Mutex<BTreeMap<String, Vec<(String, String)>>>,
}

impl Network {
    /// Makes a namespace and a link for every member and cluster.
    ///
    /// # Errors
    /// What could not be made. Ask [`unavailable`] first.
    pub fn start(members: u8, clusters: &[&str]) -> anyhow::Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        clear_dead_runs();
        let run = format!("{PREFIX}-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let members = (1..=members).map(|member| (member_place(u64::from(member)), member));
        let clusters = (FIRST_CLUSTER..).zip(clusters).map(|(index, name)| ((*name).to_owned(), index));
        let place = |(name, index): (String, u8)| {
            let namespace = format!("{run}-{name}");
            (name, Place { index, namespace })
        };
        let places = members.chain(clusters).map(place).collect();
        let hub = format!("{run}-hub");
        let network = Self { run: Some(run), hub, places, environments: Mutex::default() };
        network::make_hub(&network.hub)?;
        for place in network.places.values() {
            network::make_cluster(&network.hub, &place.namespace, place.index)?;
        }
        Ok(network)
    }

    /// The network of real clusters, with a namespace and a link for every member beside theirs. It goes with the federation.
    ///
    /// # Errors
    /// What could not be made.
    pub fn over(federation: &Federation, members: u8, clusters: &[&Cluster]) -> anyhow::Result<Self> {
        let mut places = BTreeMap::new();
        for cluster in clusters {
            let namespace = cluster.namespace().to_owned();
            places.insert(cluster.name.clone(), Place { index: cluster.index, namespace });
        }
        for (index, member) in (FIRST_MEMBER_BESIDE_CLUSTERS..).zip(1..=members) {
            let name = member_place(u64::from(member));
            let namespace = federation.add_place(&name, index)?;
            places.insert(name, Place { index, namespace });
        }
        Ok(Self { run: None, hub: federation.hub(), places, environments: Mutex::default() })
    }

    fn place(&self, name: &str) -> anyhow::Result<&Place> {
        self.places.get(name).with_context(|| format!("{name} is no place of this network"))
    }

    /// The address of a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn address(&self, place: &str) -> anyhow::Result<Ipv4Addr> {
        Ok(Ipv4Addr::new(10, 200, self.place(place)?.index, 1))
    }

    /// Runs a future on a runtime whose threads are all in the hub's namespace.
    ///
    /// # Errors
    /// Its own, or the namespace can't be entered.
    pub fn block_on<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        make: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        network::block_on(&self.hub, make)?
    }

    /// The beginning of a command line that runs a program in a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn command_line(&self, place: &str, program: &Path) -> anyhow::Result<(OsString, Vec<OsString>)> {
        let command = network::command_in(&self.place(place)?.namespace, "env");
        let mut arguments: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
        let environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        let variables = environments.get(place).into_iter().flatten();
        arguments.extend(variables.map(|(name, value)| format!("{name}={value}").into()));
        arguments.push(program.into());
        Ok((command.get_program().to_owned(), arguments))
    }

    /// What programs that are started in a place from now on have in their environment.
    pub fn set_environment(&self, place: &str, variables: Vec<(String, String)>) {
        let mut environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        environments.insert(place.to_owned(), variables);
    }

    /// Takes a place's link down.
    ///
    /// # Errors
    /// It can't be.
    pub fn cut(&self, place: &str) -> anyhow::Result<()> {
        network::set_link(&self.hub, self.place(place)?.index, false)
    }

    /// Takes a place's link up again.
    ///
    /// # Errors
    /// It can't be.
    pub fn join(&self, place: &str) -> anyhow::Result<()> {
        network::set_link(&self.hub, self.place(place)?.index, true)
    }

    fn filter(&self, place: &str, rule: &str) -> anyhow::Result<()> {
        self.run_in(place, "iptables", &format!("-w 10 {rule}"))
    }

    fn run_in(&self, place: &str, program: &str, arguments: &str) -> anyhow::Result<()> {
        let mut command = network::command_in(&self.place(place)?.namespace, program);
        let done = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{program} {arguments} in {place}: {}", said.trim());
        Ok(())
    }

    /// Nothing that `from` sends reaches `to` any more; the other way is left as it is.
    ///
    /// # Errors
    /// It can't be.
    pub fn silence(&self, from: &str, to: &str) -> anyhow::Result<()> {
        self.filter(to, &format!("-A INPUT -s {} -j DROP", self.address(from)?))
    }

    /// Of what a place gets, so many of a hundred packets are lost, and what it sends leaves at no more than `kilobits`
    /// a second.
    ///
    /// # Errors
    /// The kernel can't.
    pub fn worsen(&self, place: &str, lost_percent: u32, kilobits: u32) -> anyhow::Result<()> {
        let probability = f64::from(lost_percent) / 100.0;
        self.filter(
            place,
            &format!("-A INPUT -i up0 -m statistic --mode random --probability {probability} -j DROP"),
        )?;
        let limits = "burst 8k latency 500ms";
        self.run_in(place, "tc", &format!("qdisc replace dev up0 root tbf rate {kilobits}kbit {limits}"))
    }

    /// Everything gets through everywhere again.
    ///
    /// # Errors
    /// It can't be.
    pub fn heal(&self) -> anyhow::Result<()> {
        for place in self.places.keys() {
            self.join(place)?;
            self.filter(place, "-F INPUT")?;
            // There is none to delete as a rule.
            let _ = self.run_in(place, "tc", "qdisc del dev up0 root");
        }
        Ok(())
    }

    /// The processes in a place.
    #[must_use]
    pub fn processes(&self, place: &str) -> Vec<i32> {
        self.places.get(place).map(|place| network::processes(&place.namespace)).unwrap_or_default()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(run) = &self.run {
            remove_run(run);
        }
    }
}

fn remove_run(run: &str) {
    let inside = format!("{run}-");
    for namespace in network::all().into_iter().filter(|name| name.starts_with(&inside)) {
        for process in network::processes(&namespace) {
            let process = nix::unistd::Pid::from_raw(process);
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = network::remove(&namespace);
    }
}

fn clear_dead_runs() {
    for name in network::all() {
        let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-').skip(1);
        let (Some(pid), Some(number)) = (parts.next(), parts.next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            remove_run(&format!("{PREFIX}-{pid}-{number}"));
        }
    }
}
