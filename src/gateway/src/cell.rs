use argosy_engine::{TakeOverWait, WaitingAttempt, WaitingNode};
use argosy_model::{Fence, MemberId, Resources, WorkflowId, WorkflowKey};
use argosy_proto::command::{Command, Refusal, Reply};
use axum::body::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::future::Future;

/// The gateway's view of the member it runs in. The server implements it; every method may be called from many tasks at
/// once and must not block a thread.
pub trait Cell: Clone + Send + Sync + 'static {
    /// What reads give: the engine's `State`, whose clone is cheap.
    type View: View;

    /// Asks for a change and waits until it is committed. Any member answers: one that does not lead passes it on.
    ///
    /// # Errors
    /// [`CommandError`]; only [`CommandError::Unknown`] leaves open whether it happened.
    fn command(&self, command: Command) -> impl Future<Output = Result<Reply, CommandError>> + Send;

    /// A view to read from.
    ///
    /// # Errors
    /// [`ReadError`]; a stale read fails only before the member has state at all.
    fn read(&self, consistency: Consistency) -> impl Future<Output = Result<Self::View, ReadError>> + Send;

    /// A view that holds one archived workflow, of the number that a view just read told.
    ///
    /// # Errors
    /// [`ArchiveError`].
    fn archived(&self, workflow: u64) -> impl Future<Output = Result<Self::View, ArchiveError>> + Send;

    /// Applied batches from now on, in order, each once. A subscriber that falls behind the server's bound gets
    /// [`Behind`] as its last item.
    fn changes(&self) -> BoxStream<'static, Result<Change<Self::View>, Behind>>;

    /// The output of one attempt's container, as raw bytes in the order written.
    ///
    /// # Errors
    /// [`LogError`] when it cannot begin; one that comes later is the stream's last item.
    fn logs(
        &self,
        query: LogQuery,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes, LogError>>, LogError>> + Send;

    /// Has the agent of a cluster do something in an object store (`argosy_artifacts::Operation` in JSON); what comes of it.
    /// Whoever does not take it fast enough is cut off, as with logs: ask for little at a time.
    ///
    /// # Errors
    /// [`LogError`] when it cannot begin; one that comes later is the stream's last item.
    fn operate(
        &self,
        cluster: &str,
        operation: String,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes, LogError>>, LogError>> + Send {
        drop(operation);
        let cluster = cluster.to_owned();
        async { Err(LogError::Disconnected(cluster)) }
    }

    /// Makes a single-use invite for a cluster; the token is told once and not stored.
    ///
    /// # Errors
    /// [`CommandError`], as for [`Cell::command`].
    fn invite(&self, request: InviteRequest) -> impl Future<Output = Result<Invite, CommandError>> + Send;

    /// Everything that is replicated, as one consistent stream of bytes.
    ///
    /// # Errors
    /// [`CommandError`] when it cannot begin; one that comes later is the stream's last item.
    fn backup(
        &self,
    ) -> impl Future<Output = Result<BoxStream<'static, std::io::Result<Bytes>>, CommandError>> + Send;

    /// Begins a roll of the certificate authority: this member makes the next one.
    ///
    /// # Errors
    /// [`CommandError`], as for [`Cell::command`].
    fn begin_roll(&self, actor: String) -> impl Future<Output = Result<(), CommandError>> + Send;

    /// The certificate authorities that clients have to trust, as PEM.
    fn trust_roots_pem(&self) -> String;

    /// What the member knows at this moment; never waits.
    fn status(&self) -> CellStatus;
}

/// Reads of replicated state, all from one moment. Implemented for the engine's `State`.
pub trait View: Clone + Send + Sync + 'static {
    /// Batches evolved so far.
    fn sequence(&self) -> u64;
    /// The present workflow of that name.
    fn workflow_id(&self, key: &WorkflowKey) -> Option<WorkflowId>;
    /// The keys of all workflows (of one namespace), in the order of acceptance.
    fn workflow_keys(&self, namespace: Option<&str>) -> Vec<WorkflowKey>;
    /// What lists sort and select by.
    fn summary(&self, key: &WorkflowKey) -> Option<Summary>;
    /// The workflow as Argo's JSON.
    fn workflow_json(&self, key: &WorkflowKey) -> Option<serde_json::Value>;
    /// The attempts of a workflow whose output can be asked for, in the order of their assignment.
    fn log_sources(&self, key: &WorkflowKey) -> Vec<LogSource>;
    /// Where an artifact of a node (by Argo's node id) is.
    fn artifact(
        &self,
        key: &WorkflowKey,
        node_id: &str,
        name: &str,
        is_input: bool,
    ) -> Option<ArtifactPlace> {
        let _ = (key, node_id, name, is_input);
        None
    }
    /// Checks what a manifest's references to stored templates come to.
    ///
    /// # Errors
    /// What a submission would be refused with.
    fn check_references(&self, namespace: &str, manifest: &serde_json::Value) -> Result<(), Refusal>;
    /// Checks a manifest against the clusters that have joined: what there is to warn of.
    ///
    /// # Errors
    /// What a submission would be refused with.
    fn check_clusters(&self, namespace: &str, manifest: &serde_json::Value) -> Result<Vec<String>, Refusal> {
        let _ = (namespace, manifest);
        Ok(Vec::new())
    }
    /// A stored template as Argo's JSON; those of the cell's own scope have no namespace.
    fn template(&self, cluster_scope: bool, namespace: &str, name: &str) -> Option<serde_json::Value>;
    /// The stored templates of a namespace (empty: of all), or of the cell's own scope, by name.
    fn templates(&self, cluster_scope: bool, namespace: &str) -> Vec<serde_json::Value>;
    /// The limit of a semaphore that the control plane keeps.
    fn sync_limit(&self, namespace: &str, key: &str) -> Option<u32>;
    /// The ConfigMap that workflows of a namespace read under a name, as Kubernetes' JSON.
    fn config_map(&self, namespace: &str, name: &str) -> Option<serde_json::Value>;
    /// The ConfigMaps that workflows of a namespace (empty: of all) read, by name.
    fn config_maps(&self, namespace: &str) -> Vec<serde_json::Value>;
    /// The archived workflow of that uid.
    fn archived(&self, uid: &str) -> Option<Archived>;
    /// The archived workflow of that name that was made last.
    fn archived_named(&self, key: &WorkflowKey) -> Option<Archived>;
    /// The archived workflows (of one namespace), those that ended last first.
    fn archived_all(&self, namespace: Option<&str>) -> Vec<Archived>;
    /// What lists sort and select by; labels only if they are asked for.
    fn archived_summary(&self, archived: &Archived, labels: bool) -> Option<Summary>;
    /// The archived workflow without nodes and templates.
    fn archived_json(&self, archived: &Archived) -> Option<serde_json::Value>;
    /// A CronWorkflow as Argo's JSON.
    fn cron(&self, namespace: &str, name: &str) -> Option<serde_json::Value>;
    /// The CronWorkflows of a namespace (empty: of all), by name.
    fn crons(&self, namespace: &str) -> Vec<serde_json::Value>;
    /// The WorkflowEventBindings of a namespace (empty: of all), by name.
    fn event_bindings(&self, namespace: &str) -> Vec<serde_json::Value>;
    /// A drill by number.
    fn drill(&self, id: u64) -> Option<serde_json::Value>;
    /// All drills, newest first.
    fn drills(&self) -> Vec<serde_json::Value>;
    /// What a drill would touch.
    ///
    /// # Errors
    /// Why it could not even be planned.
    fn drill_plan(
        &self,
        cluster: &str,
        mode: argosy_proto::state::DrillMode,
        scope: &str,
        limits: &argosy_model::Limits,
    ) -> Result<serde_json::Value, Refusal>;
    /// Schedules of drills, by name.
    fn drill_schedules(&self) -> Vec<serde_json::Value>;
    /// What an attempt waits for before it is taken over, once its cluster is silent; `None`: its result no longer counts.
    fn take_over_wait(&self, fence: &Fence, limits: &argosy_model::Limits) -> Option<TakeOverWait>;
    /// Attempts of a cluster that are not taken over; at most so many are looked at.
    fn waiting_on(&self, cluster: &str, limits: &argosy_model::Limits, max: usize) -> Vec<WaitingAttempt>;
    /// Nodes that were taken over and wait for a place; at most so many of the queue are looked at.
    fn taken_over_waiting(&self, max: usize) -> Vec<WaitingNode>;
    /// All clusters, by name: the registered ones, and those invited that have not enrolled yet.
    fn clusters(&self) -> Vec<ClusterRecord>;

    /// The cell's certificate authorities, once one was to be replaced.
    fn authorities(&self) -> Option<argosy_proto::state::Authorities>;

    /// Who keeps the roll of the certificate authority from its next step, and why.
    fn authority_behind(&self) -> Vec<(String, String)>;
}

