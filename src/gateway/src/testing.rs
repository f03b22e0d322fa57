//! A cell of one member in memory: the real engine, no Raft, no agents. For tests of the API and of those who call it.

use argosy_engine::{ArchiveChange, Draft, Leader, Position, State};
use argosy_model::{Fence, Limits, LogTime, Resources};
use argosy_proto::command::{
    Command, CreateInvite, OpenSession, RedeemInvite, Refusal, Reply, ReportAttempt, RollAction,
    RollAuthority, command::Body,
};
use argosy_proto::common::{Assignment, AttemptPhase, AttemptReport, Runtime};
use axum::body::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

use crate::{
    ArchiveError, Behind, Cell, CellStatus, Change, CommandError, Consistency, Invite, InviteRequest,
    LogError, LogQuery, MemberStatus, NextTakeOver, ReadError, SessionStatus, StormStatus,
};

const START_MS: i64 = 1_760_000_000_000;
const CHANGES_BUFFERED_MAX: usize = 1_024;

/// The cell; clones are the same cell.
#[derive(Clone)]
pub struct EngineCell {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Arc<Change<State>>>,
}

struct Inner {
    state: State,
    leader: Leader,
    index: u64,
    now_ms: i64,
    logs: BTreeMap<Fence, Vec<u8>>,
    /// The archive family.
    archive: BTreeMap<Vec<u8>, Vec<u8>>,
    has_leader: bool,
    /// The next command is answered as of unknown outcome, after it was done.
    loses_next_reply: bool,
    /// Sessions that are not as those of connected clusters are.
    silences: BTreeMap<String, SessionStatus>,
    storm: Option<StormStatus>,
}

impl Default for EngineCell {
    fn default() -> Self {
        let inner = Inner {
            state: State::new(),
            leader: Leader::new(Limits::default()),
            index: 0,
            now_ms: START_MS,
            logs: BTreeMap::new(),
            archive: BTreeMap::new(),
            has_leader: true,
            loses_next_reply: false,
            silences: BTreeMap::new(),
            storm: None,
        };
        let (changes, _) = broadcast::channel(CHANGES_BUFFERED_MAX);
        let cell = Self { inner: Arc::new(Mutex::new(inner)), changes };
        cell.batch(|draft, _| draft.create_cell("test", 1));
        cell
    }
}

impl EngineCell {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch<R>(&self, decide: impl FnOnce(&mut Draft, &mut Leader) -> R) -> R {
        let mut inner = self.lock();
        inner.index += 1;
        inner.now_ms += 1;
        let position = Position { incarnation: 1, index: inner.index };
        let before = inner.state.clone();
        let mut draft = Draft::new(&before, position, LogTime(inner.now_ms), inner.index);
        let outcome = decide(&mut draft, &mut inner.leader);
        if !draft.is_empty() {
            let (_, after, changes) = draft.finish();
            inner.state = after.clone();
            for change in changes.archive() {
                match change {
                    ArchiveChange::Put(key, value) => {
                        inner.archive.insert(key.clone(), value.to_vec());
                    }
                    ArchiveChange::DropRange(from, to) => {
                        inner.archive.retain(|key, _| !(from..to).contains(&key));
                    }
                }
            }
            let key = |id| {
                before.workflow(id).or_else(|| after.workflow(id)).map(|row| argosy_model::WorkflowKey {
                    namespace: row.namespace.clone(),
                    name: row.name.clone(),
                })
            };
            let workflows = changes.workflows().filter_map(key).collect();
            // Nobody may be listening.
            let _ = self.changes.send(Arc::new(Change { workflows, before, after }));
        }
        outcome
    }

    /// Decides one command; the work that follows from it waits for [`Self::settle`].
    ///
    /// # Errors
    /// The engine's refusal.
    pub fn decide(&self, body: Body) -> Result<Reply, Refusal> {
        self.decide_command(&Command { version: 1, idempotency_key: None, body: Some(body) })
    }

    fn decide_command(&self, command: &Command) -> Result<Reply, Refusal> {
        let archive = self.lock().archive.clone();
        self.batch(|draft, leader| {
            if let Some(workflow) = draft.need(command) {
                leader.give_archived(workflow, Some(records(&archive, workflow)));
            }
            draft.command(command, leader)
        })
    }

    /// Advances until nothing more can be done without an agent.
    pub fn settle(&self) {
        while self.batch(|draft, leader| draft.advance(leader)) {}
    }

    /// Lets log time pass, and does what is due.
    pub fn pass_ms(&self, span_ms: i64) {
        self.lock().now_ms += span_ms;
        self.settle();
    }

