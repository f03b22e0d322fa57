//! `argosy dev`: a whole cell on one machine, as child processes, with process clusters or the user's own.

use crate::config::{ApiConfig, FailoverConfig, Listen, MemberAddresses, ReproductionConfig, ServerConfig};
use crate::core::clock;
use crate::dev_clusters::{self, DevClusters};
use crate::local::LocalClient;
use crate::processes::Process;
use anyhow::{Context, ensure};
use argosy_cli::context::Context as CliContext;
use argosy_pki::{Authority, Lifetimes};
use clap::Args;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time for members to elect a leader, and for clusters to enrol and connect.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Ports per member: api, agent, peer, metrics.
const PORTS_PER_MEMBER: u16 = 10;

/// Options of `argosy dev`.
#[derive(Args, Clone, Debug)]
pub struct DevArguments {
    /// Control-plane members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    pub members: u64,
    /// Process clusters [default: 3, or none with --context]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub clusters: Option<u8>,
    /// A context of your kubeconfig whose cluster joins; may be repeated
    #[arg(long = "context")]
    pub contexts: Vec<String>,
    /// The kubeconfig with the contexts [default: as kubectl]
    #[arg(long, requires = "contexts")]
    pub kubeconfig: Option<PathBuf>,
    /// The executor's image, which the clusters of the contexts can pull or have
    #[arg(long, requires = "contexts")]
    pub executor_image: Option<String>,
    /// An address of this machine that Pods of the contexts' clusters reach [default: found out]
    #[arg(long, requires = "contexts")]
    pub host_address: Option<IpAddr>,
    /// Keeps state, logs and certificates here [default: $ARGOSY_HOME/dev or ~/.argosy/dev]
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// First port; each member takes four of ten
    #[arg(long, default_value_t = 2746)]
    pub port: u16,
    /// Lease of a cluster's agent in milliseconds; shorter finds a lost cluster sooner
    #[arg(long, default_value_t = 15_000)]
    pub lease_ms: u64,
    /// Begins with an empty cell
    #[arg(long)]
    pub reset: bool,
}

impl Default for DevArguments {
    fn default() -> Self {
        Self {
            members: 3,
            clusters: None,
            contexts: Vec::new(),
            kubeconfig: None,
            executor_image: None,
            host_address: None,
            data_dir: None,
            port: 2746,
            lease_ms: 15_000,
            reset: false,
        }
    }
}

/// A running cell.
pub struct DevCell {
    /// Where everything is.
    pub directory: PathBuf,
    /// Speaks to its API.
    pub client: LocalClient,
    /// Addresses of the members' APIs.
    pub servers: Vec<String>,
    /// Members, in the order of their ids.
    pub members: Vec<Process>,
    /// Agents, in the order of their clusters.
    pub agents: Vec<(String, Process)>,
    /// The object store that steps keep their artifacts in.
    pub store: Option<Process>,
    arguments: DevArguments,
    clusters: DevClusters,
}

impl DevCell {
    /// Starts members and agents and waits until all clusters are connected. `say` is told what happens.
    ///
    /// # Errors
    /// Something did not start; the message names its log.
    pub async fn start(arguments: &DevArguments, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let directory = match &arguments.data_dir {
            Some(directory) => directory.clone(),
            None => home()?.join("dev"),
        };
        if arguments.reset && directory.exists() {
            ensure!(
                directory.join("token").exists() || std::fs::read_dir(&directory)?.next().is_none(),
                "{} is no directory of `argosy dev`: it is not removed",
                directory.display()
            );
            std::fs::remove_dir_all(&directory)?;
        }
        // Keys, tokens and what steps put out: for this user only.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join("logs"))?;
        let clusters = dev_clusters::choose(arguments, store_port(arguments)? + 1)?;
        let (client, servers) = prepare(arguments, clusters.address, &directory)?;
        let mut cell = Self {
            directory,
            client,
            servers,
            members: Vec::new(),
            agents: Vec::new(),
            store: None,
            arguments: arguments.clone(),
            clusters,
        };
        say(&format!(
            "starting {} members and {} clusters in {}",
            arguments.members,
            cell.clusters.all.len(),
            cell.directory.display()
        ));
        cell.store = Some(cell.start_store()?);
        for member in 1..=arguments.members {
            let process = cell.start_member(member)?;
            cell.members.push(process);
        }
        cell.wait_for_members().await?;
        say("the members have a leader");
        for index in 0..cell.clusters.all.len() {
            let name = cell.clusters.all[index].name.clone();
            let agent = cell.start_agent(&name).await?;
            cell.agents.push((name, agent));
        }
        cell.wait_for_clusters().await?;
        say("all clusters are connected");
        Ok(cell)
    }

