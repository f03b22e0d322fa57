//! Tasks in object stores: what state wants done, and how an agent fared with it.

use argosy_model::NodePhase;
use argosy_proto::command::{Refusal, Reply, ReportArtifactTask};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::advance;
use crate::commands::done;
use crate::draft::Draft;
use crate::reproduce::Unpublished;
use crate::{Leader, artifacts, reproduce};

/// A task's outcome. One that is not known any more was reported before.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ReportArtifactTask,
) -> Result<Reply, Refusal> {
    let number = command.task;
    let Some(task) = draft.state.artifact_tasks.get(&number).cloned() else { return Ok(done()) };
    let mut given_up = command.permanent || task.tries + 1 >= leader.limits.artifact_tries_max;
    if !command.error.is_empty() && task.kind() == row::ArtifactTaskKind::Publish {
        match reproduce::unpublished(draft, leader, &task) {
            Unpublished::TakenOver => {
                draft.emit(Body::ArtifactTaskEnded(fact::ArtifactTaskEnded { task: number }));
                return Ok(done());
            }
            Unpublished::Waits => given_up = false,
            Unpublished::Ends => {}
        }
    }
    if !command.error.is_empty() && !given_up {
        let tries = task.tries.min(leader.limits.artifact_tries_max);
        let wait_ms = leader.limits.artifact_retry_ms.saturating_mul(i64::from(tries) + 1);
        let not_before_ms = draft.now().plus_ms(wait_ms).0;
        let message = super::report_attempt::clip(&command.error);
        draft.emit(Body::ArtifactTaskDeferred(fact::ArtifactTaskDeferred {
            task: number,
            not_before_ms,
            message,
        }));
        return Ok(done());
    }
    draft.emit(Body::ArtifactTaskEnded(fact::ArtifactTaskEnded { task: number }));
    match task.kind() {
        row::ArtifactTaskKind::Publish => published(draft, leader, &task, &command.error),
        row::ArtifactTaskKind::Collect if command.error.is_empty() => collected(draft, &task),
        row::ArtifactTaskKind::Collect
        | row::ArtifactTaskKind::Sweep
        | row::ArtifactTaskKind::Unspecified => {}
    }
    Ok(done())
}

/// A node whose artifacts are where they belong ends as its attempt did.
fn published(draft: &mut Draft, leader: &mut Leader, task: &row::ArtifactTask, error: &str) {
    let Some(end) = task.end.clone() else { return };
    if draft.state.node(task.workflow, task.node).is_none() {
        return;
    }
    if reproduce::is_reproduction(&draft.state, task.workflow, task.node) {
        return reproduce::published(draft, leader, task, end.outputs, error);
    }
    let (mut phase, mut message) =
        (NodePhase::from_number(end.phase).unwrap_or(NodePhase::Error), end.message);
    let mut outputs = end.outputs;
    if !error.is_empty() {
        phase = NodePhase::Error;
        message = format!("wait: Error (exit code 64): failed to put file: {error}; ");
        outputs.iter_mut().for_each(|outputs| outputs.artifacts.clear());
    }
    advance::finish_node(
        draft,
        leader,
        task.workflow,
        task.node,
        phase,
        message,
        outputs,
        end.finished_at_ms,
    );
}

fn collected(draft: &mut Draft, task: &row::ArtifactTask) {
    if !draft.state.workflows.contains_key(&task.workflow) {
        return;
    }
    let mut of_nodes: std::collections::BTreeMap<u32, Vec<String>> = std::collections::BTreeMap::new();
    for copy in &task.copies {
        of_nodes.entry(copy.node).or_default().push(copy.name.clone());
    }
    for (node, names) in of_nodes {
        if draft.state.node(task.workflow, node).is_some() {
            let workflow = task.workflow;
            let strategy = task.strategy.clone();
            draft.emit(Body::ArtifactsDeleted(fact::ArtifactsDeleted { workflow, node, names, strategy }));
        }
    }
}

/// Wants something done in an object store.
pub(crate) fn add(draft: &mut Draft, task: row::ArtifactTask) {
    let number = draft.state.meta.artifact_task_next.max(1);
    draft.emit(Body::ArtifactTaskAdded(fact::ArtifactTaskAdded { task: number, contents: Some(task) }));
}

/// A workflow is over: what its attempts stored for themselves is deleted later, and what artifact GC says now.
pub(crate) fn workflow_over(draft: &mut Draft, leader: &Leader, workflow: u64, strategy: &str) {
    let Some(row) = draft.state.workflows.get(&workflow).cloned() else { return };
    let prefix = artifacts::prefix_of(&draft.state, &row);
    let not_before_ms = draft.now().plus_ms(leader.limits.artifact_sweep_after_ms).0;
    let mut stores = artifacts::stores_of_unheard(&draft.state, workflow, &row);
    stores.extend(row.artifact_stores.iter().cloned());
    for location_json in &stores {
        let copy = row::ArtifactCopy {
            location_json: location_json.clone(),
            from: prefix.clone(),
            directory: true,
            ..row::ArtifactCopy::default()
        };
        add(
            draft,
            row::ArtifactTask {
                kind: row::ArtifactTaskKind::Sweep.into(),
                namespace: row.namespace.clone(),
                copies: vec![copy],
                not_before_ms,
                ..row::ArtifactTask::default()
            },
        );
    }
    collect(draft, workflow, strategy, "OnWorkflowCompletion");
}

/// Has the artifacts deleted whose strategy is `now`; `strategy` is the workflow's own.
pub(crate) fn collect(draft: &mut Draft, workflow: u64, strategy: &str, now: &str) {
    /// Artifacts of one task: a batch stays small.
    const PER_TASK: usize = 200;
    let Some(row) = draft.state.workflows.get(&workflow).cloned() else { return };
    let nodes = draft.state.nodes.range((workflow, 0)..=(workflow, u32::MAX));
    let mut copies = Vec::new();
    for ((_, index), node) in nodes.filter(|(_, node)| artifacts::owns(node)) {
        let outputs = node.outputs.iter().flat_map(|outputs| &outputs.artifacts);
        copies.extend(
            outputs.filter_map(|artifact| artifacts::collectable(artifact, &row, strategy, now, *index)),
        );
    }
    for copies in copies.chunks(PER_TASK) {
        add(
            draft,
            row::ArtifactTask {
                kind: row::ArtifactTaskKind::Collect.into(),
                workflow,
                namespace: row.namespace.clone(),
                copies: copies.to_vec(),
                strategy: now.to_owned(),
                ..row::ArtifactTask::default()
            },
        );
    }
}
