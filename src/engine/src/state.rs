use std::sync::Arc;

use argosy_model::{Fence, LogTime, WorkflowId, WorkflowKey};
use argosy_proto::state as row;
use imbl::{OrdMap, OrdSet};

use crate::key::Key;
use crate::locks::LockIndex;
pub use crate::phases::workflow_phase;
pub(crate) use crate::phases::{is_active_leaf, is_leaf_type, phase_of, type_of};
use crate::{Error, config_maps};

/// Version of every row this code writes.
pub(crate) const ROW_VERSION: u32 = 1;
/// But for nodes: in their version 1 what few nodes have was in the row itself.
pub(crate) const NODE_ROW_VERSION: u32 = 2;

/// A timer's place in time.
pub(crate) type TimerKey = (i64, u64, u32, i32);

/// The replicated state: typed tables and indexes over them, all persistent maps, so that a clone is O(1).
///
/// Only [`crate::evolve`] and drafts (through the same function) change it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub(crate) meta: row::Meta,
    pub(crate) workflows: OrdMap<u64, Arc<row::Workflow>>,
    pub(crate) manifests: OrdMap<u64, Arc<row::Manifest>>,
    pub(crate) nodes: OrdMap<(u64, u32), Arc<row::Node>>,
    pub(crate) works: OrdMap<(u64, u32), Arc<row::Work>>,
    pub(crate) expansions: OrdMap<(u64, u32, u32), Arc<row::Expansion>>,
    pub(crate) waits: OrdMap<(u64, u32, u32), row::DagWait>,
    pub(crate) agenda: OrdMap<(u64, u64), row::AgendaItem>,
    pub(crate) attempts: OrdMap<Fence, Arc<row::Attempt>>,
    pub(crate) timers: OrdMap<TimerKey, ()>,
    pub(crate) clusters: OrdMap<Arc<str>, Arc<row::Cluster>>,
    pub(crate) invites: OrdMap<Vec<u8>, row::Invite>,
    pub(crate) idempotency: OrdMap<(String, String), Arc<row::Idempotency>>,
    pub(crate) blocked: OrdMap<Vec<u8>, row::Blocked>,
    /// Entries of memoization caches: NAMESPACE/CACHE/KEY.
    pub(crate) memos: OrdMap<String, Arc<row::Memo>>,
    /// What workflows (node 0) and nodes ask for or hold.
    pub(crate) lock_requests: OrdMap<(u64, u32), Arc<row::LockRequest>>,
    /// Locks whose queues are to be looked at.
    pub(crate) lock_checks: OrdSet<Arc<str>>,
    /// Limits of semaphores that the control plane keeps: namespace, key.
    pub(crate) sync_limits: OrdMap<(String, String), row::SyncLimit>,
    /// ConfigMaps: namespace, name, cluster that reported it. The cell's own has none, and so comes first.
    pub(crate) config_maps: OrdMap<(String, String, String), Arc<row::ConfigMap>>,
    /// What is to be done in object stores, by number.
    pub(crate) artifact_tasks: OrdMap<u64, Arc<row::ArtifactTask>>,
    /// Stored templates: of the cluster's scope, namespace, name.
    pub(crate) templates: OrdMap<(bool, String, String), Arc<row::Template>>,
    /// Outcomes of an earlier workflow's nodes, by workflow and node name.
    pub(crate) remembered: OrdMap<(u64, String), Arc<row::Remembered>>,
    /// Members that joined, leave or have left.
    pub(crate) members: OrdMap<u64, row::Member>,
    pub(crate) authorities: Option<Arc<row::Authorities>>,
    /// CronWorkflows by number.
    pub(crate) crons: OrdMap<u64, Arc<row::Cron>>,
    /// What is kept here of archived workflows, to find them: their rows, by number.
    pub(crate) archived: OrdMap<u64, Arc<row::Workflow>>,
    /// WorkflowEventBindings by namespace and name.
    pub(crate) event_bindings: OrdMap<(String, String), Arc<row::EventBinding>>,
    /// Drills, the latest of them under way or not.
    pub(crate) drills: OrdMap<u64, Arc<row::Drill>>,
    /// What the drill under way saw of each step: drill, workflow, node.
    pub(crate) drill_steps: OrdMap<(u64, u64, u32), row::DrillStep>,
    /// Schedules of drills by name.
    pub(crate) drill_schedules: OrdMap<String, Arc<row::DrillSchedule>>,
    pub(crate) index: Index,
}

