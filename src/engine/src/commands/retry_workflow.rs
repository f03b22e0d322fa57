use argosy_proto::command::{Refusal, Reply, RetryWorkflow};

use crate::draft::Draft;
use crate::{Code, Leader};

pub(crate) fn decide(_: &mut Draft, _: &mut Leader, _: &RetryWorkflow) -> Result<Reply, Refusal> {
    Err(Code::UnknownCommand.refuse("retry is not supported yet: submit the workflow again"))
}
