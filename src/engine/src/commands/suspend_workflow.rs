use argosy_proto::command::{Refusal, Reply, SuspendWorkflow};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::{acted, done, find_workflow};
use crate::draft::Draft;

/// Nothing new starts in the workflow; what runs goes on. Suspending it again changes nothing but the label.
pub(crate) fn decide(draft: &mut Draft, command: &SuspendWorkflow) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let row = &draft.state.workflows[&workflow];
    if row.finished_at_ms != 0 {
        return Err(Code::WorkflowFinished.refuse("cannot suspend completed workflows"));
    }
    if !row.suspended {
        draft.emit(Body::WorkflowSuspended(fact::WorkflowSuspended { workflow, suspended: true }));
    }
    acted(draft, workflow, &command.actor, "Suspend");
    Ok(done())
}
