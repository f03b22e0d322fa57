//! A cell of real processes on loopback: members and process clusters, with a client. Everything is stopped by pid when
//! it is dropped.

use crate::networks::{Network, member_place};
use crate::pods::{self, AgentOptions};
use anyhow::{Context, bail, ensure};
use argosy_pki::{Authority, Lifetimes};
use argosy_server::config::{
    ApiConfig, ConsensusConfig, FailoverConfig, IdentityConfig, Listen, MemberAddresses, ServerConfig,
};
use argosy_server::core::clock;
use argosy_server::processes::Process;
use argosy_testcluster::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The token of every test cell.
pub const TOKEN: &str = "a-token-for-tests";

/// A binary that was built before the tests.
///
/// # Errors
/// It is not there.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.ancestors().nth(2).context("the test runs from a target directory")?;
    let path = directory.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}

/// How a cell is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members.
    pub members: u64,
    /// Lease of the agents, milliseconds.
    pub lease_ms: u64,
    /// What the leader waits beyond it, milliseconds; none: a third of it.
    pub margin_ms: Option<u64>,
    /// Wait before unsafe steps are taken over, milliseconds.
    pub takeover_after_unsafe_ms: u64,
    /// Wait before steps leave a cluster whose API server is away, milliseconds; none: the default.
    pub degraded_after_ms: Option<u64>,
    /// Entries kept in the log.
    pub log_entries_kept: u64,
    /// The other times of consensus.
    pub consensus: ConsensusConfig,
    /// Addresses that members listen on.
    pub address: Ipv4Addr,
    /// Where members and clusters are instead, each in a namespace of its own; the test has to run inside, too.
    pub network: Option<Arc<Network>>,
    /// The cell's default artifact repository.
    pub artifact_repository: Option<Value>,
    /// Wait before attempts' own objects are deleted, milliseconds.
    pub artifact_sweep_after_ms: Option<i64>,
    /// Steps that run again for artifacts that were lost.
    pub reproductions: argosy_server::config::ReproductionConfig,
    /// Certificates.
    pub identity: IdentityConfig,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            members: 3,
            lease_ms: 3_000,
            margin_ms: None,
            takeover_after_unsafe_ms: 300_000,
            degraded_after_ms: None,
            log_entries_kept: 10_000,
            consensus: ConsensusConfig::default(),
            address: Ipv4Addr::LOCALHOST,
            network: None,
            artifact_repository: None,
            artifact_sweep_after_ms: None,
            reproductions: argosy_server::config::ReproductionConfig::default(),
            identity: IdentityConfig::default(),
        }
    }
}

/// A running cell.
pub struct Cell {
    /// Holds everything; removed at the end.
    pub directory: tempfile::TempDir,
    /// Configuration of each member.
    pub configs: BTreeMap<u64, ServerConfig>,
    /// Running members.
    pub members: BTreeMap<u64, Process>,
    /// Running agents.
    pub agents: BTreeMap<String, Process>,
    /// Speaks to the API.
    pub http: reqwest::Client,
    /// Certificates.
    pub authority: Authority,
    /// Those of its clusters that are real ones, by name: their agents make Pods. All others are process clusters.
    pub kubernetes: BTreeMap<String, Arc<Cluster>>,
    /// Variables (`NAME=VALUE`) that agents of process clusters have from their next start on, by cluster.
    pub variables: BTreeMap<String, Vec<String>>,
    network: Option<Arc<Network>>,
}

/// Below those that the kernel gives to outgoing connections: nobody takes a port between its choice and the start of
/// its member, or while that member is down.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

