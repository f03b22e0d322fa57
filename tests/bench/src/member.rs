//! One member of a replicated key-value table: the log, store and transport of a control-plane member under the
//! simplest of state machines, behind etcd's own `Put`. What it measures is what every command of Argosy pays.

use crate::cell;
use crate::etcd::{
    Kv, KvServer, Maintenance, MaintenanceServer, PutRequest, PutResponse, ResponseHeader, StatusRequest,
    StatusResponse,
};
use anyhow::Context;
use argosy_consensus::{Applied, Consensus, LogPosition, Output, StateMachine, TickClock};
use argosy_engine::State;
use argosy_pki::{Authority, AuthorityFiles, Lifetimes};
use argosy_proto::command::{Command, IdempotencyKey};
use argosy_proto::peer::peer_server::PeerServer;
use argosy_proto::peer::{PeerFrame, peer_frame};
use argosy_server::config::MemberAddresses;
use argosy_server::connect::Dialer;
use argosy_server::core::{Published, clock};
use argosy_server::directory::Directory;
use argosy_server::listener::listen;
use argosy_server::logs::LogRegistry;
use argosy_server::mailbox::{Mail, Mailbox};
use argosy_server::peers::{PeerLinks, PeerService};
use argosy_server::pki::{Issue, MemberTls, Signer};
use argosy_server::processes::Process;
use argosy_store::{Batch, Family, RocksKv};
use argosy_telemetry::Metrics;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Name of the cell.
const CELL: &str = "bench";
/// Mail taken before one synced write, as in a member.
const MAIL_PER_STEP_MAX: usize = 4_096;
/// Bytes of puts in one entry, as in a member's batch.
const ENTRY_BYTES_MAX: usize = 512 << 10;

/// Options of a member.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    member: u64,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    pki: PathBuf,
    /// Clients' listener
    #[arg(long)]
    listen: SocketAddr,
    /// Members' listeners, in the order of their ids
    #[arg(long, value_delimiter = ',')]
    peers: Vec<SocketAddr>,
}

/// Starts three members; gives them and their client addresses.
pub fn start(directory: &Path) -> anyhow::Result<(Vec<Process>, Vec<SocketAddr>)> {
    let pki = directory.join("pki");
    Authority::load_or_create(&pki, CELL, clock().wall_ms, Lifetimes::default())?;
    let peers = (0..3).map(|_| cell::free_address()).collect::<anyhow::Result<Vec<_>>>()?;
    let clients = (0..3).map(|_| cell::free_address()).collect::<anyhow::Result<Vec<_>>>()?;
    let program = crate::commit::own_binary()?;
    let peer_list: Vec<String> = peers.iter().map(ToString::to_string).collect();
    let mut members = Vec::new();
    for (member, client) in (1_u64..).zip(&clients) {
        let arguments = [
            "member".to_owned(),
            format!("--member={member}"),
            format!("--data={}", directory.join(format!("member-{member}")).display()),
            format!("--pki={}", pki.display()),
            format!("--listen={client}"),
            format!("--peers={}", peer_list.join(",")),
        ];
        let log = directory.join(format!("member-{member}.log"));
        members.push(Process::start(&format!("member {member}"), &program, &arguments, &log)?);
    }
    Ok((members, clients))
}

/// Rows of what was put. A command's idempotency key carries the put: key and value.
#[derive(Default)]
struct Table {
    applied: Vec<LogPosition>,
}

impl StateMachine for Table {
    fn apply(&mut self, entry: Applied<'_>, batch: &mut Batch) {
        let mut rest = entry.data;
        while let Ok(put) = IdempotencyKey::decode_length_delimited(&mut rest) {
            batch.put(Family::State, put.key.into_bytes(), put.digest);
            if rest.is_empty() {
                break;
            }
        }
        self.applied.push(LogPosition { term: entry.term, index: entry.index });
    }

    fn reload(&mut self, _kv: &dyn argosy_store::Kv) -> Result<(), argosy_consensus::Error> {
        Ok(())
    }
}

type Answer = oneshot::Sender<argosy_member::Outcome>;

