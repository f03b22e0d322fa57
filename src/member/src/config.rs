use argosy_model::{Limits, MemberId};
use std::collections::BTreeMap;

/// A member's settings. Times are milliseconds of its steady clock unless said otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell's id: in every frame between members and every external name.
    pub cell: String,
    /// This member.
    pub member: MemberId,
    /// Settings of the consensus driver; `member` and `cell` must agree.
    pub consensus: argosy_consensus::Config,
    /// What decisions obey.
    pub limits: Limits,
    /// The cell's default artifact repository: Argo's ArtifactRepository in JSON; empty = none.
    pub artifact_repository: String,
    /// Addresses of object stores of which every cluster has one of its own.
    pub cluster_stores: Vec<String>,
    /// Clusters that object stores are in, by the store's address.
    pub store_clusters: BTreeMap<String, String>,
    /// Argo's ArtifactRepository object in JSON for what belongs into the store of a lost cluster; empty: the default one.
    pub refuge_repository: String,
    /// Laid under every workflow that is submitted.
    pub workflow_defaults: Option<std::sync::Arc<serde_json::Value>>,
    /// Times of the agent link.
    pub times: argosy_link::Times,
    /// Bounds of the agent link.
    pub link_limits: argosy_link::Limits,
    /// Raft ticks.
    pub tick_ms: u64,
    /// Commands waiting to be decided; more are turned away with "overloaded".
    pub commands_waiting_max: usize,
    /// Batches proposed and not yet applied; decisions wait when it is reached.
    pub batches_in_flight_max: usize,
    /// Commands passed on to the leader and not yet answered.
    pub forwards_max: usize,
    /// A forwarded command without an answer becomes unknown after this.
    pub forward_timeout_ms: u64,
    /// Reads waiting for a quorum.
    pub reads_max: usize,
    /// A read is asked again after this: a fresh leader drops reads silently.
    pub read_retry_ms: u64,
    /// A read without an answer is given up after this.
    pub read_timeout_ms: u64,
    /// The first log time of a term is at most so much after the last one of the log.
    pub log_time_jump_max_ms: i64,
    /// Seeds what is drawn (batch ids); data for the sake of the simulator.
    pub seed: u64,
}

impl Config {
    /// What decisions obey, with the times that the link obeys as well.
    #[must_use]
    pub fn engine_limits(&self) -> Limits {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Limits {
            takeover_after_unsafe_ms: signed(self.times.takeover_after_unsafe_ms),
            exclusive_lease_ms: signed(self.times.exclusive_lease_ms),
            lease_and_margin_ms: signed(self.times.takeover_safe_ms()),
            degraded_after_ms: signed(self.times.degraded_after_ms),
            ..self.limits.clone()
        }
    }

    /// The defaults around what has none.
    #[must_use]
    pub fn new(cell: impl Into<String>, consensus: argosy_consensus::Config, seed: u64) -> Self {
        Self {
            cell: cell.into(),
            member: consensus.member,
            tick_ms: consensus.tick_ms,
            consensus,
            limits: Limits::default(),
            artifact_repository: String::new(),
            cluster_stores: Vec::new(),
            store_clusters: BTreeMap::new(),
            refuge_repository: String::new(),
            workflow_defaults: None,
            times: argosy_link::Times::default(),
            link_limits: argosy_link::Limits::default(),
            commands_waiting_max: 10_000,
            batches_in_flight_max: 64,
            forwards_max: 10_000,
            forward_timeout_ms: 10_000,
            reads_max: 10_000,
            read_retry_ms: 300,
            read_timeout_ms: 5_000,
            log_time_jump_max_ms: 30 * 24 * 3600 * 1000,
            seed,
        }
    }
}
