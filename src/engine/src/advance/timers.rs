//! Timers that are due.

use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::advance::{Turn, leaf, retry, workflow};
use crate::commands::{drill_schedule, shutdown_workflow};
use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::state::{ROW_VERSION, phase_of};
use crate::{Leader, cron, drill, loss, recall, retire};

/// A timer waits that is due.
pub(crate) fn due(draft: &Draft) -> bool {
    draft.state.next_timer().is_some_and(|due| due <= draft.now())
}

/// Fires what is due, until the batch is full.
pub(crate) fn fire(draft: &mut Draft, leader: &mut Leader) {
    while due(draft) && !draft.is_full(&leader.limits) {
        let Some((due_ms, workflow, node, kind)) = draft.state.timers.keys().next().copied() else { return };
        draft.spend(1);
        let timer = row::Timer { version: ROW_VERSION, due_ms, workflow, node, kind };
        draft.emit(Body::TimerCleared(fact::TimerCleared { timer: Some(timer) }));
        let over =
            draft.state.workflows.get(&workflow).is_none_or(|row| row.finished_at_ms != 0 || row.deleted);
        let suspended = draft.state.workflows.get(&workflow).is_some_and(|row| row.suspended);
        match row::TimerKind::try_from(kind).unwrap_or_default() {
            row::TimerKind::Deadline if !over => deadline(draft, workflow),
            row::TimerKind::Suspend | row::TimerKind::Retry if suspended => {
                // Its turn comes when the workflow is resumed.
                let item = agenda_item(row::AgendaKind::Start, node);
                draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
            }
            row::TimerKind::Suspend => with(draft, leader, workflow, node, leaf::suspend_over),
            row::TimerKind::Retry => with(draft, leader, workflow, node, again),
            row::TimerKind::Cluster => recall::due(draft, leader),
            row::TimerKind::Drill => drill::due(draft, workflow),
            row::TimerKind::DrillSchedule => drill_schedule::tick(draft, leader, workflow),
            row::TimerKind::Left => loss::left_is_due(draft, leader, workflow, node),
            row::TimerKind::Cron => cron::tick(draft, leader, workflow),
            row::TimerKind::Archive => retire::forgotten(draft, workflow),
            row::TimerKind::Ttl => retire::expired(draft, leader, workflow),
            row::TimerKind::Timeout => with(draft, leader, workflow, node, leaf::timed_out),
            row::TimerKind::Deadline | row::TimerKind::Unspecified => {}
        }
    }
}

/// Acts on a node that is still waiting; a timer may outlive what it was set for.
fn with(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    act: impl FnOnce(&mut Turn<'_>, u32),
) {
    let waits = draft.state.node(workflow, node).is_some_and(|row| !phase_of(row).is_fulfilled());
    if waits && let Some(mut turn) = Turn::new(draft, leader, workflow) {
        act(&mut turn, node);
    }
}

pub(crate) fn again(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    let shutdown = turn.row().shutdown;
    if workflow::stops(shutdown, node.on_exit) {
        let last = u64::from(node.children_total).checked_sub(1);
        let child =
            last.and_then(|last| turn.draft.state.index.children.get(&(turn.workflow, index, last)).copied());
        if let Some(child) = child {
            let child = turn.node(child);
            retry::try_done(turn, index, &child);
        }
        return;
    }
    turn.change(index, |node| node.message.clear());
    retry::next_try(turn, index);
}

fn deadline(draft: &mut Draft, workflow: u64) {
    if draft.state.workflows.get(&workflow).is_some_and(|row| row.shutdown == 0) {
        shutdown_workflow::request(draft, workflow, workflow::DEADLINE, "");
    }
}
