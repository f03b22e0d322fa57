//! Facts to state. The only code that changes state; on every member, and in a draft as its facts are made.
//!
//! Small and total: it sets fields, keeps counters and indexes, and says which rows changed. It decides nothing. A fact
//! that doesn't fit the state (or is unknown) is an error, and the member halts: it is never skipped.

use argosy_model::planted::{Bug, is_planted};
use argosy_model::{Fence, LogTime, WorkflowId};
use argosy_proto::fact::{self, Batch, fact::Body};
use argosy_proto::state as row;
use imbl::OrdSet;
use std::sync::Arc;

use crate::Error;
use crate::key::Key;
use crate::state::{ROW_VERSION, State};

/// Version of the batches this code makes and reads.
pub const BATCH_VERSION: u32 = 1;

/// Where a batch stands: what its fences are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cell's incarnation.
    pub incarnation: u64,
    /// Log index of the batch.
    pub index: u64,
}

/// The rows that a batch touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    pub(crate) keys: OrdSet<Key>,
    workflows: OrdSet<u64>,
    clusters: OrdSet<String>,
    archive: imbl::Vector<ArchiveChange>,
}

/// A change of the archive family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveChange {
    /// A record is written.
    Put(Vec<u8>, Arc<[u8]>),
    /// The records of these keys, the second excluded, are gone.
    DropRange(Vec<u8>, Vec<u8>),
}

impl Changes {
    /// The touched rows with their bytes in `state`, which must be the state the batch led to; `None` = deleted.
    #[must_use]
    pub fn rows(&self, state: &State) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.keys.iter().map(|key| (key.encode(), state.row(key))).collect()
    }

    /// Changes of the archive family, in order.
    pub fn archive(&self) -> impl Iterator<Item = &ArchiveChange> {
        self.archive.iter()
    }

    /// Touched workflows, deleted ones among them.
    pub fn workflows(&self) -> impl Iterator<Item = WorkflowId> + '_ {
        self.workflows.iter().copied().map(WorkflowId)
    }

    /// Touched clusters: their row, or what is wanted on them.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.iter().map(String::as_str)
    }

    /// Nothing was touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Evolves `state` by a committed batch. `Ok(None)`: the batch is void (it follows another sequence or stands at another
/// index), and nothing changed.
///
/// # Errors
/// An unknown version or fact, or a fact that doesn't fit the state. `state` is unchanged; the member must halt.
pub fn evolve(state: &mut State, position: Position, batch: &Batch) -> Result<Option<Changes>, Error> {
    if batch.version != BATCH_VERSION {
        return Err(Error::BatchVersion { version: batch.version, index: position.index });
    }
    if batch.follows_sequence != state.meta.sequence || batch.expected_index != position.index {
        return Ok(None);
    }
    let mut next = state.clone();
    let mut changes = Changes::default();
    for (ordinal, fact) in batch.facts.iter().enumerate() {
        let ordinal = u32::try_from(ordinal)
            .map_err(|_| Error::UnknownFact { index: position.index, ordinal: u32::MAX })?;
        let body = fact.body.as_ref().ok_or(Error::UnknownFact { index: position.index, ordinal })?;
        let fence = Fence { incarnation: position.incarnation, index: position.index, ordinal };
        apply(&mut next, &mut changes, fence, LogTime(batch.log_time_ms), body)?;
    }
    next.meta.capacity_generation += u64::from(is_planted(Bug::FollowersDiffer));
    seal(&mut next, &mut changes, LogTime(batch.log_time_ms));
    *state = next;
    Ok(Some(changes))
}