    /// Starts a member, again if need be.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start_member(&self, member: u64) -> anyhow::Result<Process> {
        let program = std::env::current_exe()?;
        let config = self.directory.join(format!("member-{member}.yaml"));
        let log = self.directory.join("logs").join(format!("member-{member}.log"));
        let arguments = ["server".to_owned(), "--config".to_owned(), config.display().to_string()];
        Process::start(&format!("member {member}"), &program, &arguments, &log)
    }

    /// Starts the object store.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn start_store(&self) -> anyhow::Result<Process> {
        let program = std::env::current_exe()?;
        let secrets = self.directory.join("secrets").join("_").join(STORE_SECRET);
        let path = |path: PathBuf| path.display().to_string();
        let arguments = [
            "store".to_owned(),
            "--listen".to_owned(),
            dev_clusters::listening(store_address(&self.arguments, self.clusters.address)?).to_string(),
            "--data-dir".to_owned(),
            path(self.directory.join("objects")),
            "--access-key-file".to_owned(),
            path(secrets.join("accesskey")),
            "--secret-key-file".to_owned(),
            path(secrets.join("secretkey")),
        ];
        Process::start("object store", &program, &arguments, &self.directory.join("logs").join("store.log"))
    }

    /// Starts a cluster's agent; enrols it at the first start.
    ///
    /// # Errors
    /// No invite can be made, or the program not be started.
    pub async fn start_agent(&self, cluster: &str) -> anyhow::Result<Process> {
        let data = self.directory.join(format!("cluster-{cluster}"));
        std::fs::create_dir_all(&data)?;
        let invite = data.join("invite");
        let known = self.clusters.all.iter().find(|known| known.name == cluster);
        let mut arguments =
            known.with_context(|| format!("there is no cluster {cluster}"))?.arguments(&self.arguments);
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
        let secrets = self.directory.join("secrets");
        arguments.extend(["--artifact-secrets".to_owned(), secrets.display().to_string()]);
        if !data.join("identity").join("cert.pem").exists() {
            let body = serde_json::json!({"ttlSeconds": 600});
            let made = self.client.post(&format!("/api/v1/clusters/{cluster}/invite"), &body).await?;
            write_secret(&invite, made["token"].as_str().context("an invite has a token")?)?;
            arguments.extend(["--invite-file".to_owned(), invite.display().to_string()]);
        }
        let program = dev_clusters::agent_program()?;
        let log = self.directory.join("logs").join(format!("cluster-{cluster}.log"));
        Process::start(&format!("cluster {cluster}"), &program, &arguments, &log)
    }

    async fn wait_for_members(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for member in &mut self.members {
                member.check()?;
            }
            let members = self.client.get("/api/v1/members").await.unwrap_or_default();
            let items = members["items"].as_array().map_or(&[][..], Vec::as_slice);
            if items.iter().any(|member| member["role"] == "leader") {
                return Ok(());
            }
            self.not_after(deadline, "the members elect no leader")?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn wait_for_clusters(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for (_, agent) in &mut self.agents {
                agent.check()?;
            }
            let clusters = self.client.get("/api/v1/clusters").await.unwrap_or_default();
            let items = clusters["items"].as_array().map_or(&[][..], Vec::as_slice);
            let ready = items.iter().filter(|cluster| cluster["state"] == "connected").count();
            if ready >= self.agents.len() {
                return Ok(());
            }
            self.not_after(deadline, &format!("only {ready} of {} clusters are ready", self.agents.len()))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn not_after(&self, deadline: Instant, what: &str) -> anyhow::Result<()> {
        ensure!(
            Instant::now() < deadline,
            "{what}: see the logs in {}",
            self.directory.join("logs").display()
        );
        Ok(())
    }

    /// Runs until Ctrl-C, starting again what ends by itself.
    ///
    /// # Errors
    /// Signals can't be waited for.
    pub async fn run_until_interrupted(mut self) -> anyhow::Result<()> {
        let end = interrupted();
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                () = tokio::time::sleep(Duration::from_secs(1)) => self.revive().await,
            }
        }
        eprintln!("stopping; `argosy dev` goes on from here next time");
        self.stop();
        Ok(())
    }

    async fn revive(&mut self) {
        if let Some(Err(error)) = self.store.as_mut().map(Process::check) {
            tracing::warn!(%error, "starting the object store again");
            self.store = self.start_store().ok().or(self.store.take());
        }
        for index in 0..self.members.len() {
            if let Err(error) = self.members[index].check() {
                tracing::warn!(%error, "starting a member again");
                if let Ok(process) = self.start_member(index as u64 + 1) {
                    self.members[index] = process;
                }
            }
        }
        for index in 0..self.agents.len() {
            if let Err(error) = self.agents[index].1.check() {
                tracing::warn!(%error, "starting an agent again");
                let name = self.agents[index].0.clone();
                if let Ok(process) = self.start_agent(&name).await {
                    self.agents[index].1 = process;
                }
            }
        }
    }

    /// Ends everything: agents first, with their steps.
    pub fn stop(&mut self) {
        for (_, agent) in &mut self.agents {
            agent.lose();
        }
        for member in &mut self.members {
            member.stop(Duration::from_secs(5));
        }
        if let Some(store) = &mut self.store {
            store.stop(Duration::from_secs(2));
        }
    }

    /// The options it was started with.
    #[must_use]
    pub fn arguments(&self) -> &DevArguments {
        &self.arguments
    }
}

