/// The named maxima and times that decisions obey. Configuration sets them; the defaults are the architecture's.
/// All members of a cell should have the same values: only the leader's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one batch of facts.
    pub batch_bytes_max: usize,
    /// Units of counted work of one decide; what is left becomes a continuation.
    pub decide_work_max: u32,
    /// Bytes of a submitted manifest.
    pub manifest_bytes_max: usize,
    /// Workflows that are not over.
    pub workflows_active_max: usize,
    /// Workflows that are over and still held in state; the oldest leave first.
    pub workflows_finished_max: usize,
    /// Nodes of one workflow.
    pub nodes_per_workflow_max: u32,
    /// Depth of template calls (Argo's is 100).
    pub template_depth_max: u32,
    /// Bytes of one parameter value or result kept inline.
    pub parameter_bytes_max: usize,
    /// Attempts in flight on one cluster.
    pub attempts_per_cluster_max: usize,
    /// Take-overs of one node before it fails as a poison step.
    pub takeover_limit: u32,
    /// Beyond lease and margin, before running steps that are not safe to repeat are taken over, milliseconds.
    pub takeover_after_unsafe_ms: i64,
    /// How often a step that ended well is run again for artifacts that were lost with their cluster.
    pub reproductions_per_node_max: usize,
    /// How long an exclusive step that doesn't say may run after its last acknowledged renewal, milliseconds.
    pub exclusive_lease_ms: i64,
    /// How long an agent may believe in its lease after its session is over: lease and margin, milliseconds.
    pub lease_and_margin_ms: i64,
    /// How long a cluster whose runtime does not answer keeps attempts that have not started, milliseconds.
    pub degraded_after_ms: i64,
    /// How long an idempotency key is kept, milliseconds of log time.
    pub idempotency_ttl_ms: i64,
    /// Idempotency keys of one tenant; the oldest leave first.
    pub idempotency_keys_max: usize,
    /// Longest validity of an invite, milliseconds.
    pub invite_ttl_max_ms: u64,
    /// A cluster that has enrolled is not used before an operator approves it.
    pub approve_clusters: bool,
    /// Sessions that an earlier process of an agent takes back from a later one, within the window, before the cluster's
    /// identity counts as copied. One or two may be messages that were long on their way.
    pub identity_returns_max: u32,
    /// In milliseconds of log time.
    pub identity_returns_window_ms: i64,
    /// How long after another process took its place a question of an agent's process may have been on its way: one that
    /// comes later was asked by a process that is alive, and the cluster's identity counts as copied. Milliseconds.
    pub identity_late_max_ms: i64,
    /// Registered clusters.
    pub clusters_max: usize,
    /// ConfigMaps of the cell, those that clusters report among them.
    pub config_maps_max: usize,
    /// Bytes of one ConfigMap: names, labels, annotations and data.
    pub config_map_bytes_max: usize,
    /// Bytes of all ConfigMaps.
    pub config_maps_bytes_max: usize,
    /// ConfigMaps that one cluster reports.
    pub config_maps_per_cluster_max: usize,
    /// Bytes of those together.
    pub config_maps_bytes_per_cluster_max: usize,
    /// Limits of semaphores that the control plane keeps.
    pub sync_limits_max: usize,
    /// CronWorkflows of a cell, and as many WorkflowEventBindings.
    pub crons_max: usize,
    /// How late a start of a CronWorkflow still counts as in time, milliseconds: a change of leaders must not lose one.
    pub cron_grace_ms: i64,
    /// Backfills under way of one CronWorkflow.
    pub backfills_max: usize,
    /// Workflows of one backfill.
    pub backfill_workflows_max: u32,
    /// Finished workflows that stay live, by outcome (succeeded, failed, error), the newest of each; 0 = as many as
    /// `workflows_finished_max` allows. Argo's retention policy.
    pub retention: [usize; 3],
    /// Nodes that finished workflows hold in state, together.
    pub finished_nodes_max: u64,
    /// Workflows of the archive; the oldest leave first. 0 = there is no archive.
    pub archive_workflows_max: usize,
    /// How long the archive keeps a workflow after its end, milliseconds of log time; 0 = until there are too many.
    pub archive_ttl_ms: i64,
    /// Bytes of an archived workflow's records that are read at once.
    pub archive_read_bytes_max: usize,
    /// Output artifacts of one node; more are left out.
    pub artifacts_per_node_max: usize,
    /// Tasks in object stores that wait; beyond, no step with artifacts ends well.
    pub artifact_tasks_max: usize,
    /// Tries of one task in an object store.
    pub artifact_tries_max: u32,
    /// Between two tries, milliseconds, times their number.
    pub artifact_retry_ms: i64,
    /// After a workflow's end its attempts' own objects are deleted: later than any upload URL can be used, milliseconds.
    pub artifact_sweep_after_ms: i64,
    /// Longest loss of a drill, milliseconds.
    pub drill_duration_max_ms: i64,
    /// How long after the loss a drill waits for its cluster and its steps before its report is closed, milliseconds.
    pub drill_settle_max_ms: i64,
    /// Drills whose reports are kept; the oldest leave first.
    pub drill_reports_max: usize,
    /// Steps of one drill whose times are kept.
    pub drill_steps_max: u32,
    /// Attempts that one drill kills.
    pub drill_kills_max: usize,
    /// Schedules of drills.
    pub drill_schedules_max: usize,
    /// The objective of a drill that declares none: 99 of 100 steps run again so soon after the loss, milliseconds.
    pub drill_recover_p99_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1024 * 1024,
            decide_work_max: 2_000,
            manifest_bytes_max: 2 * 1024 * 1024,
            workflows_active_max: 10_000,
            workflows_finished_max: 2_000,
            nodes_per_workflow_max: 1_000_000,
            template_depth_max: 100,
            parameter_bytes_max: 256 * 1024,
            attempts_per_cluster_max: 20_000,
            takeover_limit: 3,
            takeover_after_unsafe_ms: 300_000,
            reproductions_per_node_max: 2,
            exclusive_lease_ms: 600_000,
            lease_and_margin_ms: 20_000,
            degraded_after_ms: 60_000,
            idempotency_ttl_ms: 24 * 3600 * 1000,
            idempotency_keys_max: 100_000,
            invite_ttl_max_ms: 24 * 3600 * 1000,
            approve_clusters: false,
            identity_returns_max: 3,
            identity_returns_window_ms: 600_000,
            identity_late_max_ms: 120_000,
            clusters_max: 1_000,
            config_maps_max: 10_000,
            config_map_bytes_max: 1024 * 1024,
            config_maps_bytes_max: 128 * 1024 * 1024,
            config_maps_per_cluster_max: 500,
            config_maps_bytes_per_cluster_max: 16 * 1024 * 1024,
            sync_limits_max: 10_000,
            crons_max: 10_000,
            cron_grace_ms: 30_000,
            backfills_max: 16,
            backfill_workflows_max: 1_000,
            retention: [0, 0, 0],
            finished_nodes_max: 500_000,
            archive_workflows_max: 20_000,
            archive_ttl_ms: 0,
            archive_read_bytes_max: 64 * 1024 * 1024,
            artifacts_per_node_max: 1_000,
            artifact_tasks_max: 100_000,
            artifact_tries_max: 10,
            artifact_retry_ms: 2_000,
            artifact_sweep_after_ms: 30 * 60 * 1000,
            drill_duration_max_ms: 3600 * 1000,
            drill_settle_max_ms: 10 * 60 * 1000,
            drill_reports_max: 100,
            drill_steps_max: 10_000,
            drill_kills_max: 1_000,
            drill_schedules_max: 100,
            drill_recover_p99_ms: 60_000,
        }
    }
}
