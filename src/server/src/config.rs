//! The configuration of a member: one YAML file. Unknown keys are refused by name.

use argosy_model::MemberId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A member's configuration. Every member of a cell has the same `cell` and `members`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfig {
    /// The cell's name, a DNS label; also the trust domain of its certificates.
    pub cell: String,
    /// This member's id, one of `members`.
    pub member: MemberId,
    /// Where the member keeps its state.
    pub data_dir: PathBuf,
    /// Where the cell's certificate authority is (`argosy pki init` makes it).
    pub pki_dir: PathBuf,
    /// What the authority's key is sealed with in `pkiDir`; without it, it lies there in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_seal: Option<SealConfig>,
    /// All members, by id.
    pub members: BTreeMap<MemberId, MemberAddresses>,
    /// This member joins a cell that runs already (`argosy member add`): on an empty data directory it waits to be let in
    /// instead of founding the cell with `members`.
    #[serde(default)]
    pub join: bool,
    /// Laid under every workflow that is submitted, as Argo's `workflowDefaults`: `metadata` and `spec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_defaults: Option<serde_json::Value>,
    /// Where this member listens.
    pub listen: Listen,
    /// The API's options.
    #[serde(default)]
    pub api: ApiConfig,
    /// Times of failover.
    #[serde(default)]
    pub failover: FailoverConfig,
    /// Certificates of members and agents.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Times of consensus.
    #[serde(default)]
    pub consensus: ConsensusConfig,
    /// How long finished workflows stay, and the archive.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// CronWorkflows.
    #[serde(default)]
    pub cron: CronConfig,
    /// Drills.
    #[serde(default)]
    pub drills: DrillConfig,
    /// Where artifacts are kept that name no repository: Argo's ArtifactRepository object (`s3: {..}`, `archiveLogs`). The
    /// Secrets that it names are read by agents, in their clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_repository: Option<serde_json::Value>,
    /// Milliseconds after a workflow's end until its attempts' own objects are deleted; longer than agents'
    /// `--artifact-url-life-ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_sweep_after_ms: Option<i64>,
    /// Artifacts that were lost with their cluster.
    #[serde(default)]
    pub reproductions: ReproductionConfig,
}

/// Steps that ended well and are run again for artifacts that were lost with their cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReproductionConfig {
    /// Addresses (`HOST:PORT`, as the endpoints of artifact repositories have them) of stores of which every cluster has one
    /// of its own: artifacts in them are where they were made.
    pub cluster_stores: Vec<String>,
    /// Addresses of stores that are inside one cluster, and its name: all clusters reach them, until that cluster is lost.
    pub store_clusters: BTreeMap<String, String>,
    /// Where files are kept meanwhile that belong into the store of a lost cluster: Argo's ArtifactRepository object; none: the
    /// cell's default repository.
    pub repository: Option<serde_json::Value>,
    /// How often one step is run again; 0: never.
    pub per_node_max: usize,
}

impl Default for ReproductionConfig {
    fn default() -> Self {
        let limits = argosy_model::Limits::default();
        Self {
            cluster_stores: Vec::new(),
            store_clusters: BTreeMap::new(),
            repository: None,
            per_node_max: limits.reproductions_per_node_max,
        }
    }
}

/// Where others reach a member: host:port each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberAddresses {
    /// For other members.
    pub peer: String,
    /// For agents.
    pub agent: String,
    /// For users.
    pub api: String,
}

/// Listening addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// REST, 2746 by custom.
    pub api: SocketAddr,
    /// Agents, 2747 by custom.
    pub agent: SocketAddr,
    /// Members, 2748 by custom.
    pub peer: SocketAddr,
    /// Metrics and health without TLS, 9090 by custom.
    pub metrics: SocketAddr,
}

/// The API's options.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Serves plain HTTP. Only for tests, or behind something that speaks TLS.
    pub insecure_plain_http: bool,
    /// Names and addresses in the API's certificate, beside localhost and the member's own.
    pub certificate_names: Vec<String>,
    /// File with the accepted bearer tokens, hashed (docs/configuration.md has its form).
    pub tokens_file: Option<PathBuf>,
}

