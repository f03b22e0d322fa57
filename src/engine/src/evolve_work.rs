//! Facts about workflows, nodes and attempts to state.

use argosy_model::{Fence, NodePhase, NodeType};
use argosy_proto::common::Resources;
use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::key::Key;
use crate::resources;
use crate::state::{NODE_ROW_VERSION, ROW_VERSION, is_active_leaf, is_leaf_type, phase_of};

impl Step<'_> {
    pub(crate) fn workflow_accepted(&mut self, fact: &fact::WorkflowAccepted) {
        let id = fact.workflow;
        let workflow = row::Workflow {
            version: ROW_VERSION,
            namespace: fact.namespace.clone(),
            name: fact.name.clone(),
            uid: fact.uid.clone(),
            creator: fact.creator.clone(),
            created_at_ms: self.time.0,
            node_next: 1,
            agenda_next: 1,
            pod_json: fact.pod_json.clone(),
            summary_json: fact.summary_json.clone(),
            artifact_repository_json: fact.artifact_repository_json.clone(),
            ..row::Workflow::default()
        };
        let names = (Arc::from(fact.namespace.as_str()), Arc::from(fact.name.as_str()));
        self.state.index.names.insert(names, id);
        self.state.index.active_workflows += 1;
        self.state.workflows.insert(id, Arc::new(workflow));
        let manifest = row::Manifest {
            version: ROW_VERSION,
            json: fact.manifest_json.clone(),
            ..row::Manifest::default()
        };
        self.state.manifests.insert(id, Arc::new(manifest));
        self.state.meta.workflow_next = self.state.meta.workflow_next.max(id + 1);
        self.touch(Key::Workflow(id));
        self.touch(Key::Manifest(id));
        self.touch_workflow(id);
    }

    pub(crate) fn workflow_phase_changed(&mut self, fact: &fact::WorkflowPhaseChanged) -> Result<(), Error> {
        let (id, now) = (fact.workflow, self.time.0);
        let owned = self.owned_entry(id);
        let workflow = self.workflow(id)?;
        workflow.phase = fact.phase;
        workflow.message.clone_from(&fact.message);
        let completed = argosy_model::WorkflowPhase::from_number(fact.phase)
            .is_some_and(argosy_model::WorkflowPhase::is_completed);
        if completed && workflow.finished_at_ms == 0 {
            workflow.finished_at_ms = now;
            let nodes = u64::from(workflow.node_next);
            self.state.index.active_workflows -= 1;
            self.state.index.finished.insert((now, id));
            self.state.index.finished_as.insert((fact.phase, now, id));
            self.state.index.finished_sizes.insert(id, nodes);
            self.state.index.finished_nodes += nodes;
            self.drop_timers(id, 0);
            self.drop_lock_requests(id);
            self.reindex_owned(id, owned);
            self.withdraw_reproductions(id)?;
        }
        Ok(())
    }

    pub(crate) fn workflow_deleted(&mut self, fact: &fact::WorkflowDeleted) -> Result<(), Error> {
        self.leaves(fact.workflow)?;
        self.state.manifests.remove(&fact.workflow);
        self.touch(Key::Manifest(fact.workflow));
        Ok(())
    }

    /// The workflow is gone for everybody; its nodes follow bit by bit.
    pub(crate) fn leaves(&mut self, id: u64) -> Result<(), Error> {
        let owned = self.owned_entry(id);
        let workflow = self.workflow(id)?;
        if workflow.deleted {
            return Err(Error::Misfit { what: "workflow that is not deleted", id });
        }
        workflow.deleted = true;
        workflow.suspended = false;
        let finished_at_ms = workflow.finished_at_ms;
        let phase = workflow.phase;
        let names = (Arc::from(workflow.namespace.as_str()), Arc::from(workflow.name.as_str()));
        self.state.index.names.remove(&names);
        if finished_at_ms == 0 {
            self.state.index.active_workflows -= 1;
        } else {
            self.not_finished(id, phase, finished_at_ms);
        }
        self.drop_timers(id, 0);
        self.drop_lock_requests(id);
        self.reindex_owned(id, owned);
        let waiting: Vec<u64> =
            self.state.agenda.range((id, 0)..=(id, u64::MAX)).map(|((_, sequence), _)| *sequence).collect();
        for sequence in waiting {
            self.state.agenda.remove(&(id, sequence));
            self.touch(Key::Agenda(id, sequence));
        }
        self.push_agenda(id, agenda_item(row::AgendaKind::Purge, 0))
    }

    pub(crate) fn nodes_purged(&mut self, fact: &fact::NodesPurged) -> Result<(), Error> {
        let id = fact.workflow;
        let range = (id, fact.first)..=(id, fact.last);
        let nodes: Vec<u32> = self.state.nodes.range(range).map(|((_, node), _)| *node).collect();
        if self.state.workflows.get(&id).is_some_and(|row| row.archiving) {
            self.archive_nodes(id, &nodes);
        }
        for node in nodes {
            self.orphan_attempts(id, node)?;
            self.drop_work(id, node);
            self.drop_timers(id, node);
            if let Some(row) = self.state.nodes.remove(&(id, node)) {
                self.state.index.children.remove(&(id, row.parent, row.ordinal));
                self.state.index.active_leaves.remove(&(id, node));
                self.touch(Key::Node(id, node));
                self.drill_forgets(id, node)?;
            }
        }
        let expansions = self.state.expansions.range((id, fact.first, 0)..=(id, fact.last, u32::MAX));
        for key in expansions.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.state.expansions.remove(&key);
            self.touch(Key::Expansion(key.0, key.1, key.2));
        }
        let waits = self.state.waits.range((id, fact.first, 0)..=(id, fact.last, u32::MAX));
        for key in waits.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.state.waits.remove(&key);
            self.touch(Key::Wait(key.0, key.1, key.2));
        }
        Ok(())
    }

    pub(crate) fn workflow_purged(&mut self, fact: &fact::WorkflowPurged) {
        self.forget_remembered(fact.workflow);
        if self.state.workflows.get(&fact.workflow).is_some_and(|row| row.archiving) {
            self.archive_head(fact.workflow);
        }
        self.state.workflows.remove(&fact.workflow);
        self.touch(Key::Workflow(fact.workflow));
    }

    /// Open attempts of a node that goes away stay as orders to stop; closed ones go with it.
    pub(crate) fn orphan_attempts(&mut self, id: u64, node: u32) -> Result<(), Error> {
        let from = (id, node, Fence::default());
        let mine: Vec<_> = self
            .state
            .index
            .of_node
            .range(from..)
            .take_while(|entry| entry.0 == id && entry.1 == node)
            .copied()
            .collect();
        for (workflow, node, fence) in mine {
            self.state.index.of_node.remove(&(workflow, node, fence));
            let attempt = self.attempt(fence)?;
            if attempt.closed {
                self.state.attempts.remove(&fence);
                continue;
            }
            let held = (!attempt.fenced).then(|| attempt.cluster.clone());
            let requests = attempt.requests.take();
            attempt.workflow = 0;
            attempt.node = 0;
            attempt.fenced = true;
            attempt.stopping = true;
            "the workflow was deleted".clone_into(&mut attempt.stop_reason);
            if let Some(cluster) = held {
                self.release(&cluster, requests.as_deref())?;
            }
        }
        Ok(())
    }

    pub(crate) fn drop_work(&mut self, id: u64, node: u32) {
        if let Some(work) = self.state.works.remove(&(id, node)) {
            self.touch(Key::Work(id, node));
            if work.fence.is_none() {
                self.state.index_unqueued(&work.shape, work.queue);
                self.drop_idle_block(&work.shape);
            }
        }
    }

    pub(crate) fn shutdown_requested(&mut self, fact: &fact::ShutdownRequested) -> Result<(), Error> {
        let workflow = self.workflow(fact.workflow)?;
        workflow.shutdown = fact.strategy;
        workflow.shutdown_message.clone_from(&fact.message);
        Ok(())
    }

    pub(crate) fn node_added(&mut self, fact: &fact::NodeAdded) -> Result<(), Error> {
        let (id, node) = (fact.workflow, fact.node);
        let now = self.time.0;
        let mut added = row::Node {
            version: NODE_ROW_VERSION,
            parent: fact.parent,
            ordinal: fact.ordinal,
            name: fact.name.clone(),
            r#type: fact.r#type,
            phase: fact.phase,
            message: fact.message.clone(),
            template: fact.template.clone(),
            boundary: fact.boundary,
            depth: fact.depth,
            flag: fact.flag,
            inputs: fact.inputs.clone(),
            started_at_ms: now,
            branch_phase: fact.branch_phase,
            on_exit: fact.on_exit,
            ..row::Node::default()
        };
        if !fact.input_artifacts.is_empty() {
            added.change_rare(|rare| rare.input_artifacts.clone_from(&fact.input_artifacts));
        }
        let fulfilled = phase_of(&added).is_fulfilled();
        if fulfilled {
            added.finished_at_ms = now;
        }
        let (leaf, active) = (is_leaf_type(fact.r#type), is_active_leaf(&added));
        if self.state.remembered.remove(&(id, fact.name.clone())).is_some() {
            self.touch(Key::Remembered(id, fact.name.clone()));
        }
        let counts_as_pod =
            active && fact.r#type == NodeType::Pod.number() && self.state.counts_as_pod(id, node);
        let workflow = self.workflow(id)?;
        workflow.node_next = workflow.node_next.max(node + 1);
        workflow.leaves_total += u32::from(leaf);
        workflow.pods_active += u32::from(counts_as_pod);
        if fact.on_exit && fact.parent == 0 {
            workflow.exit_node = node;
        }
        self.state.nodes.insert((id, node), Arc::new(added));
        self.touch(Key::Node(id, node));
        self.state.index.children.insert((id, fact.parent, fact.ordinal), node);
        if active {
            self.state.index.active_leaves.insert((id, node));
        }
        if !fulfilled && counts_to_boundary(fact.r#type) && fact.boundary != 0 {
            self.node(id, fact.boundary)?.active_below += 1;
        }
        if fact.flag == i32::from(row::NodeFlag::Hooked) && fact.parent != 0 {
            self.hook_added(id, fact.parent, fulfilled)?;
        } else if fact.parent != 0 {
            let parent = self.node(id, fact.parent)?;
            parent.children_total += 1;
            parent.children_done += u32::from(fulfilled);
            if fact.counts_as_failure {
                count_failure(parent, row::FailedChild { rank: fact.rank, node });
            }
        }
        if fulfilled {
            self.drop_lock_request((id, node));
            self.push_agenda(id, agenda_item(row::AgendaKind::Done, node))?;
        } else if fact.start {
            self.push_agenda(id, agenda_item(row::AgendaKind::Start, node))?;
        }
        Ok(())
    }

    pub(crate) fn node_changed(&mut self, fact: &fact::NodeChanged) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.phase = fact.phase;
        node.message.clone_from(&fact.message);
        node.host.clone_from(&fact.host);
        if node.rare().progress != fact.progress {
            node.change_rare(|rare| rare.progress.clone_from(&fact.progress));
        }
        if fact.started_at_ms != 0 {
            node.started_at_ms = fact.started_at_ms;
        }
        node.children_complete |= fact.children_complete;
        Ok(())
    }

    pub(crate) fn node_finished(&mut self, fact: &fact::NodeFinished) -> Result<(), Error> {
        let (id, index, now) = (fact.workflow, fact.node, self.time.0);
        let node = self.node(id, index)?;
        if phase_of(node).is_fulfilled() {
            return Err(Error::Misfit { what: "unfulfilled node", id });
        }
        node.phase = fact.phase;
        node.message.clone_from(&fact.message);
        node.outputs.clone_from(&fact.outputs);
        node.finished_at_ms = if fact.finished_at_ms == 0 { now } else { fact.finished_at_ms };
        node.branch_phase = fact.phase;
        let (phase, parent, boundary) = (phase_of(node), node.parent, node.boundary);
        let (kind, hooked) = (node.r#type, node.flag == i32::from(row::NodeFlag::Hooked));
        let leaf = is_leaf_type(kind);
        // Its parent has gone on when it became a daemon, and hears of it again only when it fails.
        let daemoned = std::mem::take(&mut node.daemoned);
        if daemoned {
            node.change_rare(|rare| rare.was_daemoned = true);
        }
        self.state.index.active_leaves.remove(&(id, index));
        self.drop_work(id, index);
        self.drop_timers(id, index);
        if leaf && phase == NodePhase::Succeeded {
            self.workflow(id)?.leaves_succeeded += 1;
        }
        if let Some(reason) = u32::try_from(fact.loss).ok().filter(|reason| *reason != 0) {
            *self.workflow(id)?.lost.entry(reason).or_default() += 1;
        }
        if daemoned {
            self.daemon_ended(id, boundary, index)?;
        }
        let counted_as_pod = self.state.counts_as_pod(id, index);
        self.drop_lock_request((id, index));
        if kind == NodeType::Pod.number() && !daemoned && counted_as_pod {
            let workflow = self.workflow(id)?;
            workflow.pods_active = workflow.pods_active.saturating_sub(1);
        }
        if counts_to_boundary(kind) && boundary != 0 {
            let boundary = self.node(id, boundary)?;
            boundary.active_below = boundary.active_below.saturating_sub(u32::from(!daemoned));
            boundary.failed_below += u32::from(phase.is_failed_or_error());
        }
        if hooked && parent != 0 {
            if !daemoned {
                self.hook_over(id, parent)?;
            }
        } else if parent != 0 {
            let child = row::FailedChild { rank: fact.rank, node: index };
            let parent = self.node(id, parent)?;
            parent.children_done += u32::from(!daemoned);
            parent.children_succeeded += u32::from(phase == NodePhase::Succeeded);
            parent.children_failed += u32::from(phase == NodePhase::Failed);
            if fact.counts_as_failure {
                count_failure(parent, child);
            }
        }
        self.drill_sees_finished(id, index)?;
        if daemoned && !phase.is_failed_or_error() {
            return Ok(());
        }
        self.push_agenda(id, agenda_item(row::AgendaKind::Done, index))
    }

    /// A hook is counted at its node, and at the node's parent, which ends after it.
    fn hook_added(&mut self, id: u64, owner: u32, fulfilled: bool) -> Result<(), Error> {
        if fulfilled {
            return Ok(());
        }
        let node = self.node(id, owner)?;
        node.hooks_open += 1;
        let parent = node.parent;
        if parent != 0 {
            self.node(id, parent)?.hooks_below += 1;
        }
        Ok(())
    }

    pub(crate) fn hook_over(&mut self, id: u64, owner: u32) -> Result<(), Error> {
        let node = self.node(id, owner)?;
        node.hooks_open = node.hooks_open.saturating_sub(1);
        let parent = node.parent;
        if parent != 0 {
            let parent = self.node(id, parent)?;
            parent.hooks_below = parent.hooks_below.saturating_sub(1);
        }
        Ok(())
    }

    pub(crate) fn node_queued(&mut self, fact: &fact::NodeQueued) -> Result<(), Error> {
        let (id, node) = (fact.workflow, fact.node);
        let work = fact.work.clone().ok_or(Error::Misfit { what: "work", id })?;
        self.queue_work(id, node, work);
        self.count_pod(id, node)
    }

    pub(crate) fn take_queue_number(&mut self) -> u64 {
        let number = self.state.meta.queue_next;
        self.state.meta.queue_next += 1;
        number
    }

    pub(crate) fn attempt_assigned(&mut self, fact: &fact::AttemptAssigned) -> Result<(), Error> {
        let (id, node, fence) = (fact.workflow, fact.node, self.fence);
        let work = self.state.works.get_mut(&(id, node)).ok_or(Error::Misfit { what: "work", id })?;
        let work = Arc::make_mut(work);
        let (shape, queue, requests) = (work.shape.clone(), work.queue, work.requests.clone());
        let exclusive_lease_ms = work.exclusive_lease_ms;
        let reproduces = work.reproduces;
        work.fence = Some(fence);
        if !fact.template_json.is_empty() {
            work.template_json.clone_from(&fact.template_json);
        }
        self.touch(Key::Work(id, node));
        self.state.index_unqueued(&shape, queue);
        self.drop_idle_block(&shape);
        let attempt = row::Attempt {
            version: ROW_VERSION,
            workflow: id,
            node,
            cluster: fact.cluster.clone(),
            assigned_at_ms: self.time.0,
            requests: requests.clone().map(Box::new),
            exclusive_lease_ms,
            ..row::Attempt::default()
        };
        self.state.attempts.insert(fence, Arc::new(attempt));
        self.state.index.on_cluster.insert((Arc::from(fact.cluster.as_str()), fence));
        self.state.index.of_node.insert((id, node, fence));
        self.touch(Key::Attempt(fence));
        self.touch_workflow(id);
        if reproduces {
            self.workflow(id)?.refuge.clone_from(&fact.cluster);
        }
        let cluster = self.cluster(&fact.cluster)?;
        cluster.attempts_open += 1;
        resources::add(cluster.used.get_or_insert_default(), requests.as_ref());
        self.drill_sees_assigned(id, node, &fact.cluster)
    }

    pub(crate) fn attempt_updated(&mut self, fact: &fact::AttemptUpdated) -> Result<(), Error> {
        let fence = required(fact.fence)?;
        let cluster = self.attempt(fence)?.cluster.clone();
        let is_removed = self.state.cluster(&cluster).is_some_and(|row| row.removed);
        let attempt = self.attempt(fence)?;
        attempt.revision = fact.revision;
        attempt.phase = fact.phase;
        attempt.permitted |= fact.permitted;
        attempt.host.clone_from(&fact.host);
        attempt.handle.clone_from(&fact.handle);
        // What a removed cluster still says changes nothing of what becomes of it.
        attempt.left &= is_removed;
        // It started before it could be given back: it goes on.
        attempt.recalled &= attempt.stopping || !attempt.permitted;
        self.drill_sees_running(fence)
    }

    pub(crate) fn attempt_stopped(&mut self, fact: &fact::AttemptStopped) -> Result<(), Error> {
        let attempt = self.attempt(required(fact.fence)?)?;
        attempt.stopping = true;
        // Whoever wants it ended wins over whoever wants it elsewhere.
        attempt.recalled = false;
        attempt.stop_reason.clone_from(&fact.reason);
        Ok(())
    }

    pub(crate) fn attempt_fenced(&mut self, fact: &fact::AttemptFenced) -> Result<(), Error> {
        let fence = required(fact.fence)?;
        self.give_up(fence, &fact.reason, &fact.shape, 1, false)?;
        self.attempt(fence)?.on_reconnect = fact.on_reconnect;
        self.drill_sees_fenced(fence)
    }

    /// The attempt's result no longer counts, and its node waits for placement again, not on this cluster: never, if it was
    /// `refused` there.
    pub(crate) fn give_up(
        &mut self,
        fence: Fence,
        reason: &str,
        shape: &[u8],
        take_overs: u32,
        refused: bool,
    ) -> Result<(), Error> {
        let attempt = self.attempt(fence)?;
        attempt.fenced = true;
        attempt.stopping = true;
        reason.clone_into(&mut attempt.stop_reason);
        let (id, node, cluster) = (attempt.workflow, attempt.node, attempt.cluster.clone());
        let requests = attempt.requests.take();
        self.release(&cluster, requests.as_deref())?;
        let queue = self.take_queue_number();
        let work = self.state.works.get_mut(&(id, node)).ok_or(Error::Misfit { what: "work", id })?;
        let work = Arc::make_mut(work);
        work.fence = None;
        work.takeovers += take_overs;
        work.queue = queue;
        work.shape = shape.to_vec();
        let away_from = if refused { &mut work.refused } else { &mut work.excluded };
        if !away_from.contains(&cluster) {
            away_from.push(cluster);
        }
        self.state.index_queued(shape, queue, (id, node));
        self.touch(Key::Work(id, node));
        self.wait_for_placement(id, node)
    }

    /// The node shows that it waits, unless it has ended and is only run again for its artifacts.
    pub(crate) fn wait_for_placement(&mut self, id: u64, node: u32) -> Result<(), Error> {
        let node = self.node(id, node)?;
        if phase_of(node).is_fulfilled() {
            return Ok(());
        }
        node.phase = NodePhase::Pending.number();
        node.message.clear();
        node.host.clear();
        Ok(())
    }

    pub(crate) fn attempt_closed(&mut self, fact: &fact::AttemptClosed) -> Result<(), Error> {
        let fence = required(fact.fence)?;
        let attempt = self.attempt(fence)?;
        if attempt.closed {
            return Err(Error::Misfit { what: "open attempt", id: fence.index });
        }
        attempt.closed = true;
        attempt.revision = attempt.revision.max(fact.revision);
        attempt.phase = fact.phase;
        if !fact.host.is_empty() {
            attempt.host.clone_from(&fact.host);
        }
        let (orphan, fenced, cluster) = (attempt.workflow == 0, attempt.fenced, attempt.cluster.clone());
        // Its end was told by nobody: an exclusive step runs until its own lease is over.
        let may_run = attempt.quarantined && fact.revision == 0 && !attempt.exclusive_workflow_uid.is_empty();
        let requests = attempt.requests.take();
        self.state.index.on_cluster.remove(&(Arc::from(cluster.as_str()), fence));
        if may_run {
            self.lost_part_may_run();
        }
        if orphan {
            self.state.attempts.remove(&fence);
        }
        if !fenced {
            self.release(&cluster, requests.as_deref())?;
        }
        let row = self.cluster(&cluster)?;
        row.attempts_open = row.attempts_open.saturating_sub(1);
        self.drill_sees_closed(fence)
    }

    pub(crate) fn release(&mut self, cluster: &str, requests: Option<&Resources>) -> Result<(), Error> {
        let row = self.cluster(cluster)?;
        resources::subtract(row.used.get_or_insert_default(), requests);
        self.capacity_grew();
        Ok(())
    }

    pub(crate) fn workflow_pinned(&mut self, fact: &fact::WorkflowPinned) -> Result<(), Error> {
        self.workflow(fact.workflow)?.pins.insert(fact.group, fact.cluster.clone());
        Ok(())
    }
}

/// Node types that a template's `parallelism` counts.
pub(crate) fn counts_to_boundary(kind: i32) -> bool {
    [NodeType::Pod, NodeType::Steps, NodeType::Dag].iter().any(|counted| counted.number() == kind)
}

pub(crate) fn agenda_item(kind: row::AgendaKind, node: u32) -> row::AgendaItem {
    row::AgendaItem { version: ROW_VERSION, kind: kind.into(), node, cursor: 0 }
}

fn count_failure(parent: &mut row::Node, child: row::FailedChild) {
    parent.change_rare(|rare| {
        if rare.failed_first.is_none_or(|first| child.rank < first.rank) {
            rare.failed_first = Some(child);
        }
        if rare.failed_last.is_none_or(|last| child.rank >= last.rank) {
            rare.failed_last = Some(child);
        }
    });
}

pub(crate) fn required(fence: Option<Fence>) -> Result<Fence, Error> {
    fence.ok_or(Error::Misfit { what: "fence", id: 0 })
}
