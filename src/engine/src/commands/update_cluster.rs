use argosy_proto::command::{Refusal, Reply, UpdateCluster};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::done;
use crate::draft::Draft;

/// What a cluster has changed. Nothing is recorded when it is as known.
pub(crate) fn decide(draft: &mut Draft, command: &UpdateCluster) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.allocatable != command.allocatable || cluster.runtime_healthy != command.runtime_healthy {
        draft.emit(Body::ClusterUpdated(fact::ClusterUpdated {
            cluster: name.clone(),
            allocatable: command.allocatable.clone(),
            runtime_healthy: command.runtime_healthy,
        }));
    }
    Ok(done())
}
