//! The thread that runs the member: takes mail in bulk (group commit), steps the machine, hands out what it puts out.

use crate::logs::LogRegistry;
use crate::mailbox::{AgentConnection, Mail};
use crate::peers::PeerLinks;
use crate::timed::TimedKv;
use argosy_engine::State;
use argosy_gateway::Change;
use argosy_member::{Input, Member, Now, Outcome, Output};
use argosy_proto::agent::{ControlFrame, control_frame};
use argosy_telemetry::Metrics;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot, watch};

/// Mail taken before the machine is stepped: what one synced write can cover.
const MAIL_PER_STEP_MAX: usize = 4_096;
/// Changes that wait for one watcher; a slower one is told that it lagged and reads the state again.
pub const CHANGES_QUEUE_MAX: usize = 4_096;

/// Committed state as of an applied index, for reads that may be stale.
#[derive(Clone)]
pub struct Published {
    /// The state; cloning is cheap.
    pub state: State,
}

/// Where the thread's output goes.
pub struct Outlets {
    /// Frames for peers.
    pub peers: PeerLinks,
    /// Log routing, told of welcomed sessions.
    pub logs: LogRegistry,
    /// The newest committed state.
    pub published: watch::Sender<Published>,
    /// Committed changes of workflows.
    pub changes: broadcast::Sender<Arc<Change<State>>>,
    /// Gauges and counters.
    pub metrics: Metrics,
}

/// Reads both clocks.
#[must_use]
pub fn clock() -> Now {
    let steady =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now {
        steady_ms: u64::try_from(steady.as_millis()).unwrap_or(u64::MAX),
        wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
    }
}

/// State of the member's thread.
pub struct Core {
    member: Member<TimedKv>,
    waiting: WaitingOutside,
    next_request: u64,
}

/// Everybody outside the thread who gets what the member puts out.
struct WaitingOutside {
    outlets: Outlets,
    agents: BTreeMap<u64, AgentConnection>,
    commands: BTreeMap<u64, oneshot::Sender<Outcome>>,
    reads: BTreeMap<u64, oneshot::Sender<Option<State>>>,
    archived: BTreeMap<u64, oneshot::Sender<Option<Vec<Vec<u8>>>>>,
    /// Connections that were closed for not keeping up; the member is told after the flush.
    too_slow: Vec<u64>,
    /// The cluster that a drill keeps apart.
    cut_off: Option<String>,
}

impl Core {
    /// A core around an opened member, whose state as it was durable is published at once: it must not look empty until the
    /// next commit.
    #[must_use]
    pub fn new(member: Member<TimedKv>, outlets: Outlets) -> Self {
        outlets.published.send_replace(Published { state: member.state().clone() });
        let waiting = WaitingOutside {
            outlets,
            agents: BTreeMap::new(),
            commands: BTreeMap::new(),
            reads: BTreeMap::new(),
            archived: BTreeMap::new(),
            too_slow: Vec::new(),
            cut_off: None,
        };
        Self { member, waiting, next_request: 0 }
    }