/// An archived workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub key: WorkflowKey,
    /// Its uid.
    pub uid: String,
    /// It is on its way: its records are not complete.
    pub on_its_way: bool,
}

/// Why an archived workflow can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It is no longer there.
    #[error("the archived workflow is gone")]
    Gone,
    /// Its records have more bytes than are read at once.
    #[error("the archived workflow is larger than archive_read_bytes_max: it can be resubmitted, not shown")]
    TooLarge,
    /// Its records are of no use to this version.
    #[error("{0}")]
    Unreadable(String),
}

/// The parts of a workflow that lists sort and select by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Labels, those that the control plane sets included.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Argo's phase; empty while nobody has looked at the workflow.
    pub phase: String,
    /// Log time, milliseconds since 1970.
    pub created_at_ms: i64,
    /// Log time, milliseconds since 1970.
    pub finished_at_ms: Option<i64>,
    /// Drawn at submission.
    pub uid: String,
}

/// Where the output of one attempt is.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSource {
    /// Argo's pod name of the node.
    pub pod_name: String,
    /// Argo's node id.
    pub node_id: String,
    /// Labels of its Pod, as far as they are known without its arguments.
    pub labels: BTreeMap<String, String>,
    /// The attempt.
    pub fence: Fence,
    /// The cluster that runs or ran it.
    pub cluster: String,
    /// The attempt may still write.
    pub live: bool,
    /// Another attempt took its place.
    pub superseded: bool,
    /// When the node ended, in milliseconds since 1970.
    pub finished_at_ms: Option<i64>,
}

