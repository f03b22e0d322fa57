use argosy_model::{NodePhase, NodeType};
use argosy_proto::command::{Refusal, Reply, SetNode};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::advance::finish_node;
use crate::commands::selector::Selector;
use crate::commands::{acted, done, find_workflow};
use crate::draft::Draft;
use crate::state::type_of;
use crate::{Code, Leader};

/// Longest message of an operator.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Phase, message and supplied outputs of waiting Suspend nodes.
pub(crate) fn decide(draft: &mut Draft, leader: &mut Leader, command: &SetNode) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let text = command.node_field_selector.trim();
    if text.is_empty() {
        return Err(Code::NothingSelected
            .refuse("'set' currently only targets suspend nodes, use a node field selector to target them"));
    }
    let phase = phase(&command.phase)?;
    let bytes_max = leader.limits.parameter_bytes_max;
    if command.message.len() > MESSAGE_BYTES_MAX {
        return Err(Code::InvalidArgument
            .refuse(format!("the message has more than {MESSAGE_BYTES_MAX} bytes: shorten it")));
    }
    if let Some(long) = command.outputs.iter().find(|output| output.value.len() > bytes_max) {
        return Err(Code::InvalidArgument
            .refuse(format!("output parameter {:?} is larger than {bytes_max} bytes", long.name)));
    }
    let selector = Selector::parse(text)?;
    change(draft, leader, workflow, &selector, text, (phase, &command.message, command))?;
    acted(draft, workflow, &command.actor, "");
    Ok(done())
}

fn change(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    selector: &Selector,
    text: &str,
    (phase, message, command): (Option<NodePhase>, &str, &SetNode),
) -> Result<(), Refusal> {
    let nodes = waiting(draft, workflow, Some(selector));
    let nothing = phase.is_none() && message.is_empty() && command.outputs.is_empty();
    if nodes.is_empty() || nothing {
        return Err(Code::NothingSelected.refuse(format!(
            "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: {text}"
        )));
    }
    for index in nodes {
        let node = draft.state.nodes[&(workflow, index)].clone();
        let outputs = with_outputs(&node, command)?;
        let message = if message.is_empty() { node.message.clone() } else { joined(&node.message, message) };
        match phase {
            Some(phase) => finish_node(draft, leader, workflow, index, phase, message, outputs, 0),
            None => {
                draft.emit(Body::NodeSet(fact::NodeSet { workflow, node: index, message, outputs }));
            }
        }
    }
    Ok(())
}

fn phase(word: &str) -> Result<Option<NodePhase>, Refusal> {
    match word {
        "" => Ok(None),
        "Succeeded" => Ok(Some(NodePhase::Succeeded)),
        "Failed" => Ok(Some(NodePhase::Failed)),
        "Error" => Ok(Some(NodePhase::Error)),
        _ => Err(Code::InvalidArgument.refuse(format!("{word} is an invalid phase to set to"))),
    }
}

fn with_outputs(node: &row::Node, command: &SetNode) -> Result<Option<row::Outputs>, Refusal> {
    let mut outputs = node.outputs.clone();
    if command.outputs.is_empty() {
        return Ok(outputs);
    }
    let Some(declared) = &mut outputs else {
        return Err(Code::NothingSelected
            .refuse("cannot set output parameters because node is not expecting any raw parameters"));
    };
    for given in &command.outputs {
        match declared.parameters.iter_mut().find(|declared| declared.name == given.name) {
            Some(declared) if declared.value.is_none() => declared.value = Some(given.value.clone()),
            Some(_) => {
                return Err(Code::NothingSelected.refuse(format!(
                    "cannot set output parameter '{}' because it does not use valueFrom.raw or it was already set",
                    given.name
                )));
            }
            None => {
                return Err(Code::NothingSelected
                    .refuse(format!("node is not expecting output parameter '{}'", given.name)));
            }
        }
    }
    Ok(outputs)
}

/// The Suspend nodes of a workflow that wait, by a selector. Looks at every leaf that is not fulfilled.
pub(crate) fn waiting(draft: &mut Draft, workflow: u64, selector: Option<&Selector>) -> Vec<u32> {
    let state = &draft.state;
    let active = state.index.active_leaves.range((workflow, 0)..=(workflow, u32::MAX));
    let mut looked = 0;
    let mut found = Vec::new();
    for (_, index) in active {
        looked += 1;
        let Some(node) = state.node(workflow, *index) else { continue };
        let selected = || selector.is_none_or(|selector| selector.matches(state, workflow, node));
        if type_of(node) == NodeType::Suspend && selected() {
            found.push(*index);
        }
    }
    draft.spend(looked);
    found
}

/// A message behind the one that is there.
pub(crate) fn joined(before: &str, message: &str) -> String {
    if before.is_empty() { message.to_owned() } else { format!("{before}; {message}") }
}
