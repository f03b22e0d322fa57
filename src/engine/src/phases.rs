//! Phases and types as rows hold them.

use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::state as row;

/// True for a leaf that is not fulfilled.
pub(crate) fn is_active_leaf(row: &row::Node) -> bool {
    is_leaf_type(row.r#type) && !phase_of(row).is_fulfilled()
}

/// Node types that run or wait by themselves, and that Argo's progress counts.
pub(crate) fn is_leaf_type(number: i32) -> bool {
    NodeType::from_number(number).is_some_and(|kind| match kind {
        NodeType::Pod | NodeType::Suspend | NodeType::Http | NodeType::Plugin => true,
        NodeType::Container
        | NodeType::Steps
        | NodeType::StepGroup
        | NodeType::Dag
        | NodeType::TaskGroup
        | NodeType::Retry
        | NodeType::Skipped => false,
    })
}

/// A row's phase; rows written by this code always have one.
pub(crate) fn phase_of(row: &row::Node) -> NodePhase {
    NodePhase::from_number(row.phase).unwrap_or(NodePhase::Error)
}

/// A row's type.
pub(crate) fn type_of(row: &row::Node) -> NodeType {
    NodeType::from_number(row.r#type).unwrap_or(NodeType::Skipped)
}

/// A workflow's phase, `None` before it was looked at.
#[must_use]
pub fn workflow_phase(row: &row::Workflow) -> Option<WorkflowPhase> {
    WorkflowPhase::from_number(row.phase)
}
