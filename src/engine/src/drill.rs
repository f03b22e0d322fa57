//! Drills: a cluster is lost on purpose for a time, and what becomes of its steps is noted.
//!
//! A drill is state, so it ends by log time whatever becomes of the client or of a leader. Its loss is real: the members
//! (or the agent) see to it, and lease, fence and take-over go their usual way. What it came to is counted as facts are
//! evolved ([`crate::evolve_drill`]); here it is begun, ended and judged.
//!
//! It has three parts: the loss, until its time or an abort; the settling, until the cluster is back and every step that
//! was lost runs again or has ended; the report, which is kept.

use argosy_model::planted::{Bug, is_planted};
use argosy_model::{Limits, LogTime};
use argosy_proto::command::{BeginDrill, Refusal};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{self as row, DrillMode, TimerKind};

use crate::draft::Draft;
use crate::drill_plan::plan;
use crate::state::{ROW_VERSION, State, phase_of};
use crate::{Code, Leader};

/// Steps that a report names.
const STEPS_NAMED_MAX: usize = 50;
/// What detection may take beyond lease and margin: the pace of take-overs, an election in between.
const DETECTION_SLACK_MS: i64 = 15_000;
/// Bytes of a reason or of a scope.
const TEXT_BYTES_MAX: usize = 1_024;

impl State {
    /// The drill that is under way.
    #[must_use]
    pub fn drill_under_way(&self) -> Option<(u64, &row::Drill)> {
        let id = self.index.drill?;
        self.drills.get(&id).map(|row| (id, row.as_ref()))
    }

    /// The drill whose loss is under way.
    #[must_use]
    pub fn drill_loss(&self) -> Option<(u64, &row::Drill)> {
        self.drill_under_way().filter(|(_, drill)| drill.loss_ended_at_ms == 0)
    }

    /// The cluster whose frames no member passes on, and until when at the latest.
    #[must_use]
    pub fn cluster_cut_off(&self) -> Option<(&str, i64)> {
        let (_, drill) = self.drill_loss().filter(|(_, drill)| drill.mode() == DrillMode::Block)?;
        Some((&drill.cluster, drill.ends_at_ms))
    }

    /// Attempts whose Pods or processes the drill under way kills.
    pub fn attempts_to_kill(&self) -> impl Iterator<Item = argosy_model::Fence> + '_ {
        let drill = self.drill_loss().filter(|(_, drill)| drill.mode() == DrillMode::KillPods);
        drill.into_iter().flat_map(|(id, drill)| {
            let marked = move |attempt: &row::Attempt| attempt.drill == id && !attempt.fenced;
            self.open_attempts(&drill.cluster).filter(move |(_, one)| marked(one)).map(|(fence, _)| fence)
        })
    }

    /// All drills that are known, oldest first.
    pub fn drills(&self) -> impl DoubleEndedIterator<Item = (u64, &row::Drill)> {
        self.drills.iter().map(|(id, row)| (*id, row.as_ref()))
    }

    /// A drill by number.
    #[must_use]
    pub fn drill(&self, id: u64) -> Option<&row::Drill> {
        self.drills.get(&id).map(AsRef::as_ref)
    }

    /// Schedules of drills by name.
    pub fn drill_schedules(&self) -> impl Iterator<Item = (&str, &row::DrillSchedule)> {
        self.drill_schedules.iter().map(|(name, row)| (name.as_str(), row.as_ref()))
    }
}

