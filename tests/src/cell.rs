//! A cell of real processes on loopback: members and process clusters, with a client. Everything is stopped by pid when
//! it is dropped.

mod agents;
mod files;

use self::files::{addresses_of, configurations, free_address, hand_out_authority, log_directory};
use crate::networks::{Network, member_place};
use anyhow::{Context, bail, ensure};
use argosy_pki::{Authority, Lifetimes};
use argosy_server::config::{ConsensusConfig, IdentityConfig, Listen, MemberAddresses, ServerConfig};
use argosy_server::core::clock;
use argosy_server::processes::Process;
use argosy_testcluster::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The token of every test cell.
pub const TOKEN: &str = "a-token-for-tests";

/// Where the product's binaries are, if not beside the test.
const BINARIES_VARIABLE: &str = "ARGOSY_BINARIES";

/// A binary that was built before the tests.
///
/// # Errors
/// It is not there.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = match std::env::var_os(BINARIES_VARIABLE) {
        Some(directory) => PathBuf::from(directory),
        None => own.ancestors().nth(2).context("the test runs from a target directory")?.to_owned(),
    };
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

    /// A signal to a running member.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_member(&self, member: u64, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        let pid = self.members.get(&member).context("the member does not run")?.pid();
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), signal)?)
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