/// Times of failover, milliseconds; the defaults are the architecture's (section 10).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FailoverConfig {
    /// How long a lease holds, counted by the agent from its send.
    pub lease_ms: u64,
    /// What the leader waits beyond the lease.
    pub margin_ms: u64,
    /// Beyond both, before running steps that are not safe to repeat are taken over.
    pub takeover_after_unsafe_ms: u64,
    /// How long an exclusive step that doesn't say may run after its last acknowledged renewal.
    pub exclusive_lease_ms: u64,
    /// How long a cluster whose runtime does not answer keeps attempts that have not started.
    pub degraded_after_ms: u64,
    /// How long the storm brake holds take-overs; 0: until an operator resumes them.
    pub storm_hold_max_ms: u64,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        let times = argosy_link::Times::default();
        Self {
            lease_ms: times.lease_ms,
            margin_ms: times.margin_ms,
            takeover_after_unsafe_ms: times.takeover_after_unsafe_ms,
            exclusive_lease_ms: times.exclusive_lease_ms,
            degraded_after_ms: times.degraded_after_ms,
            storm_hold_max_ms: times.storm_hold_max_ms.unwrap_or(0),
        }
    }
}

impl FailoverConfig {
    /// The link's times: what depends on the lease keeps its proportion to it.
    #[must_use]
    pub fn times(&self) -> argosy_link::Times {
        argosy_link::Times {
            margin_ms: self.margin_ms,
            takeover_after_unsafe_ms: self.takeover_after_unsafe_ms,
            exclusive_lease_ms: self.exclusive_lease_ms,
            degraded_after_ms: self.degraded_after_ms,
            storm_hold_max_ms: (self.storm_hold_max_ms > 0).then_some(self.storm_hold_max_ms),
            ..argosy_link::Times::with_lease(self.lease_ms)
        }
    }
}

/// Where the key comes from that seals the authority's key: exactly one of these. It is a secret of at least 16 bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SealConfig {
    /// A file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// A command that prints it, with its arguments: what asks a key service. Run once, at the member's start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Certificates of members and agents; times in milliseconds. All members should have the same values.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// How long certificates of members and agents hold; they are renewed at half of it.
    pub certificate_life_ms: i64,
    /// How long after its end an agent's certificate may still ask for the next one, and for nothing else.
    pub renewal_grace_ms: u64,
    /// A cluster that has enrolled is not used before an operator approves it (`argosy cluster approve`).
    pub approve_clusters: bool,
    /// Beyond, the difference between the clocks of an agent and of the leader is alarmed.
    pub clock_offset_max_ms: u64,
    /// Sessions that an earlier process of an agent takes back from a later one within ten minutes, before the identity is
    /// locked since both must be alive.
    pub session_returns_max: u32,
    /// How long after another process of an agent took its place a question for a certificate may have been on its way, in
    /// milliseconds; later ones lock the identity.
    pub late_max_ms: i64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let limits = argosy_model::Limits::default();
        Self {
            certificate_life_ms: 3_600_000,
            renewal_grace_ms: 7 * 24 * 3_600_000,
            approve_clusters: limits.approve_clusters,
            clock_offset_max_ms: 2_000,
            session_returns_max: limits.identity_returns_max,
            late_max_ms: limits.identity_late_max_ms,
        }
    }
}

impl IdentityConfig {
    /// How long certificates hold.
    #[must_use]
    pub fn lifetimes(&self) -> argosy_pki::Lifetimes {
        argosy_pki::Lifetimes::with_leaf(self.certificate_life_ms)
    }
}

/// Times of consensus, milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConsensusConfig {
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// Without a heartbeat for this long, members elect another leader.
    pub election_timeout_ms: u64,
    /// Entries kept in the log for slow followers; one further behind gets a snapshot.
    pub log_entries_kept: u64,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self { heartbeat_ms: 50, election_timeout_ms: 400, log_entries_kept: 10_000 }
    }
}

/// How long finished workflows stay live, and what the archive keeps of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Finished workflows that stay live, whatever their outcome; the oldest leave first.
    pub finished_max: usize,
    /// Nodes that they may hold together.
    pub finished_nodes_max: u64,
    /// Of these, ones that succeeded; 0 = no bound of their own. Argo's `retentionPolicy.completed`.
    pub succeeded_max: usize,
    /// Ones that failed. Argo's `retentionPolicy.failed`.
    pub failed_max: usize,
    /// Ones that ended in an error. Argo's `retentionPolicy.errored`.
    pub errored_max: usize,
    /// Workflows of the archive; the oldest leave first. 0 = no archive.
    pub archive_max: usize,
    /// How long the archive keeps a workflow after its end, seconds; 0 = until there are too many.
    pub archive_ttl_seconds: i64,
    /// Bytes of an archived workflow that are read at once: a larger one is listed, not shown.
    pub archive_read_bytes_max: usize,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        let limits = argosy_model::Limits::default();
        let [succeeded_max, failed_max, errored_max] = limits.retention;
        Self {
            finished_max: limits.workflows_finished_max,
            finished_nodes_max: limits.finished_nodes_max,
            succeeded_max,
            failed_max,
            errored_max,
            archive_max: limits.archive_workflows_max,
            archive_ttl_seconds: limits.archive_ttl_ms / 1000,
            archive_read_bytes_max: limits.archive_read_bytes_max,
        }
    }
}

