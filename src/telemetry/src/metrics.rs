use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::Arc;

/// What `docs/metrics.md` says of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Full name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Meaning, unit included.
    pub help: &'static str,
}

/// From an applied batch of one entry to a disk that stalls.
const LATENCY_BUCKETS_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BATCH_BUCKETS_BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];
const BATCH_BUCKETS_COUNT: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

macro_rules! kind {
    (IntGauge) => {
        "gauge"
    };
    (IntGaugeVec) => {
        "gauge"
    };
    (GaugeVec) => {
        "gauge"
    };
    (IntCounter) => {
        "counter"
    };
    (IntCounterVec) => {
        "counter"
    };
    (Histogram) => {
        "histogram"
    };
    (HistogramVec) => {
        "histogram"
    };
}

macro_rules! make {
    (IntGauge, $name:expr, $help:expr, $labels:expr) => {
        IntGauge::new($name, $help)
    };
    (IntGaugeVec, $name:expr, $help:expr, $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels)
    };
    (GaugeVec, $name:expr, $help:expr, $labels:expr) => {
        GaugeVec::new(Opts::new($name, $help), $labels)
    };
    (IntCounter, $name:expr, $help:expr, $labels:expr) => {
        IntCounter::new($name, $help)
    };
    (IntCounterVec, $name:expr, $help:expr, $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $help), $labels)
    };
    (Histogram, $name:expr, $help:expr, $labels:expr, $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec()))
    };
    (HistogramVec, $name:expr, $help:expr, $labels:expr, $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), $labels)
    };
}

macro_rules! metrics {
    ($($field:ident: $kind:ident = $name:literal, [$($label:literal),*], $help:literal $(, $buckets:ident)?;)+) => {
        /// Every metric of a process, cheap to clone: clones count into the same place.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Arc<Registry>,
            /// Metrics that workflows ask for.
            pub custom: crate::custom::Custom,
            $(#[doc = $help] pub $field: $kind,)+
        }

        impl Metrics {
            /// All metrics, in the order of the page.
            pub const DESCRIPTIONS: &'static [Description] = &[$(Description {
                name: $name, kind: kind!($kind), labels: &[$($label),*], help: $help,
            }),+];

            /// A fresh set with a registry of its own, so that several members can live in one process.
            #[must_use]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = make!($kind, $name, $help, &[$($label),*] $(, $buckets)?)
                    .expect("names, labels and buckets of the table are valid: a test makes them all");
                registry.register(Box::new($field.clone())).expect("names of the table are unique: a test makes them all");)+
                Self { registry: Arc::new(registry), custom: crate::custom::Custom::default(), $($field),+ }
            }
        }
    };
}

