//! What committed changes say to people: counts for the metrics, and log lines with the ids of workflow and attempt.
//! Told by the leader only, so that a cell says each thing once.

use crate::Member;
use argosy_engine::State;
use argosy_model::{Fence, WorkflowId, WorkflowKey, display_fence};
use argosy_proto::state::LossReason;
use argosy_store::Kv;
use std::collections::BTreeSet;

/// A workflow's name, whether it still is there or no longer.
pub(crate) fn workflow_key(before: &State, after: &State, id: WorkflowId) -> Option<WorkflowKey> {
    let workflow = after.workflow(id).or_else(|| before.workflow(id))?;
    Some(WorkflowKey { namespace: workflow.namespace.clone(), name: workflow.name.clone() })
}

/// The CronWorkflow whose schedule started a workflow.
fn started_by(state: &State, id: WorkflowId) -> Option<(String, String)> {
    let row = state.workflow(id).filter(|row| row.cron != 0 && !row.backfill)?;
    let (_, cron) = state.crons().find(|(number, _)| *number == row.cron)?;
    Some((cron.namespace.clone(), cron.name.clone()))
}

/// The metric's word for why a step ended since a cluster was lost.
fn loss_name(reason: u32) -> &'static str {
    match i32::try_from(reason).ok().and_then(|number| LossReason::try_from(number).ok()) {
        Some(LossReason::Volume) => "volume",
        Some(LossReason::Artifact) => "artifact",
        Some(LossReason::FailoverFail) => "failover_fail",
        Some(LossReason::FailoverWait) => "failover_wait",
        Some(LossReason::TakeoverLimit) => "takeover_limit",
        Some(LossReason::Unspecified) | None => "other",
    }
}

fn name(before: &State, after: &State, id: WorkflowId) -> String {
    workflow_key(before, after, id).map_or_else(|| format!("number {}", id.0), |key| key.to_string())
}

/// The attempt's result no longer counts.
fn fenced(state: &State, fence: &Fence) -> bool {
    state.attempt(fence).is_some_and(|attempt| attempt.fenced)
}

impl<K: Kv> Member<K> {
    pub(crate) fn tell_workflows(&mut self, before: &State, after: &State, workflows: &BTreeSet<WorkflowId>) {
        let phase =
            |state: &State, id: WorkflowId| state.workflow(id).and_then(argosy_engine::workflow_phase);
        for id in workflows {
            if before.workflow(*id).is_none() && after.workflow(*id).is_some() {
                self.counters.workflows_accepted += 1;
                if let Some((namespace, cron)) = started_by(after, *id) {
                    *self.counters.cron_starts.entry((namespace, cron)).or_default() += 1;
                }
                tracing::info!(workflow = name(before, after, *id), "workflow accepted");
            }
            let again = |state: &State| state.workflow(*id).map_or(0, |row| row.reproductions);
            let more = again(after).saturating_sub(again(before));
            if more > 0 {
                *self.counters.reproductions.entry("artifact").or_default() += u64::from(more);
                tracing::info!(
                    workflow = name(before, after, *id),
                    steps = more,
                    "steps run again for artifacts that were lost"
                );
            }
            self.tell_lost_steps(before, after, *id);
            let ended = phase(after, *id).filter(|phase| phase.is_completed());
            if let Some(ended) = ended.filter(|ended| phase(before, *id) != Some(*ended)) {
                *self.counters.workflows_finished.entry(ended.as_str()).or_default() += 1;
                tracing::info!(workflow = name(before, after, *id), phase = ended.as_str(), "workflow ended");
            }
        }
    }

    fn tell_lost_steps(&mut self, before: &State, after: &State, id: WorkflowId) {
        let Some(now) = after.workflow(id) else { return };
        let then = before.workflow(id);
        for (reason, total) in &now.lost {
            let known = then.and_then(|row| row.lost.get(reason)).copied().unwrap_or_default();
            let more = total.saturating_sub(known);
            if more > 0 {
                let reason = loss_name(*reason);
                *self.counters.steps_lost.entry(reason).or_default() += u64::from(more);
                tracing::info!(
                    workflow = name(before, after, id),
                    steps = more,
                    reason,
                    "steps ended, lost with a cluster"
                );
            }
        }
    }

    pub(crate) fn tell_attempt(&mut self, before: &State, after: &State, cluster: &str, fence: &Fence) {
        let Some(attempt) = after.attempt(fence) else { return };
        let workflow = || name(before, after, WorkflowId(attempt.workflow));
        if before.attempt(fence).is_none() {
            *self.counters.assigned.entry(cluster.to_owned()).or_default() += 1;
            tracing::debug!(
                workflow = workflow(),
                attempt = display_fence(fence),
                cluster,
                "attempt assigned"
            );
        }
        if fenced(before, fence) && !attempt.fenced {
            *self.counters.returned.entry(cluster.to_owned()).or_default() += 1;
            tracing::info!(
                workflow = workflow(),
                attempt = display_fence(fence),
                cluster,
                "attempt came back and counts again"
            );
        }
        let replaced = attempt.stop_reason == argosy_engine::REPLACED_BY_ORIGINAL;
        if attempt.fenced && !replaced && !fenced(before, fence) {
            *self.counters.take_overs.entry(cluster.to_owned()).or_default() += 1;
            tracing::info!(workflow = workflow(), attempt = display_fence(fence), cluster, "attempt fenced");
        }
        if attempt.closed && before.attempt(fence).is_some_and(|before| !before.closed) {
            tracing::debug!(workflow = workflow(), attempt = display_fence(fence), cluster, "attempt over");
        }
    }
}