    /// Runs until [`Mail::Stop`], or until the mailbox has no senders left.
    ///
    /// # Errors
    /// The member can't go on (disk, unknown fact): the caller ends the process, and state stays as it was durable.
    pub fn run(mut self, mail: &flume::Receiver<Mail>) -> Result<(), argosy_member::Error> {
        loop {
            let wait = self.member.next_tick_ms().saturating_sub(clock().steady_ms);
            match mail.recv_timeout(Duration::from_millis(wait)) {
                Ok(first) => {
                    let more = std::iter::from_fn(|| mail.try_recv().ok()).take(MAIL_PER_STEP_MAX);
                    for one in std::iter::once(first).chain(more) {
                        if !self.take(one) {
                            return Ok(());
                        }
                    }
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let waiting = &mut self.waiting;
            self.member.flush_into(clock(), &mut |output| waiting.put_out(output))?;
            for connection in std::mem::take(&mut self.waiting.too_slow) {
                self.member.handle(clock(), Input::AgentClosed { connection });
            }
        }
    }

    fn take(&mut self, mail: Mail) -> bool {
        let now = clock();
        match mail {
            Mail::Peer { from, frame } => self.member.handle(now, Input::Peer { from, frame }),
            Mail::PeerUnreachable(member) => self.member.handle(now, Input::PeerUnreachable(member)),
            Mail::AgentOpened(agent) => {
                let (connection, cluster) = (agent.connection, agent.cluster.clone());
                self.waiting.agents.insert(connection, agent);
                self.member.handle(now, Input::AgentOpened { connection, cluster });
            }
            Mail::AgentFrame { connection, frame } => {
                self.member.handle(now, Input::AgentFrame { connection, frame });
            }
            Mail::AgentClosed { connection } => {
                self.waiting.agents.remove(&connection);
                self.member.handle(now, Input::AgentClosed { connection });
            }
            Mail::Command { command, answer } => {
                self.next_request += 1;
                self.waiting.commands.insert(self.next_request, answer);
                self.member.handle(now, Input::Command { request: self.next_request, command });
            }
            Mail::Read { answer } => {
                self.next_request += 1;
                self.waiting.reads.insert(self.next_request, answer);
                self.member.handle(now, Input::Read { request: self.next_request });
            }
            Mail::Checkpoint { answer } => match self.member.checkpoint() {
                Ok(checkpoint) => drop(answer.send(checkpoint)),
                Err(error) => tracing::error!(%error, "a checkpoint for a backup could not be cut"),
            },
            Mail::Archived { workflow, answer } => {
                self.next_request += 1;
                self.waiting.archived.insert(self.next_request, answer);
                self.member.handle(now, Input::Archived { request: self.next_request, workflow });
            }
            Mail::Status { answer } => {
                let _ = answer.send(self.member.status(now));
            }
            Mail::Stop => return false,
        }
        true
    }
}

impl WaitingOutside {
    fn put_out(&mut self, output: Output) {
        match output {
            Output::Peer { to, frame } => self.outlets.peers.send(to, frame),
            Output::Agent { connection, frame } => self.send_to_agent(connection, frame),
            Output::CloseAgent { connection } => self.close_agent(connection),
            Output::Answer { request, outcome } => {
                if let Some(answer) = self.commands.remove(&request) {
                    let _ = answer.send(outcome);
                }
            }
            Output::Read { request, state } => {
                if let Some(answer) = self.reads.remove(&request) {
                    let _ = answer.send(state);
                }
            }
            Output::Archived { request, records } => {
                if let Some(answer) = self.archived.remove(&request) {
                    let _ = answer.send(records);
                }
            }
            Output::Published { before, after, workflows } => {
                let cut_off = after.cluster_cut_off().map(|(cluster, _)| cluster.to_owned());
                if cut_off != self.cut_off {
                    self.outlets.logs.cut_off(cut_off.clone());
                    self.cut_off = cut_off;
                }
                self.outlets.published.send_replace(Published { state: after.clone() });
                if !workflows.is_empty() {
                    let _ = self.outlets.changes.send(Arc::new(Change { workflows, before, after }));
                }
            }
            Output::Committed { latency_ms, bytes, commands, readings } => {
                let metrics = &self.outlets.metrics;
                metrics.commit_latency_seconds.observe(latency_ms as f64 / 1_000.0);
                metrics.batch_bytes.observe(bytes as f64);
                metrics.batch_commands.observe(commands as f64);
                readings.iter().for_each(|reading| take(metrics, reading));
            }
        }
    }

    /// Sends a frame, or ends the connection of an agent that does not keep up: it comes back and resyncs.
    fn send_to_agent(&mut self, connection: u64, frame: ControlFrame) {
        let Some(agent) = self.agents.get(&connection) else { return };
        if matches!(frame.body, Some(control_frame::Body::Welcome(_))) {
            let sender = agent.sender.clone();
            self.outlets.logs.connected(&agent.cluster, connection, sender);
        }
        if agent.sender.try_send(Ok(frame)).is_err() {
            self.outlets.metrics.limit_hit("agent_queue_max");
            tracing::warn!(cluster = agent.cluster, "closing the session of an agent that does not keep up");
            self.close_agent(connection);
            self.too_slow.push(connection);
        }
    }

    /// The stream to the agent ends once nobody can send on it any more, readers of logs included.
    fn close_agent(&mut self, connection: u64) {
        if let Some(agent) = self.agents.remove(&connection) {
            self.outlets.logs.closed(&agent.cluster, connection);
        }
    }
}

/// A reading of a metric that a workflow asks for.
fn take(metrics: &Metrics, reading: &argosy_engine::Reading) {
    use argosy_telemetry::custom::{LeftOut, Reading};
    let change = match &reading.change {
        argosy_engine::Change::Count(by) => Reading::Count(*by),
        argosy_engine::Change::Set(value) => Reading::Set(*value),
        argosy_engine::Change::Add(by) => Reading::Add(*by),
        argosy_engine::Change::Observe(value, bounds) => Reading::Observe(*value, bounds.clone()),
    };
    match metrics.custom.take(&reading.name, &reading.help, &reading.labels, &change) {
        Ok(()) => {}
        Err(LeftOut::TooMany) => metrics.limit_hit("custom_series_max"),
        Err(LeftOut::Conflict) => {
            tracing::warn!(
                metric = reading.name,
                "a workflow asks for a metric that is known as another kind"
            );
        }
    }
}
