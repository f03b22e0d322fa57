//! Three members as they are shipped: processes of the `argosy` binary beside this one.

use anyhow::{Context, ensure};
use argosy_pki::{Authority, Lifetimes, api_client_config};
use argosy_server::config::{
    ApiConfig, ConsensusConfig, FailoverConfig, Listen, MemberAddresses, ServerConfig,
};
use argosy_server::core::clock;
use argosy_server::local::LocalClient;
use argosy_server::processes::Process;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The API token of the cell.
pub const TOKEN: &str = "a-token-for-benchmarks";
/// For everything that has to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running cell; it ends when it is dropped.
pub struct Cell {
    /// Asks any member.
    pub client: LocalClient,
    /// The cell's certificates.
    pub authority: Authority,
    /// Where the members are.
    pub addresses: BTreeMap<u64, MemberAddresses>,
    members: BTreeMap<u64, Process>,
    /// Dropped after the processes that write there.
    directory: tempfile::TempDir,
}

/// An address of this host that was free a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Checks that a binary was built.
pub fn executable(path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run `tests/bench/run`, which builds it", path.display());
    Ok(path.to_owned())
}

impl Cell {
    /// Starts the members and waits for a leader.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let program = executable(&std::env::current_exe()?.with_file_name("argosy"))?;
        let held = tempfile::tempdir_in(directory)?;
        let path = held.path();
        let authority =
            Authority::load_or_create(&path.join("pki"), "bench", clock().wall_ms, Lifetimes::default())?;
        let token = json!({"name": "admin", "role": "admin", "sha256": argosy_gateway::hash_token(TOKEN)});
        std::fs::write(path.join("tokens.json"), json!({"version": 1, "tokens": [token]}).to_string())?;
        let configs = configurations(path)?;
        let addresses = configs.values().next().map(|config| config.members.clone()).unwrap_or_default();
        let servers = addresses.values().map(|member| member.api.clone()).collect();
        let client = LocalClient::new(servers, TOKEN.to_owned(), &authority.roots())?;
        let mut members = BTreeMap::new();
        for (member, config) in &configs {
            let file = path.join(format!("member-{member}.yaml"));
            std::fs::write(&file, serde_yaml::to_string(config)?)?;
            let arguments = ["server".to_owned(), "--config".to_owned(), file.display().to_string()];
            let log = path.join(format!("member-{member}.log"));
            members.insert(*member, Process::start(&format!("member {member}"), &program, &arguments, &log)?);
        }
        let mut cell = Self { client, authority, addresses, members, directory: held };
        cell.leader().await?;
        Ok(cell)
    }

    /// The leader, once there is one.
    pub async fn leader(&mut self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for member in self.members.values_mut() {
                member.check()?;
            }
            let members = self.client.get("/api/v1/members").await.unwrap_or_default();
            let items = members["items"].as_array().map_or(&[][..], Vec::as_slice);
            let leader = items.iter().find(|member| member["role"] == "leader");
            if let Some(leader) = leader.and_then(|member| member["id"].as_u64()) {
                return Ok(leader);
            }
            ensure!(
                Instant::now() < deadline,
                "the members elect no leader: {}",
                self.directory.path().display()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until so many clusters are connected.
    pub async fn wait_for_clusters(&self, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let clusters = self.client.get("/api/v1/clusters").await.unwrap_or_default();
            let items = clusters["items"].as_array().map_or(&[][..], Vec::as_slice);
            if items.iter().filter(|cluster| cluster["state"] == "connected").count() >= count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "not all of {count} clusters are ready: {clusters}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A client with a connection of its own.
    pub fn http(&self) -> anyhow::Result<reqwest::Client> {
        let tls = api_client_config(&self.authority.roots())?;
        Ok(reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_secs(60))
            .build()?)
    }

    /// Submits a workflow to any member.
    pub async fn submit(&self, workflow: &Value) -> anyhow::Result<()> {
        self.client.post("/api/v1/workflows/default", &json!({"workflow": workflow})).await.map(drop)
    }

    /// Where members keep their data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Processor seconds that each member has used.
    pub fn processor_seconds(&self) -> BTreeMap<u64, f64> {
        self.members
            .iter()
            .map(|(id, process)| (*id, processor_seconds(process.pid()).unwrap_or(0.0)))
            .collect()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.members.values_mut().for_each(Process::lose);
    }
}

/// From /proc, where the clock of processes has 100 ticks in a second.
fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a process has a name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

fn configurations(path: &Path) -> anyhow::Result<BTreeMap<u64, ServerConfig>> {
    let mut listens = BTreeMap::new();
    for member in 1..=3 {
        let listen = Listen {
            api: free_address()?,
            agent: free_address()?,
            peer: free_address()?,
            metrics: free_address()?,
        };
        listens.insert(member, listen);
    }
    let addresses = |listen: &Listen| MemberAddresses {
        peer: listen.peer.to_string(),
        agent: listen.agent.to_string(),
        api: listen.api.to_string(),
    };
    let members: BTreeMap<_, _> =
        listens.iter().map(|(member, listen)| (*member, addresses(listen))).collect();
    let config = |(member, listen): (u64, Listen)| {
        let config = ServerConfig {
            drills: argosy_server::config::DrillConfig::default(),
            retention: argosy_server::config::RetentionConfig::default(),
            cron: argosy_server::config::CronConfig::default(),
            cell: "bench".to_owned(),
            member,
            data_dir: path.join(format!("member-{member}")),
            pki_dir: path.join("pki"),
            ca_seal: None,
            members: members.clone(),
            join: false,
            workflow_defaults: None,
            listen,
            api: ApiConfig { tokens_file: Some(path.join("tokens.json")), ..ApiConfig::default() },
            failover: FailoverConfig::default(),
            identity: argosy_server::config::IdentityConfig::default(),
            consensus: ConsensusConfig::default(),
            artifact_repository: None,
            artifact_sweep_after_ms: None,
            reproductions: argosy_server::config::ReproductionConfig::default(),
        };
        (member, config)
    };
    Ok(listens.into_iter().map(config).collect())
}
