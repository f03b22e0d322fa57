//! The leader's end of every agent's session. Leader-only memory: made at [`Input::LeadershipStarted`], dropped whole on
//! step-down, never persisted.

mod cluster;
mod config_map;
mod dispatch;
mod lease;
mod permit;
mod session;
#[cfg(test)]
mod tests;

use crate::{Error, Limits, Millis, Times};
use argosy_model::planted::{Bug, is_planted};
use argosy_proto::{agent, command, common};
use cluster::{Cluster, Decisions, Kind};
use lease::{Rounds, TakeOvers};
use std::collections::BTreeMap;

/// Version of the commands that are asked of the engine.
const COMMAND_VERSION: u32 = 1;

/// A connection of an agent, at the member that accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionRef {
    /// The member that holds the connection.
    pub member: u64,
    /// Its number there; not reused while that member's process lives.
    pub connection: u64,
}

/// A question to the engine, to be named in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionId(pub u64);

/// What became of a [`Output::Decide`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Decided and committed.
    Reply(command::Reply),
    /// Refused by the engine; nothing changed.
    Refused(command::Refusal),
    /// Not known, or dropped on the way; asked again where it still matters.
    Lost,
}

/// What state wants of one attempt of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Desired {
    /// It should run there.
    Run {
        /// How long beyond lease and margin it is left to its cluster, if it is exclusive.
        exclusive_wait_ms: Option<Millis>,
    },
    /// It should be given back unless it has started.
    Recall {
        /// For people.
        reason: String,
    },
    /// It should end.
    Stop {
        /// For people.
        reason: String,
        /// Between asking a process to end and ending it.
        grace_ms: i64,
        /// As of one that should run.
        exclusive_wait_ms: Option<Millis>,
    },
}

/// How much of a silent cluster has been taken over: everything that waits at most so long beyond lease and margin.
/// `None`: nothing, since it is in touch or not yet due.
pub type TakenOver = Option<Millis>;

/// A cluster as committed state knows it when leadership starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCluster {
    /// Its name.
    pub cluster: String,
    /// Epoch of its last session, 0 if it never had one (then nothing of it can be taken over).
    pub session_epoch: u64,
    /// What an earlier leader took over since.
    pub taken_over: TakenOver,
    /// The last session whose silence an operator does not want held by the storm brake; 0 = none.
    pub resumed_epoch: u64,
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "moved a few times and never kept in numbers")]
pub enum Input {
    /// First input: an entry of the own term was applied. Take-over clocks start in full.
    LeadershipStarted {
        /// Every registered cluster.
        clusters: Vec<KnownCluster>,
    },
    /// A frame of an agent. A relaying member keeps the last Hello of each connection and relays it again when the
    /// leader changes: sessions go on without a new connection.
    Frame {
        /// Where it came from.
        connection: ConnectionRef,
        /// Cluster in the agent's certificate.
        cluster: String,
        /// The frame.
        frame: agent::AgentFrame,
    },
    /// The connection is gone.
    ConnectionClosed {
        /// Which.
        connection: ConnectionRef,
    },
    /// Answer to [`Output::Decide`]; a reply only after commit.
    Decided {
        /// The question.
        decision: DecisionId,
        /// The answer.
        answer: Answer,
    },
    /// A quorum has confirmed this leadership in a round that began when [`Output::AskQuorum`] was emitted, or later.
    QuorumConfirmed {
        /// Of the question.
        round: u64,
    },
    /// Everything committed state wants of a cluster; replaces what was wanted before.
    Desired {
        /// The cluster.
        cluster: String,
        /// Every attempt placed there.
        attempts: Vec<(common::Fence, Desired)>,
    },
    /// A change of one attempt of what committed state wants.
    DesiredChanged {
        /// The cluster.
        cluster: String,
        /// The attempt.
        fence: common::Fence,
        /// `None`: it is no longer placed there.
        desired: Option<Desired>,
    },
    /// The removal of a cluster was decided and may not be committed yet: from here on its agent's lease is not extended,
    /// since what is on it is given up a lease after the decision.
    ClusterRemoving {
        /// Which.
        cluster: String,
    },
    /// The cluster was removed: its agent is told to let go of everything, and is not waited for.
    ClusterRemoved {
        /// Which.
        cluster: String,
    },
    /// The identity of the cluster's agent is not good any more: its session is over, and it counts as silent.
    IdentityRefused {
        /// Which.
        cluster: String,
        /// For the agent.
        code: String,
        /// For the agent.
        message: String,
    },
    /// An operator lets the held take-over of a cluster go on (`argosy failover resume`), which is committed.
    TakeOverResumed {
        /// Which.
        cluster: String,
        /// Of its last session: another one makes it void.
        session_epoch: u64,
    },
    /// Time has passed. At least every 100 ms.
    Tick,
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a frame to the agent; may be lost.
    Send {
        /// Where to.
        connection: ConnectionRef,
        /// The frame.
        frame: agent::ControlFrame,
    },
    /// Send an assignment: [`assign_frame`] of what state holds for the fence. Nothing, if state no longer has it.
    Assign {
        /// Where to.
        connection: ConnectionRef,
        /// For the frame.
        session_epoch: u64,
        /// The attempt.
        fence: common::Fence,
    },
    /// Close the connection, after the frames before.
    Close {
        /// Which.
        connection: ConnectionRef,
    },
    /// Ask the engine, in this order. Each question is answered by one [`Input::Decided`] while leadership lasts.
    Decide {
        /// Names the answer.
        decision: DecisionId,
        /// OpenSession, ReportAttempt, ResyncAttempts, GrantPermit, TakeOver or UpdateCluster.
        command: command::Command,
    },
    /// Begin a quorum round now (ReadIndex); answered by [`Input::QuorumConfirmed`] or, if lost, asked again.
    AskQuorum {
        /// Names the answer.
        round: u64,
    },
    /// The storm brake was set (`true`) or released. Alarm while set.
    Storm {
        /// Whether take-overs are held.
        held: bool,
    },
}

