use argosy_model::NodePhase;
use argosy_proto::command::{Refusal, Reply, ResumeWorkflow};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::Template;

use crate::advance::finish_node;
use crate::commands::selector::Selector;
use crate::commands::set_node::{joined, waiting};
use crate::commands::{acted, done, find_workflow};
use crate::draft::Draft;
use crate::{Code, Leader};

/// Ends the workflow's suspension and every waiting Suspend node; with a selector the nodes it selects alone.
///
/// Resuming a workflow in which nothing waits is no error and changes nothing, as in Argo.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ResumeWorkflow,
) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let text = command.node_field_selector.trim();
    let selector = if text.is_empty() { None } else { Some(Selector::parse(text)?) };
    let nodes = waiting(draft, workflow, selector.as_ref());
    if selector.is_some() && nodes.is_empty() {
        return Err(Code::NothingSelected.refuse(format!(
            "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: {text}"
        )));
    }
    let mut ends = Vec::with_capacity(nodes.len());
    for node in nodes {
        let outputs = outputs(draft, leader, workflow, node)?;
        ends.push((node, outputs));
    }
    let suspended = draft.state.workflows[&workflow].suspended;
    if suspended && selector.is_none() {
        draft.emit(Body::WorkflowSuspended(fact::WorkflowSuspended { workflow, suspended: false }));
    }
    if !ends.is_empty() || suspended {
        acted(draft, workflow, &command.actor, "Resume");
    }
    for (node, outputs) in ends {
        let message = draft.state.node(workflow, node).map(|row| row.message.clone()).unwrap_or_default();
        let message = joined(&message, &format!("Resumed by: map[User:{}]", command.actor));
        finish_node(draft, leader, workflow, node, NodePhase::Succeeded, message, outputs, 0);
    }
    Ok(done())
}

/// The outputs with which a Suspend node ends: what was set, else the defaults.
fn outputs(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
) -> Result<Option<row::Outputs>, Refusal> {
    crate::advance::leaf::suspend_outputs(draft, leader, workflow, node).map_err(|message| {
        // Argo tries again for a while, and these are its words when it gives up.
        Code::NodeNotReady.refuse(format!("timed out waiting for the condition: {message}"))
    })
}

/// How the message of an output that nobody has supplied begins.
pub(crate) const NOT_SUPPLIED: &str = "raw output parameter '";

/// What a Suspend node yields once it is over.
pub(crate) fn supplied(
    set: Option<&row::Outputs>,
    template: &Template,
    inputs: &[row::Parameter],
) -> Result<Option<row::Outputs>, String> {
    let mut outputs = row::Outputs::default();
    for parameter in &template.outputs.parameters {
        let given = set
            .and_then(|set| set.parameters.iter().find(|given| given.name == parameter.name)?.value.clone());
        let default = parameter.value_from.as_ref().and_then(|from| from.default.clone());
        // An input of the same name is a default, too.
        let input = || inputs.iter().find(|input| input.name == parameter.name)?.value.clone();
        let Some(value) = given.or(default).or_else(|| parameter.value.clone()).or_else(input) else {
            let name = &parameter.name;
            return Err(format!("{NOT_SUPPLIED}{name}' has not been set and does not have a default value"));
        };
        outputs.parameters.push(row::Parameter {
            name: parameter.name.clone(),
            value: Some(value),
            verbatim: false,
        });
    }
    Ok((!outputs.parameters.is_empty()).then_some(outputs))
}