/// Where an artifact is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArtifactPlace {
    /// Whose Secrets the location names.
    pub namespace: String,
    /// Argo's ArtifactLocation, whole.
    pub location: serde_json::Map<String, serde_json::Value>,
    /// Keys in the order in which they are tried.
    pub keys: Vec<String>,
    /// Where it was made.
    pub cluster: String,
    /// Its contents, where the manifest has them.
    pub raw: Option<String>,
}

/// A registered cluster as state has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterRecord {
    /// Its name.
    pub name: String,
    /// `kubernetes`, `process`, `simulated`, or empty before the first session.
    pub runtime: String,
    /// Of the agent of the newest session.
    pub agent_version: String,
    /// Its lease ran out and it has not come back.
    pub lost: bool,
    /// Its agent can reach the cluster's own API.
    pub healthy: bool,
    /// The invite has been redeemed.
    pub enrolled: bool,
    /// What it has for steps.
    pub allocatable: Resources,
    /// What placed steps ask for.
    pub requested: Resources,
    /// Attempts placed there and not over.
    pub attempts: u64,
    /// What the last recovery came to there; nothing if there was none.
    pub recovery: Option<argosy_engine::ClusterRecovery>,
    /// What placement can select by; what operators said wins over the agent.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Its agent can end the processes of exclusive steps.
    pub enforces_exclusive: bool,
    /// An operator wants nothing new there.
    pub cordoned: bool,
    /// Taints, as KEY=VALUE:EFFECT.
    pub taints: Vec<String>,
    /// What is to leave it.
    pub drain: Option<DrainRecord>,
    /// Who its agent is; nothing before it enrolled.
    pub identity: Option<argosy_proto::state::ClusterIdentity>,
    /// Since when its runtime does not answer, log time; 0 = it does.
    pub degraded_since_ms: i64,
    /// The loss of a drill that is under way there.
    pub drill: Option<DrillRecord>,
    /// Who lets its take-over go on in a storm, and since when, log time; until its next session.
    pub resumed: Option<(String, i64)>,
}

/// The loss of a drill that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrillRecord {
    /// The drill's number.
    pub id: u64,
    /// How the cluster is lost.
    pub mode: String,
    /// When it comes back, log time.
    pub ends_at_ms: i64,
}

/// How far a drain has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainRecord {
    /// Log time, milliseconds since 1970.
    pub since_ms: i64,
    /// When running steps that are safe to repeat are moved; 0 = never.
    pub deadline_ms: i64,
    /// Because the cluster can't start steps, not because somebody asked.
    pub degraded: bool,
    /// Attempts that have not started.
    pub waiting: usize,
    /// Attempts that run.
    pub running: usize,
    /// Some of those that can't leave before they end: workflow, node and why.
    pub stuck: Vec<(String, String, String)>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every command that was answered before the read began, on any member.
    Linearizable,
    /// Whatever this member has applied.
    Stale,
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// Decided against; nothing changed.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// No leader could be asked in time; nothing changed.
    #[error("the control plane has no leader at the moment: try again")]
    NotLeader,
    /// It may or may not happen. A repeat with the same idempotency key is safe.
    #[error("the outcome of the command is unknown: repeat it with the same Idempotency-Key")]
    Unknown,
    /// Too much is waiting; nothing changed.
    #[error("the control plane is busy: try again")]
    Overloaded,
}

/// Why there is no view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No quorum confirmed the read in time.
    #[error("the control plane has no leader at the moment: try again, or read with consistency=stale")]
    NotLeader,
    /// Too many reads wait.
    #[error("the control plane is busy: try again")]
    Overloaded,
}