/// Waits for Ctrl-C or a request to terminate.
pub async fn interrupted() {
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    match terminate {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// Writes certificates, a token, the members' configurations and the command line's context.
fn prepare(
    arguments: &DevArguments,
    reached_at: IpAddr,
    directory: &Path,
) -> anyhow::Result<(LocalClient, Vec<String>)> {
    let pki = directory.join("pki");
    let authority = Authority::load_or_create(&pki, "dev", clock().wall_ms, Lifetimes::default())?;
    // The file that the members keep up to date when the authority is rolled.
    let roots = pki.join("ca.pem");
    let token = local_token(directory)?;
    let repository = store_repository(store_address(arguments, reached_at)?, directory)?;
    let address = |member: u64, offset: u16| -> anyhow::Result<SocketAddr> {
        let port = arguments.port + PORTS_PER_MEMBER * u16::try_from(member - 1)? + offset;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    let mut members = BTreeMap::new();
    for member in 1..=arguments.members {
        let addresses = MemberAddresses {
            api: address(member, 0)?.to_string(),
            agent: address(member, 1)?.to_string(),
            peer: address(member, 2)?.to_string(),
        };
        members.insert(member, addresses);
    }
    for member in 1..=arguments.members {
        let listen = Listen {
            api: address(member, 0)?,
            agent: address(member, 1)?,
            peer: address(member, 2)?,
            metrics: address(member, 3)?,
        };
        let lease_ms = arguments.lease_ms;
        let config = ServerConfig {
            retention: crate::config::RetentionConfig::default(),
            drills: crate::config::DrillConfig::default(),
            cron: crate::config::CronConfig::default(),
            cell: "dev".to_owned(),
            member,
            data_dir: directory.join(format!("member-{member}")),
            pki_dir: pki.clone(),
            ca_seal: None,
            members: members.clone(),
            join: false,
            workflow_defaults: None,
            listen,
            api: ApiConfig { tokens_file: Some(directory.join("tokens.json")), ..ApiConfig::default() },
            failover: FailoverConfig { lease_ms, margin_ms: lease_ms / 3, ..FailoverConfig::default() },
            identity: crate::config::IdentityConfig::default(),
            consensus: crate::config::ConsensusConfig::default(),
            artifact_repository: Some(repository.clone()),
            artifact_sweep_after_ms: None,
            reproductions: ReproductionConfig::default(),
        };
        let text = serde_yaml::to_string(&config)?;
        std::fs::write(directory.join(format!("member-{member}.yaml")), text)?;
    }
    let servers: Vec<String> = members.values().map(|addresses| addresses.api.clone()).collect();
    let context = CliContext {
        server: servers.join(","),
        token: token.clone(),
        certificate_authority: roots.display().to_string(),
        ..CliContext::default()
    };
    context.save()?;
    Ok((LocalClient::new(servers.clone(), token, &authority.roots())?, servers))
}

/// The name of the Secret with the store's keys.
const STORE_SECRET: &str = "argosy-store";

/// The store listens on the port after those of all members, the agents' on those after that.
fn store_port(arguments: &DevArguments) -> anyhow::Result<u16> {
    let port = PORTS_PER_MEMBER.checked_mul(u16::try_from(arguments.members)?);
    port.and_then(|ports| arguments.port.checked_add(ports)).context("--port is too high")
}

/// Where steps find the store.
fn store_address(arguments: &DevArguments, reached_at: IpAddr) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(reached_at, store_port(arguments)?))
}

/// Makes the store's keys, which only agents read, and names it as the cell's default repository.
fn store_repository(address: SocketAddr, directory: &Path) -> anyhow::Result<serde_json::Value> {
    let secrets = directory.join("secrets").join("_").join(STORE_SECRET);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets)?;
    for key in ["accesskey", "secretkey"] {
        let path = secrets.join(key);
        if !path.exists() {
            let drawn: String = rand::random::<[u8; 20]>().iter().map(|byte| format!("{byte:02x}")).collect();
            write_secret(&path, &drawn)?;
        }
    }
    let secret = |key: &str| serde_json::json!({"name": STORE_SECRET, "key": key});
    Ok(serde_json::json!({
        "s3": {
            "endpoint": address.to_string(),
            "insecure": true,
            "bucket": "argosy",
            "region": "us-east-1",
            "accessKeySecret": secret("accesskey"),
            "secretKeySecret": secret("secretkey"),
        },
    }))
}

/// Where the command line keeps its context.
fn home() -> anyhow::Result<PathBuf> {
    let context = CliContext::path()?;
    Ok(context.parent().unwrap_or(Path::new(".")).to_owned())
}

/// The token of earlier starts, or a new one.
fn local_token(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("token");
    if let Ok(token) = std::fs::read_to_string(&path) {
        return Ok(token.trim().to_owned());
    }
    let token: String = rand::random::<[u8; 24]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let tokens = serde_json::json!({
        "version": 1,
        "tokens": [{"name": "admin", "role": "admin", "sha256": argosy_gateway::hash_token(&token)}],
    });
    std::fs::write(directory.join("tokens.json"), tokens.to_string())?;
    write_secret(&path, &token)?;
    Ok(token)
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
