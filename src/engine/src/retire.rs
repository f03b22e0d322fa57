//! Workflows leave: deleted by somebody, beyond a limit, or at the end of their time to live.

use argosy_model::WorkflowPhase;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Manifest, TtlStrategy};

use crate::commands::report_artifact_task;
use crate::draft::Draft;
use crate::state::ROW_VERSION;
use crate::{Leader, cron};

/// Workflows that leave on one occasion.
const LEAVING_AT_ONCE_MAX: usize = 4;

/// The workflow is gone for everybody, and in the archive if it has ended; the CronWorkflow that waited for it looks again.
pub(crate) fn retire(draft: &mut Draft, leader: &mut Leader, workflow: u64) {
    let Some(row) = draft.state.workflows.get(&workflow).filter(|row| !row.deleted).cloned() else { return };
    let parsed = leader.parsed(&draft.state, workflow);
    let strategy = parsed.map(|parsed| parsed.manifest.spec.artifact_gc_strategy().to_owned());
    report_artifact_task::collect(draft, workflow, &strategy.unwrap_or_default(), "OnWorkflowDeletion");
    if row.finished_at_ms != 0 && leader.limits.archive_workflows_max > 0 {
        draft.emit(Body::WorkflowRetired(fact::WorkflowRetired { workflow }));
        archived(draft, leader, workflow, row.finished_at_ms);
    } else {
        draft.emit(Body::WorkflowDeleted(fact::WorkflowDeleted { workflow }));
    }
    leader.forget(workflow);
    let waits = row.cron != 0 && row.finished_at_ms == 0;
    if waits && draft.state.crons.get(&row.cron).is_some_and(|cron| !cron.deleted) {
        cron::wake(draft, row.cron);
    }
}

/// What the archive's bounds say once it has one more.
fn archived(draft: &mut Draft, leader: &Leader, workflow: u64, finished_at_ms: i64) {
    if leader.limits.archive_ttl_ms > 0 {
        let due_ms = finished_at_ms.saturating_add(leader.limits.archive_ttl_ms).max(draft.now().0);
        let kind = row::TimerKind::Archive.into();
        let timer = row::Timer { version: ROW_VERSION, due_ms, workflow, node: 0, kind };
        draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
    }
    for _ in 0..LEAVING_AT_ONCE_MAX {
        if draft.state.index.archived_age.len() <= leader.limits.archive_workflows_max {
            return;
        }
        let Some((_, oldest)) = draft.state.index.archived_age.get_min().copied() else { return };
        draft.emit(Body::ArchiveDropped(fact::ArchiveDropped { workflow: oldest }));
    }
}

/// The archive may forget a workflow.
pub(crate) fn forgotten(draft: &mut Draft, workflow: u64) {
    if draft.state.archived.contains_key(&workflow) {
        draft.emit(Body::ArchiveDropped(fact::ArchiveDropped { workflow }));
    }
}

/// Finished workflows beyond what may stay leave, oldest first; a few at a time, so that it never costs much at once.
pub(crate) fn beyond_limits(draft: &mut Draft, leader: &mut Leader) {
    for _ in 0..LEAVING_AT_ONCE_MAX {
        let index = &draft.state.index;
        let too_many = index.finished.len() > leader.limits.workflows_finished_max
            || index.finished_nodes > leader.limits.finished_nodes_max;
        let oldest = if too_many { index.finished.get_min().map(|(_, workflow)| *workflow) } else { None };
        let Some(workflow) = oldest.or_else(|| beyond_retention(draft, leader)) else { return };
        retire(draft, leader, workflow);
    }
}

/// The oldest of an outcome of which too many are kept.
fn beyond_retention(draft: &Draft, leader: &Leader) -> Option<u64> {
    let phases = [WorkflowPhase::Succeeded, WorkflowPhase::Failed, WorkflowPhase::Error];
    let kept = phases.into_iter().zip(leader.limits.retention).filter(|(_, kept)| *kept > 0);
    kept.filter_map(|(phase, kept)| {
        let phase = phase.number();
        let range = (phase, i64::MIN, 0)..=(phase, i64::MAX, u64::MAX);
        let ended = || draft.state.index.finished_as.range(range.clone());
        // Newest first: what follows those that stay has to go, and the oldest of it first.
        ended().rev().nth(kept)?;
        ended().next().map(|(.., workflow)| *workflow)
    })
    .next()
}

/// A workflow ended: its time to live begins.
pub(crate) fn ended(draft: &mut Draft, workflow: u64, manifest: &Manifest) {
    let Some(row) = draft.state.workflows.get(&workflow).filter(|row| row.finished_at_ms != 0) else {
        return;
    };
    let phase = WorkflowPhase::from_number(row.phase);
    let Some(seconds) = manifest.spec.ttl_strategy.and_then(|strategy| seconds(&strategy, phase)) else {
        return;
    };
    let span_ms = seconds.max(0).saturating_mul(1000);
    let due_ms = row.finished_at_ms.saturating_add(span_ms).max(draft.now().0);
    let timer =
        row::Timer { version: ROW_VERSION, due_ms, workflow, node: 0, kind: row::TimerKind::Ttl.into() };
    draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// Argo's rule: an error is no failure, and only the general value applies to it.
fn seconds(strategy: &TtlStrategy, phase: Option<WorkflowPhase>) -> Option<i64> {
    let own = match phase {
        Some(WorkflowPhase::Succeeded) => strategy.seconds_after_success,
        Some(WorkflowPhase::Failed) => strategy.seconds_after_failure,
        Some(WorkflowPhase::Error | WorkflowPhase::Pending | WorkflowPhase::Running) | None => None,
    };
    own.or(strategy.seconds_after_completion)
}

/// The time to live of a finished workflow is over.
pub(crate) fn expired(draft: &mut Draft, leader: &mut Leader, workflow: u64) {
    let finished = draft.state.workflows.get(&workflow).is_some_and(|row| row.finished_at_ms != 0);
    if finished {
        retire(draft, leader, workflow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_no_failure() {
        let strategy = TtlStrategy {
            seconds_after_completion: Some(1),
            seconds_after_success: Some(2),
            seconds_after_failure: Some(3),
        };
        let of = |phase| seconds(&strategy, Some(phase));
        assert_eq!(of(WorkflowPhase::Succeeded), Some(2));
        assert_eq!(of(WorkflowPhase::Failed), Some(3));
        assert_eq!(of(WorkflowPhase::Error), Some(1));
        let only_failure = TtlStrategy { seconds_after_failure: Some(3), ..TtlStrategy::default() };
        assert_eq!(seconds(&only_failure, Some(WorkflowPhase::Error)), None);
        assert_eq!(seconds(&only_failure, Some(WorkflowPhase::Succeeded)), None);
    }
}
