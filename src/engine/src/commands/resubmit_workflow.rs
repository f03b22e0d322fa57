use argosy_proto::command::{Refusal, Reply, ResubmitWorkflow};

use crate::draft::Draft;
use crate::{Code, Leader};

pub(crate) fn decide(_: &mut Draft, _: &mut Leader, _: &ResubmitWorkflow) -> Result<Reply, Refusal> {
    Err(Code::UnknownCommand.refuse("resubmit is not supported yet: submit the workflow again"))
}