/// Everything that can be derived from the tables. Rebuilt by [`State::load`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    /// (namespace, name) to workflow.
    pub names: OrdMap<(Arc<str>, Arc<str>), u64>,
    /// (workflow, parent, ordinal) to child.
    pub children: OrdMap<(u64, u32, u64), u32>,
    /// Open attempts by cluster.
    pub on_cluster: OrdSet<(Arc<str>, Fence)>,
    /// All attempts of a node that state still knows.
    pub of_node: OrdSet<(u64, u32, Fence)>,
    /// Leaves that are not fulfilled.
    pub active_leaves: OrdSet<(u64, u32)>,
    /// Finished workflows, oldest first.
    pub finished: OrdSet<(i64, u64)>,
    /// Leaves that wait for placement: by shape, place in the queue to (workflow, node).
    pub queue: OrdMap<Arc<[u8]>, Places>,
    /// How many they are.
    pub queued: usize,
    /// Shapes that wait: (capacity generation at which they were blocked or 0, first place in the queue, shape).
    pub shapes: OrdSet<(u64, u64, Vec<u8>)>,
    /// Idempotency keys by age: (recorded, tenant, key).
    pub idempotency_age: OrdSet<(i64, String, String)>,
    /// Timers by what they are of: (workflow, node, due, kind).
    pub timers_of: OrdSet<(u64, u32, i64, i32)>,
    /// Clusters whose attempts are being taken over.
    pub take_overs: OrdSet<Arc<str>>,
    /// Clusters whose attempts are being looked at, since they are to leave.
    pub drains: OrdSet<Arc<str>>,
    /// Clusters that were removed.
    pub removed: OrdSet<Arc<str>>,
    /// Workflows that have something on the agenda and are not suspended.
    pub ready: OrdSet<u64>,
    /// Number of workflows that are not over.
    pub active_workflows: usize,
    /// Bytes of all ConfigMaps.
    pub config_maps_bytes: usize,
    /// Who holds which lock, and who waits.
    pub locks: LockIndex,
    /// Archived workflows by uid, and by namespace, name and number.
    pub archived_uids: OrdSet<(Arc<str>, u64)>,
    pub archived_names: OrdSet<(Arc<str>, Arc<str>, u64)>,
    /// The archived ones, oldest end first.
    pub archived_age: OrdSet<(i64, u64)>,
    /// Nodes that each finished workflow holds in state, about, and their sum.
    pub finished_sizes: OrdMap<u64, u64>,
    pub finished_nodes: u64,
    /// Finished workflows by outcome, oldest first.
    pub finished_as: OrdSet<(i32, i64, u64)>,
    /// (namespace, name) to CronWorkflow.
    pub crons: OrdMap<(Arc<str>, Arc<str>), u64>,
    /// Workflows of CronWorkflows: (cron, [`Child`], created or finished, workflow).
    pub owned: OrdSet<(u64, Child, i64, u64)>,
    /// CronWorkflows with workflows whose end was not taken note of.
    pub crons_ready: OrdSet<u64>,
    /// The drill that is under way.
    pub drill: Option<u64>,
}

/// Places in a queue, and the (workflow, node) at each.
pub(crate) type Places = OrdMap<u64, (u64, u32)>;

/// How a workflow of a CronWorkflow stands with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Child {
    Active,
    /// Over, and not taken note of.
    Ended,
    Succeeded,
    Failed,
    BackfillActive,
    BackfillEnded,
    BackfillOver,
}