/// One applied batch.
#[derive(Clone, Debug)]
pub struct Change<V> {
    /// The workflows it touched: made, changed or deleted.
    pub workflows: Vec<WorkflowKey>,
    /// State before it.
    pub before: V,
    /// State after it.
    pub after: V,
}

/// The subscriber was too slow and has missed batches: read again and subscribe again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch fell behind: start it again")]
pub struct Behind;

/// Which output is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct LogQuery {
    /// The cluster of the attempt.
    pub cluster: String,
    /// The attempt.
    pub fence: Fence,
    /// Go on until the attempt ends.
    pub follow: bool,
    /// Only so many last lines; `None` = all.
    pub tail_lines: Option<u64>,
    /// Container; empty = main.
    pub container: String,
    /// Only what was written since then, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// The container's run before this one.
    pub previous: bool,
    /// Each line begins with the time at which it was written, where that is known.
    pub timestamps: bool,
}

/// Why output cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The cluster's agent is not connected.
    #[error("cluster {0} is not connected: its logs can be read when it is back")]
    Disconnected(String),
    /// The agent has nothing of this attempt (any more).
    #[error("the output of the attempt is gone")]
    Gone,
    /// The agent's own words.
    #[error("{0}")]
    Agent(String),
}

/// What an invite is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteRequest {
    /// A DNS label; checked by the gateway.
    pub cluster: String,
    /// How long it can be redeemed.
    pub ttl_ms: u64,
    /// Makes a repeat give the same outcome, not the same token.
    pub idempotency_key: Option<argosy_proto::command::IdempotencyKey>,
}

/// An invite, told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// To be given to the agent.
    pub token: String,
    /// Log time, milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// A member's knowledge of its cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellStatus {
    /// The cell's id.
    pub cell: String,
    /// This member.
    pub member: MemberId,
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// Raft term.
    pub term: u64,
    /// Knows a leader and has applied an entry of the present term.
    pub ready: bool,
    /// All members.
    pub members: Vec<MemberStatus>,
    /// What the leader's sessions say of each cluster; a follower has heard it at most seconds ago.
    pub sessions: Vec<SessionStatus>,
    /// Beyond this, the offset of an agent's clock is alarmed; milliseconds.
    pub clock_offset_max_ms: u64,
    /// Most of the fleet went silent together.
    pub storm: Option<StormStatus>,
    /// When this was so: wall clock, milliseconds since 1970. Spans of sessions count from here.
    pub observed_at_ms: i64,
    /// From a cluster's last sign of life to the take-over of what is safe to move, milliseconds.
    pub takeover_safe_ms: i64,
}

/// Most of the fleet went silent together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StormStatus {
    /// Take-overs are held; else they were let go on.
    pub held: bool,
    /// How long ago it began, milliseconds.
    pub since_ms: i64,
    /// When it is released by itself, milliseconds; `None`: by an operator only.
    pub release_in_ms: Option<i64>,
    /// Silent clusters.
    pub silent: u32,
    /// Clusters that are not taken over.
    pub fleet: u32,
}

/// The next take-over of a cluster, if it stays silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextTakeOver {
    /// Until it is due, milliseconds; 0 = it is.
    pub in_ms: i64,
    /// Waits beyond lease and margin that will have passed then, milliseconds.
    pub beyond_ms: i64,
    /// The storm brake holds it.
    pub held: bool,
    /// It is due and waits for others.
    pub paced: bool,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberStatus {
    /// Its id.
    pub id: MemberId,
    /// Where other members reach it.
    pub address: String,
    /// Where users reach its API, when known.
    pub api_address: String,
    /// `leader`, `follower`, `learner`, `candidate` or `unknown`.
    pub role: String,
    /// Log position it is known to hold.
    pub matched_index: u64,
    /// Log position it has applied, when known.
    pub applied_index: u64,
    /// Heard from within an election timeout.
    pub reachable: bool,
}

/// A cluster's connection, as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// The cluster.
    pub cluster: String,
    /// A session is open.
    pub connected: bool,
    /// The member that holds the connection.
    pub member: MemberId,
    /// Until its steps are taken over, milliseconds.
    pub lease_remaining_ms: i64,
    /// How far the agent's clock is ahead of the leader's, milliseconds, once it was measured.
    pub clock_offset_ms: Option<i64>,
    /// Since its last sign of life that was acknowledged, milliseconds; `None`: it has never had a session.
    pub silent_ms: Option<i64>,
    /// What has been taken over: waits of so many milliseconds beyond lease and margin.
    pub taken_over_beyond_ms: Option<i64>,
    /// What is taken over next.
    pub next_take_over: Option<NextTakeOver>,
}