metrics! {
    leader: IntGauge = "argosy_leader", [], "1 while this member leads its cell, else 0.";
    term: IntGauge = "argosy_raft_term", [], "Raft term of this member.";
    leader_changes: IntCounter = "argosy_leader_changes_total", [], "Changes of leader that this member has seen.";
    commit_index: IntGauge = "argosy_commit_index", [], "Log index up to which entries are committed.";
    applied_index: IntGauge = "argosy_applied_index", [], "Log index up to which entries are applied.";
    commit_latency_seconds: Histogram = "argosy_commit_latency_seconds", [], "Seconds from proposing a batch to its commit, on the leader.", LATENCY_BUCKETS_SECONDS;
    fsync_seconds: Histogram = "argosy_fsync_seconds", [], "Seconds of one synced write to the store.", LATENCY_BUCKETS_SECONDS;
    proposals: IntCounterVec = "argosy_proposals_total", ["outcome"], "Batches by what became of them: proposed; of these void, lost.";
    batch_bytes: Histogram = "argosy_batch_bytes", [], "Bytes of a proposed batch.", BATCH_BUCKETS_BYTES;
    batch_commands: Histogram = "argosy_batch_commands", [], "Commands decided in a proposed batch.", BATCH_BUCKETS_COUNT;
    commands: IntCounterVec = "argosy_commands_total", ["command", "outcome"], "Commands on the leader by outcome: decided; of these refused; overloaded. The label command is `all`.";
    decide_work: IntCounter = "argosy_decide_work_total", [], "Counted units of work done by deciding.";
    snapshots: IntCounterVec = "argosy_snapshots_total", ["direction"], "Snapshots sent or installed.";
    peer_frames: IntCounterVec = "argosy_peer_frames_total", ["direction"], "Frames sent to and received from other members.";
    peer_frames_dropped: IntCounterVec = "argosy_peer_frames_dropped_total", ["reason"], "Frames from or to other members that were dropped: no_identity, not_member, wrong_cell, wrong_address, version, malformed, queue_full, unreachable, and the reasons of consensus.";
    tls_refused: IntCounterVec = "argosy_tls_refused_total", ["listener", "reason"], "Connections refused by listener (api, agent, peer) and reason: no_certificate, foreign, expired, revoked, wrong_role, handshake, timeout.";
    sessions: IntGauge = "argosy_agent_sessions", [], "Agents connected to this member.";
    lease_remaining_seconds: IntGaugeVec = "argosy_lease_remaining_seconds", ["cluster"], "Seconds until the cluster counts as lost, on the leader; negative once it does.";
    clusters: IntGaugeVec = "argosy_clusters", ["state"], "Registered clusters by state: connected, cordoned, draining, silent, lost, degraded, reconciling, invited, unapproved, revoked, locked.";
    identities: IntGaugeVec = "argosy_identities", ["standing"], "Identities of clusters' agents by standing: active, unapproved, revoked, locked. Any that is locked is an alarm: two processes have used its key.";
    certificates: IntCounterVec = "argosy_certificates_total", ["kind", "outcome"], "Certificates asked for by agents at this member, by kind (enrolment, renewal) and outcome (issued, refused).";
    clock_offset_ms: IntGaugeVec = "argosy_agent_clock_offset_milliseconds", ["cluster"], "How far the clock of the cluster's agent is ahead of the leader's, as the leader measures it.";
    clock_alarms: IntGauge = "argosy_agent_clock_alarms", [], "Clusters whose agents' clocks differ from the leader's by more than `identity.clockOffsetMaxMs`, on the leader.";
    storm_held: IntGauge = "argosy_storm_held", [], "1 while take-overs are held because most of the fleet went silent at once, else 0.";
    takeovers_waiting: IntGaugeVec = "argosy_takeovers_waiting", ["reason"], "Silent clusters whose next take-over waits, on the leader, by reason: storm_brake, pacing.";
    drill_under_way: IntGaugeVec = "argosy_drill_under_way", ["cluster", "mode"], "1 while a drill of the cluster is under way: its loss, or what follows.";
    drills: IntGaugeVec = "argosy_drills", ["verdict"], "Reports of drills that are kept, by verdict: passed, failed, aborted.";
    drill_last_end: IntGaugeVec = "argosy_drill_last_end_timestamp_seconds", ["cluster", "mode"], "When the newest drill of the cluster and mode ended, seconds since 1970.";
    drill_last_passed: IntGaugeVec = "argosy_drill_last_passed", ["cluster", "mode"], "1 if the newest drill of the cluster and mode passed, else 0.";
    drill_last_seconds: GaugeVec = "argosy_drill_last_seconds", ["cluster", "mode", "time"], "Times of the newest drill: detected, recover_p50, recover_p99, recover_max, objective_p99.";
    drill_last_steps: IntGaugeVec = "argosy_drill_last_steps", ["cluster", "mode", "what"], "Counts of the newest drill: touched, fenced, broken, moved, recovered, failed, superseded, committed_twice, lost.";
    attempts: IntGaugeVec = "argosy_attempts", ["cluster", "phase"], "Current attempts by cluster and phase.";
    attempts_assigned: IntCounterVec = "argosy_attempts_assigned_total", ["cluster"], "Attempts assigned to a cluster.";
    reports: IntCounterVec = "argosy_reports_total", ["verdict"], "Reports of attempts by verdict: accepted, superseded, unknown.";
    reports_refused: IntCounterVec = "argosy_reports_refused_total", ["reason"], "Reports that had no effect, by reason: stale_fence, unknown_attempt, stale_epoch, wrong_cluster, old_revision, malformed.";
    takeovers: IntCounterVec = "argosy_takeovers_total", ["cluster"], "Attempts fenced because their cluster was lost, counted by the leader.";
    attempts_returned: IntCounterVec = "argosy_attempts_returned_total", ["cluster"], "Attempts that were taken over and count again, since their cluster came back with them (argosy.dev/on-reconnect), counted by the leader.";
    reproductions: IntCounterVec = "argosy_reproductions_total", ["reason"], "Steps that had ended well and run again for what was lost with their cluster, by reason (artifact), counted by the leader.";
    steps_lost: IntCounterVec = "argosy_steps_lost_total", ["reason"], "Steps that ended since a cluster was lost, by reason: volume (with volumes or daemons of their colocation group), artifact (which they read, and which was not made again), failover_fail, failover_wait, takeover_limit; counted by the leader.";
    agent_frames_refused: IntCounterVec = "argosy_agent_frames_refused_total", ["reason"], "Frames of agents that were refused, by reason: no_identity, not_an_agent, expired, invite, session_refused, stale_epoch, unexpected, no_leader, drill.";
    invites: IntCounterVec = "argosy_invites_total", ["outcome"], "Invites at this member by outcome: created, redeemed, refused_unknown, refused_used, refused_expired, refused_cluster, refused, failed.";
    queue_depth: IntGaugeVec = "argosy_queue_depth", ["queue"], "Items waiting in a queue: mailbox, commands, batches in flight.";
    limits_hit: IntCounterVec = "argosy_limits_hit_total", ["limit"], "Times that a named limit was reached.";
    workflows: IntGaugeVec = "argosy_workflows", ["phase"], "Workflows held in state by phase.";
    locks: IntGaugeVec = "argosy_locks", ["kind", "state"], "Requests for locks by kind (mutex, semaphore) and state: held, pending.";
    archived: IntGauge = "argosy_archived_workflows", [], "Workflows in the archive.";
    cron_workflows: IntGauge = "argosy_cron_workflows", [], "CronWorkflows of the cell.";
    cron_starts: IntCounterVec = "argosy_cron_starts_total", ["namespace", "cron_workflow"], "Workflows that a CronWorkflow started, counted by the leader.";
    cron_policies: IntCounterVec = "argosy_cron_policies_total", ["namespace", "cron_workflow", "policy"], "Times that the concurrency policy of a CronWorkflow (Forbid, Replace) took effect, counted by the leader.";
    workflows_accepted: IntCounter = "argosy_workflows_accepted_total", [], "Workflows accepted.";
    workflows_finished: IntCounterVec = "argosy_workflows_finished_total", ["phase"], "Workflows that ended, by phase.";
    http_requests: IntCounterVec = "argosy_http_requests_total", ["route", "method", "code"], "Answered HTTP requests by route, method and status code.";
    http_seconds: HistogramVec = "argosy_http_request_seconds", ["route", "method"], "Seconds from an HTTP request's head to the head of its answer.", LATENCY_BUCKETS_SECONDS;
    http_refused: IntCounterVec = "argosy_http_refused_total", ["reason"], "HTTP requests refused before they reached a route: no_token, bad_token, forbidden, too_large, too_many_streams.";
    http_streams: IntGaugeVec = "argosy_http_streams", ["kind"], "Open streams of the API: watch, logs.";
}

