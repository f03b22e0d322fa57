use argosy_model::planted::{Bug, is_planted};
use argosy_proto::command::{GrantPermit, PermitDecided, Refusal, Reply, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::draft::Draft;
use crate::state::State;
use crate::{Code, Leader, recovery};

/// Bytes of a holder's name: a Pod's uid, or what a runtime drew.
const HOLDER_BYTES_MAX: usize = 256;

/// A start permit through the log: one holder per attempt, and none for an attempt that is not to run. Its place in
/// the log decides against a take-over that comes at the same time.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &GrantPermit) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.session_epoch != command.session_epoch {
        return Err(Code::StaleSession.refuse(format!(
            "session {} of cluster {name:?} is over, {} is the current one: reconnect",
            command.session_epoch, cluster.session_epoch
        )));
    }
    if command.holder.is_empty() || command.holder.len() > HOLDER_BYTES_MAX {
        return Err(Code::InvalidArgument
            .refuse(format!("the holder of a start permit has a name of 1 to {HOLDER_BYTES_MAX} bytes")));
    }
    let reason = why_not(&draft.state, command);
    if reason.is_none() && !is_held(&draft.state, command) {
        if let Some(attempt) = draft.state.attempt(&command.fence.unwrap_or_default()) {
            recovery::lost_part_is_over(&draft.state, attempt, &leader.limits, draft.now())?;
        }
        let (fence, holder) = (command.fence, command.holder.clone());
        draft.emit(Body::AttemptPermitted(fact::AttemptPermitted { fence, holder }));
    }
    let attempt = draft.state.attempt(&command.fence.unwrap_or_default());
    let decided = PermitDecided {
        fence: command.fence,
        holder: command.holder.clone(),
        granted: reason.is_none(),
        reason: reason.unwrap_or_default().to_owned(),
        exclusive_lease_ms: attempt.map_or(0, |attempt| attempt.exclusive_lease_ms),
    };
    Ok(Reply { body: Some(reply::Body::PermitDecided(decided)) })
}

fn is_held(state: &State, command: &GrantPermit) -> bool {
    let fence = command.fence.unwrap_or_default();
    state.attempt(&fence).is_some_and(|attempt| attempt.holder == command.holder)
}

fn why_not(state: &State, command: &GrantPermit) -> Option<&'static str> {
    let fence = command.fence.unwrap_or_default();
    let Some(attempt) = state.attempt(&fence).filter(|attempt| attempt.cluster == command.cluster) else {
        return Some("nothing is known of the attempt on this cluster");
    };
    if attempt.quarantined {
        Some("the attempt is of a part of history that is lost")
    } else if attempt.fenced || attempt.left {
        Some("the step was given to another attempt")
    } else if attempt.closed {
        Some("the attempt is over")
    } else if attempt.stopping {
        Some("the attempt is being stopped")
    } else if !attempt.holder.is_empty() && attempt.holder != command.holder && !is_planted(Bug::PermitTwice)
    {
        Some("the attempt's start permit belongs to another process")
    } else {
        None
    }
}
