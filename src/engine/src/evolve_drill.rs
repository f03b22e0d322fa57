//! Facts of drills to state, and what the drill under way sees in the facts of others: its report is counted as things
//! happen, by every member alike, and not put together afterwards.

use argosy_model::{Fence, NodePhase, NodeType};
use argosy_proto::common::AttemptPhase;
use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::{ROW_VERSION, State, phase_of, type_of};

/// A phase that carries a result: one that counts, or is refused.
fn is_result(phase: i32) -> bool {
    match AttemptPhase::try_from(phase).unwrap_or_default() {
        AttemptPhase::Succeeded | AttemptPhase::Failed | AttemptPhase::Error => true,
        AttemptPhase::Unspecified
        | AttemptPhase::Received
        | AttemptPhase::Pending
        | AttemptPhase::Running
        | AttemptPhase::Stopped => false,
    }
}

/// What a drill calls a step: the Retry node around a leaf, or the leaf.
fn step_of(state: &State, workflow: u64, node: u32) -> u32 {
    let parent = state.node(workflow, node).map_or(0, |row| row.parent);
    let is_retry = state.node(workflow, parent).is_some_and(|row| type_of(row) == NodeType::Retry);
    if is_retry { parent } else { node }
}

fn misfit(id: u64) -> Error {
    Error::Misfit { what: "drill", id }
}