impl Metrics {
    /// The Prometheus text format of everything recorded.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for metrics without a name or value; the table has none.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        let text = String::from_utf8(text).unwrap_or_default();
        text + &self.custom.render()
    }

    /// Counts that a named limit was reached.
    pub fn limit_hit(&self, limit: &str) {
        self.limits_hit.with_label_values(&[limit]).inc();
    }

    /// The table of `docs/metrics.md`.
    #[must_use]
    pub fn table() -> String {
        use std::fmt::Write;
        let mut table = String::from("| name | kind | labels | meaning |\n|---|---|---|---|\n");
        for metric in Self::DESCRIPTIONS {
            let labels = metric.labels.join(", ");
            let Description { name, kind, help, .. } = metric;
            writeln!(table, "| `{name}` | {kind} | {labels} | {help} |")
                .expect("writing to a String can't fail");
        }
        table
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

    #[test]
    fn names_have_the_prefix_and_base_units() {
        for metric in Metrics::DESCRIPTIONS {
            assert!(metric.name.starts_with("argosy_"), "{}", metric.name);
            assert_eq!(metric.kind == "counter", metric.name.ends_with("_total"), "{}", metric.name);
            assert!(!metric.name.contains("_ms"), "{}: seconds and bytes are the base units", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn clones_count_into_one_place_and_two_sets_do_not() {
        let (first, second) = (Metrics::new(), Metrics::new());
        let part = first.clone();
        part.takeovers.with_label_values(&["eu"]).inc();
        drop(part);
        assert!(first.render().contains("argosy_takeovers_total{cluster=\"eu\"} 1"));
        assert!(!second.render().contains("cluster=\"eu\""));
    }

    /// Run with `ARGOSY_WRITE_DOCS=1` to bring the page up to date.
    #[test]
    fn the_page_holds_the_table() {
        let page = std::fs::read_to_string(PAGE).unwrap_or_default();
        if page.contains(&Metrics::table()) {
            return;
        }
        assert!(
            std::env::var_os("ARGOSY_WRITE_DOCS").is_some(),
            "docs/metrics.md is not the table of metrics.rs"
        );
        let head = page.split("| name |").next().unwrap_or_default();
        std::fs::write(PAGE, format!("{head}{}", Metrics::table())).unwrap();
    }
}
