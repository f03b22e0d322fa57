use argosy_proto::command::{DeleteWorkflow, Refusal, Reply};

use crate::Leader;
use crate::commands::{done, find_workflow};
use crate::draft::Draft;
use crate::retire;

/// The workflow goes, whatever its phase; attempts still open are stopped.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &DeleteWorkflow,
) -> Result<Reply, Refusal> {
    let workflow = find_workflow(&draft.state, &command.namespace, &command.name)?;
    retire::retire(draft, leader, workflow);
    Ok(done())
}
