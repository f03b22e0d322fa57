//! How it ends when a step runs again for its artifacts, and what becomes of those who wait for them.

use argosy_model::NodePhase;
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use super::{all_of, find, is_reproduction, shown};
use crate::Leader;
use crate::advance::{Turn, finish_lost, leaf, outputs};
use crate::artifacts;
use crate::commands::report_artifact_task;
use crate::commands::report_attempt::clip;
use crate::draft::Draft;
use crate::loss::{self, Loss};
use crate::place;
use crate::state::State;

/// Readers that a failure ends at once. Others find out for themselves.
const READERS_MAX: usize = 256;

/// The attempt of a step that runs again reported its end.
pub(crate) fn attempt_over(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    index: u32,
    report: &AttemptReport,
) {
    let Some(turn) = Turn::new(draft, leader, workflow) else { return };
    let node = turn.node(index);
    let (phase, message) = leaf::ending(&turn, index, report);
    let yielded = artifacts::of_leaf(&turn, index, report);
    let made = if phase == NodePhase::Succeeded {
        outputs::of_leaf(&turn, &node, report).and_then(|outputs| {
            let mut outputs = outputs.unwrap_or_default();
            outputs.artifacts = yielded.artifacts;
            check(&node, &outputs).map(|()| outputs)
        })
    } else {
        Err(if message.is_empty() { phase.as_str().to_owned() } else { message })
    };
    let outputs = match made {
        Ok(outputs) => outputs,
        // What went wrong around it may not go wrong again: whoever waits has it run once more, within its limit.
        Err(why) if phase == NodePhase::Error => {
            return ended(draft, workflow, index, row::ReproductionEnd::Failed, clip(&why));
        }
        Err(why) => return failed(draft, leader, workflow, index, why),
    };
    match yielded.task {
        Some(mut task) if draft.state.artifact_tasks.len() < leader.limits.artifact_tasks_max => {
            task.end = Some(row::ArtifactTaskEnd {
                phase: phase.number(),
                outputs: Some(outputs),
                ..row::ArtifactTaskEnd::default()
            });
            report_artifact_task::add(draft, task);
        }
        Some(_) => {
            let why = "too many artifacts wait to be copied to their keys".to_owned();
            failed(draft, leader, workflow, index, why);
        }
        None => made_again(draft, leader, workflow, index, outputs),
    }
}

/// All that was there the first time must be there again.
fn check(node: &row::Node, outputs: &row::Outputs) -> Result<(), String> {
    let before = node.outputs.iter().flat_map(|outputs| &outputs.artifacts);
    let mut stored = before.filter(|artifact| !artifact.stored_key.is_empty());
    let is_made = |wanted: &&row::Artifact| {
        outputs.artifacts.iter().any(|one| one.name == wanted.name && !one.stored_key.is_empty())
    };
    match stored.find(|artifact| !is_made(artifact)) {
        Some(missing) => Err(format!("it did not make {} again", missing.name)),
        None => Ok(()),
    }
}

/// The artifacts of a step that ran again are under the keys that users know, or can't get there.
pub(crate) fn published(
    draft: &mut Draft,
    leader: &mut Leader,
    task: &row::ArtifactTask,
    outputs: Option<row::Outputs>,
    error: &str,
) {
    if error.is_empty() {
        made_again(draft, leader, task.workflow, task.node, outputs.unwrap_or_default());
    } else {
        failed(draft, leader, task.workflow, task.node, format!("failed to put file: {error}"));
    }
}

fn made_again(draft: &mut Draft, leader: &Leader, workflow: u64, node: u32, outputs: row::Outputs) {
    let work = draft.state.works.get(&(workflow, node)).cloned().unwrap_or_default();
    if !super::is_needed(&draft.state, leader, workflow, node, &work) {
        // The first ones are back: whoever reads them finds them together, where they always were.
        return not_needed(draft, workflow, node);
    }
    let before = draft.state.node(workflow, node).and_then(|row| row.outputs.as_ref());
    let outputs_differ = before
        .is_some_and(|before| before.parameters != outputs.parameters || before.result != outputs.result);
    draft.emit(Body::ReproductionEnded(fact::ReproductionEnded {
        workflow,
        node,
        end: row::ReproductionEnd::Made.into(),
        message: String::new(),
        artifacts: outputs.artifacts,
        outputs_differ,
    }));
}