/// Totals since leadership started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions refused by engine, version or identity.
    pub sessions_refused: u64,
    /// Frames of an older epoch or another connection than the session's.
    pub frames_stale: u64,
    /// Frames without a body, or that don't belong into the session's state.
    pub frames_unexpected: u64,
    /// Renewals received in a session.
    pub renewals_received: u64,
    /// Renewals acknowledged after a quorum round.
    pub renewals_acknowledged: u64,
    /// Assignments sent, with repeats.
    pub assigns_sent: u64,
    /// Assignments sent again.
    pub assigns_resent: u64,
    /// Stops sent, with repeats.
    pub stops_sent: u64,
    /// Reports received in a session.
    pub reports_received: u64,
    /// Reports replaced by a newer one before the engine saw them.
    pub reports_coalesced: u64,
    /// Reports dropped at `reports_waiting_max`; the agent sends them again.
    pub reports_dropped: u64,
    /// Reports that the engine refused.
    pub reports_refused: u64,
    /// Verdicts: the fence is not the node's current one.
    pub verdicts_superseded: u64,
    /// Verdicts: nothing is known of the fence.
    pub verdicts_unknown: u64,
    /// Start permits of exclusive steps asked of the engine.
    pub permits_asked: u64,
    /// Of them, refused for good.
    pub permits_refused: u64,
    /// Questions for a permit while too many were open; the agent asks again.
    pub permits_dropped: u64,
    /// Take-overs asked of the engine, with repeats.
    pub takeovers_asked: u64,
    /// Take-overs committed.
    pub takeovers_decided: u64,
}

/// The next take-over of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTakeOver {
    /// Until it is due; 0 = it is.
    pub in_ms: Millis,
    /// Waits beyond lease and margin that will have passed then.
    pub beyond_ms: Millis,
    /// The lease is over, and the storm brake holds it.
    pub held: bool,
    /// It is due and not held: others are being decided, or it is asked again after a while.
    pub paced: bool,
}

/// Most of the fleet went silent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormStatus {
    /// Take-overs are held; else they were let go on.
    pub held: bool,
    /// How long ago it began.
    pub since_ms: Millis,
    /// When it is released by itself; `None`: by an operator only.
    pub release_in_ms: Option<Millis>,
    /// Silent clusters.
    pub silent: usize,
    /// Clusters that are not taken over.
    pub fleet: usize,
}

