//! CronWorkflows: what is due, what is missed, what becomes of the workflows they made.
//!
//! Everything happens in [`tick`], which derives what is to be done from state and log time, so that it may be called at
//! any time and as often as wanted: by a timer, by the end of one of the workflows, by a command that changed the object.
//! A time of the schedules is dealt with once: `considered_ms` passes it in the same batch in which its workflow is made.
//! A time that comes up to [`argosy_model::Limits::cron_grace_ms`] late (a change of leaders) counts as in time; later
//! ones are missed, and made up for as Argo does.

mod backfill;
mod conditions;
mod start;

pub(crate) use backfill::prefix as backfill_prefix;

use argosy_model::WorkflowPhase;
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{CronWorkflow, Schedule};
use serde_json::Value;
use std::sync::Arc;

use crate::Leader;
use crate::draft::Draft;
use crate::state::{Child, ROW_VERSION, State};

/// Starts of one tick; what is left follows in the next.
const STARTS_PER_TICK_MAX: usize = 16;
/// Workflows of a deleted CronWorkflow, or beyond its history limits, that go in one tick.
const DELETIONS_PER_TICK_MAX: usize = 32;
/// When one that is not valid is looked at again: a template that it refers to may have come.
const RECHECK_MS: i64 = 20 * 60 * 1000;
/// Argo's history limits where the object says nothing.
const SUCCESSFUL_KEPT: usize = 3;
const FAILED_KEPT: usize = 1;

/// The label that a workflow of a CronWorkflow carries.
pub(crate) const CRON_LABEL: &str = "workflows.argoproj.io/cron-workflow";
/// The annotation with the time that a workflow was made for.
pub(crate) const SCHEDULED_TIME: &str = "workflows.argoproj.io/scheduled-time";

/// A CronWorkflow's object, read once.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub value: Value,
    pub cron: CronWorkflow,
    /// Read; `None` when the object is not valid.
    pub schedules: Option<Vec<Schedule>>,
}

impl Parsed {
    pub(crate) fn new(json: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(json).ok()?;
        let cron = CronWorkflow::from_value(&value).ok()?;
        let schedules = if cron.problems().is_empty() { cron.read_schedules().ok() } else { None };
        Some(Self { value, cron, schedules })
    }

    /// The first time after another, in seconds.
    fn next(&self, anchor: i64, after: i64) -> Option<i64> {
        self.schedules.iter().flatten().filter_map(|schedule| schedule.next(anchor, after)).min()
    }
}

/// The place of a workflow in the index of CronWorkflows' workflows.
pub(crate) fn entry(id: u64, row: &row::Workflow) -> Option<(u64, Child, i64, u64)> {
    if row.cron == 0 || row.deleted {
        return None;
    }
    let over = row.finished_at_ms != 0;
    let child = match (row.backfill, over, row.cron_counted) {
        (false, false, _) => Child::Active,
        (false, true, false) => Child::Ended,
        (false, true, true) if row.phase == WorkflowPhase::Succeeded.number() => Child::Succeeded,
        (false, true, true) => Child::Failed,
        (true, false, _) => Child::BackfillActive,
        (true, true, false) => Child::BackfillEnded,
        (true, true, true) => Child::BackfillOver,
    };
    Some((row.cron, child, if over { row.finished_at_ms } else { row.created_at_ms }, id))
}

/// The workflows of a CronWorkflow that stand so, oldest first.
pub(crate) fn children(state: &State, cron: u64, child: Child) -> impl DoubleEndedIterator<Item = u64> + '_ {
    let range = (cron, child, i64::MIN, 0)..=(cron, child, i64::MAX, u64::MAX);
    state.index.owned.range(range).map(|(.., workflow)| *workflow)
}

/// Has a CronWorkflow looked at soon.
pub(crate) fn wake(draft: &mut Draft, cron: u64) {
    set_timer(draft, cron, draft.now().0);
}

