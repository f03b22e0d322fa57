//! Puts a member together: store, member thread, listeners, status.

use crate::agents::{AGENT_FRAME_BYTES_MAX, AgentService};
use crate::cell::MemberCell;
use crate::config::ServerConfig;
use crate::connect::Dialer;
use crate::core::{CHANGES_QUEUE_MAX, Core, Outlets, Published, clock};
use crate::directory::Directory;
use crate::identities::Identities;
use crate::listener::{Incoming, SharedTls, listen};
use crate::logs::LogRegistry;
use crate::mailbox::{Mail, Mailbox};
use crate::peers::{PEER_FRAME_BYTES_MAX, PeerLinks, PeerService};
use crate::pki::{Issue, MemberTls, Signer, load_authorities};
use crate::revocations::{Record, Revoked};
use crate::status;
use crate::timed::TimedKv;
use crate::{artifacts, authority};
use anyhow::Context;
use argosy_engine::State;
use argosy_gateway::{CellStatus, Options, Tokens};
use argosy_member::{Config, Member};
use argosy_pki::AuthorityFiles;
use argosy_proto::agent::agent_link_server::AgentLinkServer;
use argosy_proto::peer::peer_server::PeerServer;
use argosy_store::RocksKv;
use argosy_telemetry::Metrics;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// What the tasks of a member share.
struct Parts {
    config: ServerConfig,
    metrics: Metrics,
    mailbox: Mailbox,
    logs: LogRegistry,
    signer: Arc<Signer>,
    tls: MemberTls,
    cell: MemberCell,
    stop: CancellationToken,
}

/// Runs a member until `stop`, or until it can't go on.
///
/// # Errors
/// Something of it can't be opened, or the member failed: the process should end with an error.
pub async fn run(config: ServerConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let lifetimes = config.identity.lifetimes();
    let seal = crate::seal::key(config.ca_seal.as_ref())?;
    let files = Arc::new(AuthorityFiles::new(&config.pki_dir, lifetimes, seal));
    let authorities = load_authorities(&files, &config.pki_dir, &config.cell)?;
    let record = Record::open(&config.pki_dir)?;
    let (published, published_receiver) = watch::channel(Published { state: State::new() });
    let directory = Directory::new(config.members.clone(), published_receiver.clone());
    let agent_addresses = directory.staying().into_values().map(|member| member.agent).collect();
    let signer = Arc::new(Signer::new(authorities, lifetimes, agent_addresses));
    let mut names = config.api.certificate_names.clone();
    names.extend(config.members[&config.member].api.rsplit_once(':').map(|(host, _)| host.to_owned()));
    let issue = Issue {
        member: config.member,
        api_names: names,
        renewal_grace: Duration::from_millis(config.identity.renewal_grace_ms),
        revocations: Arc::new(Revoked { published: published_receiver.clone(), record: Arc::clone(&record) }),
        look_every: certificate_look(lifetimes.leaf_ms),
    };
    let tls = MemberTls::start(&signer, issue, stop.clone())?;
    let (mailbox, mail) = Mailbox::new();
    let dialer = Dialer::new(Arc::clone(&tls.client));
    let links = PeerLinks::new(config.member, &dialer, &mailbox, &metrics, &stop);
    links.keep(&config.members.iter().map(|(id, member)| (*id, member.peer.clone())).collect());
    let logs = LogRegistry::default();
    let (changes, _) = broadcast::channel(CHANGES_QUEUE_MAX);
    let (status_sender, status_receiver) = watch::channel(CellStatus::default());
    let outlets = Outlets {
        peers: links.clone(),
        logs: logs.clone(),
        published,
        changes: changes.clone(),
        metrics: metrics.clone(),
    };
    let core = open_core(&config, outlets)?;
    let cell = MemberCell {
        mailbox: mailbox.clone(),
        published: published_receiver,
        changes,
        logs: logs.clone(),
        own: config.member,
        directory,
        dialer,
        signer: Arc::clone(&signer),
        files: Arc::clone(&files),
        lifetimes,
        metrics: metrics.clone(),
        status: status_receiver,
    };
    let thread = std::thread::Builder::new().name("member".to_owned()).spawn(move || core.run(&mail))?;
    let parts = Parts { config, metrics, mailbox, logs, signer, tls, cell, stop };
    let keeper = status::Keeper {
        mailbox: parts.mailbox.clone(),
        config: parts.config.clone(),
        metrics: parts.metrics.clone(),
        published: parts.cell.published.clone(),
        directory: parts.cell.directory.clone(),
        links,
        signer: Arc::clone(&parts.signer),
        sender: status_sender,
    };
    tokio::spawn(status::keep(keeper, parts.stop.clone()));
    let authorities = authority::Keeper {
        own: parts.config.member,
        files,
        lifetimes,
        signer: Arc::clone(&parts.signer),
        published: parts.cell.published.clone(),
        directory: parts.cell.directory.clone(),
        dialer: parts.cell.dialer.clone(),
        mailbox: parts.mailbox.clone(),
    };
    tokio::spawn(authorities.run(parts.stop.clone()));
    tokio::spawn(record.keep(parts.mailbox.clone(), parts.cell.published.clone(), parts.stop.clone()));
    tokio::spawn(artifacts::keep(parts.cell.clone(), parts.stop.clone()));
    parts.serve().await?;
    parts.until_stopped(thread).await
}

