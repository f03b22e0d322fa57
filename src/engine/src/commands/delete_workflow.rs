use argosy_proto::command::{DeleteWorkflow, Refusal, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Leader;
use crate::commands::{done, find_workflow};
use crate::draft::Draft;

/// The workflow goes, whatever its phase; attempts still open are stopped.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &DeleteWorkflow,
) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    draft.emit(Body::WorkflowDeleted(fact::WorkflowDeleted { workflow }));
    leader.forget(workflow);
    Ok(done())
}