/// What state wants of one attempt on a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredAttempt {
    /// It should be there and run: [`State::assignment`] says what.
    Run,
    /// It should be given back unless it has started.
    Recall {
        /// For people and logs.
        reason: String,
    },
    /// It should end. It stays listed until the agent says that nothing is left of it.
    Stop {
        /// For people and logs.
        reason: String,
        /// Its result no longer counts.
        fenced: bool,
    },
}

impl State {
    /// The empty state, before the first batch.
    #[must_use]
    pub fn new() -> Self {
        let meta = row::Meta {
            version: ROW_VERSION,
            workflow_next: 1,
            queue_next: 1,
            artifact_task_next: 1,
            capacity_generation: 1,
            hash: vec![0; 32],
            ..row::Meta::default()
        };
        Self { meta, ..Self::default() }
    }

    /// Rebuilds state from the rows of the `state` family, in any order.
    ///
    /// # Errors
    /// [`Error::Row`] for a row that this version cannot read: the member must halt.
    pub fn load(rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, Error> {
        let mut state = Self::new();
        for (key, value) in rows {
            let row = || Error::Row { key: key.clone() };
            let decoded = Key::decode(&key).ok_or_else(row)?;
            state.load_row(decoded, &value).ok_or_else(row)?;
        }
        state.reindex();
        Ok(state)
    }

    fn reindex(&mut self) {
        self.index = Index::default();
        for (id, workflow) in self.workflows.iter().filter(|(_, workflow)| !workflow.deleted) {
            self.index
                .names
                .insert((Arc::from(workflow.namespace.as_str()), Arc::from(workflow.name.as_str())), *id);
            if workflow.finished_at_ms == 0 {
                self.index.active_workflows += 1;
            } else {
                self.index.finished.insert((workflow.finished_at_ms, *id));
                self.index.finished_as.insert((workflow.phase, workflow.finished_at_ms, *id));
                self.index.finished_sizes.insert(*id, u64::from(workflow.node_next));
                self.index.finished_nodes += u64::from(workflow.node_next);
            }
        }
        let archived: Vec<_> = self.archived.iter().map(|(id, row)| (*id, row.clone())).collect();
        archived.iter().for_each(|(id, row)| self.index_archived(*id, row, true));
        for (id, cron) in self.crons.iter().filter(|(_, cron)| !cron.deleted) {
            let names = (Arc::from(cron.namespace.as_str()), Arc::from(cron.name.as_str()));
            self.index.crons.insert(names, *id);
        }
        let owned: Vec<_> =
            self.workflows.iter().filter_map(|(id, row)| crate::cron::entry(*id, row)).collect();
        owned.into_iter().for_each(|entry| self.index_owned(None, Some(entry)));
        for ((id, node), row) in &self.nodes {
            self.index.children.insert((*id, row.parent, row.ordinal), *node);
            if is_active_leaf(row) {
                self.index.active_leaves.insert((*id, *node));
            }
        }
        for (id, _) in self.agenda.keys() {
            self.index.ready.insert(*id);
        }
        self.reindex_locks();
        let ready = self.index.ready.iter().copied();
        let waits: Vec<u64> = ready.filter(|id| !self.may_go_on(*id)).collect();
        for id in waits {
            self.index.ready.remove(&id);
        }
        for (fence, attempt) in &self.attempts {
            if !attempt.closed {
                self.index.on_cluster.insert((Arc::from(attempt.cluster.as_str()), *fence));
            }
            if attempt.workflow != 0 {
                self.index.of_node.insert((attempt.workflow, attempt.node, *fence));
            }
        }
        for (name, _) in self.clusters.iter().filter(|(_, row)| row.take_over_scope != 0) {
            self.index.take_overs.insert(name.clone());
        }
        for (name, _) in self.clusters.iter().filter(|(_, row)| row.drain.is_some_and(|drain| drain.scanning))
        {
            self.index.drains.insert(name.clone());
        }
        for (name, _) in self.clusters.iter().filter(|(_, row)| row.removed) {
            self.index.removed.insert(name.clone());
        }
        self.index.drill = self.drills.iter().find(|(_, row)| row.finished_at_ms == 0).map(|(id, _)| *id);
        for (due, id, node, kind) in self.timers.keys() {
            self.index.timers_of.insert((*id, *node, *due, *kind));
        }
        for ((tenant, key), row) in &self.idempotency {
            self.index.idempotency_age.insert((row.recorded_at_ms, tenant.clone(), key.clone()));
        }
        self.index.config_maps_bytes =
            self.config_maps.iter().map(|(key, row)| config_maps::bytes(key, row)).sum();
        let waiting: Vec<_> = self
            .works
            .iter()
            .filter(|(_, work)| work.fence.is_none())
            .map(|(key, work)| (work.shape.clone(), work.queue, *key))
            .collect();
        for (shape, queue, key) in waiting {
            self.index_queued(&shape, queue, key);
        }
    }

    /// Puts a leaf in the placement queue's index.
    pub(crate) fn index_queued(&mut self, shape: &[u8], queue: u64, key: (u64, u32)) {
        let old = self.shape_entry(shape);
        let before = match self.index.queue.get_mut(shape) {
            Some(of_shape) => of_shape.insert(queue, key),
            None => {
                self.index.queue.insert(Arc::from(shape), OrdMap::unit(queue, key));
                None
            }
        };
        self.index.queued += usize::from(before.is_none());
        self.refresh_shape(old, shape);
    }

    /// Takes a leaf out of the placement queue's index.
    pub(crate) fn index_unqueued(&mut self, shape: &[u8], queue: u64) {
        let old = self.shape_entry(shape);
        if let Some(of_shape) = self.index.queue.get_mut(shape) {
            self.index.queued -= usize::from(of_shape.remove(&queue).is_some());
            if of_shape.is_empty() {
                self.index.queue.remove(shape);
            }
        }
        self.refresh_shape(old, shape);
    }

    /// Brings the entry of a shape up to date after its queue or its block changed; `old` is the entry before.
    pub(crate) fn refresh_shape(&mut self, old: Option<(u64, u64, Vec<u8>)>, shape: &[u8]) {
        let new = self.shape_entry(shape);
        if old != new {
            if let Some(old) = old {
                self.index.shapes.remove(&old);
            }
            if let Some(new) = new {
                self.index.shapes.insert(new);
            }
        }
    }

    pub(crate) fn shape_entry(&self, shape: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
        let (first, _) = self.index.queue.get(shape)?.get_min()?;
        let generation = self.blocked.get(shape).map_or(0, |blocked| blocked.generation);
        Some((generation, *first, shape.to_vec()))
    }

    /// Batches evolved so far.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.meta.sequence
    }