/// Ends a batch: stamps touched workflows, moves the sequence, extends the hash.
pub(crate) fn seal(state: &mut State, changes: &mut Changes, time: LogTime) {
    let sequence = state.meta.sequence + 1;
    for id in &changes.workflows {
        if let Some(workflow) = state.workflows.get_mut(id) {
            Arc::make_mut(workflow).changed_sequence = sequence;
            changes.keys.insert(Key::Workflow(*id));
        }
    }
    changes.keys.remove(&Key::Meta);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&state.meta.hash);
    hasher.update(&sequence.to_be_bytes());
    for key in &changes.keys {
        let bytes = key.encode();
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(&bytes);
        match state.row(key) {
            Some(value) => {
                hasher.update(&(value.len() as u64 + 1).to_be_bytes());
                hasher.update(&value);
            }
            None => {
                hasher.update(&0_u64.to_be_bytes());
            }
        }
    }
    for counter in [
        state.meta.workflow_next,
        state.meta.queue_next,
        state.meta.capacity_generation,
        state.meta.incarnation,
    ] {
        hasher.update(&counter.to_be_bytes());
    }
    state.meta.sequence = sequence;
    state.meta.log_time_ms = time.0.max(state.meta.log_time_ms);
    state.meta.hash = hasher.finalize().as_bytes().to_vec();
    changes.keys.insert(Key::Meta);
}