fn free_address(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    for _ in PORTS {
        // Test processes that run side by side begin at different places.
        let next = std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + next % count)?;
        if let Ok(listener) = TcpListener::bind((address, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port of {PORTS:?} is free on {address}")
}

impl Cell {
    /// Starts the members and waits for a leader.
    ///
    /// # Errors
    /// Something did not start.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let authority =
            Authority::load_or_create(&path.join("pki"), "test", clock().wall_ms, Lifetimes::default())?;
        hand_out_authority(path, options.members)?;
        let tokens = json!({"version": 1, "tokens": [{
            "name": "admin", "role": "admin", "sha256": argosy_gateway::hash_token(TOKEN),
        }]});
        std::fs::write(path.join("tokens.json"), tokens.to_string())?;
        let configs = configurations(options, path)?;
        let http = client_of(&authority.roots())?;
        let network = options.network.clone();
        let (members, agents) = (BTreeMap::new(), BTreeMap::new());
        let (kubernetes, variables) = (BTreeMap::new(), BTreeMap::new());
        let mut cell =
            Self { directory, configs, members, agents, http, authority, kubernetes, variables, network };
        for member in 1..=options.members {
            cell.start_member(member)?;
        }
        cell.leader().await?;
        Ok(cell)
    }

    /// Starts a program where it belongs.
    fn launch(
        &self,
        place: &str,
        name: &str,
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> anyhow::Result<Process> {
        let Some(network) = &self.network else { return Process::start(name, program, arguments, log) };
        let (first, mut all) = network.command_line(place, program)?;
        all.extend(arguments.iter().map(Into::into));
        Process::start(name, Path::new(&first), &all, log)
    }

    /// Starts a member, again if it was killed.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_member(&mut self, member: u64) -> anyhow::Result<()> {
        let path = self.directory.path();
        let config = path.join(format!("member-{member}.yaml"));
        let arguments = ["server".to_owned(), "--config".to_owned(), config.display().to_string()];
        let log = log_directory(path).join(format!("member-{member}.log"));
        let (place, name) = (member_place(member), format!("member {member}"));
        let process = self.launch(&place, &name, &binary("argosy")?, &arguments, &log)?;
        self.members.insert(member, process);
        Ok(())
    }

    /// Writes the configuration of a member that joins, and starts it. The cell has to be told with its addresses.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_joining(&mut self, member: u64) -> anyhow::Result<MemberAddresses> {
        let path = self.directory.path();
        let free = || free_address(Ipv4Addr::LOCALHOST);
        let listen = Listen { api: free()?, agent: free()?, peer: free()?, metrics: free()? };
        let addresses = addresses_of(&listen);
        let (_, founder) = self.configs.first_key_value().context("a cell has members")?;
        let mut config = founder.clone();
        config.member = member;
        config.data_dir = path.join(format!("member-{member}"));
        config.members.insert(member, addresses.clone());
        config.join = true;
        config.listen = listen;
        std::fs::write(path.join(format!("member-{member}.yaml")), serde_yaml::to_string(&config)?)?;
        self.configs.insert(member, config);
        self.start_member(member)?;
        Ok(addresses)
    }

    /// kill -9.
    pub fn kill_member(&mut self, member: u64) {
        if let Some(mut process) = self.members.remove(&member) {
            process.lose();
        }
    }

    /// kill -9 of an agent; its steps run on.
    pub fn kill_agent(&mut self, cluster: &str) {
        let Some(agent) = self.agents.remove(cluster) else { return };
        if let Ok(pid) = i32::try_from(agent.pid()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// A signal to a running agent alone.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_agent(&self, cluster: &str, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = self.agents.get(cluster).context("the agent does not run")?.pid();
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Gives every cluster a Secret.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let directory = self.directory.path().join("secrets").join("_").join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(std::fs::write(directory.join(key), value)?)
    }

    /// Ends an agent and all of its steps at once, as a power cut would.
    pub fn lose_cluster(&mut self, cluster: &str) {
        if let Some(mut agent) = self.agents.remove(cluster) {
            agent.lose();
        }
    }

    /// A signal to a running member.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_member(&self, member: u64, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = self.members.get(&member).context("the member does not run")?.pid();
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    fn policy_file(&self, cluster: &str) -> PathBuf {
        self.directory.path().join(format!("policy-{cluster}.yaml"))
    }

    /// What the owner of a cluster allows from the next start of its agent on.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_policy(&self, cluster: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.policy_file(cluster), text)?)
    }

    /// Names that a cluster resolves in its own way, in the form of `/etc/hosts`, from the next start of its agent on.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write_hosts(&self, cluster: &str, text: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.hosts_file(cluster), text)?)
    }

    fn hosts_file(&self, cluster: &str) -> PathBuf {
        self.directory.path().join(format!("hosts-{cluster}"))
    }

    /// A command with the cluster's own names, if it has any.
    fn with_hosts(&self, cluster: &str, binary: PathBuf, arguments: Vec<String>) -> (PathBuf, Vec<String>) {
        let hosts = self.hosts_file(cluster);
        if !hosts.exists() {
            return (binary, arguments);
        }
        let namespaces: &[&str] = if nix::unistd::geteuid().is_root() {
            &["--mount"]
        } else {
            &["--user", "--map-root-user", "--mount"]
        };
        let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
        let mut all: Vec<String> =
            namespaces.iter().chain(&["sh", "-c", script]).map(|one| (*one).to_owned()).collect();
        all.extend([hosts.display().to_string(), binary.display().to_string()]);
        all.extend(arguments);
        (PathBuf::from("unshare"), all)
    }

    /// A command with the cluster's own variables, if it has any.
    fn with_variables(
        &self,
        cluster: &str,
        program: PathBuf,
        arguments: Vec<String>,
    ) -> (PathBuf, Vec<String>) {
        let Some(variables) = self.variables.get(cluster) else { return (program, arguments) };
        let mut all = variables.clone();
        all.push(program.display().to_string());
        all.extend(arguments);
        (PathBuf::from("env"), all)
    }

    /// Enrols a cluster and starts its agent, or starts it again.
    ///
    /// # Errors
    /// No invite, or the agent does not start.
    pub async fn start_agent(&mut self, cluster: &str) -> anyhow::Result<()> {
        let (program, arguments) = match self.kubernetes.get(cluster) {
            Some(real) => {
                let arguments = pods::agent_arguments(self, real, &AgentOptions::default()).await?;
                (binary("argosy-agent")?, arguments)
            }
            None => {
                let arguments = self.process_agent_arguments(cluster).await?;
                let (program, arguments) = self.with_hosts(cluster, binary("argosy-agent")?, arguments);
                self.with_variables(cluster, program, arguments)
            }
        };
        let log = log_directory(self.directory.path()).join(format!("cluster-{cluster}.log"));
        let process = self.launch(cluster, &format!("cluster {cluster}"), &program, &arguments, &log)?;
        self.agents.insert(cluster.to_owned(), process);
        Ok(())
    }

    async fn process_agent_arguments(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let data = self.directory.path().join(format!("cluster-{cluster}"));
        std::fs::create_dir_all(&data)?;
        let mut arguments: Vec<String> = [
            "--cluster",
            cluster,
            "--runtime",
            "process",
            "--executor-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(data.display().to_string());
        let secrets = self.directory.path().join("secrets");
        arguments.extend(["--artifact-secrets".to_owned(), secrets.display().to_string()]);
        let policy = self.policy_file(cluster);
        if policy.exists() {
            arguments.extend(["--policy".to_owned(), policy.display().to_string()]);
        }
        let invite = data.join("invite");
        if !invite.exists() {
            let answer =
                self.post(&format!("/api/v1/clusters/{cluster}/invite"), &json!({"ttlSeconds": 600})).await?;
            std::fs::write(&invite, answer["token"].as_str().context("an invite has a token")?)?;
        }
        arguments.extend(["--invite-file".to_owned(), invite.display().to_string()]);
        Ok(arguments)
    }

    /// Waits until so many clusters are connected.
    ///
    /// # Errors
    /// They are not, in time.
    pub async fn wait_for_clusters(&self, count: usize) -> anyhow::Result<()> {
        self.until(Duration::from_secs(60), "the clusters to connect", async || {
            let clusters = self.get("/api/v1/clusters").await.ok()?;
            let items = clusters["items"].as_array()?;
            (items.iter().filter(|cluster| cluster["state"] == "connected").count() >= count).then_some(())
        })
        .await
    }

    /// The leader, once there is one that answers.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn leader(&self) -> anyhow::Result<u64> {
        self.until(Duration::from_secs(60), "a leader", async || {
            let members = self.get("/api/v1/members").await.ok()?;
            members["items"].as_array()?.iter().find(|member| member["role"] == "leader")?["id"].as_u64()
        })
        .await
    }

    /// Base URL of a member's API.
    #[must_use]
    pub fn api(&self, member: u64) -> String {
        format!("https://{}", self.configs[&member].listen.api)
    }

    /// Asks running members, one after the other, until one answers with success.
    ///
    /// # Errors
    /// The last answer or failure.
    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
        key: &str,
    ) -> anyhow::Result<Value> {
        let mut last = anyhow::anyhow!("no member runs");
        for member in self.members.keys() {
            let mut request = self
                .http
                .request(method.clone(), format!("{}{path}", self.api(*member)))
                .bearer_auth(TOKEN)
                .timeout(Duration::from_secs(15));
            if let Some(body) = body {
                request = request.header("Idempotency-Key", key).json(body);
            }
            match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    let answer: Value = response.json().await.unwrap_or_default();
                    if status.is_success() {
                        return Ok(answer);
                    }
                    last = anyhow::anyhow!("{status}: {answer}");
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// GET from any member.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request(reqwest::Method::GET, path, None, "").await
    }

    /// POST to any member.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let key = format!("{:032x}", rand::random::<u128>());
        self.request(reqwest::Method::POST, path, Some(body), &key).await
    }

    /// Submits a workflow until it is acknowledged, under one idempotency key; returns its name.
    ///
    /// # Errors
    /// Not acknowledged in time.
    pub async fn submit(&self, workflow: &Value) -> anyhow::Result<String> {
        let key = format!("{:032x}", rand::random::<u128>());
        let body = json!({"workflow": workflow});
        let mut refused = String::new();
        let path = &format!("/api/v1/workflows/{}", namespace_of(workflow));
        let accepted = self
            .until(Duration::from_secs(60), "a submission to be acknowledged", async || {
                self.request(reqwest::Method::POST, path, Some(&body), &key).await.ok()
            })
            .await;
        if accepted.is_err()
            && let Err(error) = self.request(reqwest::Method::POST, path, Some(&body), &key).await
        {
            refused = error.to_string();
        }
        let accepted = accepted.with_context(|| refused)?;
        Ok(accepted["metadata"]["name"].as_str().context("an accepted workflow has a name")?.to_owned())
    }

    /// The workflow once it has a final phase.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn finished(&self, name: &str, limit: Duration) -> anyhow::Result<Value> {
        self.finished_in("default", name, limit).await
    }

    /// As [`Self::finished`], of another namespace.
    ///
    /// # Errors
    /// It has none in time.
    pub async fn finished_in(&self, namespace: &str, name: &str, limit: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/v1/workflows/{namespace}/{name}");
        let outcome = self
            .until(limit, &format!("workflow {name} to end"), async || {
                let workflow = self.get(&path).await.ok()?;
                let phase = workflow["status"]["phase"].as_str()?;
                matches!(phase, "Succeeded" | "Failed" | "Error").then_some(workflow)
            })
            .await;
        match outcome {
            Ok(workflow) => Ok(workflow),
            Err(error) => {
                let workflow = self.get(&path).await.unwrap_or_default();
                bail!("{error}; it is\n{}", unfinished(&workflow))
            }
        }
    }

    /// The metrics page of a member.
    ///
    /// # Errors
    /// It doesn't answer.
    pub async fn metrics(&self, member: u64) -> anyhow::Result<String> {
        let url = format!("http://{}/metrics", self.configs[&member].listen.metrics);
        Ok(self.http.get(url).send().await?.text().await?)
    }

    /// The sum of the samples on a member's metrics page whose line begins with `start`: a name, or a name and labels.
    ///
    /// # Errors
    /// The page doesn't answer.
    pub async fn count(&self, member: u64, start: &str) -> anyhow::Result<f64> {
        let page = self.metrics(member).await?;
        let samples =
            page.lines().filter(|line| line.starts_with(start)).filter_map(|line| line.rsplit_once(' '));
        Ok(samples.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }

    /// Waits until the samples that begin with `start` come to at least `least` on a member.
    ///
    /// # Errors
    /// They don't, in time.
    pub async fn counted(&self, member: u64, start: &str, least: f64) -> anyhow::Result<()> {
        let what = format!("{start} to reach {least} on member {member}");
        self.until(Duration::from_secs(10), &what, async || {
            (self.count(member, start).await.ok()? >= least).then_some(())
        })
        .await
    }

    /// Trusts what the members' directory says now: after the authority was rolled.
    ///
    /// # Errors
    /// The directory has no certificates.
    pub fn trust_again(&mut self) -> anyhow::Result<()> {
        let pki = self.directory.path().join("pki");
        let files = argosy_pki::AuthorityFiles::new(&pki, Lifetimes::default(), None);
        let loaded = files.load()?.context("the directory has authorities")?;
        self.http = client_of(&loaded.trusted)?;
        Ok(())
    }

    /// `argosy ARGUMENTS`: whether it went well, and all that it printed.
    ///
    /// # Errors
    /// The program is not there.
    pub fn try_argosy(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        self.try_argosy_with(arguments, &[])
    }

    /// As [`Self::try_argosy`], with more in its environment.
    ///
    /// # Errors
    /// The program is not there.
    pub fn try_argosy_with(
        &self,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> anyhow::Result<(bool, String)> {
        let mut command = self.argosy_command(arguments)?;
        let output = command.envs(environment.iter().map(|(name, value)| (name, value))).output()?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), text.into_owned()))
    }

    /// `argosy ARGUMENTS`, to be started.
    ///
    /// # Errors
    /// The program is not there.
    pub fn argosy_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let servers: Vec<String> = self.members.keys().map(|member| self.api(*member)).collect();
        let mut command = Command::new(binary("argosy")?);
        command
            .args(arguments)
            .env("ARGOSY_SERVER", servers.join(","))
            .env("ARGOSY_TOKEN", TOKEN)
            .env("ARGOSY_CERTIFICATE_AUTHORITY", self.directory.path().join("pki").join("ca.pem"))
            .env("ARGOSY_HOME", self.directory.path().join("home"));
        Ok(command)
    }

    /// As [`Self::try_argosy`], when it has to go well.
    ///
    /// # Errors
    /// It does not.
    pub fn argosy(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (well, text) = self.try_argosy(arguments)?;
        ensure!(well, "argosy {arguments:?}: {text}");
        Ok(text)
    }

    /// What a cluster's agent has logged so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn cluster_log(&self, cluster: &str) -> anyhow::Result<String> {
        let path = log_directory(self.directory.path()).join(format!("cluster-{cluster}.log"));
        Ok(std::fs::read_to_string(path)?)
    }

    /// What a member has logged so far.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn log(&self, member: u64) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            log_directory(self.directory.path()).join(format!("member-{member}.log")),
        )?)
    }

    /// Looks every 100 ms until `look` finds something.
    ///
    /// # Errors
    /// It finds nothing within `limit`.
    pub async fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        look: impl AsyncFn() -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            ensure!(
                Instant::now() < deadline,
                "waited {limit:?} for {what}; logs: {}",
                log_directory(self.directory.path()).display()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A workflow that has not ended, and what of it has not: a line each, which logs of a whole run show.
fn unfinished(workflow: &Value) -> String {
    let line = |what: &Value, name: &str| {
        let text = |field: &str| what[field].as_str().unwrap_or_default();
        format!("  {} {}: {}", text(name), text("phase"), text("message"))
    };
    let status = &workflow["status"];
    let nodes = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let is_open = |node: &&Value| matches!(node["phase"].as_str(), None | Some("" | "Pending" | "Running"));
    let open = nodes.filter(is_open).map(|node| line(node, "displayName"));
    std::iter::once(line(status, "progress")).chain(open).collect::<Vec<_>>().join("\n")
}

fn namespace_of(workflow: &Value) -> &str {
    workflow["metadata"]["namespace"].as_str().unwrap_or("default")
}

fn client_of(roots: &[argosy_pki::CertificateDer<'static>]) -> anyhow::Result<reqwest::Client> {
    let tls = argosy_pki::api_client_config(roots)?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls);
    Ok(client.timeout(Duration::from_secs(30)).build()?)
}

impl Drop for Cell {
    fn drop(&mut self) {
        for agent in self.agents.values_mut() {
            agent.lose();
        }
        for member in self.members.values_mut() {
            member.lose();
        }
    }
}

/// Logs outlive the test where the runner asks for it.
fn log_directory(cell: &Path) -> PathBuf {
    let name = cell.file_name().unwrap_or_default();
    let directory = match std::env::var_os("ARGOSY_TEST_LOGS") {
        Some(logs) => PathBuf::from(logs).join(name),
        None => cell.join("logs"),
    };
    let _ = std::fs::create_dir_all(&directory);
    directory
}

fn addresses_of(listen: &Listen) -> MemberAddresses {
    MemberAddresses {
        peer: listen.peer.to_string(),
        agent: listen.agent.to_string(),
        api: listen.api.to_string(),
    }
}

/// Each member has its own, as on machines of their own; what the tests read is the first one's.
fn pki_directory(cell: &Path, member: u64) -> PathBuf {
    if member == 1 { cell.join("pki") } else { cell.join(format!("pki-{member}")) }
}

/// Gives each member its copy of the cell's authority, as its operator does.
fn hand_out_authority(cell: &Path, members: u64) -> anyhow::Result<()> {
    for member in 2..=members {
        let own = pki_directory(cell, member);
        std::fs::create_dir_all(&own)?;
        for name in ["ca.pem", "ca.key"] {
            std::fs::copy(cell.join("pki").join(name), own.join(name))?;
        }
    }
    Ok(())
}

fn configurations(options: &Options, path: &Path) -> anyhow::Result<BTreeMap<u64, ServerConfig>> {
    let mut listens = BTreeMap::new();
    for member in 1..=options.members {
        let listen = match &options.network {
            Some(network) => {
                let address = network.address(&member_place(member))?;
                let at = |port| SocketAddr::from((address, port));
                Listen { api: at(7_001), agent: at(7_002), peer: at(7_003), metrics: at(7_004) }
            }
            None => {
                let free = || free_address(options.address);
                Listen { api: free()?, agent: free()?, peer: free()?, metrics: free()? }
            }
        };
        listens.insert(member, listen);
    }
    let members: BTreeMap<_, _> =
        listens.iter().map(|(member, listen)| (*member, addresses_of(listen))).collect();
    let mut configs = BTreeMap::new();
    for (member, listen) in listens {
        let config = ServerConfig {
            drills: argosy_server::config::DrillConfig::default(),
            retention: argosy_server::config::RetentionConfig::default(),
            cron: argosy_server::config::CronConfig::default(),
            cell: "test".to_owned(),
            member,
            data_dir: path.join(format!("member-{member}")),
            pki_dir: pki_directory(path, member),
            ca_seal: None,
            members: members.clone(),
            join: false,
            workflow_defaults: None,
            listen,
            api: ApiConfig { tokens_file: Some(path.join("tokens.json")), ..ApiConfig::default() },
            failover: FailoverConfig {
                lease_ms: options.lease_ms,
                margin_ms: options.margin_ms.unwrap_or(options.lease_ms / 3),
                takeover_after_unsafe_ms: options.takeover_after_unsafe_ms,
                degraded_after_ms: options
                    .degraded_after_ms
                    .unwrap_or(FailoverConfig::default().degraded_after_ms),
                ..FailoverConfig::default()
            },
            consensus: ConsensusConfig {
                log_entries_kept: options.log_entries_kept,
                ..options.consensus.clone()
            },
            identity: options.identity.clone(),
            artifact_repository: options.artifact_repository.clone(),
            artifact_sweep_after_ms: options.artifact_sweep_after_ms,
            reproductions: options.reproductions.clone(),
        };
        std::fs::write(path.join(format!("member-{member}.yaml")), serde_yaml::to_string(&config)?)?;
        configs.insert(member, config);
    }
    Ok(configs)
}
