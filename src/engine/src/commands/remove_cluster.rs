use argosy_proto::command::{Refusal, RemoveCluster, Reply};
use argosy_proto::fact::{self, fact::Body};
use std::collections::BTreeSet;

use crate::commands::{done, find_cluster, look_again, report_config_maps, take_over};
use crate::draft::Draft;
use crate::{Code, Leader, drill};

/// Ends a cluster's registration. With `forget` its steps are given up as of a cluster that will not come back: once its
/// agent's lease is over, and exclusive ones that run once theirs is. Its ConfigMaps are read no more. The agent, if it is there, is told to let go of
/// everything.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &RemoveCluster,
) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let row = find_cluster(&draft.state, name)?;
    if row.attempts_open > 0 && !command.forget {
        return Err(Code::ClusterHolds.refuse(format!(
            "cluster {name:?} holds {} attempts: drain it first (`argosy cluster drain {name}`), or give up what it holds with --forget",
            row.attempts_open
        )));
    }
    report_config_maps::withdraw_others(draft, name, &BTreeSet::new());
    drill::cut_short(draft, &format!("cluster {name} was removed"), |drilled| drilled == name);
    // Steps that wait for this very cluster are looked at again: what their colocation group had there is lost.
    look_again(draft, name);
    draft.emit(Body::ClusterRemoved(fact::ClusterRemoved { cluster: name.clone() }));
    take_over::forget(draft, leader, name);
    Ok(done())
}