    /// Shows a cluster's session as silent for that long, as a leader of the default times would. `storm` holds it.
    pub fn fall_silent(&self, cluster: &str, silent_ms: i64, storm: Option<StormStatus>) {
        let mut inner = self.lock();
        let in_ms = (20_000 - silent_ms).max(0);
        let held = storm.is_some_and(|storm| storm.held) && silent_ms >= 15_000;
        let next = NextTakeOver { in_ms, beyond_ms: 0, held, paced: in_ms == 0 && !held };
        let session = SessionStatus {
            cluster: cluster.to_owned(),
            lease_remaining_ms: (15_000 - silent_ms).max(0),
            silent_ms: Some(silent_ms),
            next_take_over: Some(next),
            ..SessionStatus::default()
        };
        inner.silences.insert(cluster.to_owned(), session);
        inner.storm = storm;
    }

    /// Registers a cluster with room for everything, and opens its session.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub fn connect(&self, cluster: &str) {
        self.connect_as(cluster, Runtime::Simulated);
    }

    /// As [`EngineCell::connect`], a cluster of that kind.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub fn connect_as(&self, cluster: &str, runtime: Runtime) {
        let name = cluster.to_owned();
        let token_hash = vec![7; 32];
        let resources =
            Resources { cpu_milli: 64_000, memory_bytes: 1 << 40, pods: 1_000, ..Resources::default() };
        let steps = [
            Body::CreateInvite(CreateInvite {
                cluster: name.clone(),
                token_hash: token_hash.clone(),
                ttl_ms: 60_000,
            }),
            Body::RedeemInvite(RedeemInvite {
                cluster: name.clone(),
                cluster_uid: name.clone(),
                token_hash,
                key: vec![9; 32],
                authority: vec![8; 32],
            }),
            Body::OpenSession(OpenSession {
                cluster: name.clone(),
                cluster_uid: name,
                agent_instance: 1,
                agent_version: "0.1.0".to_owned(),
                runtime: runtime.into(),
                allocatable: Some(resources),
                member: 1,
                ..OpenSession::default()
            }),
        ];
        for step in steps {
            self.decide(step).expect("a fresh cluster can be connected");
        }
        self.settle();
    }

    /// The attempts that should run, with what they should do.
    #[must_use]
    pub fn assignments(&self) -> Vec<(String, Assignment)> {
        let state = self.lock().state.clone();
        let clusters: Vec<String> = state.clusters().map(|(name, _)| name.to_owned()).collect();
        let on = |cluster: String| {
            let fences: Vec<Fence> = state.attempts_on(&cluster).map(|(fence, _)| fence).collect();
            let assigned =
                |fence: &Fence| state.assignment(fence).map(|assignment| (cluster.clone(), assignment));
            fences.iter().filter_map(assigned).collect::<Vec<_>>()
        };
        clusters.into_iter().flat_map(on).collect()
    }

    /// Reports an attempt as running, its command permitted.
    pub fn start(&self, cluster: &str, fence: Fence) {
        self.report(
            cluster,
            AttemptReport {
                fence: Some(fence),
                revision: 1,
                phase: AttemptPhase::Running.into(),
                permitted: true,
                ..AttemptReport::default()
            },
        );
    }

    /// Reports the end of an attempt, as of a command with that exit code and message.
    pub fn end(&self, cluster: &str, fence: Fence, exit_code: i32, message: &str) {
        let phase = if exit_code == 0 { AttemptPhase::Succeeded } else { AttemptPhase::Failed };
        let now_ms = self.lock().now_ms;
        self.report(
            cluster,
            AttemptReport {
                fence: Some(fence),
                revision: 2,
                phase: phase.into(),
                permitted: true,
                exit_code: Some(exit_code),
                message: message.to_owned(),
                started_at_ms: now_ms,
                finished_at_ms: now_ms,
                progress: if exit_code == 0 { "1/1" } else { "0/1" }.to_owned(),
                ..AttemptReport::default()
            },
        );
    }

    fn report(&self, cluster: &str, report: AttemptReport) {
        let report = ReportAttempt { cluster: cluster.to_owned(), session_epoch: 1, report: Some(report) };
        // A refusal is the engine's business; the test sees what became of it.
        let _ = self.decide(Body::ReportAttempt(report));
        self.settle();
    }

    /// Runs every attempt there is, and those that follow, to a good end.
    pub fn finish_all(&self) {
        while let Some((cluster, assignment)) = self.assignments().into_iter().next() {
            let fence = assignment.fence.unwrap_or_default();
            self.start(&cluster, fence);
            self.end(&cluster, fence, 0, "");
        }
    }

    /// What an attempt has printed.
    pub fn set_output(&self, fence: Fence, text: &str) {
        self.lock().logs.insert(fence, text.as_bytes().to_vec());
    }

    /// Takes the leader away, or gives one.
    pub fn set_leader(&self, has_leader: bool) {
        self.lock().has_leader = has_leader;
    }

    /// The next command happens, and its caller is told that nobody knows.
    pub fn lose_next_reply(&self) {
        self.lock().loses_next_reply = true;
    }
}

