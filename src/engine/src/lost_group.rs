//! Colocation groups whose cluster is lost: their volumes and daemons are lost with it.

use argosy_model::NodePhase;
use argosy_proto::state as row;
use std::ops::RangeInclusive;

use crate::Leader;
use crate::state::{State, is_leaf_type, phase_of};

/// Where a step that waits for placement stands to its colocation group's cluster.
pub(crate) enum Standing {
    /// It has no group, its group has no cluster yet, or it can still run there.
    Bound,
    /// That cluster is no place for it any more and holds nothing of the group: the group begins again elsewhere.
    Free,
    /// That cluster is no place for it any more, and what others of the group made was there alone.
    Lost { cluster: String },
}

/// Where a step that waits for placement stands to its colocation group's cluster.
pub(crate) fn standing(
    state: &State,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    work: &row::Work,
) -> Standing {
    let Some(cluster) = pin(state, workflow, work.group) else { return Standing::Bound };
    // A try that is to keep away from hosts of the tries before it has clusters excluded as well, and nothing was lost.
    let fenced_off = work.takeovers > 0 && work.excluded.contains(cluster);
    if !fenced_off && !is_gone(state, cluster) {
        return Standing::Bound;
    }
    if others_were_there(state, leader, workflow, node, work.group) {
        Standing::Lost { cluster: cluster.clone() }
    } else {
        Standing::Free
    }
}

/// Whether other steps of the group run in the group's cluster, or ended there: what they made, or make, can't be had
/// elsewhere. Who can't be told apart from one that did (a step that is remembered from before a retry) counts.
///
/// It looks at the workflow's nodes. Of many steps that are lost together all but the last are told by the first other
/// one that still runs.
pub(crate) fn others_were_there(
    state: &State,
    leader: &mut Leader,
    workflow: u64,
    node: u32,
    group: u32,
) -> bool {
    let mut works = state.works.range(all_of(workflow));
    if works.any(|((_, other), work)| *other != node && work.group == group && work.fence.is_some()) {
        return true;
    }
    if state.remembered.range((workflow, String::new())..).next().is_some_and(|(key, _)| key.0 == workflow) {
        return true;
    }
    let Some(parsed) = leader.parsed(state, workflow) else { return true };
    let ended = |other: &row::Node| match phase_of(other) {
        NodePhase::Succeeded | NodePhase::Failed | NodePhase::Error => true,
        NodePhase::Pending | NodePhase::Running | NodePhase::Skipped | NodePhase::Omitted => other.daemoned,
    };
    state.nodes.range(all_of(workflow)).any(|(_, other)| {
        is_leaf_type(other.r#type) && parsed.groups.get(&other.template) == Some(&group) && ended(other)
    })
}

/// Whether the group's cluster was removed: no other try of its steps can have its volumes.
pub(crate) fn is_lost_for_good(state: &State, workflow: u64, group: u32) -> bool {
    pin(state, workflow, group).is_some_and(|cluster| is_gone(state, cluster))
}

/// What a step says that needs volumes or daemons of a lost cluster.
pub(crate) fn message(cluster: &str) -> String {
    format!(
        "cluster {cluster} was lost with the volumes or daemons of this step's colocation group: submit the workflow again"
    )
}

fn pin(state: &State, workflow: u64, group: u32) -> Option<&String> {
    if group == 0 {
        return None;
    }
    state.workflows.get(&workflow).and_then(|row| row.pins.get(&group))
}

fn is_gone(state: &State, cluster: &str) -> bool {
    state.cluster(cluster).is_none_or(|row| row.removed)
}

fn all_of(workflow: u64) -> RangeInclusive<(u64, u32)> {
    (workflow, 0)..=(workflow, u32::MAX)
}