impl Step<'_> {
    fn drill(&mut self, id: u64) -> Result<&mut row::Drill, Error> {
        self.touch(Key::Drill(id));
        Ok(Arc::make_mut(self.state.drills.get_mut(&id).ok_or_else(|| misfit(id))?))
    }

    /// The drill under way, if it is of that cluster.
    fn drill_of(&self, cluster: &str) -> Option<(u64, Arc<row::Drill>)> {
        let id = self.state.index.drill?;
        self.state.drills.get(&id).filter(|row| row.cluster == cluster).map(|row| (id, row.clone()))
    }

    pub(crate) fn drill_begun(&mut self, fact: &fact::DrillBegun) -> Result<(), Error> {
        let id = fact.drill;
        let mut drill = fact.row.clone().ok_or_else(|| misfit(id))?;
        drill.version = ROW_VERSION;
        drill.begun_at_ms = self.time.0;
        drill.since = Some(self.fence);
        self.state.drills.insert(id, Arc::new(drill));
        self.state.index.drill = Some(id);
        // Its number is of those of workflows, so that its timers are nobody else's.
        self.state.meta.workflow_next = self.state.meta.workflow_next.max(id + 1);
        self.touch(Key::Drill(id));
        for fence in &fact.killed {
            self.attempt(*fence)?.drill = id;
        }
        Ok(())
    }

    pub(crate) fn drill_loss_ended(&mut self, fact: &fact::DrillLossEnded) -> Result<(), Error> {
        let now = self.time.0;
        let drill = self.drill(fact.drill)?;
        drill.loss_ended_at_ms = now;
        drill.aborted.clone_from(&fact.aborted);
        let cluster = drill.cluster.clone();
        // Whoever dispatches looks at it again.
        self.touch_cluster(&cluster);
        Ok(())
    }

    pub(crate) fn drill_finished(&mut self, fact: &fact::DrillFinished) -> Result<(), Error> {
        let (id, now) = (fact.drill, self.time.0);
        let drill = self.drill(id)?;
        drill.finished_at_ms = now;
        drill.report.clone_from(&fact.report);
        self.state.index.drill = None;
        let steps: Vec<_> = self
            .state
            .drill_steps
            .range((id, 0, 0)..=(id, u64::MAX, u32::MAX))
            .map(|(key, _)| *key)
            .collect();
        for key in steps {
            self.state.drill_steps.remove(&key);
            self.touch(Key::DrillStep(key.0, key.1, key.2));
        }
        Ok(())
    }

    pub(crate) fn drill_forgotten(&mut self, fact: &fact::DrillForgotten) {
        self.state.drills.remove(&fact.drill);
        self.touch(Key::Drill(fact.drill));
    }

    pub(crate) fn drill_schedule_stored(&mut self, fact: &fact::DrillScheduleStored) -> Result<(), Error> {
        let mut schedule = fact.row.clone().ok_or(Error::Misfit { what: "schedule of drills", id: 0 })?;
        schedule.version = ROW_VERSION;
        self.state.meta.workflow_next = self.state.meta.workflow_next.max(schedule.id + 1);
        self.state.drill_schedules.insert(fact.name.clone(), Arc::new(schedule));
        self.touch(Key::DrillSchedule(fact.name.clone()));
        Ok(())
    }

    pub(crate) fn drill_schedule_deleted(&mut self, fact: &fact::DrillScheduleDeleted) {
        self.state.drill_schedules.remove(&fact.name);
        self.touch(Key::DrillSchedule(fact.name.clone()));
    }

    /// The history goes on elsewhere: a loss that was under way is over.
    pub(crate) fn drill_cut_short(&mut self, why: &str) -> Result<(), Error> {
        let Some(id) = self.state.index.drill else { return Ok(()) };
        let now = self.time.0;
        let drill = self.drill(id)?;
        if drill.loss_ended_at_ms == 0 {
            drill.loss_ended_at_ms = now;
            why.clone_into(&mut drill.aborted);
        }
        Ok(())
    }

    pub(crate) fn drill_sees_lost(&mut self, cluster: &str) -> Result<(), Error> {
        let Some((id, drill)) = self.drill_of(cluster) else { return Ok(()) };
        if drill.detected_at_ms == 0 && drill.mode() != row::DrillMode::KillPods {
            self.drill(id)?.detected_at_ms = self.time.0;
        }
        Ok(())
    }

    pub(crate) fn drill_sees_fenced(&mut self, fence: Fence) -> Result<(), Error> {
        let Some(attempt) = self.state.attempts.get(&fence).cloned() else { return Ok(()) };
        let Some((id, drill)) = self.drill_of(&attempt.cluster) else { return Ok(()) };
        self.attempt(fence)?.drill = id;
        let touched = drill.since.is_some_and(|since| fence < since);
        let drill = self.drill(id)?;
        drill.fenced += 1;
        drill.touched_fenced += u32::from(touched);
        drill.fenced_open += u32::from(!attempt.closed);
        self.drill_step_lost(id, attempt.workflow, attempt.node, false)
    }

    /// A fenced attempt counts again: the drill waits no more for its end.
    pub(crate) fn drill_sees_returned(&mut self, fence: Fence) -> Result<(), Error> {
        let of_drill = std::mem::take(&mut self.attempt(fence)?.drill);
        if of_drill != 0 && self.state.index.drill == Some(of_drill) {
            let drill = self.drill(of_drill)?;
            drill.fenced_open = drill.fenced_open.saturating_sub(1);
        }
        Ok(())
    }

    /// A step waits for somewhere to run, as far as the drill goes.
    fn drill_step_lost(&mut self, id: u64, workflow: u64, leaf: u32, broken: bool) -> Result<(), Error> {
        let key = (id, workflow, step_of(self.state, workflow, leaf));
        let before = self.state.drill_steps.get(&key).cloned();
        let count = u32::try_from(self.state.drill_steps.len()).unwrap_or(u32::MAX);
        let now = self.time.0;
        let drill = self.drill(id)?;
        match &before {
            None if count >= drill.steps_max => {
                drill.untimed += 1;
                return Ok(());
            }
            // Lost once more before it ran: it waits already.
            Some(step) if step.recovered_at_ms == 0 && step.ended_at_ms == 0 => {}
            Some(step) => {
                drill.recovered = drill.recovered.saturating_sub(u32::from(step.recovered_at_ms != 0));
                drill.waiting += 1;
            }
            None => drill.waiting += 1,
        }
        let lost_at_ms = before.map_or(now, |step| step.lost_at_ms);
        let step =
            row::DrillStep { version: ROW_VERSION, leaf, lost_at_ms, broken, ..row::DrillStep::default() };
        self.state.drill_steps.insert(key, step);
        self.touch(Key::DrillStep(key.0, key.1, key.2));
        Ok(())
    }

    /// Changes what is known of the step around a node, if the drill under way has touched it.
    fn drill_step(
        &mut self,
        workflow: u64,
        node: u32,
        change: impl FnOnce(&mut row::DrillStep, &mut row::Drill, i64),
    ) -> Result<(), Error> {
        let Some(id) = self.state.index.drill else { return Ok(()) };
        let key = (id, workflow, step_of(self.state, workflow, node));
        let Some(mut step) = self.state.drill_steps.get(&key).cloned() else { return Ok(()) };
        let waited = step.recovered_at_ms == 0 && step.ended_at_ms == 0;
        let recovered = step.recovered_at_ms != 0;
        let now = self.time.0;
        let drill = self.drill(id)?;
        change(&mut step, drill, now);
        let waits = step.recovered_at_ms == 0 && step.ended_at_ms == 0;
        drill.waiting = drill.waiting.saturating_sub(u32::from(waited && !waits));
        drill.recovered += u32::from(!recovered && step.recovered_at_ms != 0);
        self.state.drill_steps.insert(key, step);
        self.touch(Key::DrillStep(key.0, key.1, key.2));
        Ok(())
    }

    pub(crate) fn drill_sees_assigned(
        &mut self,
        workflow: u64,
        node: u32,
        cluster: &str,
    ) -> Result<(), Error> {
        self.drill_step(workflow, node, |step, drill, now| {
            drill.moved += u32::from(step.moved_at_ms == 0);
            if step.moved_at_ms == 0 {
                step.moved_at_ms = now;
            }
            cluster.clone_into(&mut step.cluster);
        })
    }

    /// An attempt was updated: a step that it takes up runs again.
    pub(crate) fn drill_sees_running(&mut self, fence: Fence) -> Result<(), Error> {
        if self.state.index.drill.is_none() {
            return Ok(());
        }
        let Some(attempt) = self.state.attempts.get(&fence).cloned() else { return Ok(()) };
        if attempt.fenced || attempt.phase != i32::from(AttemptPhase::Running) {
            return Ok(());
        }
        self.drill_step(attempt.workflow, attempt.node, |step, _, now| {
            // What was lost is still told of: only what was placed since counts.
            if step.recovered_at_ms == 0 && step.moved_at_ms != 0 {
                step.recovered_at_ms = now;
            }
        })
    }

    pub(crate) fn drill_sees_closed(&mut self, fence: Fence) -> Result<(), Error> {
        let Some(id) = self.state.index.drill else { return Ok(()) };
        let Some(attempt) = self.state.attempts.get(&fence).cloned() else { return Ok(()) };
        let (result, now) = (is_result(attempt.phase), self.time.0);
        if attempt.fenced {
            if attempt.drill == id {
                let drill = self.drill(id)?;
                drill.fenced_open = drill.fenced_open.saturating_sub(1);
                drill.superseded += u32::from(result);
            }
            return Ok(());
        }
        // A step that runs again for its artifacts gives no second result: the first stays.
        let work = self.state.works.get(&(attempt.workflow, attempt.node));
        let reproduces = work.is_some_and(|work| work.reproduces);
        if result && !reproduces && self.has_result_beside(&attempt, fence) {
            self.drill(id)?.committed_twice += 1;
        }
        let Some((_, drill)) = self.drill_of(&attempt.cluster) else { return Ok(()) };
        if !result || drill.since.is_none_or(|since| fence >= since) {
            return Ok(());
        }
        let killed = attempt.drill == id && attempt.phase == i32::from(AttemptPhase::Failed);
        let broken = killed || attempt.phase == i32::from(AttemptPhase::Error);
        let drill = self.drill(id)?;
        drill.touched_ended += 1;
        if !broken {
            return Ok(());
        }
        drill.broken += 1;
        if drill.mode() == row::DrillMode::KillPods && drill.detected_at_ms == 0 {
            drill.detected_at_ms = now;
        }
        self.drill_step_lost(id, attempt.workflow, attempt.node, true)
    }

    /// Another attempt of the same node has given a result that counts.
    fn has_result_beside(&self, attempt: &row::Attempt, fence: Fence) -> bool {
        let (workflow, node) = (attempt.workflow, attempt.node);
        let mine = |entry: &&(u64, u32, Fence)| entry.0 == workflow && entry.1 == node;
        let all = self.state.index.of_node.range((workflow, node, Fence::default())..).take_while(mine);
        all.filter(|(.., other)| *other != fence)
            .filter_map(|(.., other)| self.state.attempts.get(other))
            .any(|other| other.closed && !other.fenced && is_result(other.phase))
    }

    /// A node is over: a step that never ran again ends with it.
    pub(crate) fn drill_sees_finished(&mut self, workflow: u64, node: u32) -> Result<(), Error> {
        if self.state.index.drill.is_none() {
            return Ok(());
        }
        let Some(ended) = self.state.nodes.get(&(workflow, node)).cloned() else { return Ok(()) };
        let phase = phase_of(&ended);
        let is_step = step_of(self.state, workflow, node) == node;
        let shut_down = self.state.workflows.get(&workflow).is_some_and(|row| row.shutdown != 0);
        self.drill_step(workflow, node, |step, drill, now| {
            let well = !phase.is_failed_or_error();
            if well && step.recovered_at_ms == 0 && step.moved_at_ms != 0 {
                step.recovered_at_ms = now;
            }
            if !is_step || step.ended_at_ms != 0 {
                return;
            }
            step.ended_at_ms = now;
            let by_loss = phase == NodePhase::Error || step.broken;
            step.failed = !well && by_loss && step.recovered_at_ms == 0 && !shut_down;
            drill.failed += u32::from(step.failed);
        })
    }

    /// A node is no more, as its workflow was deleted or retried: nothing is to be said of its step.
    pub(crate) fn drill_forgets(&mut self, workflow: u64, node: u32) -> Result<(), Error> {
        let Some(id) = self.state.index.drill else { return Ok(()) };
        let Some(step) = self.state.drill_steps.remove(&(id, workflow, node)) else { return Ok(()) };
        self.touch(Key::DrillStep(id, workflow, node));
        if step.recovered_at_ms == 0 && step.ended_at_ms == 0 {
            let drill = self.drill(id)?;
            drill.waiting = drill.waiting.saturating_sub(1);
        }
        Ok(())
    }
}