/// Between two looks at the certificates' age: often enough for short lives.
fn certificate_look(life_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(life_ms / 60).unwrap_or(0).clamp(100, 5_000))
}

/// Makes a directory for what users submitted and what steps put out: for the member's user only.
pub(crate) fn make_private(directory: &std::path::Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("data directory {}", directory.display()))
}

fn open_core(config: &ServerConfig, outlets: Outlets) -> anyhow::Result<Core> {
    let directory = config.data_dir.join("store");
    make_private(&directory)?;
    let store = RocksKv::open(&directory, &argosy_store::Options::default())?;
    let kv = TimedKv::new(store, outlets.metrics.fsync_seconds.clone());
    // Differs between starts, so that members that start together don't campaign together for ever.
    let seed = clock().steady_ms ^ (config.member << 32);
    let all: Vec<_> = config.members.keys().copied().collect();
    // One that joins a running cell founds nothing: it waits to be told who the members are.
    let (voters, known_peers) = if config.join { (Vec::new(), all) } else { (all, Vec::new()) };
    let mut consensus = argosy_consensus::Config::new(config.member, config.cell.clone(), voters);
    consensus.known_peers = known_peers;
    consensus.seed = seed;
    consensus.tick_ms = config.consensus.heartbeat_ms;
    consensus.election_ticks =
        usize::try_from(config.consensus.election_timeout_ms / config.consensus.heartbeat_ms).unwrap_or(10);
    consensus.limits.log_entries_kept = config.consensus.log_entries_kept;
    let member = member_config(config, consensus, seed);
    Ok(Core::new(Member::open(member, kv, clock())?, outlets))
}

/// The member's settings as the file has them.
fn member_config(config: &ServerConfig, consensus: argosy_consensus::Config, seed: u64) -> Config {
    let mut member = Config::new(config.cell.clone(), consensus, seed);
    member.times = config.failover.times();
    config.put_limits(&mut member.limits);
    if let Some(repository) = &config.artifact_repository {
        member.artifact_repository = repository.to_string();
    }
    member.cluster_stores.clone_from(&config.reproductions.cluster_stores);
    member.store_clusters.clone_from(&config.reproductions.store_clusters);
    if let Some(repository) = &config.reproductions.repository {
        member.refuge_repository = repository.to_string();
    }
    member.limits.reproductions_per_node_max = config.reproductions.per_node_max;
    if let Some(wait_ms) = config.artifact_sweep_after_ms {
        member.limits.artifact_sweep_after_ms = wait_ms;
    }
    member.workflow_defaults = config.workflow_defaults.clone().map(Arc::new);
    member
}

impl Parts {
    async fn serve(&self) -> anyhow::Result<()> {
        self.serve_peers().await?;
        self.serve_agents().await?;
        self.serve_api().await?;
        self.serve_metrics().await
    }

    async fn listen(
        &self,
        name: &'static str,
        address: std::net::SocketAddr,
        tls: &SharedTls,
    ) -> anyhow::Result<Incoming> {
        let (bound, incoming) =
            listen(name, address, Arc::clone(tls), self.metrics.clone(), self.stop.clone())
                .await
                .with_context(|| format!("the {name} listener can't listen on {address}"))?;
        tracing::info!(listener = name, address = %bound, "listening");
        Ok(incoming)
    }

