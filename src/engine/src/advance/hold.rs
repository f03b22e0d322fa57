//! Bounds on what runs at the same time: `parallelism` of the workflow and of steps and dag templates, and `failFast`.
//!
//! What may not start yet is not made: the node that would make it notes where to go on, and does so when others end.

use argosy_model::{NodePhase, NodeType};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::advance::Turn;
use crate::state::{phase_of, type_of};

/// Argo's message.
pub(crate) const FAIL_FAST: &str = "template has failed or errored children and failFast enabled";

/// No more Pods of the workflow may start now.
pub(crate) fn is_full(turn: &Turn<'_>) -> bool {
    is_held(turn, 0)
}

/// No more children may start now below `boundary`.
pub(crate) fn is_held(turn: &Turn<'_>, boundary: u32) -> bool {
    let reached = |bound: Option<i64>, active: u32| bound.is_some_and(|bound| i64::from(active) >= bound);
    if reached(turn.parsed.manifest.spec.parallelism, turn.row().pods_active) {
        return true;
    }
    let node = turn.node(boundary);
    let bound = turn.parsed.template(&node.template).and_then(|template| template.parallelism);
    boundary != 0 && reached(bound, node.active_below)
}

/// Notes that a node's start goes on later, from a cursor or with a task.
pub(crate) fn hold(turn: &mut Turn<'_>, node: u32, cursor: u64, task: Option<u32>) {
    let workflow = turn.workflow;
    turn.draft.emit(Body::StartHeld(fact::StartHeld { workflow, node, cursor, task }));
}

/// A node ended: starts that waited for that go on.
pub(crate) fn released(turn: &mut Turn<'_>) {
    let row = turn.row();
    if row.held.is_empty() {
        return;
    }
    let parallelism = turn.parsed.manifest.spec.parallelism;
    let room = parallelism.map_or(i64::MAX, |bound| bound.saturating_sub(i64::from(row.pods_active)));
    let may_go: Vec<u32> = row
        .held
        .iter()
        .copied()
        .filter(|held| !is_held(turn, boundary_of(turn, *held)))
        .take(usize::try_from(room.max(0)).unwrap_or(usize::MAX))
        .collect();
    turn.draft.spend(u32::try_from(row.held.len()).unwrap_or(u32::MAX));
    for node in may_go {
        turn.draft.emit(Body::StartReleased(fact::StartReleased { workflow: turn.workflow, node }));
    }
}

/// The boundary of a node's children.
fn boundary_of(turn: &Turn<'_>, index: u32) -> u32 {
    let node = turn.node(index);
    match type_of(&node) {
        NodeType::Dag | NodeType::Steps => index,
        NodeType::StepGroup | NodeType::TaskGroup | NodeType::Retry => node.boundary,
        // A leaf is there already: its boundary has counted it.
        NodeType::Pod
        | NodeType::Container
        | NodeType::Skipped
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => 0,
    }
}

/// Ends a steps or dag node with `failFast` one of whose children failed; true when it did.
pub(crate) fn fail_fast(turn: &mut Turn<'_>, failed: &row::Node) -> bool {
    let boundary = failed.boundary;
    let node = turn.node(boundary);
    let is_group = matches!(type_of(failed), NodeType::StepGroup | NodeType::TaskGroup);
    if boundary == 0 || is_group || node.failed_below == 0 || phase_of(&node).is_fulfilled() {
        return false;
    }
    let wanted =
        turn.parsed.template(&node.template).is_some_and(|template| template.fail_fast == Some(true));
    // All that will ever run has run: the node's own end tells more.
    if !wanted || !is_bounded(turn, boundary) {
        return false;
    }
    let last = turn.draft.state.children_from(turn.workflow, boundary, 0).last();
    if let Some((_, group)) = last.filter(|_| type_of(&node) == NodeType::Steps) {
        turn.finish(group, NodePhase::Failed, FAIL_FAST.to_owned(), None);
    } else {
        turn.finish(boundary, NodePhase::Failed, FAIL_FAST.to_owned(), None);
    }
    true
}

fn is_bounded(turn: &Turn<'_>, boundary: u32) -> bool {
    let node = turn.node(boundary);
    turn.parsed.template(&node.template).is_some_and(|template| template.parallelism.is_some())
}
