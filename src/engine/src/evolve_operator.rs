//! Facts of operators' actions and of stored templates to state.

use argosy_model::{NodePhase, WorkflowPhase};
use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_leaf;
use crate::key::Key;
use crate::state::{ROW_VERSION, is_leaf_type, phase_of};

impl Step<'_> {
    pub(crate) fn workflow_suspended(&mut self, fact: &fact::WorkflowSuspended) -> Result<(), Error> {
        let id = fact.workflow;
        self.workflow(id)?.suspended = fact.suspended;
        self.refresh_ready(id);
        Ok(())
    }

    pub(crate) fn workflow_begun(&mut self, fact: &fact::WorkflowBegun) -> Result<(), Error> {
        self.workflow(fact.workflow)?.started_at_ms = self.time.0;
        Ok(())
    }

    pub(crate) fn action_taken(&mut self, fact: &fact::ActionTaken) -> Result<(), Error> {
        let workflow = self.workflow(fact.workflow)?;
        workflow.actor.clone_from(&fact.actor);
        if !fact.action.is_empty() {
            workflow.action.clone_from(&fact.action);
        }
        Ok(())
    }

    pub(crate) fn node_set(&mut self, fact: &fact::NodeSet) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.message.clone_from(&fact.message);
        node.outputs.clone_from(&fact.outputs);
        Ok(())
    }

    pub(crate) fn workflow_reopened(&mut self, fact: &fact::WorkflowReopened) -> Result<(), Error> {
        let (id, now) = (fact.workflow, self.time.0);
        let owned = self.owned_entry(id);
        let workflow = self.workflow(id)?;
        let finished_at_ms = workflow.finished_at_ms;
        let phase = workflow.phase;
        if finished_at_ms == 0 {
            return Err(Error::Misfit { what: "finished workflow", id });
        }
        workflow.finished_at_ms = 0;
        workflow.started_at_ms = now;
        workflow.phase = WorkflowPhase::Running.number();
        workflow.message.clear();
        workflow.shutdown = 0;
        workflow.shutdown_message.clear();
        workflow.suspended = false;
        workflow.exit_node = 0;
        // Its next end counts again, as in Argo.
        workflow.cron_counted = false;
        self.drop_timers(id, 0);
        self.reindex_owned(id, owned);
        self.not_finished(id, phase, finished_at_ms);
        self.state.index.active_workflows += 1;
        self.refresh_ready(id);
        Ok(())
    }

    pub(crate) fn workflow_amended(&mut self, fact: &fact::WorkflowAmended) -> Result<(), Error> {
        let workflow = self.workflow(fact.workflow)?;
        workflow.summary_json.clone_from(&fact.summary_json);
        workflow.pod_json.clone_from(&fact.pod_json);
        self.manifest(fact.workflow)?.json.clone_from(&fact.manifest_json);
        Ok(())
    }

    fn manifest(&mut self, id: u64) -> Result<&mut row::Manifest, Error> {
        self.touch(Key::Manifest(id));
        let row = self.state.manifests.get_mut(&id).ok_or(Error::Misfit { what: "manifest", id })?;
        Ok(Arc::make_mut(row))
    }

    pub(crate) fn workflow_resolved(&mut self, fact: &fact::WorkflowResolved) -> Result<(), Error> {
        let manifest = self.manifest(fact.workflow)?;
        manifest.resolved_json.clone_from(&fact.resolved_json);
        manifest.stored_json.clone_from(&fact.stored_json);
        Ok(())
    }

    /// Numbers of nodes that went are given again from the highest one left on: a root is always the first.
    pub(crate) fn nodes_removed(&mut self, fact: &fact::NodesRemoved) -> Result<(), Error> {
        let id = fact.workflow;
        for node in &fact.nodes {
            self.orphan_attempts(id, *node)?;
            self.drop_work(id, *node);
            self.drop_timers(id, *node);
            self.drop_loops(id, *node);
            let Some(row) = self.state.nodes.remove(&(id, *node)) else {
                return Err(Error::Misfit { what: "node", id });
            };
            self.touch(Key::Node(id, *node));
            self.state.index.children.remove(&(id, row.parent, row.ordinal));
            self.state.index.active_leaves.remove(&(id, *node));
            self.drill_forgets(id, *node)?;
            let succeeded = phase_of(&row) == NodePhase::Succeeded;
            if is_leaf_type(row.r#type) {
                let (containers, done) = evolve_leaf::count(&row.rare().containers);
                let workflow = self.workflow(id)?;
                workflow.leaves_total = workflow.leaves_total.saturating_sub(1 + containers);
                workflow.leaves_succeeded =
                    workflow.leaves_succeeded.saturating_sub(u32::from(succeeded) + done);
            }
        }
        let last =
            self.state.nodes.range((id, 0)..=(id, u32::MAX)).next_back().map_or(0, |((_, node), _)| *node);
        self.workflow(id)?.node_next = last + 1;
        Ok(())
    }

    fn drop_loops(&mut self, id: u64, node: u32) {
        let expansions = self.state.expansions.range((id, node, 0)..=(id, node, u32::MAX));
        for key in expansions.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.state.expansions.remove(&key);
            self.touch(Key::Expansion(key.0, key.1, key.2));
        }
        let waits = self.state.waits.range((id, node, 0)..=(id, node, u32::MAX));
        for key in waits.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.state.waits.remove(&key);
            self.touch(Key::Wait(key.0, key.1, key.2));
        }
    }

    pub(crate) fn node_reopened(&mut self, fact: &fact::NodeReopened) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.phase = NodePhase::Running.number();
        node.branch_phase = 0;
        node.message.clear();
        node.outputs = None;
        node.finished_at_ms = 0;
        node.children_total = fact.children_total;
        node.children_done = fact.children_done;
        node.children_succeeded = fact.children_succeeded;
        node.children_failed = fact.children_failed;
        node.children_complete = fact.children_complete;
        // Only what has ended is reopened: nothing below it runs or waits.
        (node.active_below, node.failed_below) = (0, 0);
        (node.hooks_open, node.hooks_below) = (0, 0);
        node.held = false;
        node.daemoned = false;
        node.change_rare(|rare| {
            rare.failed_first = fact.failed_first;
            rare.failed_last = fact.failed_last;
            rare.held_tasks.clear();
            rare.daemons.clear();
            rare.was_daemoned = false;
        });
        Ok(())
    }

    pub(crate) fn dependencies_set(&mut self, fact: &fact::DependenciesSet) {
        let key = (fact.workflow, fact.node, fact.task);
        if fact.met == 0 {
            self.state.waits.remove(&key);
        } else {
            self.state.waits.insert(key, row::DagWait { version: ROW_VERSION, met: fact.met });
        }
        self.touch(Key::Wait(key.0, key.1, key.2));
    }

    pub(crate) fn node_remembered(&mut self, fact: &fact::NodeRemembered) -> Result<(), Error> {
        let id = fact.workflow;
        let mut outcome = fact.outcome.clone().ok_or(Error::Misfit { what: "outcome", id })?;
        outcome.version = ROW_VERSION;
        self.state.remembered.insert((id, fact.name.clone()), Arc::new(outcome));
        self.touch(Key::Remembered(id, fact.name.clone()));
        Ok(())
    }

    /// Outcomes that no node of the workflow took over.
    pub(crate) fn forget_remembered(&mut self, id: u64) {
        let left = self.state.remembered.range((id, String::new())..);
        let left: Vec<_> = left.map(|(key, _)| key).take_while(|key| key.0 == id).cloned().collect();
        for key in left {
            self.state.remembered.remove(&key);
            self.touch(Key::Remembered(key.0, key.1));
        }
    }

    pub(crate) fn template_stored(&mut self, fact: &fact::TemplateStored) {
        let key = (fact.cluster_scope, fact.namespace.clone(), fact.name.clone());
        let mut template = self.state.templates.get(&key).map(|row| row.as_ref().clone()).unwrap_or_default();
        if template.version == 0 {
            template.created_at_ms = self.time.0;
        }
        template.version = ROW_VERSION;
        template.uid.clone_from(&fact.uid);
        template.json.clone_from(&fact.manifest_json);
        if !fact.creator.is_empty() {
            template.creator.clone_from(&fact.creator);
        }
        template.actor.clone_from(&fact.actor);
        template.changed_sequence = self.state.meta.sequence + 1;
        template.generation += 1;
        self.state.templates.insert(key.clone(), Arc::new(template));
        self.touch(Key::Template(key.0, key.1, key.2));
    }

    pub(crate) fn template_deleted(&mut self, fact: &fact::TemplateDeleted) {
        let key = (fact.cluster_scope, fact.namespace.clone(), fact.name.clone());
        self.state.templates.remove(&key);
        self.touch(Key::Template(key.0, key.1, key.2));
    }
}