/// One timer per CronWorkflow: the earliest that is wanted.
fn set_timer(draft: &mut Draft, cron: u64, due_ms: i64) {
    let kind = row::TimerKind::Cron.into();
    let known =
        draft.state.index.timers_of.range((cron, 0, i64::MIN, i32::MIN)..=(cron, 0, i64::MAX, i32::MAX));
    let known: Vec<i64> = known.map(|(_, _, due, _)| *due).collect();
    let timer = |due_ms| Some(row::Timer { version: ROW_VERSION, due_ms, workflow: cron, node: 0, kind });
    for due in known.iter().filter(|due| **due != due_ms) {
        draft.emit(Body::TimerCleared(fact::TimerCleared { timer: timer(*due) }));
    }
    if !known.contains(&due_ms) {
        draft.emit(Body::TimerSet(fact::TimerSet { timer: timer(due_ms) }));
    }
}

/// What waits beside timers: CronWorkflows whose workflows ended.
pub(crate) fn go_on(draft: &mut Draft, leader: &mut Leader) {
    while let Some(cron) = draft.state.index.crons_ready.get_min().copied() {
        if draft.is_full(&leader.limits) {
            return;
        }
        tick(draft, leader, cron);
    }
}

/// Does what there is to do for a CronWorkflow, and sets its timer for what comes.
pub(crate) fn tick(draft: &mut Draft, leader: &mut Leader, cron: u64) {
    draft.spend(1);
    let Some(row) = draft.state.crons.get(&cron).cloned() else { return };
    if row.deleted {
        return sweep(draft, leader, cron);
    }
    let Some(parsed) = leader.cron(&draft.state, cron) else { return };
    count_ended(draft, &parsed, cron);
    let pruned = prune(draft, leader, &parsed, cron);
    let backfill_due = backfill::go_on(draft, leader, &parsed, cron);
    let mut next = [pruned.then_some(draft.now().0), backfill_due].into_iter().flatten().min();
    if arm(draft, leader, &parsed, cron) {
        let due = start_due(draft, leader, &parsed, cron);
        next = next.into_iter().chain(due).min();
    } else {
        next = next.into_iter().chain([draft.now().plus_ms(RECHECK_MS).0]).min();
    }
    if let Some(due_ms) = next {
        set_timer(draft, cron, due_ms);
    }
}

/// Takes note of workflows that ended, each once.
fn count_ended(draft: &mut Draft, parsed: &Parsed, cron: u64) {
    let ended: Vec<u64> = children(&draft.state, cron, Child::Ended).take(DELETIONS_PER_TICK_MAX).collect();
    for workflow in &ended {
        let phase = draft.state.workflows.get(workflow).map_or(0, |row| row.phase);
        let outcome = if phase == WorkflowPhase::Succeeded.number() { 1 } else { 2 };
        draft.emit(Body::ChildCounted(fact::ChildCounted { workflow: *workflow, outcome }));
    }
    if !ended.is_empty() {
        let mut status = start::status(draft, cron);
        status.written = true;
        // A condition that can't be evaluated is told at the next start.
        if conditions::stops(draft, parsed, cron) == Ok(true) {
            status.phase = row::CronPhase::Stopped.into();
        }
        start::set_status(draft, cron, status);
    }
    let over: Vec<u64> =
        children(&draft.state, cron, Child::BackfillEnded).take(DELETIONS_PER_TICK_MAX).collect();
    for workflow in over {
        draft.emit(Body::ChildCounted(fact::ChildCounted { workflow, outcome: 0 }));
    }
}

/// Deletes workflows beyond the history limits, oldest first; true when more are left.
fn prune(draft: &mut Draft, leader: &mut Leader, parsed: &Parsed, cron: u64) -> bool {
    let spec = &parsed.cron.spec;
    // A limit that is no number of workflows counts as not given.
    let kept = |limit: Option<i64>, kept| limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(kept);
    let mut beyond: Vec<u64> = Vec::new();
    for (child, keep) in [
        (Child::Succeeded, kept(spec.successful_jobs_history_limit, SUCCESSFUL_KEPT)),
        (Child::Failed, kept(spec.failed_jobs_history_limit, FAILED_KEPT)),
    ] {
        beyond.extend(children(&draft.state, cron, child).rev().skip(keep).take(DELETIONS_PER_TICK_MAX));
    }
    let more = beyond.len() >= DELETIONS_PER_TICK_MAX;
    for workflow in beyond {
        crate::retire::retire(draft, leader, workflow);
    }
    more
}

