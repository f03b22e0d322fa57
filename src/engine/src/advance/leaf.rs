use argosy_proto::common::AttemptReport;
use crate::{Leader, draft::Draft};
pub(crate) fn attempt_over(_draft: &mut Draft, _leader: &mut Leader, _workflow: u64, _node: u32, _report: &AttemptReport) {}