fn ended(draft: &mut Draft, workflow: u64, node: u32, end: row::ReproductionEnd, message: String) {
    draft.emit(Body::ReproductionEnded(fact::ReproductionEnded {
        workflow,
        node,
        end: end.into(),
        message,
        ..fact::ReproductionEnded::default()
    }));
}

/// A step that ran again did not make its artifacts: those who wait for them end, and those who wait for theirs.
pub(crate) fn failed(draft: &mut Draft, leader: &mut Leader, workflow: u64, producer: u32, why: String) {
    let mut todo = vec![(producer, why)];
    while let Some((producer, why)) = todo.pop() {
        let name = shown(&draft.state, workflow, producer);
        ended(draft, workflow, producer, row::ReproductionEnd::Failed, clip(&why));
        for (reader, input, lost) in readers(&draft.state, leader, workflow, producer) {
            let loss = find::loss(&draft.state, &lost);
            let message = clip(&format!(
                "{loss}, and with it its input {input}: {name} was run again for it, and failed: {why}"
            ));
            if is_reproduction(&draft.state, workflow, reader) {
                todo.push((reader, message));
            } else {
                finish_lost(draft, leader, workflow, reader, message, row::LossReason::Artifact);
            }
        }
    }
}

/// Who waits for what a step makes, by which of their inputs, and the cluster that it was lost with.
fn readers(state: &State, leader: &Leader, workflow: u64, producer: u32) -> Vec<(u32, String, String)> {
    let waiting = state.works.range(all_of(workflow)).filter(|(_, work)| work.fence.is_none());
    let reads = |((_, reader), work): (&(u64, u32), &std::sync::Arc<row::Work>)| {
        let node = state.node(workflow, *reader).filter(|_| !work.bound.is_empty())?;
        let inputs = node.rare().input_artifacts.iter();
        inputs.filter(|input| work.bound.contains(&input.stored_key)).find_map(|input| {
            let source = find::source(state, workflow, input)?;
            let lost = find::gone_with(state, leader, workflow, source.artifact)?;
            (source.producer == producer).then(|| (*reader, input.name.clone(), lost))
        })
    };
    waiting.filter_map(reads).take(READERS_MAX).collect()
}

/// What becomes of a step whose artifacts could not be copied to their keys.
pub(crate) enum Unpublished {
    /// It was taken over.
    TakenOver,
    /// Its cluster may come back.
    Waits,
    /// Its cluster is not the reason.
    Ends,
}

/// Artifacts of an attempt that is over could not be copied to the keys that users know. Where its cluster is lost they are
/// lost with it, and the step is taken over like one that was running.
pub(crate) fn unpublished(draft: &mut Draft, leader: &mut Leader, task: &row::ArtifactTask) -> Unpublished {
    let (workflow, node, cluster) = (task.workflow, task.node, task.cluster.as_str());
    let ended_well = task.end.as_ref().is_some_and(|end| end.phase == NodePhase::Succeeded.number());
    let shuts_down = draft.state.workflows.get(&workflow).is_none_or(|row| row.shutdown != 0);
    let work = draft.state.works.get(&(workflow, node)).cloned();
    let Some((work, fence)) = work.and_then(|work| work.fence.map(|fence| (work, fence))) else {
        return Unpublished::Ends;
    };
    let is_its_own = draft.state.attempt(&fence).is_some_and(|attempt| attempt.cluster == cluster);
    if !ended_well || shuts_down || !is_its_own || !find::is_gone(&draft.state, cluster) {
        return Unpublished::Ends;
    }
    let removed = find::is_removed(&draft.state, cluster);
    let lost_at_ms = draft.state.cluster(cluster).map_or(0, |row| row.lost_at_ms);
    let wait_ms = loss::wait_ms(&work, true, &leader.limits);
    let is_due = wait_ms.is_some_and(|wait_ms| lost_at_ms.saturating_add(wait_ms) <= draft.now().0);
    if !removed && !is_due {
        return Unpublished::Waits;
    }
    let loss = if removed { Loss::Removed { cluster } } else { Loss::Silent { cluster } };
    loss::take(draft, leader, fence, loss);
    Unpublished::TakenOver
}