/// One fact. `fence` is the fact's own position; an assignment becomes the fence of its attempt.
pub(crate) fn apply(
    state: &mut State,
    changes: &mut Changes,
    fence: Fence,
    time: LogTime,
    body: &Body,
) -> Result<(), Error> {
    let mut step = Step { state, changes, fence, time };
    match body {
        Body::CellCreated(fact) => step.cell_created(fact),
        Body::MemberSet(fact) => step.member_set(fact)?,
        Body::IncarnationRaised(fact) => step.incarnation_raised(fact)?,
        Body::AttemptQuarantined(fact) => step.attempt_quarantined(fact)?,
        Body::ClusterReconciled(fact) => step.cluster_reconciled(fact)?,
        Body::WorkflowAccepted(fact) => step.workflow_accepted(fact),
        Body::WorkflowPhaseChanged(fact) => step.workflow_phase_changed(fact)?,
        Body::WorkflowDeleted(fact) => step.workflow_deleted(fact)?,
        Body::ShutdownRequested(fact) => step.shutdown_requested(fact)?,
        Body::NodeAdded(fact) => step.node_added(fact)?,
        Body::NodeChanged(fact) => step.node_changed(fact)?,
        Body::NodeFinished(fact) => step.node_finished(fact)?,
        Body::NodeQueued(fact) => step.node_queued(fact)?,
        Body::LoopExpanded(fact) => step.loop_expanded(fact),
        Body::DependencyMet(fact) => step.dependency_met(fact),
        Body::AgendaPushed(fact) => step.agenda_pushed(fact)?,
        Body::AgendaMoved(fact) => step.agenda_moved(fact)?,
        Body::AgendaDone(fact) => step.agenda_done(fact),
        Body::AttemptAssigned(fact) => step.attempt_assigned(fact)?,
        Body::AttemptUpdated(fact) => step.attempt_updated(fact)?,
        Body::AttemptStopped(fact) => step.attempt_stopped(fact)?,
        Body::AttemptFenced(fact) => step.attempt_fenced(fact)?,
        Body::AttemptClosed(fact) => step.attempt_closed(fact)?,
        Body::PlacementBlocked(fact) => step.placement_blocked(fact),
        Body::TimerSet(fact) => step.timer(fact.timer.as_ref(), true)?,
        Body::TimerCleared(fact) => step.timer(fact.timer.as_ref(), false)?,
        Body::ClusterRegistered(fact) => step.cluster_registered(fact),
        Body::ClusterSessionOpened(fact) => step.cluster_session_opened(fact)?,
        Body::ClusterUpdated(fact) => step.cluster_updated(fact)?,
        Body::PrerequisitesFound(fact) => step.prerequisites_found(fact)?,
        Body::ClusterLost(fact) => step.cluster_lost(fact)?,
        Body::InviteCreated(fact) => step.invite_created(fact),
        Body::InviteRedeemed(fact) => step.invite_redeemed(fact)?,
        Body::InviteForgotten(fact) => step.invite_forgotten(fact),
        Body::IdempotencyRecorded(fact) => step.idempotency_recorded(fact),
        Body::IdempotencyForgotten(fact) => step.idempotency_forgotten(fact),
        Body::WorkflowPinned(fact) => step.workflow_pinned(fact)?,
        Body::NodesPurged(fact) => step.nodes_purged(fact)?,
        Body::TakeOverMoved(fact) => step.take_over_moved(fact)?,
        Body::WorkflowPurged(fact) => step.workflow_purged(fact),
        Body::WorkflowSuspended(fact) => step.workflow_suspended(fact)?,
        Body::ActionTaken(fact) => step.action_taken(fact)?,
        Body::NodeSet(fact) => step.node_set(fact)?,
        Body::WorkflowReopened(fact) => step.workflow_reopened(fact)?,
        Body::WorkflowAmended(fact) => step.workflow_amended(fact)?,
        Body::NodesRemoved(fact) => step.nodes_removed(fact)?,
        Body::NodeReopened(fact) => step.node_reopened(fact)?,
        Body::DependenciesSet(fact) => step.dependencies_set(fact),
        Body::WorkflowResolved(fact) => step.workflow_resolved(fact)?,
        Body::NodeRemembered(fact) => step.node_remembered(fact)?,
        Body::TemplateStored(fact) => step.template_stored(fact),
        Body::TemplateDeleted(fact) => step.template_deleted(fact),
        Body::GlobalsSet(fact) => step.globals_set(fact)?,
        Body::ArtifactTaskAdded(fact) => step.artifact_task_added(fact)?,
        Body::ArtifactTaskDeferred(fact) => step.artifact_task_deferred(fact)?,
        Body::ArtifactTaskEnded(fact) => step.artifact_task_ended(fact),
        Body::ArtifactsDeleted(fact) => step.artifacts_deleted(fact)?,
        Body::StartHeld(fact) => step.start_held(fact)?,
        Body::StartReleased(fact) => step.start_released(fact)?,
        Body::TaskReleased(fact) => step.task_released(fact)?,
        Body::NodeMemoized(fact) => step.node_memoized(fact)?,
        Body::MemoStored(fact) => step.memo_stored(fact),
        Body::NodeDaemoned(fact) => step.node_daemoned(fact)?,
        Body::ContainersSet(fact) => step.containers_set(fact)?,
        Body::GroupFailed(fact) => step.group_failed(fact)?,
        Body::AttemptPermitted(fact) => step.attempt_permitted(fact)?,
        Body::ClusterLedgerChanged(fact) => step.cluster_ledger_changed(fact)?,
        Body::AttemptLeft(fact) => step.attempt_left(fact)?,
        Body::TakeOverBegun(fact) => step.take_over_begun(fact)?,
        Body::ConfigMapStored(fact) => step.config_map_stored(fact)?,
        Body::ConfigMapDeleted(fact) => step.config_map_deleted(fact),
        Body::ArgumentsConfigured(fact) => step.arguments_configured(fact)?,
        Body::LockRequested(fact) => step.lock_requested(fact),
        Body::LocksGranted(fact) => step.locks_granted(fact)?,
        Body::LockReleased(fact) => step.lock_released(fact),
        Body::LockSettled(fact) => step.lock_settled(fact),
        Body::SyncLimitSet(fact) => step.sync_limit_set(fact),
        Body::SyncLimitDeleted(fact) => step.sync_limit_deleted(fact),
        Body::WorkflowBegun(fact) => step.workflow_begun(fact)?,
        Body::CronStored(fact) => step.cron_stored(fact),
        Body::CronDeleted(fact) => step.cron_deleted(fact)?,
        Body::CronPurged(fact) => step.cron_purged(fact),
        Body::WorkflowOwned(fact) => step.workflow_owned(fact)?,
        Body::ChildCounted(fact) => step.child_counted(fact)?,
        Body::CronMoved(fact) => step.cron_moved(fact)?,
        Body::CronStatusSet(fact) => step.cron_status_set(fact)?,
        Body::BackfillSet(fact) => step.backfill_set(fact)?,
        Body::BackfillDone(fact) => step.backfill_done(fact)?,
        Body::EventBindingStored(fact) => step.event_binding_stored(fact),
        Body::EventBindingDeleted(fact) => step.event_binding_deleted(fact),
        Body::WorkflowRetired(fact) => step.workflow_retired(fact)?,
        Body::ArchiveDropped(fact) => step.archive_dropped(fact),
        Body::WorkflowRestored(fact) => step.workflow_restored(fact)?,
        Body::ClusterChanged(fact) => step.cluster_changed(fact)?,
        Body::ClusterDrainMoved(fact) => step.cluster_drain_moved(fact)?,
        Body::AttemptRecalled(fact) => step.attempt_recalled(fact)?,
        Body::AttemptMoved(fact) => step.attempt_moved(fact)?,
        Body::TakeOverResumed(fact) => step.take_over_resumed(fact)?,
        Body::ReproductionQueued(fact) => step.reproduction_queued(fact)?,
        Body::ReproductionEnded(fact) => step.reproduction_ended(fact)?,
        Body::ReaderReturned(fact) => step.reader_returned(fact)?,
        Body::AttemptReturned(fact) => step.attempt_returned(fact)?,
        Body::ClusterRemoved(fact) => step.cluster_removed(fact)?,
        Body::IdentitySet(fact) => step.identity_set(fact)?,
        Body::AuthoritiesSet(fact) => step.authorities_set(fact)?,
        Body::DrillBegun(fact) => step.drill_begun(fact)?,
        Body::DrillLossEnded(fact) => step.drill_loss_ended(fact)?,
        Body::DrillFinished(fact) => step.drill_finished(fact)?,
        Body::DrillForgotten(fact) => step.drill_forgotten(fact),
        Body::DrillScheduleStored(fact) => step.drill_schedule_stored(fact)?,
        Body::DrillScheduleDeleted(fact) => step.drill_schedule_deleted(fact),
    }
    Ok(())
}

