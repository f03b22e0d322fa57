//! Simulated clusters: the agent's own reconciler and session over a real connection, with a runtime whose steps take
//! no time at all.

use crate::cell::Cell;
use anyhow::Context;
use argosy_agent_runtime::ledger::MemoryLedger;
use argosy_agent_runtime::{Input, Limits, Output, Reconciler, RuntimeAction, is_over};
use argosy_pki::{AgentIdentity, AgentKey, Invite, client_config, pinned_client_config, server_name};
use argosy_proto::agent::agent_link_client::AgentLinkClient;
use argosy_proto::agent::{AgentFrame, ControlFrame, EnrolRequest, agent_frame, control_frame};
use argosy_proto::common::{Resources, Runtime};
use argosy_server::core::clock;
use argosy_simulated::Simulated;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Frames that wait in either direction.
const FRAMES_MAX: usize = 16_384;
/// Ticks of the reconciler.
const TICK: Duration = Duration::from_millis(50);
/// Steps at one time on a cluster, and assignments without an answer.
const STEPS_MAX: i64 = 1_000;

/// What the clusters have seen together.
#[derive(Default)]
pub struct Seen {
    /// Attempts that ended and whose result is committed.
    pub ended: AtomicU64,
    /// From sending a final report to the next assignment's arrival at the same agent.
    overheads: Mutex<Vec<Duration>>,
}

impl Seen {
    /// Takes what was measured since the last call.
    pub fn take_overheads(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.overheads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

enum Event {
    Opened(mpsc::Sender<AgentFrame>),
    Frame(Box<ControlFrame>),
    Closed,
}

/// Enrols a cluster and runs it, connected to `member`, until the task is aborted.
pub async fn start(
    cell: &Cell,
    cluster: &str,
    member: u64,
    seen: &Arc<Seen>,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<()>>> {
    let made =
        cell.client.post(&format!("/api/v1/clusters/{cluster}/invite"), &json!({"ttlSeconds": 600})).await?;
    let invite = Invite::parse(made["token"].as_str().context("an invite has a token")?)?;
    let address = cell.addresses[&member].agent.clone();
    let key = AgentKey::load_or_create(&cell.directory().join(format!("agent-{cluster}")))?;
    let request = EnrolRequest {
        cluster: cluster.to_owned(),
        cluster_uid: format!("uid-{cluster}"),
        invite: invite.token(),
        signing_request_der: key.signing_request()?,
    };
    let channel = dial(Arc::new(pinned_client_config(invite.authority_fingerprint)?), &address).await?;
    let answer = AgentLinkClient::new(channel).enrol(request).await?.into_inner();
    let identity = AgentIdentity::new(&key, answer.certificate_chain_der, answer.trust_roots_der)?;
    let tls = Arc::new(client_config(&identity.credentials, &identity.roots, &identity.trust_domain)?);
    let options = argosy_link::agent::Options {
        cluster: cluster.to_owned(),
        cluster_uid: format!("uid-{cluster}"),
        agent_version: "bench".to_owned(),
        agent_instance: rand::random(),
        runtime: Runtime::Simulated,
        labels: std::collections::BTreeMap::new(),
        ledger: 0,
        enforces_exclusive: false,
        credit: u32::try_from(STEPS_MAX)?,
        times: argosy_link::Times::default(),
        limits: argosy_link::Limits::default(),
        seed: rand::random(),
    };
    let agent = Agent::new(options, tls, address, Arc::clone(seen))?;
    Ok(tokio::spawn(agent.run()))
}

async fn dial(tls: Arc<ClientConfig>, address: &str) -> Result<Channel, tonic::transport::Error> {
    let target = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, target) = (tokio_rustls::TlsConnector::from(Arc::clone(&tls)), target.clone());
        async move {
            let stream = TcpStream::connect(&target).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(server_name(), stream).await?))
        }
    });
    // TLS is the connector's business.
    Endpoint::from_static("http://member.argosy.invalid").connect_with_connector(connector).await
}

async fn session(tls: Arc<ClientConfig>, address: String, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let channel = dial(tls, &address).await?;
    let (sender, frames) = mpsc::channel(FRAMES_MAX);
    let mut answers = AgentLinkClient::new(channel).session(ReceiverStream::new(frames)).await?.into_inner();
    events.send(Event::Opened(sender)).await?;
    while let Some(frame) = answers.next().await {
        events.send(Event::Frame(Box::new(frame?))).await?;
    }
    Ok(())
}

struct Agent {
    reconciler: Reconciler<MemoryLedger>,
    runtime: Simulated,
    tls: Arc<ClientConfig>,
    address: String,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    outbound: Option<mpsc::Sender<AgentFrame>>,
    seen: Arc<Seen>,
    reported: Option<Instant>,
    begun: Instant,
}

