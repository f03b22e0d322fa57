use argosy_proto::command::{Refusal, ReleaseQuarantine, Reply};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::done;
use crate::draft::Draft;

/// Attempts that were found on the cluster after a recovery, and that nobody knows, are stopped.
pub(crate) fn decide(draft: &mut Draft, command: &ReleaseQuarantine) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    if draft.state.cluster(name).is_none() {
        return Err(Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")));
    }
    let quarantined: Vec<_> = draft
        .state
        .open_attempts(name)
        .filter(|(_, attempt)| attempt.quarantined && !attempt.stopping)
        .map(|(fence, _)| fence)
        .collect();
    for fence in quarantined {
        let reason = "released from quarantine after a recovery".to_owned();
        draft.emit(Body::AttemptStopped(fact::AttemptStopped { fence: Some(fence), reason }));
    }
    Ok(done())
}
