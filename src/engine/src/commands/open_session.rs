use argosy_proto::command::{OpenSession, Refusal, Reply, SessionOpened, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::identity;
use crate::draft::Draft;
use crate::{Code, Leader};

/// Labels of a cluster, and bytes of one label's key and value together.
const LABELS_MAX: usize = 256;
const LABEL_BYTES_MAX: usize = 512;

/// A new session of a cluster's agent. The cluster is no longer lost; what an older session says is stale from here on.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &OpenSession) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft.state.cluster(name).ok_or_else(|| {
        Code::ClusterMissing.refuse(format!(
            "cluster {name:?} is not registered: invite it with `argosy cluster invite {name}`"
        ))
    })?;
    if cluster.removed {
        return Err(Code::ClusterRemoved.refuse(format!(
            "cluster {name:?} was removed: what its agent holds is given up; invite it again with `argosy cluster invite {name}`"
        )));
    }
    if cluster.cluster_uid != command.cluster_uid {
        return Err(Code::ClusterUidMismatch.refuse(format!(
            "cluster {name:?} is registered with uid {:?}, the agent says {:?}: enrol this cluster under another name",
            cluster.cluster_uid, command.cluster_uid
        )));
    }
    if command.labels.len() > LABELS_MAX
        || command.labels.iter().any(|(key, value)| key.len() + value.len() > LABEL_BYTES_MAX)
    {
        return Err(Code::InvalidArgument.refuse(format!(
            "cluster {name:?} has more than {LABELS_MAX} labels or one over {LABEL_BYTES_MAX} bytes"
        )));
    }
    let session_epoch = cluster.session_epoch + 1;
    let (ledger, known) = (command.ledger, cluster.ledger);
    if let Some(refused) = identity::open(draft, leader, command)? {
        return Ok(refused);
    }
    draft.emit(Body::ClusterSessionOpened(fact::ClusterSessionOpened {
        cluster: name.clone(),
        session_epoch,
        agent_instance: command.agent_instance,
        agent_version: command.agent_version.clone(),
        runtime: command.runtime,
        allocatable: command.allocatable.clone(),
        labels: command.labels.clone(),
        enforces_exclusive: command.enforces_exclusive,
        member: command.member,
    }));
    if ledger != known && ledger != 0 {
        let lost = known != 0;
        let changed = fact::ClusterLedgerChanged { cluster: name.clone(), ledger, lost };
        draft.emit(Body::ClusterLedgerChanged(changed));
    }
    Ok(Reply { body: Some(reply::Body::SessionOpened(SessionOpened { session_epoch })) })
}