/// The member's thread.
struct Core {
    member: u64,
    consensus: Consensus<RocksKv>,
    table: Table,
    links: PeerLinks,
    leader: Arc<AtomicU64>,
    queue: VecDeque<(IdempotencyKey, Answer)>,
    pending: VecDeque<(LogPosition, Vec<Answer>)>,
}

impl Core {
    fn run(mut self, mail: &flume::Receiver<Mail>, tick_ms: u64, mut ticks: TickClock) -> anyhow::Result<()> {
        let mut next_tick_ms: u64 = 0;
        loop {
            let wait = u64::saturating_sub(next_tick_ms, clock().steady_ms);
            match mail.recv_timeout(Duration::from_millis(wait)) {
                Ok(first) => {
                    let more = std::iter::from_fn(|| mail.try_recv().ok()).take(MAIL_PER_STEP_MAX);
                    std::iter::once(first).chain(more).for_each(|mail| self.take(mail));
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now_ms = clock().steady_ms;
            if now_ms >= next_tick_ms {
                (0..ticks.ticks_due(now_ms)).for_each(|_| self.consensus.tick());
                next_tick_ms = now_ms + tick_ms;
            }
            self.propose();
            self.process()?;
        }
    }

    fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Peer { from, frame } => {
                if let Some(peer_frame::Body::Consensus(message)) = frame.body {
                    let _ = self.consensus.receive(from, &message);
                }
            }
            Mail::PeerUnreachable(peer) => self.consensus.unreachable(peer),
            Mail::Command { command, answer } => {
                if let Some(put) = command.idempotency_key {
                    self.queue.push_back((put, answer));
                }
            }
            Mail::AgentOpened(_)
            | Mail::AgentFrame { .. }
            | Mail::AgentClosed { .. }
            | Mail::Read { .. }
            | Mail::Archived { .. }
            | Mail::Checkpoint { .. }
            | Mail::Status { .. }
            | Mail::Stop => {}
        }
    }

    /// What waits goes into entries, many puts in each. On a follower the answers are dropped, which fails the puts.
    fn propose(&mut self) {
        while !self.queue.is_empty() {
            let (mut data, mut answers) = (Vec::new(), Vec::new());
            while data.len() < ENTRY_BYTES_MAX
                && let Some((put, answer)) = self.queue.pop_front()
            {
                data.extend(put.encode_length_delimited_to_vec());
                answers.push(answer);
            }
            if let Ok(position) = self.consensus.propose(data) {
                self.pending.push_back((position, answers));
            }
        }
    }

    fn process(&mut self) -> anyhow::Result<()> {
        let Self { member, consensus, table, links, leader, .. } = self;
        let own = *member;
        let mut sink = |output: Output| match output {
            Output::Send { to, message } => {
                let body = Some(peer_frame::Body::Consensus(message));
                links.send(to, PeerFrame { version: 1, cell: CELL.to_owned(), from: own, to, body });
            }
            Output::Role(change) => {
                let led_by = match change {
                    argosy_consensus::RoleChange::Leading { .. } => own,
                    argosy_consensus::RoleChange::Following { leader, .. } => leader.unwrap_or(0),
                };
                leader.store(led_by, Ordering::Relaxed);
            }
            Output::ReadReady { .. } | Output::ProposalLost(_) | Output::Installed { .. } => {}
        };
        consensus.process_into(table, &mut sink)?;
        for position in self.table.applied.drain(..) {
            while self.pending.front().is_some_and(|(at, _)| at.index <= position.index) {
                let Some((at, answers)) = self.pending.pop_front() else { break };
                if at == position {
                    let done = argosy_member::Outcome::Done(argosy_proto::command::Reply::default());
                    answers.into_iter().for_each(|answer| drop(answer.send(done.clone())));
                }
            }
        }
        Ok(())
    }
}