    async fn serve_peers(&self) -> anyhow::Result<()> {
        let incoming = self.listen("peer", self.config.listen.peer, &self.tls.peer_server).await?;
        let service = PeerService {
            cell: self.config.cell.clone(),
            own: self.config.member,
            directory: self.cell.directory.clone(),
            mailbox: self.mailbox.clone(),
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            published: self.cell.published.clone(),
            files: Arc::clone(&self.cell.files),
        };
        let service = PeerServer::new(service)
            .max_decoding_message_size(PEER_FRAME_BYTES_MAX)
            .max_encoding_message_size(PEER_FRAME_BYTES_MAX);
        let server = keep_alive(Server::builder()).add_service(service);
        let stopped = self.stop.clone().cancelled_owned();
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped).await });
        Ok(())
    }

    async fn serve_agents(&self) -> anyhow::Result<()> {
        let incoming = self.listen("agent", self.config.listen.agent, &self.tls.agent_server).await?;
        let service = AgentService {
            mailbox: self.mailbox.clone(),
            identities: Identities {
                mailbox: self.mailbox.clone(),
                signer: Arc::clone(&self.signer),
                metrics: self.metrics.clone(),
            },
            logs: self.logs.clone(),
            metrics: self.metrics.clone(),
            connections: Arc::new(AtomicU64::new(1)),
        };
        let service = AgentLinkServer::new(service).max_decoding_message_size(AGENT_FRAME_BYTES_MAX);
        let server = keep_alive(Server::builder()).add_service(service);
        let stopped = self.stop.clone().cancelled_owned();
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stopped).await });
        Ok(())
    }

    async fn serve_api(&self) -> anyhow::Result<()> {
        let tokens = match &self.config.api.tokens_file {
            Some(path) => Tokens::load(path)?,
            None => {
                tracing::warn!(
                    "api.tokensFile is not set: the API lets nobody in; docs/operations.md says how to make one"
                );
                Tokens::default()
            }
        };
        let archive = self.config.retention.archive_max > 0;
        let consensus =
            argosy_consensus::Config::new(self.config.member, self.config.cell.clone(), Vec::new());
        let decisions = member_config(&self.config, consensus, 0).engine_limits();
        let options = Options { tokens, archive, decisions, ..Options::default() };
        let router = argosy_gateway::router(self.cell.clone(), self.metrics.clone(), options);
        let address = self.config.listen.api;
        if self.config.api.insecure_plain_http {
            tracing::warn!("api.insecurePlainHttp is set: tokens travel in the clear");
            let listener = tokio::net::TcpListener::bind(address).await?;
            serve_plain(listener, router, self.stop.clone());
            return Ok(());
        }
        let incoming = self.listen("api", address, &self.tls.api_server).await?;
        tokio::spawn(serve_tls(incoming, router, self.metrics.clone(), self.stop.clone()));
        Ok(())
    }

    async fn serve_metrics(&self) -> anyhow::Result<()> {
        let address = self.config.listen.metrics;
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("the metrics listener can't listen on {address}"))?;
        let router = argosy_gateway::metrics_router(self.cell.clone(), self.metrics.clone());
        serve_plain(listener, router, self.stop.clone());
        Ok(())
    }

    /// Waits for the stop, or for the member's thread, which ends early only when it can't go on.
    async fn until_stopped(
        self,
        thread: std::thread::JoinHandle<Result<(), argosy_member::Error>>,
    ) -> anyhow::Result<()> {
        let (ended, on_end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = ended.send(thread.join());
        });
        tokio::pin!(on_end);
        let result = tokio::select! {
            result = &mut on_end => result,
            () = self.stop.cancelled() => {
                self.mailbox.send(Mail::Stop).await;
                on_end.await
            }
        };
        self.stop.cancel();
        match result {
            Ok(Ok(outcome)) => Ok(outcome?),
            // A panic on this thread is a broken invariant: nothing more may be promised.
            Ok(Err(_)) | Err(_) => anyhow::bail!("the member's thread panicked: start the member again"),
        }
    }
}

/// A silent connection is found out in seconds: leases and elections depend on it.
fn keep_alive(server: Server) -> Server {
    server
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)))
}

fn serve_plain(listener: tokio::net::TcpListener, router: Router, stop: CancellationToken) {
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    });
}

/// Connections of users at a time, open streams included; further ones wait in the kernel's backlog. File descriptors have
/// to be left for members and agents.
const API_CONNECTIONS_MAX: usize = 4_096;
/// How long a connection may take to send the head of its next request.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A connection of HTTP/2 without an answer to its ping for as long is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves HTTP/1.1 and HTTP/2 on TLS connections. Streams are cut when the member stops.
async fn serve_tls(mut incoming: Incoming, router: Router, metrics: Metrics, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(API_CONNECTIONS_MAX));
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(REQUEST_HEAD_TIMEOUT).keep_alive_timeout(PING_TIMEOUT);
    while let Some(Ok(stream)) = incoming.next().await {
        if places.available_permits() == 0 {
            metrics.limit_hit("api_connections_max");
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let service = TowerToHyperService::new(router.clone());
        let (server, stop) = (server.clone(), stop.clone());
        tokio::spawn(async move {
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}