/// Whether its schedules count: the object as it is now was found valid once.
fn arm(draft: &mut Draft, leader: &mut Leader, parsed: &Parsed, cron: u64) -> bool {
    let Some(row) = draft.state.crons.get(&cron).cloned() else { return false };
    let mut status = start::status(draft, cron);
    if status.armed_generation == row.generation {
        return true;
    }
    if parsed.schedules.is_none() || start::check(draft, leader, parsed, &row).is_err() {
        return false;
    }
    status.armed_generation = row.generation;
    if status.phase() == row::CronPhase::Stopped && conditions::stops(draft, parsed, cron) != Ok(true) {
        // The condition that stopped it was taken out, or came to mean something else.
        status.phase = row::CronPhase::Active.into();
    }
    start::set_status(draft, cron, status);
    true
}

/// Starts what is due, or else makes up for the last start that was missed; gives the time of the next.
fn start_due(draft: &mut Draft, leader: &mut Leader, parsed: &Parsed, cron: u64) -> Option<i64> {
    let row = draft.state.crons.get(&cron).cloned()?;
    let (anchor, now) = (row.anchor_ms.div_euclid(1000), draft.now().0);
    let grace_ms = leader.limits.cron_grace_ms;
    let mut at = row.considered_ms.max(now.saturating_sub(grace_ms)).div_euclid(1000);
    let mut starts = 0;
    let mut next = parsed.next(anchor, at);
    while let Some(due) = next.filter(|due| due.saturating_mul(1000) <= now && starts < STARTS_PER_TICK_MAX) {
        start::try_start(draft, leader, parsed, cron, due);
        (at, starts) = (due, starts + 1);
        next = parsed.next(anchor, due);
    }
    if starts == 0
        && let Some(missed) = missed(draft, parsed, &row)
    {
        start::try_start(draft, leader, parsed, cron, missed);
    }
    if starts > 0 {
        let considered_ms = if starts == STARTS_PER_TICK_MAX { at.saturating_mul(1000) } else { now };
        draft.emit(Body::CronMoved(fact::CronMoved { cron, considered_ms }));
    }
    next.map(|due| due.saturating_mul(1000))
}

/// The last time that was missed, if it can still be made up for: Argo's rule. What started never counts as missed.
fn missed(draft: &Draft, parsed: &Parsed, row: &row::Cron) -> Option<i64> {
    let status = row.status.clone().unwrap_or_default();
    let deadline = parsed.cron.spec.starting_deadline_seconds?;
    if status.last_scheduled_ms == 0 || status.used_schedule != parsed.cron.schedule_text() {
        return None;
    }
    let (anchor, now_ms) = (row.anchor_ms.div_euclid(1000), draft.now().0);
    let now = now_ms.div_euclid(1000) + i64::from(now_ms.rem_euclid(1000) > 0);
    let last = status.last_scheduled_ms.div_euclid(1000);
    let schedules = parsed.schedules.iter().flatten();
    let mut missed = schedules.filter_map(|schedule| schedule.latest(anchor, last, now));
    missed.find(|missed| now_ms < missed.saturating_add(deadline).saturating_mul(1000))
}

/// Takes the workflows of a deleted CronWorkflow away, as Kubernetes does with what an object owns.
fn sweep(draft: &mut Draft, leader: &mut Leader, cron: u64) {
    let all = (cron, Child::Active, i64::MIN, 0)..=(cron, Child::BackfillOver, i64::MAX, u64::MAX);
    let owned: Vec<u64> = draft
        .state
        .index
        .owned
        .range(all)
        .map(|(.., workflow)| *workflow)
        .take(DELETIONS_PER_TICK_MAX)
        .collect();
    if owned.is_empty() {
        draft.emit(Body::CronPurged(fact::CronPurged { cron }));
        return;
    }
    for workflow in owned {
        crate::retire::retire(draft, leader, workflow);
    }
    wake(draft, cron);
}

/// A CronWorkflow by name.
pub(crate) fn find(state: &State, namespace: &str, name: &str) -> Option<u64> {
    state.index.crons.get(&(Arc::from(namespace), Arc::from(name))).copied()
}