/// Etcd's service in front of the mailbox.
#[derive(Clone)]
struct Service {
    member: u64,
    mailbox: Mailbox,
    leader: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Kv for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let key = String::from_utf8(key).map_err(|_| Status::invalid_argument("the key is no text"))?;
        let put = IdempotencyKey { tenant: String::new(), key, digest: value };
        let command = Command { version: 1, idempotency_key: Some(put), body: None };
        match self.mailbox.command(command).await {
            argosy_member::Outcome::Done(_) => Ok(Response::new(PutResponse::default())),
            argosy_member::Outcome::Refused(_)
            | argosy_member::Outcome::NotLeader
            | argosy_member::Outcome::Overloaded
            | argosy_member::Outcome::Unknown => Err(Status::unavailable("not committed here")),
        }
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let header = ResponseHeader { member_id: self.member, ..ResponseHeader::default() };
        let leader = self.leader.load(Ordering::Relaxed);
        Ok(Response::new(StatusResponse { header: Some(header), version: "argosy".to_owned(), leader }))
    }
}

/// Serves until it is killed.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (stop, metrics, lifetimes) = (CancellationToken::new(), Metrics::new(), Lifetimes::default());
    let files = Arc::new(AuthorityFiles::new(&arguments.pki, lifetimes, None));
    let signer =
        Arc::new(Signer::new(files.load()?.context("no certificate authority")?, lifetimes, Vec::new()));
    let issue = Issue {
        member: arguments.member,
        api_names: Vec::new(),
        renewal_grace: Duration::ZERO,
        revocations: Arc::new(argosy_pki::NoneRevoked),
        look_every: Duration::from_secs(5),
    };
    let tls = MemberTls::start(&signer, issue, stop.clone())?;
    let (mailbox, mail) = Mailbox::new();
    let dialer = Dialer::new(Arc::clone(&tls.client));
    let peers: BTreeMap<u64, String> =
        (1..).zip(&arguments.peers).map(|(id, peer)| (id, peer.to_string())).collect();
    let links = PeerLinks::new(arguments.member, &dialer, &mailbox, &metrics, &stop);
    links.keep(&peers);
    let addresses =
        |peer: &String| MemberAddresses { peer: peer.clone(), agent: String::new(), api: String::new() };
    let members = peers.iter().map(|(id, peer)| (*id, addresses(peer))).collect();
    let (_published, published) = tokio::sync::watch::channel(Published { state: State::new() });
    let own = peers[&arguments.member].parse()?;
    let (_, incoming) =
        listen("peer", own, Arc::clone(&tls.peer_server), metrics.clone(), stop.clone()).await?;
    let service = PeerService {
        cell: CELL.to_owned(),
        own: arguments.member,
        directory: Directory::new(members, published.clone()),
        published,
        files,
        mailbox: mailbox.clone(),
        logs: LogRegistry::default(),
        metrics,
    };
    let server = tonic::transport::Server::builder().add_service(PeerServer::new(service));
    tokio::spawn(server.serve_with_incoming(incoming));

    let leader = Arc::new(AtomicU64::new(0));
    let mut config = argosy_consensus::Config::new(arguments.member, CELL, peers.keys().copied().collect());
    config.seed = clock().steady_ms ^ (arguments.member << 32);
    std::fs::create_dir_all(&arguments.data)?;
    let kv = RocksKv::open(&arguments.data, &argosy_store::Options::default())?;
    let ticks = TickClock::new(&config, clock().steady_ms);
    let tick_ms = config.tick_ms;
    let core = Core {
        member: arguments.member,
        consensus: Consensus::open(config, kv)?,
        table: Table::default(),
        links,
        leader: Arc::clone(&leader),
        queue: VecDeque::new(),
        pending: VecDeque::new(),
    };
    let thread = std::thread::Builder::new()
        .name("member".to_owned())
        .spawn(move || core.run(&mail, tick_ms, ticks))?;
    let service = Service { member: arguments.member, mailbox, leader };
    let serving = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(KvServer::new(service.clone()))
        .add_service(MaintenanceServer::new(service))
        .serve(arguments.listen);
    tokio::select! {
        served = serving => served?,
        ended = tokio::task::spawn_blocking(move || thread.join()) => {
            ended?.map_err(|_| anyhow::anyhow!("the member's thread panicked"))??;
        }
    }
    Ok(())
}