/// CronWorkflows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CronConfig {
    /// CronWorkflows of the cell, and as many WorkflowEventBindings.
    pub workflows_max: usize,
    /// How late a start still counts as in time, milliseconds.
    pub grace_ms: i64,
    /// Backfills under way of one CronWorkflow.
    pub backfills_max: usize,
    /// Workflows of one backfill.
    pub backfill_workflows_max: u32,
}

impl Default for CronConfig {
    fn default() -> Self {
        let limits = argosy_model::Limits::default();
        Self {
            workflows_max: limits.crons_max,
            grace_ms: limits.cron_grace_ms,
            backfills_max: limits.backfills_max,
            backfill_workflows_max: limits.backfill_workflows_max,
        }
    }
}

/// Drills: clusters lost on purpose.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DrillConfig {
    /// Longest loss, seconds.
    pub duration_max_seconds: i64,
    /// How long after the loss a drill waits for its cluster and its steps, seconds.
    pub settle_max_seconds: i64,
    /// Reports that are kept; the oldest leave first.
    pub reports_max: usize,
    /// Steps of one drill whose times are kept.
    pub steps_max: u32,
    /// Attempts that one drill kills.
    pub kills_max: usize,
    /// Schedules of drills.
    pub schedules_max: usize,
    /// The objective of drills that declare none, milliseconds: 99 of 100 steps run again so soon.
    pub recover_p99_ms: i64,
}

