use argosy_proto::command::{Refusal, Reply, ResumeTakeOvers};
use argosy_proto::fact::{self, fact::Body};

use crate::Code;
use crate::commands::{done, find_cluster};
use crate::draft::Draft;

/// An operator lets the take-overs of silent clusters go on that the storm brake holds. It counts until the cluster opens
/// another session, whoever leads.
pub(crate) fn decide(draft: &mut Draft, command: &ResumeTakeOvers) -> Result<Reply, Refusal> {
    let nothing = |message: String| Code::NothingHeld.refuse(message);
    if command.clusters.is_empty() {
        return Err(nothing("the storm brake holds no take-over".to_owned()));
    }
    for name in &command.clusters {
        let row = find_cluster(&draft.state, name)?;
        if row.session_epoch == 0 {
            return Err(nothing(format!(
                "cluster {name:?} has never had a session: there is nothing to take over"
            )));
        }
    }
    for name in &command.clusters {
        let row = find_cluster(&draft.state, name)?;
        let session_epoch = row.session_epoch;
        if row.take_over_resumed_epoch == session_epoch {
            continue;
        }
        draft.emit(Body::TakeOverResumed(fact::TakeOverResumed {
            cluster: name.clone(),
            session_epoch,
            actor: command.actor.clone(),
            at_ms: draft.now().0,
        }));
    }
    Ok(done())
}