/// One cluster, for metrics and views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its name.
    pub cluster: String,
    /// Epoch of its last session.
    pub session_epoch: u64,
    /// The connection of its session.
    pub connection: Option<ConnectionRef>,
    /// Resync is done: assignments flow.
    pub live: bool,
    /// Until the lease runs out as the agent counts it; 0 once it has.
    pub lease_remaining_ms: Millis,
    /// Since the last acknowledged receipt; `None` if it never had a session.
    pub silent_ms: Option<Millis>,
    /// What has been taken over.
    pub taken_over: TakenOver,
    /// What is taken over next, if the cluster stays silent.
    pub next_take_over: Option<NextTakeOver>,
    /// Attempts known to be held by the agent.
    pub held: usize,
    /// Assignments sent and unanswered.
    pub assigns_in_flight: usize,
    /// Assignments that wait for credit.
    pub assigns_waiting: usize,
}

/// The sessions of all clusters, as the leader sees them.
#[derive(Debug)]
pub struct Sessions {
    cell: String,
    incarnation: u64,
    times: Times,
    limits: Limits,
    counters: Counters,
    clusters: BTreeMap<String, Cluster>,
    /// Connections that greeted, and whose they are.
    connections: BTreeMap<ConnectionRef, String>,
    decisions: Decisions,
    rounds: Rounds,
    takeovers: TakeOvers,
    outputs: Vec<Output>,
}

/// The frame that carries an assignment.
#[must_use]
pub fn assign_frame(session_epoch: u64, assignment: common::Assignment) -> agent::ControlFrame {
    frame(session_epoch, agent::control_frame::Body::Assign(agent::Assign { assignment: Some(assignment) }))
}

/// The frame that asks for logs; the member that holds the connection sends it and takes the chunks, without the leader.
#[must_use]
pub fn log_request_frame(request: agent::LogRequest) -> agent::ControlFrame {
    frame(0, agent::control_frame::Body::LogRequest(request))
}

/// The frame that has an agent serve nobody for a time, as a drill wants it.
#[must_use]
pub fn fall_silent_frame(session_epoch: u64, drill: u64, for_ms: u64) -> agent::ControlFrame {
    frame(session_epoch, agent::control_frame::Body::FallSilent(agent::FallSilent { drill, for_ms }))
}

/// The frame that has the Pod or process of an attempt killed, as a drill wants it.
#[must_use]
pub fn kill_frame(session_epoch: u64, fence: common::Fence) -> agent::ControlFrame {
    frame(session_epoch, agent::control_frame::Body::Kill(agent::Kill { fence: Some(fence) }))
}

/// The frame that asks an agent what exists on its cluster.
#[must_use]
pub fn prerequisites_frame(session_epoch: u64, names: Vec<String>) -> agent::ControlFrame {
    let asked = agent::PrerequisitesAsked { names };
    frame(session_epoch, agent::control_frame::Body::PrerequisitesAsked(asked))
}

impl Sessions {
    /// Where a cluster's session stands, and its epoch.
    #[must_use]
    pub fn connection(&self, cluster: &str) -> Option<(ConnectionRef, u64)> {
        let known = self.clusters.get(cluster)?;
        Some((known.session.as_ref()?.connection, known.epoch))
    }
}

/// The frame that tells an agent that its identity is not good any more.
#[must_use]
pub fn refused_frame(code: String, message: String) -> agent::ControlFrame {
    frame(0, agent::control_frame::Body::Refused(agent::Refused { code, message, permanent: true }))
}

/// The frame that answers an agent's question about workflows.
#[must_use]
pub fn workflows_frame(session_epoch: u64, workflows: Vec<agent::WorkflowTold>) -> agent::ControlFrame {
    frame(session_epoch, agent::control_frame::Body::WorkflowsTold(agent::WorkflowsTold { workflows }))
}

fn frame(session_epoch: u64, body: agent::control_frame::Body) -> agent::ControlFrame {
    agent::ControlFrame { version: crate::FRAME_VERSION, session_epoch, body: Some(body) }
}

impl Sessions {
    /// No clusters yet. `cell` and `incarnation` are told to agents.
    #[must_use]
    pub fn new(cell: impl Into<String>, incarnation: u64, times: Times, limits: Limits) -> Self {
        Self {
            cell: cell.into(),
            incarnation,
            times,
            limits,
            counters: Counters::default(),
            clusters: BTreeMap::new(),
            connections: BTreeMap::new(),
            decisions: Decisions::default(),
            rounds: Rounds::default(),
            takeovers: TakeOvers::default(),
            outputs: Vec::new(),
        }
    }

