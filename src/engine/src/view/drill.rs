//! Drills as the API shows them. Ours, not Argo's.

use argosy_proto::state as row;
use serde_json::{Value, json};

use super::time_text;
use crate::commands::drill_schedule::next_ms;
pub use crate::drill::drill_mode_word;
use crate::drill::steps_shown;
use crate::drill_plan::{DrillPlan, PlannedStep};
use crate::state::State;

/// Steps of a drill under way, or of a plan, that are shown.
const STEPS_SHOWN_MAX: usize = 1_000;

/// A drill by number, with its steps.
#[must_use]
pub fn drill_json(state: &State, id: u64) -> Option<Value> {
    let drill = state.drill(id)?;
    let mut shown = head(state, id, drill);
    let steps = match &drill.report {
        Some(report) => report.steps.clone(),
        None => steps_shown(state, id),
    };
    shown["steps"] = steps.iter().take(STEPS_SHOWN_MAX).map(step_json).collect();
    Some(shown)
}

/// All drills, newest first, without their steps.
#[must_use]
pub fn drills_json(state: &State) -> Vec<Value> {
    state.drills().rev().map(|(id, drill)| head(state, id, drill)).collect()
}

/// `running`: the loss is under way; `settling`: it is over and the drill is watched; then its verdict.
fn state_word(drill: &row::Drill) -> &'static str {
    match &drill.report {
        Some(_) if !drill.aborted.is_empty() => "aborted",
        Some(report) if report.passed => "passed",
        Some(_) => "failed",
        None if drill.loss_ended_at_ms == 0 => "running",
        None => "settling",
    }
}

fn head(state: &State, id: u64, drill: &row::Drill) -> Value {
    let after = |at_ms: i64| (at_ms != 0).then(|| at_ms - drill.begun_at_ms);
    let time = |at_ms: i64| (at_ms != 0).then(|| time_text(at_ms));
    let mut shown = json!({
        "id": id,
        "cluster": drill.cluster,
        "mode": drill_mode_word(drill.mode()),
        "state": state_word(drill),
        "actor": drill.actor,
        "begunAt": time_text(drill.begun_at_ms),
        "endsAt": time_text(drill.ends_at_ms),
        "forMs": drill.ends_at_ms - drill.begun_at_ms,
        "elapsedMs": state.log_time().0 - drill.begun_at_ms,
        "lossEndedAt": time(drill.loss_ended_at_ms),
        "lossMs": after(drill.loss_ended_at_ms),
        "finishedAt": time(drill.finished_at_ms),
        "objective": {"recoverP99Ms": drill.recover_p99_ms_max},
        "detectedMs": after(drill.detected_at_ms),
        "touched": drill.touched,
        "spared": drill.spared,
        "stayed": drill.touched.saturating_sub(drill.touched_fenced + drill.broken),
        "fenced": drill.fenced,
        "broken": drill.broken,
        "moved": drill.moved,
        "recovered": drill.recovered,
        "waiting": drill.waiting,
        "failed": drill.failed,
        "superseded": drill.superseded,
        "committedTwice": drill.committed_twice,
        "untimed": drill.untimed,
    });
    for (field, text) in [("scope", &drill.scope), ("schedule", &drill.schedule), ("aborted", &drill.aborted)]
    {
        if !text.is_empty() {
            shown[field] = json!(text);
        }
    }
    if let Some(report) = &drill.report {
        // Without a step that ran again there is no time.
        let recover = |ms: i64| (ms != 0).then_some(ms);
        shown["report"] = json!({
            "passed": report.passed,
            "reasons": report.reasons,
            "lost": report.lost,
            "unrecovered": report.unrecovered,
            "recoverP50Ms": recover(report.recover_p50_ms),
            "recoverP99Ms": recover(report.recover_p99_ms),
            "recoverMaxMs": recover(report.recover_max_ms),
        });
    }
    shown
}

fn step_json(step: &row::DrillStepShown) -> Value {
    let after = |ms: i64| (ms != 0).then_some(ms);
    json!({
        "namespace": step.namespace,
        "workflow": step.workflow,
        "node": step.node,
        "cluster": step.cluster,
        "outcome": step.outcome,
        "lostMs": after(step.lost_ms),
        "movedMs": after(step.moved_ms),
        "recoveredMs": after(step.recovered_ms),
    })
}

/// What a drill would touch.
#[must_use]
pub fn drill_plan_json(plan: &DrillPlan) -> Value {
    let refusal = plan.check().err().map(|refusal| refusal.message);
    json!({
        "cluster": plan.cluster,
        "mode": drill_mode_word(plan.mode),
        "touched": plan.touched(),
        "spared": plan.spared(),
        "movable": plan.steps.iter().filter(|step| step.to.is_some()).count(),
        "otherClusters": plan.others,
        "detectedAfterMs": plan.lease_and_margin_ms,
        "refused": refusal,
        "steps": plan.steps.iter().take(STEPS_SHOWN_MAX).map(planned_json).collect::<Vec<_>>(),
    })
}

fn planned_json(step: &PlannedStep) -> Value {
    json!({
        "namespace": step.namespace,
        "workflow": step.workflow,
        "node": step.node,
        "running": step.running,
        "movesAfterMs": step.wait_ms,
        "to": step.to,
        "whyNot": step.why_not,
        "spared": step.spared,
    })
}

/// Schedules of drills, by name.
#[must_use]
pub fn drill_schedules_json(state: &State) -> Vec<Value> {
    state.drill_schedules().map(|(name, row)| schedule_json(name, row)).collect()
}

fn schedule_json(name: &str, row: &row::DrillSchedule) -> Value {
    let time = |at_ms: i64| (at_ms != 0).then(|| time_text(at_ms));
    let mut shown = json!({
        "name": name,
        "cron": row.cron,
        "timezone": row.timezone,
        "cluster": row.cluster,
        "mode": drill_mode_word(row.mode()),
        "scope": row.scope,
        "forMs": row.for_ms,
        "actor": row.actor,
        "createdAt": time_text(row.created_at_ms),
        "nextAt": next_ms(row).map(time_text),
        "lastAt": time(row.last_at_ms),
        "lastDrill": (row.last_drill != 0).then_some(row.last_drill),
    });
    if row.recover_p99_ms_max != 0 {
        shown["objective"] = json!({"recoverP99Ms": row.recover_p99_ms_max});
    }
    if !row.last_refusal.is_empty() {
        shown["lastRefusal"] = json!(row.last_refusal);
    }
    shown
}
