//! The agent's end of its session: one machine for the life of the agent's process, over any number of connections.

mod attempts;
mod config_maps;
mod connection;
mod session;
#[cfg(test)]
mod tests;

use crate::{FRAME_VERSION, Limits, Millis, Times};
use argosy_proto::agent::agent_frame::Body as Up;
use argosy_proto::{agent, common};
use attempts::Attempts;
use config_maps::ConfigMaps;
use connection::{Lease, Link};
use std::collections::BTreeMap;

/// What the agent says of itself in Hello.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The cluster's name, as in the certificate.
    pub cluster: String,
    /// The cluster's own uid.
    pub cluster_uid: String,
    /// Of the agent's build.
    pub agent_version: String,
    /// Drawn at each start of the process.
    pub agent_instance: u64,
    /// Names the agent's ledger: drawn when it was made.
    pub ledger: u64,
    /// What runs the attempts.
    pub runtime: common::Runtime,
    /// For placement.
    pub labels: BTreeMap<String, String>,
    /// Whether the runtime can end every process of an exclusive step.
    pub enforces_exclusive: bool,
    /// Assignments it takes without an answer from it in between.
    pub credit: u32,
    /// Resend and reconnect times; lease times come from the control plane.
    pub times: Times,
    /// Sizes.
    pub limits: Limits,
    /// Drives the jitter of reconnects.
    pub seed: u64,
}

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A connection to some member stands.
    Connected {
        /// Wall clock, milliseconds since 1970.
        wall_clock_ms: i64,
    },
    /// The connection is gone, or could not be made. Answered by [`Output::Reconnect`]; ignored while the wait of one
    /// lasts, so that a connection dropped because of it counts once.
    Disconnected,
    /// A frame of the control plane, on the present connection.
    Frame(agent::ControlFrame),
    /// The newest record of an attempt, with a revision greater than before. Before the first connection: everything that
    /// is still held from an earlier life of the agent.
    Attempt(common::AttemptReport),
    /// Nothing of the attempt is left and its verdict has arrived (or [`Output::Discard`]): it is forgotten.
    Released(common::Fence),
    /// What the cluster has, and whether its runtime (API server) answers.
    Capacity {
        /// Sent with the next renewal.
        allocatable: common::Resources,
        /// Sent with the next renewal.
        runtime_healthy: bool,
    },
    /// Something is kept for these workflows: are they over? Dropped while no session stands.
    Workflows(Vec<agent::WorkflowName>),
    /// What exists of the things that were asked for, by name. Dropped while no session stands: it is asked again.
    Prerequisites(BTreeMap<String, bool>),
    /// All ConfigMaps that workflows may read, whenever one changed. Told until the control plane has them, and in each
    /// new session again.
    ConfigMaps(Vec<common::ReportedConfigMap>),
    /// A process asks for a start permit that the log has to give. Sent while the session is in step, else dropped: it asks
    /// again. Answered by [`Output::Permit`].
    AskPermit {
        /// The attempt.
        fence: common::Fence,
        /// Who asks.
        holder: String,
    },
    /// The agent can take more unanswered assignments than it said before.
    MoreCredit(u32),
    /// A piece of an answer to [`Output::Log`].
    LogChunk(agent::LogChunk),
    /// Time has passed. At least every 100 ms.
    Tick {
        /// Wall clock, milliseconds since 1970.
        wall_clock_ms: i64,
    },
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send on the present connection; dropped if there is none.
    Send(agent::AgentFrame),
    /// A new attempt. Never given twice. To be answered at once by [`Input::Attempt`] with phase RECEIVED.
    Assign(common::Assignment),
    /// End the attempt; to be answered by a terminal [`Input::Attempt`], at once with STOPPED if it is not held.
    Stop {
        /// The attempt.
        fence: common::Fence,
        /// For people.
        reason: String,
        /// Between asking a process to end and ending it.
        grace_ms: i64,
        /// Only if it has no start permit; else it goes on, and is reported again.
        only_if_unstarted: bool,
    },
    /// The control plane has no use for the attempt any more: end it, release what it holds, report nothing,
    /// then [`Input::Released`].
    Discard {
        /// The attempt.
        fence: common::Fence,
    },
    /// The newest report is committed (or void). After a verdict on a terminal report the attempt may be released, after
    /// Superseded or Unknown it is to be ended and released; then [`Input::Released`].
    Verdict {
        /// The attempt.
        fence: common::Fence,
        /// Of the report that was judged.
        revision: u64,
        /// The judgement.
        verdict: common::Verdict,
        /// Whether that report is final.
        terminal: bool,
    },
    /// The log's word on a start permit.
    Permit {
        /// The attempt.
        fence: common::Fence,
        /// Who asked.
        holder: String,
        /// Why it is refused for good; `None`: granted.
        refused: Option<String>,
        /// How long the step may run after its last acknowledged renewal; 0: it is not exclusive.
        exclusive_lease_ms: i64,
    },
    /// Logs are asked for; answered by [`Input::LogChunk`]s. Works without a lease.
    Log(agent::LogRequest),
    /// The answer to [`Input::Workflows`]; it may be old.
    Workflows(Vec<agent::WorkflowTold>),
    /// Do these things exist on the cluster? Answered by [`Input::Prerequisites`].
    Prerequisites(Vec<String>),
    /// What is wrong with ConfigMaps that were told, for the cluster's people.
    ConfigMapNotices(Vec<common::ConfigMapNotice>),
    /// The lease changed.
    Lease {
        /// Permits may be given before this moment.
        live_until: Millis,
    },
    /// The session stands and every held attempt has its verdict.
    Synced {
        /// Of the session.
        session_epoch: u64,
        /// Number of the cell's history.
        incarnation: u64,
    },
    /// The control plane refused this agent; for logs and the operator.
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
        /// An operator has to act.
        permanent: bool,
    },
    /// A drill: nobody is served until then, executors neither. A [`Output::Reconnect`] follows.
    FallSilent {
        /// Its number, for the log.
        drill: u64,
        /// Until when.
        until: Millis,
    },
    /// A drill: what runs of the attempt ends as if it had been lost; nothing else is to be done about it.
    Kill {
        /// The attempt.
        fence: common::Fence,
    },
    /// Drop the connection if there is one and, after the wait, connect again, to another member than the last.
    Reconnect {
        /// With jitter.
        after_ms: Millis,
    },
}