/// One fact under way: state, and where to note what it touches. Its methods are spread over the modules below.
pub(crate) struct Step<'a> {
    pub state: &'a mut State,
    pub changes: &'a mut Changes,
    pub fence: Fence,
    pub time: LogTime,
}

impl Step<'_> {
    pub(crate) fn touch(&mut self, key: Key) {
        self.changes.keys.insert(key);
    }

    pub(crate) fn archive(&mut self, change: ArchiveChange) {
        self.changes.archive.push_back(change);
    }

    pub(crate) fn touch_cluster(&mut self, cluster: &str) {
        self.changes.clusters.insert(cluster.to_owned());
    }

    pub(crate) fn touch_workflow(&mut self, id: u64) {
        self.changes.workflows.insert(id);
    }

    pub(crate) fn workflow(&mut self, id: u64) -> Result<&mut row::Workflow, Error> {
        self.touch(Key::Workflow(id));
        self.touch_workflow(id);
        let row = self.state.workflows.get_mut(&id).ok_or(Error::Misfit { what: "workflow", id })?;
        Ok(Arc::make_mut(row))
    }

    pub(crate) fn node(&mut self, id: u64, node: u32) -> Result<&mut row::Node, Error> {
        self.touch(Key::Node(id, node));
        self.touch_workflow(id);
        let row = self.state.nodes.get_mut(&(id, node)).ok_or(Error::Misfit { what: "node", id })?;
        Ok(Arc::make_mut(row))
    }

    pub(crate) fn attempt(&mut self, fence: Fence) -> Result<&mut row::Attempt, Error> {
        self.touch(Key::Attempt(fence));
        let row =
            self.state.attempts.get_mut(&fence).ok_or(Error::Misfit { what: "attempt", id: fence.index })?;
        let row = Arc::make_mut(row);
        self.changes.clusters.insert(row.cluster.clone());
        if row.workflow != 0 {
            self.changes.workflows.insert(row.workflow);
        }
        Ok(row)
    }

    pub(crate) fn cluster(&mut self, name: &str) -> Result<&mut row::Cluster, Error> {
        self.touch(Key::Cluster(name.to_owned()));
        self.touch_cluster(name);
        let row = self.state.clusters.get_mut(name).ok_or(Error::Misfit { what: "cluster", id: 0 })?;
        Ok(Arc::make_mut(row))
    }

    fn cell_created(&mut self, fact: &fact::CellCreated) {
        self.state.meta.cell.clone_from(&fact.cell);
        self.state.meta.incarnation = fact.incarnation;
        self.touch(Key::Meta);
    }

    pub(crate) fn capacity_grew(&mut self) {
        self.state.meta.capacity_generation += 1;
    }

    fn member_set(&mut self, fact: &fact::MemberSet) -> Result<(), Error> {
        let mut member = fact.row.clone().ok_or(Error::Misfit { what: "member's row", id: fact.member })?;
        member.version = ROW_VERSION;
        member.changed_at_ms = self.time.0;
        self.state.members.insert(fact.member, member);
        self.touch(Key::Member(fact.member));
        Ok(())
    }

    fn invite_created(&mut self, fact: &fact::InviteCreated) {
        let invite = row::Invite {
            version: ROW_VERSION,
            cluster: fact.cluster.clone(),
            expires_at_ms: fact.expires_at_ms,
            used_by: String::new(),
            created_at_ms: self.time.0,
        };
        self.state.invites.insert(fact.token_hash.clone(), invite);
        self.touch(Key::Invite(fact.token_hash.clone()));
    }

    fn invite_redeemed(&mut self, fact: &fact::InviteRedeemed) -> Result<(), Error> {
        self.touch(Key::Invite(fact.token_hash.clone()));
        let invite =
            self.state.invites.get_mut(&fact.token_hash).ok_or(Error::Misfit { what: "invite", id: 0 })?;
        invite.used_by.clone_from(&fact.cluster_uid);
        Ok(())
    }

    fn invite_forgotten(&mut self, fact: &fact::InviteForgotten) {
        self.state.invites.remove(&fact.token_hash);
        self.touch(Key::Invite(fact.token_hash.clone()));
    }

    fn idempotency_recorded(&mut self, fact: &fact::IdempotencyRecorded) {
        let key = (fact.tenant.clone(), fact.key.clone());
        let recorded = row::Idempotency {
            version: ROW_VERSION,
            digest: fact.digest.clone(),
            reply: fact.reply.clone(),
            recorded_at_ms: self.time.0,
        };
        if let Some(old) = self.state.idempotency.insert(key.clone(), Arc::new(recorded)) {
            self.state.index.idempotency_age.remove(&(old.recorded_at_ms, key.0.clone(), key.1.clone()));
        }
        self.state.index.idempotency_age.insert((self.time.0, key.0.clone(), key.1.clone()));
        self.touch(Key::Idempotency(key.0, key.1));
    }

    fn idempotency_forgotten(&mut self, fact: &fact::IdempotencyForgotten) {
        let key = (fact.tenant.clone(), fact.key.clone());
        if let Some(old) = self.state.idempotency.remove(&key) {
            self.state.index.idempotency_age.remove(&(old.recorded_at_ms, key.0.clone(), key.1.clone()));
        }
        self.touch(Key::Idempotency(key.0, key.1));
    }

    fn cluster_registered(&mut self, fact: &fact::ClusterRegistered) {
        let now = self.time.0;
        let name: Arc<str> = Arc::from(fact.cluster.as_str());
        let mut cluster = self.state.clusters.get(&name).map(|row| row.as_ref().clone()).unwrap_or_default();
        cluster.version = ROW_VERSION;
        cluster.cluster_uid.clone_from(&fact.cluster_uid);
        cluster.registered_at_ms = now;
        // One that was removed is not there before its agent is back.
        cluster.lost |= cluster.removed;
        cluster.removed = false;
        self.state.index.removed.remove(&name);
        self.state.clusters.insert(name, Arc::new(cluster));
        self.touch(Key::Cluster(fact.cluster.clone()));
        self.touch_cluster(&fact.cluster);
    }

    fn cluster_session_opened(&mut self, fact: &fact::ClusterSessionOpened) -> Result<(), Error> {
        let now = self.time.0;
        let cluster = self.cluster(&fact.cluster)?;
        cluster.session_epoch = fact.session_epoch;
        cluster.agent_instance = fact.agent_instance;
        cluster.agent_version.clone_from(&fact.agent_version);
        cluster.runtime = fact.runtime;
        cluster.allocatable.clone_from(&fact.allocatable);
        cluster.labels.clone_from(&fact.labels);
        cluster.enforces_exclusive = fact.enforces_exclusive;
        cluster.member = fact.member;
        cluster.lost = false;
        cluster.runtime_healthy = true;
        cluster.session_opened_at_ms = now;
        cluster.take_over_scope = 0;
        cluster.take_over_after = None;
        cluster.prerequisites.clear();
        self.state.index.take_overs.remove(fact.cluster.as_str());
        self.is_well(&fact.cluster)?;
        self.capacity_grew();
        Ok(())
    }

    fn prerequisites_found(&mut self, fact: &fact::PrerequisitesFound) -> Result<(), Error> {
        /// Names kept of one cluster; beyond that all are forgotten, and asked for anew.
        const NAMES_MAX: usize = 10_000;
        let cluster = self.cluster(&fact.cluster)?;
        if cluster.prerequisites.len() + fact.found.len() > NAMES_MAX {
            cluster.prerequisites.clear();
        }
        cluster.prerequisites.extend(fact.found.iter().map(|(name, found)| (name.clone(), *found)));
        self.capacity_grew();
        Ok(())
    }

    fn cluster_updated(&mut self, fact: &fact::ClusterUpdated) -> Result<(), Error> {
        let now = self.time.0;
        let cluster = self.cluster(&fact.cluster)?;
        cluster.allocatable.clone_from(&fact.allocatable);
        if cluster.runtime_healthy && !fact.runtime_healthy {
            cluster.unhealthy_since_ms = now;
        }
        cluster.runtime_healthy = fact.runtime_healthy;
        if fact.runtime_healthy {
            self.is_well(&fact.cluster)?;
        }
        self.capacity_grew();
        Ok(())
    }

    fn cluster_lost(&mut self, fact: &fact::ClusterLost) -> Result<(), Error> {
        let now = self.time.0;
        let cluster = self.cluster(&fact.cluster)?;
        cluster.lost = true;
        cluster.lost_at_ms = now;
        self.drill_sees_lost(&fact.cluster)
    }

    fn take_over_moved(&mut self, fact: &fact::TakeOverMoved) -> Result<(), Error> {
        let cluster = self.cluster(&fact.cluster)?;
        cluster.take_over_scope = fact.scope;
        cluster.take_over_after = fact.after;
        if fact.scope == 0 {
            self.state.index.take_overs.remove(fact.cluster.as_str());
        } else {
            self.state.index.take_overs.insert(Arc::from(fact.cluster.as_str()));
        }
        Ok(())
    }

    fn timer(&mut self, timer: Option<&row::Timer>, set: bool) -> Result<(), Error> {
        let timer = timer.ok_or(Error::Misfit { what: "timer", id: 0 })?;
        let key = (timer.due_ms, timer.workflow, timer.node, timer.kind);
        let of = (key.1, key.2, key.0, key.3);
        if set {
            self.state.timers.insert(key, ());
            self.state.index.timers_of.insert(of);
        } else {
            self.state.timers.remove(&key);
            self.state.index.timers_of.remove(&of);
        }
        self.touch(Key::Timer(key.0, key.1, key.2, key.3));
        Ok(())
    }

    /// Timers go with what they were set for; node 0 stands for the workflow itself.
    pub(crate) fn drop_timers(&mut self, id: u64, node: u32) {
        let of =
            self.state.index.timers_of.range((id, node, i64::MIN, i32::MIN)..=(id, node, i64::MAX, i32::MAX));
        for (id, node, due, kind) in of.copied().collect::<Vec<_>>() {
            self.state.timers.remove(&(due, id, node, kind));
            self.state.index.timers_of.remove(&(id, node, due, kind));
            self.touch(Key::Timer(due, id, node, kind));
        }
    }

    fn agenda_pushed(&mut self, fact: &fact::AgendaPushed) -> Result<(), Error> {
        let item = fact.item.ok_or(Error::Misfit { what: "agenda item", id: fact.workflow })?;
        self.push_agenda(fact.workflow, item)
    }

    pub(crate) fn push_agenda(&mut self, id: u64, item: row::AgendaItem) -> Result<(), Error> {
        let workflow = self.workflow(id)?;
        let sequence = workflow.agenda_next;
        workflow.agenda_next += 1;
        self.state.agenda.insert((id, sequence), item);
        if self.state.may_go_on(id) {
            self.state.index.ready.insert(id);
        }
        self.touch(Key::Agenda(id, sequence));
        Ok(())
    }

    fn agenda_moved(&mut self, fact: &fact::AgendaMoved) -> Result<(), Error> {
        let key = (fact.workflow, fact.sequence);
        let item = self
            .state
            .agenda
            .get_mut(&key)
            .ok_or(Error::Misfit { what: "agenda item", id: fact.workflow })?;
        item.cursor = fact.cursor;
        self.touch(Key::Agenda(fact.workflow, fact.sequence));
        Ok(())
    }

    fn agenda_done(&mut self, fact: &fact::AgendaDone) {
        self.state.agenda.remove(&(fact.workflow, fact.sequence));
        self.touch(Key::Agenda(fact.workflow, fact.sequence));
        if !self.has_agenda(fact.workflow) {
            self.state.index.ready.remove(&fact.workflow);
        }
    }

    pub(crate) fn has_agenda(&self, id: u64) -> bool {
        self.state.agenda.range((id, 0)..=(id, u64::MAX)).next().is_some()
    }

    fn loop_expanded(&mut self, fact: &fact::LoopExpanded) {
        let mut expansion = fact.expansion.clone().unwrap_or_default();
        expansion.version = ROW_VERSION;
        self.state.expansions.insert((fact.workflow, fact.node, fact.slot), Arc::new(expansion));
        self.touch(Key::Expansion(fact.workflow, fact.node, fact.slot));
    }

    fn dependency_met(&mut self, fact: &fact::DependencyMet) {
        let key = (fact.workflow, fact.node, fact.task);
        let mut wait = self.state.waits.get(&key).copied().unwrap_or_default();
        wait.version = ROW_VERSION;
        wait.met += 1;
        self.state.waits.insert(key, wait);
        self.touch(Key::Wait(key.0, key.1, key.2));
    }

    fn placement_blocked(&mut self, fact: &fact::PlacementBlocked) {
        let old = self.state.shape_entry(&fact.shape);
        let generation = self.state.meta.capacity_generation;
        let blocked = row::Blocked { version: ROW_VERSION, generation, message: fact.message.clone() };
        self.state.blocked.insert(fact.shape.clone(), blocked);
        self.state.refresh_shape(old, &fact.shape);
        self.touch(Key::Blocked(fact.shape.clone()));
    }

    /// Forgets the block of a shape that nobody waits for any more.
    pub(crate) fn drop_idle_block(&mut self, shape: &[u8]) {
        if self.state.blocked.contains_key(shape) && self.state.shape_entry(shape).is_none() {
            self.state.blocked.remove(shape);
            self.touch(Key::Blocked(shape.to_vec()));
        }
    }
}
