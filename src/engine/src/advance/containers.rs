//! The Container nodes of a Pod node: what a container set's Pod reports of its containers.

use argosy_model::NodePhase;
use argosy_proto::common::{AttemptPhase, AttemptReport, ContainerState};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::Template;

use crate::advance::Turn;
use crate::commands::report_attempt::clip;
use crate::draft::Draft;
use crate::state::phase_of;

/// The message of a container that ran when its Pod failed: Argo's.
const POD_FAILED: &str = "Pod Failed whilst container running";

/// The containers of a set that waits for a cluster.
pub(crate) fn declare(turn: &mut Turn<'_>, node: u32, template: &Template) {
    let Some(set) = template.kind.container_set() else { return };
    let containers = set.containers.iter().map(|container| pending(&container.name)).collect();
    put(turn.draft, turn.workflow, node, containers);
}

fn pending(name: &str) -> row::ContainerNode {
    row::ContainerNode {
        name: name.to_owned(),
        phase: NodePhase::Pending.number(),
        ..row::ContainerNode::default()
    }
}

fn put(draft: &mut Draft, workflow: u64, node: u32, containers: Vec<row::ContainerNode>) {
    let known = draft.state.node(workflow, node).map(|row| row.rare().containers == containers);
    if known == Some(false) {
        draft.emit(Body::ContainersSet(fact::ContainersSet { workflow, node, containers }));
    }
}

/// What a report says of the node's containers; one that it doesn't name is as it was.
pub(crate) fn reported(draft: &mut Draft, workflow: u64, node: u32, report: &AttemptReport) {
    let Some(row) = draft.state.node(workflow, node).filter(|row| !row.rare().containers.is_empty()) else {
        return;
    };
    let newest = |known: &row::ContainerNode| {
        let found = report.containers.iter().find(|state| state.name == known.name);
        found.map_or_else(|| known.clone(), state_of)
    };
    let containers = row.rare().containers.iter().map(newest).collect();
    put(draft, workflow, node, containers);
}

fn state_of(state: &ContainerState) -> row::ContainerNode {
    let phase = match state.phase() {
        AttemptPhase::Unspecified | AttemptPhase::Received | AttemptPhase::Pending => NodePhase::Pending,
        AttemptPhase::Running => NodePhase::Running,
        AttemptPhase::Succeeded => NodePhase::Succeeded,
        AttemptPhase::Failed | AttemptPhase::Stopped => NodePhase::Failed,
        AttemptPhase::Error => NodePhase::Error,
    };
    row::ContainerNode {
        name: state.name.clone(),
        phase: phase.number(),
        message: clip(&state.message),
        started_at_ms: state.started_at_ms.max(0),
        finished_at_ms: state.finished_at_ms.max(0),
    }
}

/// The Pod is placed anew: none of its containers has run.
pub(crate) fn reset(draft: &mut Draft, workflow: u64, node: u32) {
    let Some(row) = draft.state.node(workflow, node).filter(|row| !phase_of(row).is_fulfilled()) else {
        return;
    };
    let containers = row.rare().containers.iter().map(|container| pending(&container.name)).collect();
    put(draft, workflow, node, containers);
}

/// The Pod could not be made: Argo makes no nodes of its containers then.
pub(crate) fn withdraw(turn: &mut Turn<'_>, node: u32) {
    put(turn.draft, turn.workflow, node, Vec::new());
}

/// The Pod's node ends: containers of which no end was reported end with it.
pub(crate) fn end(turn: &mut Turn<'_>, node: u32, phase: NodePhase, message: &str, finished_at_ms: i64) {
    let row = turn.node(node);
    let is_over = |container: &row::ContainerNode| {
        NodePhase::from_number(container.phase).is_some_and(NodePhase::is_fulfilled)
    };
    if row.rare().containers.iter().all(is_over) {
        return;
    }
    let now = if finished_at_ms > 0 { finished_at_ms } else { turn.draft.now().0 };
    let ended = |container: &row::ContainerNode| {
        if is_over(container) {
            return container.clone();
        }
        let (phase, message) = if phase == NodePhase::Succeeded {
            (NodePhase::Succeeded, String::new())
        } else if message == "pod deleted" {
            (NodePhase::Error, "container deleted".to_owned())
        } else if container.phase == NodePhase::Running.number() {
            (NodePhase::Failed, POD_FAILED.to_owned())
        } else {
            (NodePhase::Failed, message.to_owned())
        };
        row::ContainerNode { phase: phase.number(), message, finished_at_ms: now, ..container.clone() }
    };
    let containers = row.rare().containers.iter().map(ended).collect();
    put(turn.draft, turn.workflow, node, containers);
}