/// Totals of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Welcomes accepted.
    pub sessions: u64,
    /// Frames of another epoch.
    pub frames_stale: u64,
    /// Frames without a body or out of place.
    pub frames_unexpected: u64,
    /// Renewals sent.
    pub renewals_sent: u64,
    /// Renewals acknowledged.
    pub renewals_acknowledged: u64,
    /// Assignments of attempts that are held or were released.
    pub assigns_repeated: u64,
    /// Assignments refused at `held_max`.
    pub assigns_dropped: u64,
    /// Reports sent, with repeats.
    pub reports_sent: u64,
    /// Reports sent again.
    pub reports_resent: u64,
    /// Connections asked for after the first.
    pub reconnects: u64,
}

/// The agent's session.
#[derive(Debug)]
pub struct Session {
    options: Options,
    counters: Counters,
    link: Link,
    attempts: Attempts,
    config_maps: ConfigMaps,
    lease: Lease,
    /// Newest (incarnation, epoch) welcomed: a late Welcome of an older one is dropped.
    welcomed: (u64, u64),
    /// Connections in a row that did not come to a session.
    failures: u32,
    random: u64,
    /// What to add to `now` for the wall clock.
    wall_offset_ms: i64,
    allocatable: Option<common::Resources>,
    runtime_healthy: bool,
    outputs: Vec<Output>,
}

impl Session {
    /// Not connected, no lease.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            counters: Counters::default(),
            link: Link::Down { until: 0 },
            attempts: Attempts::new(options.limits),
            config_maps: ConfigMaps::default(),
            lease: Lease::default(),
            welcomed: (0, 0),
            failures: 0,
            random: options.seed,
            wall_offset_ms: 0,
            allocatable: None,
            runtime_healthy: true,
            outputs: Vec::new(),
            options,
        }
    }

    /// Takes one input at `now`; what it yields is to be done in order.
    #[must_use]
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match input {
            Input::Connected { wall_clock_ms } => self.on_connected(now, wall_clock_ms),
            Input::Disconnected => self.on_disconnected(now),
            Input::Frame(frame) => self.on_frame(now, frame),
            Input::Attempt(report) => {
                self.attempts.changed(report);
                self.send_reports(now);
            }
            Input::Released(fence) => {
                self.attempts.released(fence);
                self.settle(now);
            }
            Input::Capacity { allocatable, runtime_healthy } => {
                self.allocatable = Some(allocatable);
                self.runtime_healthy = runtime_healthy;
            }
            Input::AskPermit { fence, holder } => {
                if let Link::Up(up, _) = &self.link
                    && up.synced
                {
                    let epoch = up.epoch;
                    self.send(epoch, Up::AskPermit(agent::AskPermit { fence: Some(fence), holder }));
                }
            }
            Input::MoreCredit(more) => {
                self.options.credit = self.options.credit.saturating_add(more);
                if let Link::Up(up, _) = &self.link {
                    let epoch = up.epoch;
                    self.send(epoch, Up::Credit(agent::Credit { more }));
                }
            }
            Input::Workflows(workflows) => {
                if let Link::Up(up, _) = &self.link {
                    let epoch = up.epoch;
                    self.send(epoch, Up::WorkflowsAsked(agent::WorkflowsAsked { workflows }));
                }
            }
            Input::Prerequisites(found) => {
                if let Link::Up(up, _) = &self.link {
                    let epoch = up.epoch;
                    self.send(epoch, Up::PrerequisitesFound(agent::PrerequisitesFound { found }));
                }
            }
            Input::ConfigMaps(all) => {
                self.config_maps.replace(all);
                self.send_config_maps(now);
            }
            Input::LogChunk(chunk) => match &self.link {
                Link::Down { .. } => {}
                Link::Greeting { .. } => self.send(0, Up::LogChunk(chunk)),
                Link::Up(up, _) => {
                    let epoch = up.epoch;
                    self.send(epoch, Up::LogChunk(chunk));
                }
            },
            Input::Tick { wall_clock_ms } => self.on_tick(now, wall_clock_ms),
        }
        std::mem::take(&mut self.outputs)
    }

    /// Whether a start permit may be given at `now`.
    #[must_use]
    pub fn lease_live(&self, now: Millis) -> bool {
        now < self.lease.until
    }

    /// The moment the lease ends, 0 if there was none.
    #[must_use]
    pub fn lease_until(&self) -> Millis {
        self.lease.until
    }

    /// Whether the session stands and is in step with the control plane.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(&self.link, Link::Up(up, _) if up.synced)
    }

    /// Totals of the process.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn send(&mut self, session_epoch: u64, body: Up) {
        self.outputs.push(Output::Send(agent::AgentFrame {
            version: FRAME_VERSION,
            session_epoch,
            body: Some(body),
        }));
    }
}
