use argosy_proto::command::{InviteRedeemed, RedeemInvite, Refusal, Reply, reply};
use argosy_proto::fact::{self, fact::Body};

use crate::commands::identity;
use crate::draft::Draft;
use crate::{Code, Leader};

/// Uses up an invite and registers its cluster. Each way of being wrong has its own code.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &RedeemInvite) -> Result<Reply, Refusal> {
    let cluster = &command.cluster;
    let again = format!("make a new one with `argosy cluster invite {cluster}`");
    if command.cluster_uid.is_empty() {
        return Err(Code::InvalidArgument.refuse("the cluster's uid is missing"));
    }
    let invite = draft.state.invites.get(&command.token_hash).ok_or_else(|| {
        Code::InviteUnknown.refuse(format!("the invite is not known: check the token, or {again}"))
    })?;
    if invite.cluster != *cluster {
        return Err(
            Code::InviteOtherCluster.refuse(format!("the invite is not for cluster {cluster:?}: {again}"))
        );
    }
    if !invite.used_by.is_empty() {
        return Err(
            Code::InviteUsed.refuse(format!("the invite for cluster {cluster:?} was used already: {again}"))
        );
    }
    if draft.now().0 >= invite.expires_at_ms {
        return Err(
            Code::InviteExpired.refuse(format!("the invite for cluster {cluster:?} expired: {again}"))
        );
    }
    let identity = identity::enrolled(draft, leader, command)?;
    match draft.state.cluster(cluster) {
        Some(known)
            if known.cluster_uid != command.cluster_uid && known.attempts_open > 0 && !known.removed =>
        {
            return Err(Code::ClusterUidMismatch.refuse(format!(
                "cluster {cluster:?} is registered with another uid and still holds attempts: wait until they are gone, or use another name"
            )));
        }
        Some(_) => {}
        None if draft.state.clusters.len() >= leader.limits.clusters_max => {
            return Err(Code::TooManyClusters
                .refuse(format!("the cell has its {} clusters already", leader.limits.clusters_max)));
        }
        None => {}
    }
    draft.emit(Body::InviteRedeemed(fact::InviteRedeemed {
        token_hash: command.token_hash.clone(),
        cluster_uid: command.cluster_uid.clone(),
    }));
    draft.emit(Body::ClusterRegistered(fact::ClusterRegistered {
        cluster: cluster.clone(),
        cluster_uid: command.cluster_uid.clone(),
    }));
    let generation = identity.as_ref().map_or(0, |identity| identity.generation);
    if identity.is_some() {
        draft.emit(Body::IdentitySet(fact::IdentitySet { cluster: cluster.clone(), identity }));
    }
    let redeemed = InviteRedeemed { cluster: cluster.clone(), generation };
    Ok(Reply { body: Some(reply::Body::InviteRedeemed(redeemed)) })
}