/// Begins a drill, or says why not.
pub(crate) fn begin(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &BeginDrill,
    schedule: &str,
) -> Result<u64, Refusal> {
    let for_ms = check(command, &leader.limits)?;
    if let Some((id, running)) = draft.state.drill_under_way() {
        return Err(Code::DrillRefused.refuse(format!(
            "drill {id} of cluster {:?} is under way: one at a time; wait for it, or end it with `argosy drill abort`",
            running.cluster
        )));
    }
    let plan = plan(&draft.state, leader, &command.cluster, command.mode(), &command.scope)?;
    draft.spend(u32::try_from(plan.steps.len()).unwrap_or(u32::MAX));
    plan.check()?;
    let limits = &leader.limits;
    let killed: Vec<_> = plan.to_kill().collect();
    if killed.len() > limits.drill_kills_max {
        return Err(Code::DrillRefused.refuse(format!(
            "it would kill {} attempts, a drill kills at most {}: narrow it with --scope",
            killed.len(),
            limits.drill_kills_max
        )));
    }
    let now_ms = draft.now().0;
    let ends_at_ms = now_ms.saturating_add(for_ms);
    let objective = i64::try_from(command.recover_p99_ms_max).unwrap_or(i64::MAX);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let row = row::Drill {
        cluster: command.cluster.clone(),
        mode: command.mode,
        scope: command.scope.clone(),
        ends_at_ms,
        settle_at_ms: ends_at_ms.saturating_add(limits.drill_settle_max_ms),
        actor: command.actor.clone(),
        schedule: schedule.to_owned(),
        recover_p99_ms_max: if objective == 0 { limits.drill_recover_p99_ms } else { objective },
        steps_max: limits.drill_steps_max,
        watch_ms: limits.lease_and_margin_ms,
        touched: number(plan.touched()),
        spared: number(plan.spared()),
        killed: number(killed.len()),
        ..row::Drill::default()
    };
    let settle_at_ms = row.settle_at_ms;
    let reports_max = limits.drill_reports_max.max(1);
    let drill = draft.state.meta.workflow_next;
    draft.emit(Body::DrillBegun(fact::DrillBegun { drill, row: Some(row), killed }));
    remind(draft, drill, ends_at_ms);
    remind(draft, drill, settle_at_ms);
    let beyond = draft.state.drills.len().saturating_sub(reports_max);
    let oldest: Vec<u64> = draft.state.drills.keys().take(beyond).copied().collect();
    for drill in oldest {
        draft.emit(Body::DrillForgotten(fact::DrillForgotten { drill }));
    }
    Ok(drill)
}

/// What can be said of the request without looking at the cell; gives its time.
pub(crate) fn check(command: &BeginDrill, limits: &Limits) -> Result<i64, Refusal> {
    let bad = |message: String| Err(Code::InvalidArgument.refuse(message));
    let for_ms = i64::try_from(command.for_ms).unwrap_or(i64::MAX);
    if !(1_000..=limits.drill_duration_max_ms).contains(&for_ms) {
        return bad(format!("a drill lasts from 1 s to {} s", limits.drill_duration_max_ms / 1_000));
    }
    if command.scope.len() > TEXT_BYTES_MAX || command.actor.len() > TEXT_BYTES_MAX {
        return bad(format!("the scope has at most {TEXT_BYTES_MAX} bytes"));
    }
    match command.mode() {
        DrillMode::Unspecified => bad("the mode is block, kill-agent or kill-pods".to_owned()),
        mode @ (DrillMode::Block | DrillMode::KillAgent) if !command.scope.is_empty() => bad(format!(
            "{} touches everything on the cluster: --scope is for kill-pods",
            drill_mode_word(mode)
        )),
        DrillMode::Block | DrillMode::KillAgent | DrillMode::KillPods => Ok(for_ms),
    }
}

/// A mode as users write it.
#[must_use]
pub fn drill_mode_word(mode: DrillMode) -> &'static str {
    match mode {
        DrillMode::Unspecified => "unknown",
        DrillMode::Block => "block",
        DrillMode::KillAgent => "kill-agent",
        DrillMode::KillPods => "kill-pods",
    }
}