    /// Takes one input at `now`; what it yields is to be done in order.
    #[must_use]
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match input {
            Input::LeadershipStarted { clusters } => self.start(now, clusters),
            Input::Frame { connection, cluster, frame } => self.on_frame(now, connection, cluster, frame),
            Input::ConnectionClosed { connection } => self.on_closed(connection),
            Input::Decided { decision, answer } => self.on_decided(now, decision, answer),
            Input::QuorumConfirmed { round } => self.on_quorum(now, round),
            Input::Desired { cluster, attempts } => self.on_desired(now, cluster, attempts),
            Input::DesiredChanged { cluster, fence, desired } => {
                self.on_desired_changed(now, cluster, fence, desired);
            }
            Input::ClusterRemoving { cluster } => {
                self.clusters.entry(cluster).or_default().removing = true;
            }
            Input::ClusterRemoved { cluster } => self.on_removed(&cluster),
            Input::IdentityRefused { cluster, code, message } => {
                self.on_identity_refused(&cluster, code, message);
            }
            Input::TakeOverResumed { cluster, session_epoch } => {
                if let Some(cluster) = self.clusters.get_mut(&cluster) {
                    cluster.resumed_epoch = session_epoch;
                }
                self.take_over_due(now);
            }
            Input::Tick => {
                self.retry_round(now);
                self.take_over_due(now);
                self.resend(now);
            }
        }
        std::mem::take(&mut self.outputs)
    }

    fn start(&mut self, now: Millis, clusters: Vec<KnownCluster>) {
        for KnownCluster { cluster, session_epoch, taken_over, resumed_epoch } in clusters {
            let known = self.clusters.entry(cluster).or_default();
            known.epoch = session_epoch;
            known.taken_over = taken_over;
            known.resumed_epoch = resumed_epoch;
            // In full from now: what an earlier leader acknowledged was sent before.
            known.heard = (session_epoch > 0 && !is_planted(Bug::TimersForgotten)).then_some(now);
        }
    }

    /// Totals since leadership started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Every known cluster at `now`, by name.
    pub fn clusters(&self, now: Millis) -> impl Iterator<Item = ClusterStatus> + '_ {
        self.clusters.iter().map(move |(name, cluster)| {
            let session = cluster.session.as_ref();
            let silent_ms = cluster.heard.map(|heard| now.saturating_sub(heard));
            ClusterStatus {
                cluster: name.clone(),
                session_epoch: cluster.epoch,
                connection: session.map(|session| session.connection),
                live: session.is_some_and(|session| session.live),
                lease_remaining_ms: silent_ms.map_or(0, |silent| self.times.lease_ms.saturating_sub(silent)),
                silent_ms,
                taken_over: cluster.taken_over,
                next_take_over: self.next_take_over(cluster, now),
                held: session.map_or(0, |session| session.held.len()),
                assigns_in_flight: session.map_or(0, |session| session.in_flight.len()),
                assigns_waiting: session.map_or(0, |session| session.waiting.len()),
            }
        })
    }

    /// The storm under way.
    #[must_use]
    pub fn storm(&self, now: Millis) -> Option<StormStatus> {
        self.takeovers.status(now, self.times.storm_hold_max_ms)
    }

    fn send(&mut self, connection: ConnectionRef, session_epoch: u64, body: agent::control_frame::Body) {
        self.outputs.push(Output::Send { connection, frame: frame(session_epoch, body) });
    }

    fn refuse(&mut self, connection: ConnectionRef, session_epoch: u64, error: &Error) {
        let refused = agent::Refused {
            code: error.code().to_owned(),
            message: error.to_string(),
            permanent: error.is_permanent(),
        };
        self.send(connection, session_epoch, agent::control_frame::Body::Refused(refused));
    }

    fn decide(&mut self, cluster: &str, kind: Kind, body: command::command::Body) {
        let decision = self.decisions.ask(cluster, kind);
        let command = command::Command { version: COMMAND_VERSION, idempotency_key: None, body: Some(body) };
        self.outputs.push(Output::Decide { decision, command });
    }
}
