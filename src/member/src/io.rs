//! What goes into a member and what comes out of it.

use argosy_engine::State;
use argosy_model::{MemberId, WorkflowKey};
use argosy_proto::agent::{AgentFrame, ControlFrame};
use argosy_proto::command::{Command, Refusal, Reply};
use argosy_proto::peer::PeerFrame;

/// Something a member is told. Inputs are cheap; work happens in `flush`.
#[derive(Debug)]
pub enum Input {
    /// A frame of a peer whose certificate names `from`.
    Peer {
        /// The peer.
        from: MemberId,
        /// The frame; its `from`, `to` and `cell` have been compared with the connection.
        frame: PeerFrame,
    },
    /// The transport lost the peer.
    PeerUnreachable(MemberId),
    /// An agent connected to this member.
    AgentOpened {
        /// Number of the connection, never used twice in a process.
        connection: u64,
        /// The identity in its certificate.
        cluster: String,
    },
    /// A frame of a connected agent.
    AgentFrame {
        /// Its connection.
        connection: u64,
        /// The frame.
        frame: AgentFrame,
    },
    /// The connection is gone.
    AgentClosed {
        /// Its number.
        connection: u64,
    },
    /// A client asks for a change.
    Command {
        /// Names the answer.
        request: u64,
        /// What is asked.
        command: Command,
    },
    /// A client wants to read everything acknowledged so far.
    Read {
        /// Names the answer.
        request: u64,
    },
    /// A client wants the records of an archived workflow that a state it has read knows of.
    Archived {
        /// Names the answer.
        request: u64,
        /// The workflow's number.
        workflow: u64,
    },
}

/// Something a member wants done. Nothing in it has to arrive: what matters is repeated.
#[expect(
    clippy::large_enum_variant,
    reason = "outputs are few and moved once; a published state is three handles"
)]
#[derive(Debug)]
pub enum Output {
    /// Send a frame to a peer.
    Peer {
        /// The peer.
        to: MemberId,
        /// The frame.
        frame: PeerFrame,
    },
    /// Send a frame to an agent connected here.
    Agent {
        /// Its connection.
        connection: u64,
        /// The frame.
        frame: ControlFrame,
    },
    /// Close the connection of an agent.
    CloseAgent {
        /// Its number.
        connection: u64,
    },
    /// The outcome of a command.
    Answer {
        /// The command's request.
        request: u64,
        /// Safe to tell: what it says is committed.
        outcome: Outcome,
    },
    /// State for a read, or nothing when no quorum answered in time.
    Read {
        /// The read's request.
        request: u64,
        /// The state.
        state: Option<State>,
    },
    /// The records of an archived workflow; empty when there are none (any more), `None` when they have too many bytes.
    Archived {
        /// The read's request.
        request: u64,
        /// The records.
        records: Option<Vec<Vec<u8>>>,
    },
    /// Committed state moved on.
    Published {
        /// State before.
        before: State,
        /// State after.
        after: State,
        /// Workflows that were made, changed or deleted in between.
        workflows: Vec<WorkflowKey>,
    },
    /// A batch of this leader was committed, so long after it was proposed.
    Committed {
        /// Milliseconds.
        latency_ms: u64,
        /// Size of the entry.
        bytes: usize,
        /// Commands answered with it.
        commands: usize,
        /// Readings of metrics that workflows ask for.
        readings: Vec<argosy_engine::Reading>,
    },
}

/// How a command ended, from where its caller stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Committed.
    Done(Reply),
    /// Decided against; nothing changed.
    Refused(Refusal),
    /// No leader is known, or it turned it away unread; nothing changed.
    NotLeader,
    /// Too much is waiting; nothing changed.
    Overloaded,
    /// It may or may not have happened: repeating it under the same idempotency key is safe.
    Unknown,
}

/// Counts since the member was opened; the shell turns them into metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches proposed.
    pub proposals: u64,
    /// Own batches that were void when applied and decided again.
    pub void_batches: u64,
    /// Own batches lost with leadership: their callers got "unknown".
    pub lost_batches: u64,
    /// Entries applied.
    pub applied_entries: u64,
    /// Commands decided.
    pub commands: u64,
    /// Commands refused.
    pub refusals: u64,
    /// Counted units of deciding.
    pub work: u64,
    /// Attempts assigned to a cluster, by cluster; counted while leading.
    pub assigned: std::collections::BTreeMap<String, u64>,
    /// Workflows accepted; counted while leading.
    pub workflows_accepted: u64,
    /// Workflows that ended, by phase; counted while leading.
    pub workflows_finished: std::collections::BTreeMap<&'static str, u64>,
    /// Commands turned away because too many waited.
    pub overloaded: u64,
    /// Attempts fenced because their cluster was lost, by cluster; counted while leading.
    pub take_overs: std::collections::BTreeMap<String, u64>,
    /// Attempts that were taken over and count again, since their cluster came back with them, by cluster; counted while
    /// leading.
    pub returned: std::collections::BTreeMap<String, u64>,
    /// Steps that ended well and run again for what was lost with their cluster, by reason; counted while leading.
    pub reproductions: std::collections::BTreeMap<&'static str, u64>,
    /// Steps that ended since a cluster was lost, by reason; counted while leading.
    pub steps_lost: std::collections::BTreeMap<&'static str, u64>,
    /// Peer frames that were not understood, or consensus messages refused, by reason.
    pub peer_frames_dropped: std::collections::BTreeMap<&'static str, u64>,
    /// Agent frames not acted on, by reason.
    pub agent_frames_dropped: std::collections::BTreeMap<&'static str, u64>,
    /// Reports by verdict: accepted, superseded, unknown.
    pub reports: std::collections::BTreeMap<&'static str, u64>,
    /// Workflows that schedules started, by namespace and CronWorkflow; counted while leading.
    pub cron_starts: std::collections::BTreeMap<(String, String), u64>,
    /// First stamps of a term that were held back because the wall clock was far ahead.
    pub log_time_held_back: u64,
}

/// How a member stands.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// What the consensus driver says.
    pub consensus: argosy_consensus::Status,
    /// Knows a leader, has applied an entry of the present term and is not installing a snapshot.
    pub ready: bool,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Commands waiting to be decided here.
    pub commands_waiting: usize,
    /// Batches in flight.
    pub batches_in_flight: usize,
    /// Agents connected to this member.
    pub connections: usize,
    /// Sessions, on the leader only.
    pub sessions: Vec<argosy_link::control::ClusterStatus>,
    /// How every cluster's session stands, on any member: the leader tells the others once a second.
    pub sessions_known: Vec<argosy_proto::peer::ClusterSession>,
    /// Counts of the agent link since leadership started, on the leader only.
    pub link: Option<argosy_link::control::Counters>,
    /// How often concurrency policies took effect since leadership began, on the leader: by namespace, name, policy.
    pub cron_policies: std::collections::BTreeMap<(String, String, String), u64>,
    /// Most of the fleet went silent together, as far as this member knows.
    pub storm: Option<argosy_proto::peer::StormBrake>,
    /// Counts.
    pub counters: Counters,
}
