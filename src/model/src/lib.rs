//! The words of the domain: ids, phases, log time, fences and limits.
//!
//! Holds no logic beyond what belongs to a word itself (parsing, ordering, Argo's spelling), no input or output and no
//! clock. Everything here is plain data that any crate may use.
//!
//! Invariant: the spelling of a phase or type is Argo's, as users see it in YAML, API and CLI.

mod cluster_selector;
mod duration;
mod fence;
mod ids;
mod label_selector;
mod limits;
mod phase;
pub mod planted;
mod quantity;
mod time;

pub use cluster_selector::{SELECTOR_NAME, SELECTOR_PREFIX, selector_matches};
pub use duration::parse_duration;
pub use fence::{artifact_key, artifact_prefix, display_fence, parse_fence, result_key};
pub use ids::{ClusterName, InvalidName, MemberId, NodeIndex, WorkflowId, WorkflowKey, node_id, pod_name};
pub use label_selector::{InvalidSelector, LabelSelector, REQUIREMENTS_MAX as SELECTOR_REQUIREMENTS_MAX};
pub use limits::Limits;
pub use phase::{NodePhase, NodeType, UnknownWord, WorkflowPhase};
pub use quantity::quantity;
pub use time::LogTime;

pub use argosy_proto::common::{Fence, Resources};