fn remind(draft: &mut Draft, drill: u64, due_ms: i64) {
    let kind = TimerKind::Drill.into();
    let timer = row::Timer { version: ROW_VERSION, due_ms, workflow: drill, node: 0, kind };
    draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// Ends the loss under way of a cluster for which that holds, if there is one, before its time.
pub(crate) fn cut_short(draft: &mut Draft, why: &str, concerns: impl Fn(&str) -> bool) {
    let Some((drill, row)) = draft.state.drill_loss() else { return };
    if concerns(&row.cluster) {
        end_loss(draft, drill, why);
    }
}

/// The loss is over; not empty: before its time, and why.
pub(crate) fn end_loss(draft: &mut Draft, drill: u64, aborted: &str) {
    let mut end = aborted.len().min(TEXT_BYTES_MAX);
    while !aborted.is_char_boundary(end) {
        end -= 1;
    }
    let aborted = aborted[..end].to_owned();
    let watch_ms = draft.state.drills.get(&drill).map_or(0, |row| row.watch_ms);
    remind(draft, drill, draft.now().plus_ms(watch_ms).0);
    draft.emit(Body::DrillLossEnded(fact::DrillLossEnded { drill, aborted }));
}

/// A timer of a drill came: its loss ends, or its report is closed as it stands.
pub(crate) fn due(draft: &mut Draft, drill: u64) {
    if is_planted(Bug::DrillGoesOn) {
        return;
    }
    let now_ms = draft.now().0;
    let Some(row) = draft.state.drills.get(&drill).filter(|row| row.finished_at_ms == 0).cloned() else {
        return;
    };
    if row.loss_ended_at_ms == 0 && row.ends_at_ms <= now_ms {
        end_loss(draft, drill, "");
    }
    if row.settle_at_ms <= now_ms {
        finish(draft, drill);
    }
}

/// The loss is over, the cluster is back, nothing of its fenced attempts is left, and no step waits. Not before a lease and
/// a margin have passed: a take-over may be on its way, and what the cluster held is told anew.
pub(crate) fn is_settled(state: &State, now: LogTime) -> bool {
    let Some((_, drill)) = state.drill_under_way() else { return false };
    drill.loss_ended_at_ms != 0
        && drill.waiting == 0
        && now.0 >= drill.loss_ended_at_ms.saturating_add(drill.watch_ms)
        && state
            .cluster(&drill.cluster)
            .is_none_or(|row| row.removed || !row.lost && row.take_over_scope == 0 && drill.fenced_open == 0)
}

/// Closes the report of a drill that has settled.
pub(crate) fn go_on(draft: &mut Draft, leader: &Leader) {
    if is_settled(&draft.state, draft.now())
        && !draft.is_full(&leader.limits)
        && let Some((drill, _)) = draft.state.drill_under_way()
    {
        finish(draft, drill);
    }
}

fn finish(draft: &mut Draft, drill: u64) {
    let report = report(&draft.state, drill);
    draft.spend(1);
    draft.emit(Body::DrillFinished(fact::DrillFinished { drill, report: Some(report) }));
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Lost,
    Failed,
    Waiting,
    Recovered,
    Ended,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Recovered => "recovered",
            Self::Ended => "ended",
        }
    }
}

fn outcome(state: &State, workflow: u64, node: u32, step: &row::DrillStep) -> Outcome {
    if step.failed {
        Outcome::Failed
    } else if step.recovered_at_ms != 0 {
        Outcome::Recovered
    } else if step.ended_at_ms != 0 {
        // By the user's word, or since its workflow was shut down.
        Outcome::Ended
    } else if is_held(state, workflow, node, step) {
        Outcome::Waiting
    } else {
        Outcome::Lost
    }
}

/// Somebody is going to run the step: it is placed, or waits for that or for its next try.
fn is_held(state: &State, workflow: u64, node: u32, step: &row::DrillStep) -> bool {
    let open = |node: u32| state.node(workflow, node).is_some_and(|row| !phase_of(row).is_fulfilled());
    let retries = node != step.leaf && open(node);
    let timed = || {
        let from = (workflow, node, i64::MIN, i32::MIN)..=(workflow, node, i64::MAX, i32::MAX);
        state.index.timers_of.range(from).next().is_some()
    };
    let tried = || state.children_from(workflow, node, 0).any(|(_, child)| open(child));
    let queued = || state.agenda.range((workflow, 0)..=(workflow, u64::MAX)).next().is_some();
    (open(step.leaf) && state.works.contains_key(&(workflow, step.leaf)))
        || retries && (timed() || tried() || queued())
}

