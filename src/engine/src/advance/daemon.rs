//! Daemons: nodes that go on beside what follows them. To its parent a daemon is over once it is ready; it is ended with
//! the steps or dag template around it. One that fails after all fails its group (Argo reference 4, T16 and T17).

use argosy_model::{NodePhase, NodeType, node_id};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::advance::{Turn, dag, retry, steps};
use crate::state::{phase_of, type_of};

/// The reason with which a daemon is stopped.
const OVER: &str = "the template around the daemon is over";

/// A leaf is ready: its parent goes on. A daemon that was one before may have another address.
pub(crate) fn ready(turn: &mut Turn<'_>, index: u32, pod_ip: &str) {
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() || node.daemoned && node.rare().pod_ip == pod_ip {
        return;
    }
    turn.draft.emit(Body::NodeDaemoned(fact::NodeDaemoned {
        workflow: turn.workflow,
        node: index,
        pod_ip: pod_ip.to_owned(),
    }));
    let again = node.daemoned;
    let parent = turn.node(node.parent);
    if again && node.parent != 0 && type_of(&parent) == NodeType::Retry {
        ready(turn, node.parent, pod_ip);
    }
}

/// A try is a daemon now: so is its Retry node.
pub(crate) fn try_ready(turn: &mut Turn<'_>, index: u32, child: &row::Node) {
    let pod_ip = child.rare().pod_ip.clone();
    ready(turn, index, &pod_ip);
}

/// The boundary (0: the workflow) is over: so are its daemons.
pub(crate) fn end_all(turn: &mut Turn<'_>, boundary: u32) {
    let daemons =
        if boundary == 0 { turn.row().daemons.clone() } else { turn.node(boundary).rare().daemons.clone() };
    turn.draft.spend(u32::try_from(daemons.len()).unwrap_or(u32::MAX));
    for index in daemons {
        end(turn, index);
        // A try that was to take the place of a daemon that ended.
        let last = turn.draft.state.children_from(turn.workflow, index, 0).last();
        if let Some((_, last)) = last.filter(|_| type_of(&turn.node(index)) == NodeType::Retry) {
            end(turn, last);
        }
    }
}

fn end(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() {
        return;
    }
    if let Some(fence) = turn.draft.state.works.get(&(turn.workflow, index)).and_then(|work| work.fence) {
        let reason = OVER.to_owned();
        turn.draft.emit(Body::AttemptStopped(fact::AttemptStopped { fence: Some(fence), reason }));
    }
    turn.finish_quietly(index, NodePhase::Succeeded, node.message.clone());
}

/// A daemon that had let its parent go on failed.
pub(crate) fn failed(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if node.parent == 0 {
        return;
    }
    let parent = turn.node(node.parent);
    match type_of(&parent) {
        NodeType::Retry if !phase_of(&parent).is_fulfilled() => {
            retry::try_done(turn, node.parent, &node);
        }
        NodeType::StepGroup if !phase_of(&parent).is_fulfilled() => steps::check_group(turn, node.parent),
        NodeType::StepGroup => group_failed(turn, &node, &parent),
        NodeType::TaskGroup => dag::check_group(turn, node.parent),
        NodeType::Dag => dag::recheck(turn, node.parent),
        NodeType::Retry
        | NodeType::Pod
        | NodeType::Container
        | NodeType::Steps
        | NodeType::Skipped
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => {}
    }
}

/// The group had succeeded and the next one is under way: both that group and the steps around it fail.
fn group_failed(turn: &mut Turn<'_>, node: &row::Node, group: &row::Node) {
    let (counts, _) = turn.counts(node.parent, node.ordinal, phase_of(node));
    if !counts || phase_of(group) != NodePhase::Succeeded || phase_of(&turn.node(group.parent)).is_fulfilled()
    {
        return;
    }
    let message = format!("child '{}' failed", node_id(&turn.row().name, &node.name));
    turn.draft.emit(Body::GroupFailed(fact::GroupFailed {
        workflow: turn.workflow,
        node: node.parent,
        message: message.clone(),
    }));
    turn.finish(group.parent, NodePhase::Failed, message, None);
}
