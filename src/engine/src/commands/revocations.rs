//! Certificates that ended after the backup was made from which the cell was restored: members have them on record.

use argosy_proto::command::{ImportRevocations, Refusal, Reply, Revocation};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{ClusterIdentity, Standing};

use crate::commands::done;
use crate::draft::Draft;
use crate::identity;
use crate::{Code, Leader};

/// Who says so, in what users see.
const ACTOR: &str = "the record of a member";

/// What has ended by the record and not by state, ends. Nothing that has ended begins again.
pub(crate) fn import(
    draft: &mut Draft,
    leader: &Leader,
    command: &ImportRevocations,
) -> Result<Reply, Refusal> {
    let known = draft.state.clusters().count();
    let unknown =
        command.revocations.iter().filter(|one| draft.state.cluster(&one.cluster).is_none()).count();
    if known.saturating_add(unknown) > leader.limits.clusters_max {
        return Err(Code::TooManyClusters
            .refuse(format!("the cell would have more than its {} clusters", leader.limits.clusters_max)));
    }
    for revocation in &command.revocations {
        take(draft, revocation);
    }
    Ok(done())
}

fn take(draft: &mut Draft, revocation: &Revocation) {
    let cluster = &revocation.cluster;
    let row = draft.state.cluster(cluster);
    let known = row.and_then(|row| row.identity.clone());
    if known.as_ref().is_some_and(|known| known.revoked_below >= revocation.revoked_below) {
        return;
    }
    if row.is_none() {
        // It is not registered. That its earlier certificates have ended has to be known when it is.
        let (cluster, cluster_uid) = (cluster.clone(), String::new());
        draft
            .emit(Body::ClusterRegistered(fact::ClusterRegistered { cluster: cluster.clone(), cluster_uid }));
        draft.emit(Body::ClusterRemoved(fact::ClusterRemoved { cluster }));
    }
    let mut identity = known.unwrap_or_else(|| ClusterIdentity {
        standing: Standing::Active.into(),
        standing_since_ms: draft.now().0,
        ..ClusterIdentity::default()
    });
    identity.generation = identity.generation.max(revocation.revoked_below.saturating_sub(1));
    if revocation.ended {
        identity::end(&mut identity, Standing::Revoked, &revocation.reason, ACTOR, draft.now().0);
    }
    identity.revoked_below = revocation.revoked_below;
    for key in &revocation.refused_keys {
        identity::refuse_key(&mut identity, key);
    }
    let cluster = cluster.clone();
    draft.emit(Body::IdentitySet(fact::IdentitySet { cluster, identity: Some(identity) }));
}