/// A step can't have what it needs any more.
pub(crate) fn end_reader(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    message: String,
    loss: row::LossReason,
) {
    if is_reproduction(&draft.state, workflow, node) {
        failed(draft, leader, workflow, node, message);
    } else {
        finish_lost(draft, leader, workflow, node, message, loss);
    }
}

/// Nobody needs the artifacts that a step was to make again.
pub(crate) fn not_needed(draft: &mut Draft, workflow: u64, node: u32) {
    ended(draft, workflow, node, row::ReproductionEnd::NotNeeded, String::new());
}

/// The workflow is being shut down: nothing is made again for it. Exit handlers that need something ask anew.
pub(crate) fn withdraw_all(turn: &mut Turn<'_>) {
    let works = turn.draft.state.works.range(all_of(turn.workflow));
    let running: Vec<u32> = works.filter(|(_, work)| work.reproduces).map(|((_, node), _)| *node).collect();
    for node in running {
        not_needed(turn.draft, turn.workflow, node);
    }
}

/// An attempt did not find inputs that were lost with their cluster, or could not reach that cluster's store: its node waits
/// until they are made again. False: it ends as Argo has it.
pub(crate) fn reader_lacks(
    draft: &mut Draft,
    leader: &Leader,
    workflow: u64,
    index: u32,
    report: &AttemptReport,
) -> bool {
    let ended_badly = matches!(report.phase(), AttemptPhase::Error | AttemptPhase::Failed);
    let is_over = draft.state.workflows.get(&workflow).is_none_or(|row| row.shutdown != 0);
    if !ended_badly || is_over {
        return false;
    }
    let (Some(work), Some(node), Some(fence)) =
        (draft.state.works.get(&(workflow, index)).cloned(), draft.state.node(workflow, index), report.fence)
    else {
        return false;
    };
    let mut lost = None;
    let mut bound = Vec::new();
    let missing = report.missing_artifacts.iter().map(|name| (name, true));
    let unreached = report.unreached_artifacts.iter().map(|name| (name, false));
    for (name, is_missing) in missing.chain(unreached) {
        let input = node.rare().input_artifacts.iter().find(|input| input.name == *name);
        let source = input.and_then(|input| find::source(&draft.state, workflow, input));
        let source = source.filter(|source| !find::is_deleted(source.artifact));
        let gone_with =
            source.and_then(|source| find::gone_with(&draft.state, leader, workflow, source.artifact));
        match gone_with {
            // Others that could not be reached at the same time may only have been behind it.
            None if !is_missing => {}
            None => return false,
            Some(cluster) => {
                bound.extend(input.map(|input| input.stored_key.clone()));
                lost.get_or_insert_with(|| {
                    format!("{}, and with it its input {name}", find::loss(&draft.state, &cluster))
                });
            }
        }
    }
    if lost.is_none() {
        return false;
    }
    let mut waiting = work.as_ref().clone();
    bound.retain(|key| !waiting.bound.contains(key));
    waiting.bound.extend(bound.iter().cloned());
    let shape = place::shape(&draft.state, workflow, index, &waiting);
    crate::advance::containers::reset(draft, workflow, index);
    draft.emit(Body::ReaderReturned(fact::ReaderReturned {
        fence: Some(fence),
        reason: lost.unwrap_or_default(),
        bound,
        shape,
    }));
    true
}