    /// Time of the last batch.
    #[must_use]
    pub fn log_time(&self) -> LogTime {
        LogTime(self.meta.log_time_ms)
    }

    /// Number of the cell's history; 0 before the cell was created.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.meta.incarnation
    }

    /// The cell's name; empty before it was created.
    #[must_use]
    pub fn cell(&self) -> &str {
        &self.meta.cell
    }

    /// Running hash over all row changes: equal on all members at an equal sequence.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        <[u8; 32]>::try_from(self.meta.hash.as_slice()).unwrap_or([0; 32])
    }

    /// What should be on a cluster, and what should leave it.
    pub fn attempts_on(&self, cluster: &str) -> impl Iterator<Item = (Fence, DesiredAttempt)> + '_ {
        self.open_attempts(cluster).filter_map(|(fence, _)| Some((fence, self.desired(&fence)?.1?)))
    }

    /// Attempts of which something may be left on a cluster.
    pub(crate) fn open_attempts(
        &self,
        cluster: &str,
    ) -> impl Iterator<Item = (Fence, &Arc<row::Attempt>)> + '_ {
        self.open_attempts_from(cluster, Fence::default())
    }

    /// As [`State::open_attempts`], from a fence on.
    pub(crate) fn open_attempts_from(
        &self,
        cluster: &str,
        from: Fence,
    ) -> impl Iterator<Item = (Fence, &Arc<row::Attempt>)> + '_ {
        let cluster: Arc<str> = Arc::from(cluster);
        let from = (cluster.clone(), from);
        self.index
            .on_cluster
            .range(from..)
            .take_while(move |(name, _)| *name == cluster)
            .filter_map(|(_, fence)| self.attempts.get(fence).map(|attempt| (*fence, attempt)))
    }

    /// The attempt of a fence.
    #[must_use]
    pub fn attempt(&self, fence: &Fence) -> Option<&row::Attempt> {
        self.attempts.get(fence).map(AsRef::as_ref)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer(&self) -> Option<LogTime> {
        self.timers.keys().next().map(|(due, ..)| LogTime(*due))
    }

    /// [`crate::Draft::advance`] has something to do now, timers aside.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.lock_checks.is_empty()
            || !self.index.ready.is_empty()
            || !self.index.take_overs.is_empty()
            || !self.index.drains.is_empty()
            || !self.index.crons_ready.is_empty()
            || self.next_shape().is_some()
            || crate::drill::is_settled(self, self.log_time())
    }

    /// The shape to place next: never tried, or blocked before capacity last grew.
    pub(crate) fn next_shape(&self) -> Option<&(u64, u64, Vec<u8>)> {
        self.index.shapes.iter().next().filter(|(generation, ..)| *generation < self.meta.capacity_generation)
    }

    /// A cluster by name.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<&row::Cluster> {
        self.clusters.get(name).map(AsRef::as_ref)
    }

    /// All registered clusters by name.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, &row::Cluster)> {
        self.clusters.iter().map(|(name, row)| (name.as_ref(), row.as_ref()))
    }

    /// The workflow of that name.
    #[must_use]
    pub fn workflow_id(&self, key: &WorkflowKey) -> Option<WorkflowId> {
        let key = (Arc::from(key.namespace.as_str()), Arc::from(key.name.as_str()));
        self.index.names.get(&key).copied().map(WorkflowId)
    }

    /// A workflow's row.
    #[must_use]
    pub fn workflow(&self, id: WorkflowId) -> Option<&row::Workflow> {
        self.workflows.get(&id.0).map(AsRef::as_ref).filter(|row| !row.deleted)
    }

    /// The workflows of a namespace by name; an empty namespace means all.
    pub fn workflows_in(&self, namespace: &str) -> impl Iterator<Item = (WorkflowId, &row::Workflow)> + '_ {
        let wanted: Arc<str> = Arc::from(namespace);
        let from = (wanted.clone(), Arc::from(""));
        self.index
            .names
            .range(from..)
            .take_while(move |((found, _), _)| wanted.is_empty() || *found == wanted)
            .filter_map(|(_, id)| self.workflows.get(id).map(|row| (WorkflowId(*id), row.as_ref())))
    }

    /// The current fence of a node of that Argo node id, and the fences before it, newest last.
    #[must_use]
    pub fn fences_of(&self, id: WorkflowId, node: u32) -> Vec<Fence> {
        let from = (id.0, node, Fence::default());
        let mine = |entry: &&(u64, u32, Fence)| entry.0 == id.0 && entry.1 == node;
        self.index.of_node.range(from..).take_while(mine).map(|(_, _, fence)| *fence).collect()
    }

    /// Workflows that are not over.
    #[must_use]
    pub fn workflows_active(&self) -> usize {
        self.index.active_workflows
    }

    /// Leaves that wait for a cluster.
    #[must_use]
    pub fn placement_queue_depth(&self) -> usize {
        self.index.queued
    }

    /// Items of the agenda.
    #[must_use]
    pub fn agenda_depth(&self) -> usize {
        self.agenda.len()
    }

    pub(crate) fn node(&self, workflow: u64, node: u32) -> Option<&row::Node> {
        self.nodes.get(&(workflow, node)).map(AsRef::as_ref)
    }

    /// Children of a node in order, from an ordinal on.
    pub(crate) fn children_from(
        &self,
        workflow: u64,
        parent: u32,
        ordinal: u64,
    ) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.index
            .children
            .range((workflow, parent, ordinal)..)
            .take_while(move |((id, found, _), _)| *id == workflow && *found == parent)
            .map(|((_, _, ordinal), node)| (*ordinal, *node))
    }
}
