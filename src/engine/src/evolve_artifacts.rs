//! Facts about artifacts and object stores, to state.

use argosy_proto::fact;
use argosy_proto::state as row;
use argosy_spec::Artifact;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::ROW_VERSION;

/// Locations of one workflow whose attempts' objects are swept; more are never written by one.
const STORES_MAX: usize = 100;

impl Step<'_> {
    pub(crate) fn artifact_task_added(&mut self, fact: &fact::ArtifactTaskAdded) -> Result<(), Error> {
        let mut task = fact.contents.clone().ok_or(Error::Misfit { what: "artifact task", id: fact.task })?;
        task.version = ROW_VERSION;
        if task.kind() == row::ArtifactTaskKind::Publish && self.state.workflows.contains_key(&task.workflow)
        {
            let workflow = self.workflow(task.workflow)?;
            for copy in &task.copies {
                let known = workflow.artifact_stores.contains(&copy.location_json);
                if !known && workflow.artifact_stores.len() < STORES_MAX {
                    workflow.artifact_stores.push(copy.location_json.clone());
                }
            }
        }
        self.state.meta.artifact_task_next = self.state.meta.artifact_task_next.max(fact.task + 1);
        self.state.artifact_tasks.insert(fact.task, Arc::new(task));
        self.touch(Key::ArtifactTask(fact.task));
        Ok(())
    }

    pub(crate) fn artifact_task_deferred(&mut self, fact: &fact::ArtifactTaskDeferred) -> Result<(), Error> {
        let task = self.state.artifact_tasks.get_mut(&fact.task);
        let task = Arc::make_mut(task.ok_or(Error::Misfit { what: "artifact task", id: fact.task })?);
        task.tries += 1;
        task.not_before_ms = fact.not_before_ms;
        task.message.clone_from(&fact.message);
        self.touch(Key::ArtifactTask(fact.task));
        Ok(())
    }

    pub(crate) fn artifact_task_ended(&mut self, fact: &fact::ArtifactTaskEnded) {
        self.state.artifact_tasks.remove(&fact.task);
        self.touch(Key::ArtifactTask(fact.task));
    }

    pub(crate) fn artifacts_deleted(&mut self, fact: &fact::ArtifactsDeleted) -> Result<(), Error> {
        if !fact.strategy.is_empty() {
            let done = &mut self.workflow(fact.workflow)?.artifact_strategies;
            if !done.contains(&fact.strategy) {
                done.push(fact.strategy.clone());
            }
        }
        if fact.names.is_empty() {
            return Ok(());
        }
        let node = self.node(fact.workflow, fact.node)?;
        let artifacts = node.outputs.iter_mut().flat_map(|outputs| &mut outputs.artifacts);
        for artifact in artifacts.filter(|artifact| fact.names.contains(&artifact.name)) {
            if let Ok(mut shown) = serde_json::from_str::<Artifact>(&artifact.json) {
                shown.deleted = true;
                artifact.json = serde_json::to_string(&shown).unwrap_or_default();
            }
        }
        Ok(())
    }
}