/// The records of a workflow.
fn records(archive: &BTreeMap<Vec<u8>, Vec<u8>>, workflow: u64) -> Vec<Vec<u8>> {
    let (from, to) = argosy_engine::archive_range(workflow);
    archive.range(from..to).map(|(_, record)| record.clone()).collect()
}

impl Cell for EngineCell {
    type View = State;

    async fn command(&self, command: Command) -> Result<Reply, CommandError> {
        if !self.lock().has_leader {
            return Err(CommandError::NotLeader);
        }
        let outcome = self.decide_command(&command).map_err(CommandError::Refused);
        self.settle();
        if std::mem::take(&mut self.lock().loses_next_reply) { Err(CommandError::Unknown) } else { outcome }
    }

    async fn read(&self, consistency: Consistency) -> Result<State, ReadError> {
        let inner = self.lock();
        if consistency == Consistency::Linearizable && !inner.has_leader {
            return Err(ReadError::NotLeader);
        }
        Ok(inner.state.clone())
    }

    async fn archived(&self, workflow: u64) -> Result<State, ArchiveError> {
        let records = records(&self.lock().archive, workflow);
        crate::archived_view(Some(records))
    }

    fn changes(&self) -> BoxStream<'static, Result<Change<State>, Behind>> {
        let receiver = self.changes.subscribe();
        futures::stream::unfold(Some(receiver), |receiver| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(change) => Some((Ok((*change).clone()), Some(receiver))),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Err(Behind), None)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let inner = self.lock();
        let output = inner.logs.get(&query.fence).ok_or(LogError::Gone)?;
        let lines: Vec<&[u8]> = output.split_inclusive(|byte| *byte == b'\n').collect();
        let tail = query.tail_lines.and_then(|lines| usize::try_from(lines).ok()).unwrap_or(usize::MAX);
        let kept = lines[lines.len().saturating_sub(tail)..].concat();
        Ok(futures::stream::iter([Ok(Bytes::from(kept))]).boxed())
    }

    async fn invite(&self, request: InviteRequest) -> Result<Invite, CommandError> {
        let create = CreateInvite {
            cluster: request.cluster.clone(),
            token_hash: vec![9; 32],
            ttl_ms: request.ttl_ms,
        };
        let command = Command {
            version: 1,
            idempotency_key: request.idempotency_key,
            body: Some(Body::CreateInvite(create)),
        };
        self.command(command).await?;
        let ttl_ms = i64::try_from(request.ttl_ms).unwrap_or(i64::MAX);
        Ok(Invite {
            token: format!("invite-{}", request.cluster),
            expires_at_ms: self.lock().now_ms.saturating_add(ttl_ms),
        })
    }

    async fn begin_roll(&self, actor: String) -> Result<(), CommandError> {
        let roll = RollAuthority {
            action: RollAction::Begin.into(),
            certificate_der: vec![2; 10],
            present_der: vec![1; 10],
            members: vec![1],
            force: false,
            actor,
            certificate: vec![2; 32],
            present: vec![1; 32],
        };
        self.decide(Body::RollAuthority(roll)).map(drop).map_err(CommandError::Refused)
    }

    fn trust_roots_pem(&self) -> String {
        "-----BEGIN CERTIFICATE-----\n".to_owned()
    }

    async fn backup(&self) -> Result<BoxStream<'static, std::io::Result<Bytes>>, CommandError> {
        if !self.lock().has_leader {
            return Err(CommandError::NotLeader);
        }
        Ok(futures::stream::iter([Ok(Bytes::from_static(b"rows"))]).boxed())
    }

    fn status(&self) -> CellStatus {
        let inner = self.lock();
        let connected = |name: &str, row: &argosy_proto::state::Cluster| SessionStatus {
            cluster: name.to_owned(),
            connected: !row.lost && row.session_epoch > 0,
            member: 1,
            lease_remaining_ms: 20_000,
            clock_offset_ms: Some(-12),
            silent_ms: Some(1_000),
            ..SessionStatus::default()
        };
        let sessions = inner
            .state
            .clusters()
            .map(|(name, row)| inner.silences.get(name).cloned().unwrap_or_else(|| connected(name, row)));
        CellStatus {
            clock_offset_max_ms: 2_000,
            cell: "test".to_owned(),
            member: 1,
            leader: inner.has_leader.then_some(1),
            term: 1,
            ready: inner.has_leader,
            members: vec![MemberStatus {
                id: 1,
                address: "127.0.0.1:2748".to_owned(),
                api_address: "127.0.0.1:2746".to_owned(),
                role: if inner.has_leader { "leader" } else { "follower" }.to_owned(),
                matched_index: inner.index,
                applied_index: inner.index,
                reachable: true,
            }],
            sessions: sessions.collect(),
            storm: inner.storm,
            observed_at_ms: inner.now_ms,
            takeover_safe_ms: 20_000,
        }
    }
}
