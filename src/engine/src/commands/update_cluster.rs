use argosy_proto::command::{Refusal, Reply, UpdateCluster};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::done;
use crate::draft::Draft;
use crate::{Code, Leader, recall};

/// What a cluster has changed. Nothing is recorded when it is as known.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &UpdateCluster) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.allocatable != command.allocatable || cluster.runtime_healthy != command.runtime_healthy {
        if cluster.runtime_healthy && !command.runtime_healthy {
            let due_ms = draft.now().plus_ms(leader.limits.degraded_after_ms).0;
            recall::remind(draft, due_ms);
        }
        draft.emit(Body::ClusterUpdated(fact::ClusterUpdated {
            cluster: name.clone(),
            allocatable: command.allocatable.clone(),
            runtime_healthy: command.runtime_healthy,
        }));
    }
    Ok(done())
}