impl Agent {
    fn new(
        options: argosy_link::agent::Options,
        tls: Arc<ClientConfig>,
        address: String,
        seen: Arc<Seen>,
    ) -> anyhow::Result<Self> {
        let allocatable =
            Resources { cpu_milli: 1 << 40, memory_bytes: 1 << 50, pods: STEPS_MAX, ..Resources::default() };
        let cluster = argosy_simulated::Options {
            start_ms: (0, 0),
            duration_ms: (0, 0),
            allocatable,
            ..argosy_simulated::Options::default()
        };
        let (events, inbox) = mpsc::channel(FRAMES_MAX);
        let mut runtime = Simulated::new(cluster);
        runtime.agent_restarted(0);
        Ok(Self {
            reconciler: Reconciler::new(options, Limits::default(), MemoryLedger::new())?,
            runtime,
            tls,
            address,
            events,
            inbox,
            outbound: None,
            seen,
            reported: None,
            begun: Instant::now(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut next_tick = Instant::now();
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let wake = self
                .runtime
                .next_wake()
                .map_or(wait, |at| Duration::from_millis(at.saturating_sub(self.now_ms())));
            tokio::select! {
                _ = self.inbox.recv_many(&mut batch, 1_024) => {}
                () = tokio::time::sleep(wait.min(wake)) => {}
            }
            for event in batch.drain(..) {
                self.take(event);
            }
            if Instant::now() >= next_tick {
                next_tick = Instant::now() + TICK;
                let now = self.now_ms();
                self.reconciler.feed(now, Input::Tick { wall_clock_ms: clock().wall_ms });
            }
            self.settle()?;
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.now_ms();
        let input = match event {
            Event::Opened(sender) => {
                self.outbound = Some(sender);
                Input::Connected { wall_clock_ms: clock().wall_ms }
            }
            Event::Frame(frame) => {
                if matches!(frame.body, Some(control_frame::Body::Assign(_)))
                    && let Some(reported) = self.reported.take()
                {
                    let mut overheads = self.seen.overheads.lock().unwrap_or_else(PoisonError::into_inner);
                    overheads.push(reported.elapsed());
                }
                Input::Frame(*frame)
            }
            Event::Closed => {
                self.outbound = None;
                Input::Disconnected
            }
        };
        self.reconciler.feed(now, input);
    }

    /// Lets agent and cluster answer each other until both wait for something else.
    fn settle(&mut self) -> anyhow::Result<()> {
        loop {
            let outputs = self.reconciler.outputs()?;
            let quiet = outputs.is_empty();
            outputs.into_iter().for_each(|output| self.put_out(output));
            let now = self.now_ms();
            let events = self.runtime.advance(now);
            drop(self.runtime.take_executions());
            if quiet && events.is_empty() {
                return Ok(());
            }
            for event in events {
                self.reconciler.feed(now, Input::Runtime(event));
            }
        }
    }

    fn put_out(&mut self, output: Output) {
        let now = self.now_ms();
        match output {
            Output::Send(frame) => self.send(frame),
            Output::Runtime(action) => {
                if matches!(action, RuntimeAction::Release(_)) {
                    self.seen.ended.fetch_add(1, Ordering::Relaxed);
                }
                self.runtime.act(now, action);
            }
            Output::Executor(answer) => self.runtime.answer(now, &answer),
            Output::Connect { after_ms } => {
                self.outbound = None;
                let (tls, address, events) =
                    (Arc::clone(&self.tls), self.address.clone(), self.events.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(after_ms)).await;
                    if let Err(error) = session(tls, address, events.clone()).await {
                        tracing::warn!(%error, "a session ended");
                    }
                    let _ = events.send(Event::Closed).await;
                });
            }
            Output::Log(_) | Output::Synced { .. } | Output::Silent { .. } => {}
            Output::Refused { code, message, .. } => eprintln!("refused: {code}: {message}"),
            Output::ConfigMapNotices(notices) => eprintln!("ConfigMaps: {notices:?}"),
        }
    }

    fn send(&mut self, frame: AgentFrame) {
        let is_final = match &frame.body {
            Some(agent_frame::Body::Report(report)) => report.attempt.as_ref().is_some_and(is_over),
            _ => false,
        };
        if is_final {
            self.reported = Some(Instant::now());
        }
        if let Some(outbound) = &self.outbound
            && outbound.try_send(frame).is_err()
        {
            self.outbound = None;
            let now = self.now_ms();
            self.reconciler.feed(now, Input::Disconnected);
        }
    }
}
