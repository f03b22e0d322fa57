use argosy_proto::command::{Refusal, Reply, ShutdownStrategy, ShutdownWorkflow};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::AgendaKind;

use crate::Code;
use crate::commands::{done, find_workflow};
use crate::draft::Draft;
use crate::evolve_work::agenda_item;

/// Stop (exit handlers run) or terminate. A terminate may follow a stop; the same again changes nothing.
pub(crate) fn decide(draft: &mut Draft, command: &ShutdownWorkflow) -> Result<Reply, Refusal> {
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
    let strategy = i32::from(strategy);
    if row.shutdown == strategy || row.shutdown == i32::from(ShutdownStrategy::Terminate) {
        return Ok(done());
    }
    request(draft, workflow, strategy, &command.message);
    Ok(done())
}

/// Records the wish and puts the stopping of what runs on the agenda.
pub(crate) fn request(draft: &mut Draft, workflow: u64, strategy: i32, message: &str) {
    draft.emit(Body::ShutdownRequested(fact::ShutdownRequested {
        workflow,
        strategy,
        message: message.to_owned(),
    }));
    let item = agenda_item(AgendaKind::Shutdown, 0);
    draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
}