impl Default for DrillConfig {
    fn default() -> Self {
        let limits = argosy_model::Limits::default();
        Self {
            duration_max_seconds: limits.drill_duration_max_ms / 1000,
            settle_max_seconds: limits.drill_settle_max_ms / 1000,
            reports_max: limits.drill_reports_max,
            steps_max: limits.drill_steps_max,
            kills_max: limits.drill_kills_max,
            schedules_max: limits.drill_schedules_max,
            recover_p99_ms: limits.drill_recover_p99_ms,
        }
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("configuration {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and cause.
        reason: String,
    },
    /// A value makes no sense.
    #[error("configuration: {0}")]
    Invalid(String),
}

impl ServerConfig {
    /// The engine's maxima as the file sets them.
    pub fn put_limits(&self, limits: &mut argosy_model::Limits) {
        let RetentionConfig {
            finished_max,
            finished_nodes_max,
            succeeded_max,
            failed_max,
            errored_max,
            archive_max,
            archive_ttl_seconds,
            archive_read_bytes_max,
        } = self.retention;
        limits.workflows_finished_max = finished_max;
        limits.finished_nodes_max = finished_nodes_max;
        limits.retention = [succeeded_max, failed_max, errored_max];
        limits.archive_workflows_max = archive_max;
        limits.archive_ttl_ms = archive_ttl_seconds.saturating_mul(1000);
        limits.archive_read_bytes_max = archive_read_bytes_max;
        let CronConfig { workflows_max, grace_ms, backfills_max, backfill_workflows_max } = self.cron;
        limits.crons_max = workflows_max;
        limits.cron_grace_ms = grace_ms;
        limits.backfills_max = backfills_max;
        limits.backfill_workflows_max = backfill_workflows_max;
        limits.approve_clusters = self.identity.approve_clusters;
        limits.identity_returns_max = self.identity.session_returns_max;
        limits.identity_late_max_ms = self.identity.late_max_ms;
        let drills = &self.drills;
        limits.drill_duration_max_ms = drills.duration_max_seconds.saturating_mul(1000);
        limits.drill_settle_max_ms = drills.settle_max_seconds.saturating_mul(1000);
        limits.drill_reports_max = drills.reports_max;
        limits.drill_steps_max = drills.steps_max;
        limits.drill_kills_max = drills.kills_max;
        limits.drill_schedules_max = drills.schedules_max;
        limits.drill_recover_p99_ms = drills.recover_p99_ms;
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the place in it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = serde_yaml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types don't.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key and what it should be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |message: String| Err(ConfigError::Invalid(message));
        if argosy_model::ClusterName::new(self.cell.clone()).is_err() {
            return invalid(format!("cell {:?} must be a DNS label", self.cell));
        }
        if !self.members.contains_key(&self.member) {
            return invalid(format!("member {} is not among members", self.member));
        }
        if let Some(Err(problem)) = self.workflow_defaults.as_ref().map(argosy_engine::check_defaults) {
            return invalid(format!("workflowDefaults: {problem}"));
        }
        if self.members.keys().any(|member| *member == 0) {
            return invalid("member ids start at 1".to_owned());
        }
        if self.join && self.members.len() < 2 {
            return invalid("a member that joins needs the addresses of the others in members".to_owned());
        }
        // One that joins is there beside those that stay: the cell's size is decided by who is removed.
        if !self.join && self.members.len() > 1 && self.members.len().is_multiple_of(2) {
            return invalid(format!(
                "{} members tolerate no more losses than one fewer: use 1, 3 or 5",
                self.members.len()
            ));
        }
        if self.consensus.heartbeat_ms == 0
            || self.consensus.election_timeout_ms < 5 * self.consensus.heartbeat_ms
        {
            return invalid("consensus.electionTimeoutMs must be at least five heartbeats".to_owned());
        }
        if self.cron.grace_ms < 0 || self.retention.archive_ttl_seconds < 0 {
            return invalid("cron.graceMs and retention.archiveTtlSeconds must not be negative".to_owned());
        }
        const LIFE_MS: std::ops::RangeInclusive<i64> = 10_000..=30 * 24 * 3_600_000;
        if !LIFE_MS.contains(&self.identity.certificate_life_ms) {
            return invalid(
                "identity.certificateLifeMs must be from 10000 (10 s) to 2592000000 (30 d)".to_owned(),
            );
        }
        if self.identity.session_returns_max == 0 {
            return invalid("identity.sessionReturnsMax must be at least 1".to_owned());
        }
        if self.identity.late_max_ms < 0 {
            return invalid("identity.lateMaxMs must not be negative".to_owned());
        }
        let drills = &self.drills;
        if drills.duration_max_seconds < 1 || drills.settle_max_seconds < 1 || drills.recover_p99_ms < 1 {
            return invalid("drills.durationMaxSeconds, drills.settleMaxSeconds and drills.recoverP99Ms must be at least 1".to_owned());
        }
        if self.failover.lease_ms < 1_000 {
            return invalid("failover.leaseMs must be at least 1000".to_owned());
        }
        if self.failover.exclusive_lease_ms < 5_000 {
            return invalid("failover.exclusiveLeaseMs must be at least 5000".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cell: demo
member: 1
dataDir: data
pkiDir: pki
members:
  1: {peer: 'a:1', agent: 'a:2', api: 'a:3'}
listen: {api: '127.0.0.1:1', agent: '127.0.0.1:2', peer: '127.0.0.1:3', metrics: '127.0.0.1:4'}
";

    fn read(text: &str) -> Result<ServerConfig, String> {
        let config: ServerConfig = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.failover.times().lease_ms, 15_000);
        assert_eq!(config.failover.times().margin_ms, 5_000);
        let mut limits = argosy_model::Limits::default();
        config.put_limits(&mut limits);
        assert_eq!(limits, argosy_model::Limits::default());
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        for (text, needle) in [
            (GOOD.replace("cell: demo", "cell: Demo"), "DNS label"),
            (GOOD.replace("member: 1", "member: 2"), "not among members"),
            (format!("{GOOD}colour: red\n"), "colour"),
            (
                format!("{GOOD}workflowDefaults: {{spec: {{activeDeadlineSeconds: soon}}}}\n"),
                "workflowDefaults",
            ),
            (format!("{GOOD}failover: {{leaseMs: 5}}\n"), "leaseMs"),
            (format!("{GOOD}cron: {{graceMs: -1}}\n"), "graceMs"),
            (format!("{GOOD}identity: {{certificateLifeMs: 5}}\n"), "certificateLifeMs"),
            (format!("{GOOD}drills: {{settleMaxSeconds: 0}}\n"), "settleMaxSeconds"),
            (format!("{GOOD}retention: {{archive: 1}}\n"), "archive"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(needle), "{error}");
        }
    }
}
