use argosy_proto::command::{Refusal, Reply, ShutdownStrategy, ShutdownWorkflow};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::AgendaKind;

use argosy_model::NodePhase;

use crate::advance::{finish_node, lock};
use crate::commands::selector::Selector;
use crate::commands::set_node::{joined, waiting};
use crate::commands::{acted, done, find_workflow};
use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::{Code, Leader};

/// Stop (exit handlers run) or terminate. A terminate may follow a stop; the same again changes nothing. With a
/// selector only the waiting Suspend nodes it selects fail, and the workflow goes on.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ShutdownWorkflow,
) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let strategy = command.strategy();
    if strategy == ShutdownStrategy::Unspecified {
        return Err(Code::InvalidArgument.refuse("the shutdown's strategy must be Stop or Terminate"));
    }
    let row = &draft.state.workflows[&workflow];
    if row.finished_at_ms != 0 {
        return Err(Code::WorkflowFinished.refuse(format!(
            "cannot shutdown a completed workflow: workflow: {:?}, namespace: {:?}",
            command.name, command.namespace
        )));
    }
    if !command.node_field_selector.trim().is_empty() {
        fail_selected(draft, leader, workflow, command)?;
        return Ok(done());
    }
    acted(draft, workflow, &command.actor, word(strategy));
    let row = &draft.state.workflows[&workflow];
    let strategy = i32::from(strategy);
    if row.shutdown == strategy || row.shutdown == i32::from(ShutdownStrategy::Terminate) {
        return Ok(done());
    }
    request(draft, workflow, strategy, &command.message);
    Ok(done())
}

fn word(strategy: ShutdownStrategy) -> &'static str {
    match strategy {
        ShutdownStrategy::Unspecified => "",
        ShutdownStrategy::Stop => "Stop",
        ShutdownStrategy::Terminate => "Terminate",
    }
}

fn fail_selected(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    command: &ShutdownWorkflow,
) -> Result<(), Refusal> {
    let text = command.node_field_selector.trim();
    let selector = Selector::parse(text)?;
    let nodes = waiting(draft, workflow, Some(&selector));
    if nodes.is_empty() {
        return Err(Code::NothingSelected.refuse(format!(
            "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: {text}"
        )));
    }
    for node in nodes {
        let before = draft.state.node(workflow, node).map(|row| row.message.clone()).unwrap_or_default();
        let message = if command.message.is_empty() { before } else { joined(&before, &command.message) };
        let outputs = draft.state.node(workflow, node).and_then(|row| row.outputs.clone());
        finish_node(draft, leader, workflow, node, NodePhase::Failed, message, outputs, 0);
    }
    acted(draft, workflow, &command.actor, word(command.strategy()));
    Ok(())
}

/// Records the wish and puts the stopping of what runs on the agenda.
pub(crate) fn request(draft: &mut Draft, workflow: u64, strategy: i32, message: &str) {
    draft.emit(Body::ShutdownRequested(fact::ShutdownRequested {
        workflow,
        strategy,
        message: message.to_owned(),
    }));
    // A suspended workflow that is to end must go on for that.
    if draft.state.workflows.get(&workflow).is_some_and(|row| row.suspended) {
        draft.emit(Body::WorkflowSuspended(fact::WorkflowSuspended { workflow, suspended: false }));
    }
    lock::leave_workflow(draft, workflow);
    let item = agenda_item(AgendaKind::Shutdown, 0);
    draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
}
