//! What happens by itself: timers, the agenda, placement.
use argosy_model::{NodePhase, WorkflowPhase};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::Leader;
use crate::draft::Draft;

pub(crate) mod leaf;
pub(crate) mod workflow;

pub(crate) fn advance(draft: &mut Draft, leader: &mut Leader) -> bool {
    crate::place::run(draft, leader);
    draft.state.has_work()
}

pub(crate) fn workflow_phase_of(phase: NodePhase) -> WorkflowPhase {
    match phase {
        NodePhase::Pending => WorkflowPhase::Pending,
        NodePhase::Running => WorkflowPhase::Running,
        NodePhase::Succeeded | NodePhase::Skipped | NodePhase::Omitted => WorkflowPhase::Succeeded,
        NodePhase::Failed => WorkflowPhase::Failed,
        NodePhase::Error => WorkflowPhase::Error,
    }
}

#[expect(clippy::too_many_arguments, reason = "a fact's fields")]
pub(crate) fn finish_node(
    draft: &mut Draft,
    _leader: &mut Leader,
    workflow: u64,
    node: u32,
    phase: NodePhase,
    message: String,
    outputs: Option<row::Outputs>,
    finished_at_ms: i64,
) {
    draft.emit(Body::NodeFinished(fact::NodeFinished {
        workflow,
        node,
        phase: phase.number(),
        message,
        outputs,
        finished_at_ms,
        counts_as_failure: false,
        rank: 0,
    }));
}
