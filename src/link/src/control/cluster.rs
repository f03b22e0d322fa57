//! What the leader remembers of a cluster, its session, and its questions to the engine.

use super::config_map::Reports;
use super::{ConnectionRef, DecisionId, Desired, TakenOver};
use crate::Millis;
use argosy_proto::agent::Hello;
use argosy_proto::common::{AttemptReport, Fence, Resources};
use std::collections::{BTreeMap, BTreeSet};

/// A cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Of its last session.
    pub epoch: u64,
    /// Receipt of the last acknowledged renewal: the base of the take-over clock. `None`: never had a session.
    pub heard: Option<Millis>,
    pub taken_over: TakenOver,
    /// The last session whose silence an operator does not want held by the storm brake.
    pub resumed_epoch: u64,
    /// A take-over is being decided.
    pub taking_over: bool,
    /// No take-over is asked before, after one was refused or lost.
    pub takeover_retry_at: Millis,
    /// A session is being opened for this connection.
    pub opening: Option<ConnectionRef>,
    /// The greeting that came meanwhile from another connection.
    pub next_greeting: Option<Greeting>,
    pub session: Option<Session>,
    /// Its removal is on its way: nothing is acknowledged any more.
    pub removing: bool,
    pub desired: BTreeMap<Fence, Desired>,
    /// Capacity and health as last told to the engine.
    pub told: Option<(Resources, bool)>,
    /// An update of the cluster is being decided.
    pub telling: bool,
}

impl Cluster {
    /// Whether an operator wants what was lost with its last session taken over, storm or not.
    pub fn is_resumed(&self) -> bool {
        self.epoch > 0 && self.resumed_epoch == self.epoch
    }

    /// The next wait beyond what was taken over: of what is safe to move, of other running steps, or of an exclusive one.
    pub fn next_wait_ms(&self, takeover_after_unsafe_ms: Millis) -> Option<Millis> {
        let Some(taken_ms) = self.taken_over else { return Some(0) };
        let exclusive = self.desired.values().filter_map(|desired| match desired {
            Desired::Run { exclusive_wait_ms } | Desired::Stop { exclusive_wait_ms, .. } => {
                *exclusive_wait_ms
            }
            Desired::Recall { .. } => None,
        });
        exclusive.chain([takeover_after_unsafe_ms]).filter(|wait_ms| *wait_ms > taken_ms).min()
    }
}

/// A Hello and when it came.
#[derive(Debug)]
pub(super) struct Greeting {
    pub connection: ConnectionRef,
    pub hello: Hello,
    pub received_at: Millis,
}

/// A renewal that waits for a quorum round.
#[derive(Debug)]
pub(super) struct Renewal {
    pub sequence: u64,
    pub received_at: Millis,
    /// The first round that began after its receipt.
    pub needs_round: u64,
}

/// The pages of a resync so far.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub round: u32,
    pub pages: BTreeMap<u32, Vec<AttemptReport>>,
    /// Number of the last page, once it came.
    pub last: Option<u32>,
}

impl Listing {
    /// Whether no page is missing.
    pub fn is_complete(&self) -> bool {
        self.last.and_then(|last| usize::try_from(last).ok()).is_some_and(|last| self.pages.len() == last + 1)
    }

    pub fn held(&self) -> usize {
        self.pages.values().map(Vec::len).sum()
    }
}

/// A report in the engine, and the newest one behind it.
#[derive(Debug)]
pub(super) struct ReportSlot {
    pub revision: u64,
    pub next: Option<AttemptReport>,
}

/// The current session of a cluster.
#[derive(Debug)]
pub(super) struct Session {
    pub connection: ConnectionRef,
    pub epoch: u64,
    /// The resync is decided: assignments and stops flow.
    pub live: bool,
    /// A report came: the agent has its verdicts, so a resync can only be an old one.
    pub reported: bool,
    pub listing: Listing,
    /// The last round of resync whose decision was asked.
    pub listed_round: u32,
    pub credit: u32,
    /// Attempts that the agent is known to hold.
    pub held: BTreeSet<Fence>,
    /// Assignments without an answer, and when they were sent last.
    pub in_flight: BTreeMap<Fence, Millis>,
    /// Assignments that wait for credit.
    pub waiting: BTreeSet<Fence>,
    /// Stops sent without a terminal report, and when.
    pub stops_in_flight: BTreeMap<Fence, Millis>,
    /// Stops that wait to be sent.
    pub stops_waiting: BTreeSet<Fence>,
    /// Renewals without an acknowledgement: at most one in the present round and one for the next.
    pub renewals: Vec<Renewal>,
    pub reports: BTreeMap<Fence, ReportSlot>,
    /// Questions for a permit that are being decided.
    pub permits: BTreeSet<(Fence, String)>,
    /// Reports refused by the engine without one accepted in between.
    pub refused_in_a_row: u32,
    pub config_maps: Reports,
}

impl Session {
    pub fn new(connection: ConnectionRef, epoch: u64, credit: u32) -> Self {
        Self {
            connection,
            epoch,
            live: false,
            reported: false,
            listing: Listing::default(),
            listed_round: 0,
            credit,
            held: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            waiting: BTreeSet::new(),
            stops_in_flight: BTreeMap::new(),
            stops_waiting: BTreeSet::new(),
            renewals: Vec::new(),
            reports: BTreeMap::new(),
            permits: BTreeSet::new(),
            refused_in_a_row: 0,
            config_maps: Reports::default(),
        }
    }
}

/// What a question to the engine was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open {
        connection: ConnectionRef,
        received_at: Millis,
        credit: u32,
    },
    Resync {
        epoch: u64,
    },
    Report {
        epoch: u64,
        fence: Fence,
    },
    Permit {
        epoch: u64,
        fence: Fence,
        holder: String,
    },
    TakeOver {
        epoch: u64,
        beyond_ms: Millis,
    },
    Update,
    /// What the cluster has of the things that were asked for.
    Found,
    ConfigMaps {
        epoch: u64,
        revision: u64,
    },
}

/// Questions without an answer.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    last: u64,
    open: BTreeMap<DecisionId, (String, Kind)>,
}

impl Decisions {
    pub fn ask(&mut self, cluster: &str, kind: Kind) -> DecisionId {
        self.last += 1;
        let decision = DecisionId(self.last);
        self.open.insert(decision, (cluster.to_owned(), kind));
        decision
    }

    pub fn answered(&mut self, decision: DecisionId) -> Option<(String, Kind)> {
        self.open.remove(&decision)
    }
}