/// What every step of a drill came to, worst first: for reports, and for whoever watches.
pub(crate) fn steps_shown(state: &State, drill: u64) -> Vec<row::DrillStepShown> {
    let begun_ms = state.drills.get(&drill).map_or(0, |row| row.begun_at_ms);
    let after = |at_ms: i64| if at_ms == 0 { 0 } else { (at_ms - begun_ms).max(1) };
    let mut steps: Vec<(Outcome, row::DrillStepShown)> = Vec::new();
    for ((_, workflow, node), step) in state.drill_steps.range((drill, 0, 0)..=(drill, u64::MAX, u32::MAX)) {
        let outcome = outcome(state, *workflow, *node, step);
        let owner = state.workflows.get(workflow);
        steps.push((
            outcome,
            row::DrillStepShown {
                namespace: owner.map(|row| row.namespace.clone()).unwrap_or_default(),
                workflow: owner.map(|row| row.name.clone()).unwrap_or_default(),
                node: state.node(*workflow, *node).map(|row| row.name.clone()).unwrap_or_default(),
                cluster: step.cluster.clone(),
                lost_ms: after(step.lost_at_ms),
                moved_ms: after(step.moved_at_ms),
                recovered_ms: after(step.recovered_at_ms),
                outcome: outcome.word().to_owned(),
            },
        ));
    }
    steps.sort_by(|(one, shown), (other, also)| {
        one.cmp(other).then(also.recovered_ms.cmp(&shown.recovered_ms))
    });
    steps.into_iter().map(|(_, shown)| shown).collect()
}

/// The smallest time within which so many of a hundred are; `times` is sorted.
fn percentile(times: &[i64], of_hundred: usize) -> i64 {
    let rank = (times.len() * of_hundred).div_ceil(100);
    times.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn report(state: &State, drill: u64) -> row::DrillReport {
    let Some(row) = state.drills.get(&drill) else { return row::DrillReport::default() };
    let mut steps = steps_shown(state, drill);
    let mut times: Vec<i64> =
        steps.iter().filter(|step| step.recovered_ms != 0).map(|step| step.recovered_ms).collect();
    times.sort_unstable();
    let count = |word: &str| {
        u32::try_from(steps.iter().filter(|step| step.outcome == word).count()).unwrap_or(u32::MAX)
    };
    let (lost, waiting) = (count("lost"), count("waiting"));
    let mut report = row::DrillReport {
        lost,
        unrecovered: waiting,
        recover_p50_ms: percentile(&times, 50),
        recover_p99_ms: percentile(&times, 99),
        recover_max_ms: times.last().copied().unwrap_or(0),
        ..row::DrillReport::default()
    };
    report.reasons = reasons(state, row, &report);
    report.passed = report.reasons.is_empty();
    steps.truncate(STEPS_NAMED_MAX);
    report.steps = steps;
    report
}

/// The loss lasted so long that it had to be noticed.
fn is_overdue(row: &row::Drill) -> bool {
    let lost_ms = row.loss_ended_at_ms - row.begun_at_ms;
    match row.mode() {
        DrillMode::Block | DrillMode::KillAgent => lost_ms > row.watch_ms.saturating_add(DETECTION_SLACK_MS),
        DrillMode::KillPods => row.killed > 0,
        DrillMode::Unspecified => false,
    }
}

/// Why a drill has not passed.
fn reasons(state: &State, row: &row::Drill, report: &row::DrillReport) -> Vec<String> {
    let mut reasons = Vec::new();
    if !row.aborted.is_empty() {
        reasons.push(format!("aborted: {}", row.aborted));
    }
    if row.detected_at_ms == 0 {
        reasons.push(if is_overdue(row) {
            "the loss was not noticed".to_owned()
        } else {
            let least_s = row.watch_ms / 1_000;
            format!("the loss was over before the cluster's lease: nothing was tried; lose it for more than {least_s} s")
        });
    }
    if row.committed_twice > 0 {
        reasons.push(format!("{} results were committed twice", row.committed_twice));
    }
    if report.lost > 0 {
        reasons.push(format!("{} steps were lost", report.lost));
    }
    if row.failed > 0 {
        reasons.push(format!("{} steps failed because of the loss", row.failed));
    }
    if report.unrecovered > 0 {
        reasons.push(format!("{} steps have not run again", report.unrecovered));
    }
    if report.recover_p99_ms > row.recover_p99_ms_max {
        reasons.push(format!(
            "recovery took {} ms at p99, the objective is {} ms",
            report.recover_p99_ms, row.recover_p99_ms_max
        ));
    }
    let back = state.cluster(&row.cluster).is_some_and(|cluster| !cluster.lost && !cluster.removed);
    if !back {
        reasons.push(format!("cluster {} did not come back", row.cluster));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<i64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50, 99));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 99), percentile(&[], 99)), (7, 7, 0));
        assert_eq!(percentile(&[1, 2, 3], 50), 2);
    }
}
