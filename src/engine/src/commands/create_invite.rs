use argosy_model::ClusterName;
use argosy_proto::command::{CreateInvite, InviteCreated, Refusal, Reply, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::draft::Draft;
use crate::{Code, Leader};

/// Length of a token's hash (SHA-256).
const HASH_LENGTH: usize = 32;
/// Expired or used invites forgotten per new one, so that they don't pile up.
const FORGOTTEN_PER_INVITE_MAX: usize = 4;
/// How long a used or expired invite is remembered, so that its next use gets a clear answer.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;
/// Invites in state.
const INVITES_MAX: usize = 10_000;

/// A single-use invite for a cluster. Its token is known to the caller only; state keeps the hash.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &CreateInvite) -> Result<Reply, Refusal> {
    ClusterName::new(command.cluster.clone())
        .map_err(|error| Code::InvalidClusterName.refuse(error.to_string()))?;
    if command.token_hash.len() != HASH_LENGTH {
        return Err(Code::InvalidArgument.refuse("the invite's token hash must be a SHA-256"));
    }
    if command.ttl_ms == 0 || command.ttl_ms > leader.limits.invite_ttl_max_ms {
        return Err(Code::InvalidTtl.refuse(format!(
            "an invite's lifetime must be between 1 ms and {} ms, not {} ms",
            leader.limits.invite_ttl_max_ms, command.ttl_ms
        )));
    }
    let known = draft.state.clusters.contains_key(command.cluster.as_str());
    if !known && draft.state.clusters.len() >= leader.limits.clusters_max {
        return Err(Code::TooManyClusters
            .refuse(format!("the cell has its {} clusters already", leader.limits.clusters_max)));
    }
    if draft.state.invites.len() >= INVITES_MAX {
        return Err(
            Code::TooManyClusters.refuse(format!("{INVITES_MAX} invites are open: wait until some expire"))
        );
    }
    forget_old(draft);
    let ttl_ms = i64::try_from(command.ttl_ms).unwrap_or(i64::MAX);
    let expires = draft.now().plus_ms(ttl_ms);
    draft.emit(Body::InviteCreated(fact::InviteCreated {
        cluster: command.cluster.clone(),
        token_hash: command.token_hash.clone(),
        expires_at_ms: expires.0,
    }));
    let expires_at_ms = u64::try_from(expires.0).unwrap_or(0);
    Ok(Reply { body: Some(reply::Body::InviteCreated(InviteCreated { expires_at_ms })) })
}

fn forget_old(draft: &mut Draft) {
    let now = draft.now().0;
    let old: Vec<_> = draft
        .state
        .invites
        .iter()
        .filter(|(_, invite)| now - invite.expires_at_ms > REMEMBERED_MS)
        .map(|(hash, _)| hash.clone())
        .take(FORGOTTEN_PER_INVITE_MAX)
        .collect();
    for token_hash in old {
        draft.emit(Body::InviteForgotten(fact::InviteForgotten { token_hash }));
    }
}
