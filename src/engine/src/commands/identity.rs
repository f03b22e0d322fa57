//! Certificates of clusters' agents: issued, renewed, seen, approved, revoked.

use argosy_proto::command::{
    ChangeIdentity, IdentityAction, IdentityRefused, IdentityRenewed, OpenSession, RedeemInvite, Refusal,
    RenewIdentity, Reply, SeeIdentity, reply,
};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{ClusterIdentity, Standing};

use crate::commands::{authority, done, find_cluster};
use crate::draft::Draft;
use crate::identity::{self, Shown};
use crate::{Code, Leader};

/// Bytes of a digest.
const DIGEST_LENGTH: usize = 32;
/// Certificate authorities that an agent may say it trusts: two during a roll, with room.
const TRUSTS_MAX: usize = 8;
/// Characters of an operator's reason.
const REASON_LENGTH_MAX: usize = 500;

fn set(draft: &mut Draft, cluster: &str, identity: ClusterIdentity) {
    let before = draft.state.cluster(cluster).and_then(|row| row.identity.as_ref());
    if before != Some(&identity) {
        let cluster = cluster.to_owned();
        draft.emit(Body::IdentitySet(fact::IdentitySet { cluster, identity: Some(identity) }));
    }
}

/// A refusal that is on record: the command is carried out, and says no.
fn refused(refusal: Refusal) -> Reply {
    let Refusal { code, message, .. } = refusal;
    Reply { body: Some(reply::Body::IdentityRefused(IdentityRefused { code, message })) }
}

fn lock(draft: &mut Draft, cluster: &str, mut identity: ClusterIdentity, reason: &str) -> Reply {
    identity::end(&mut identity, Standing::Locked, reason, "", draft.now().0);
    set(draft, cluster, identity);
    authority::advance(draft);
    let row = draft.state.cluster(cluster).cloned().unwrap_or_default();
    let refusal = identity::refusal(cluster, &row, 0);
    refused(refusal.unwrap_or_else(|| Code::IdentityLocked.refuse(reason)))
}

fn check_trusts(trusts: &[Vec<u8>]) -> Result<(), Refusal> {
    if trusts.len() > TRUSTS_MAX || trusts.iter().any(|digest| digest.len() != DIGEST_LENGTH) {
        return Err(Code::InvalidArgument
            .refuse(format!("an agent trusts at most {TRUSTS_MAX} authorities, each named by a SHA-256")));
    }
    Ok(())
}

fn check_key(identity: &ClusterIdentity, cluster: &str, key: &[u8]) -> Result<(), Refusal> {
    if key.len() != DIGEST_LENGTH {
        return Err(Code::InvalidArgument.refuse("the key must be named by a SHA-256"));
    }
    if identity.refused_keys.iter().any(|refused| refused == key) {
        return Err(Code::KeyRefused.refuse(format!(
            "the key was revoked with an earlier identity of cluster {cluster:?}: the agent makes a new one if it is started with the new invite"
        )));
    }
    Ok(())
}

/// What the cluster's agent is after it enrols; nothing, if the command does not say with which key.
pub(crate) fn enrolled(
    draft: &Draft,
    leader: &Leader,
    command: &RedeemInvite,
) -> Result<Option<ClusterIdentity>, Refusal> {
    if command.key.is_empty() {
        return Ok(None);
    }
    let known =
        draft.state.cluster(&command.cluster).and_then(|row| row.identity.clone()).unwrap_or_default();
    check_key(&known, &command.cluster, &command.key)?;
    let standing = if leader.limits.approve_clusters { Standing::Unapproved } else { Standing::Active };
    let generation = known.generation + 1;
    Ok(Some(ClusterIdentity {
        generation,
        // Whoever had an invite is the agent: earlier certificates are nobody's.
        revoked_below: generation,
        key: command.key.clone(),
        issued_at_ms: draft.now().0,
        standing: standing.into(),
        standing_since_ms: draft.now().0,
        authority: command.authority.clone(),
        refused_keys: known.refused_keys,
        ..ClusterIdentity::default()
    }))
}

fn late(cluster: &str) -> Refusal {
    Code::StaleSession
        .refuse(format!("an agent of cluster {cluster:?} that has ended speaks: another one took its place"))
}

/// Whether the session may be opened: nothing, or the answer that says no and is on record.
pub(crate) fn open(
    draft: &mut Draft,
    leader: &Leader,
    command: &OpenSession,
) -> Result<Option<Reply>, Refusal> {
    let cluster = &command.cluster;
    let Some(row) = draft.state.cluster(cluster) else { return Ok(None) };
    if let Some(refusal) = identity::refusal(cluster, row, command.certificate) {
        return Err(refusal);
    }
    let Some(mut identity) = row.identity.clone() else { return Ok(None) };
    check_trusts(&command.trusts)?;
    let (present, opening) = (row.agent_instance, command.agent_instance);
    match identity::show(&mut identity, (command.certificate, 0), (present, opening)) {
        Shown::Known => {}
        Shown::Late => return Err(late(cluster)),
        Shown::Copied => {
            let reason = format!(
                "certificate {} was used after certificate {} had taken its place: two processes have the key",
                command.certificate, identity.generation
            );
            return Ok(Some(lock(draft, cluster, identity, &reason)));
        }
    }
    if identity::takes_turns(&mut identity, &leader.limits, draft.now().0, (present, opening)) {
        let reason = "two processes with the key take the session from each other";
        return Ok(Some(lock(draft, cluster, identity, reason)));
    }
    if !command.trusts.is_empty() {
        identity.trusts.clone_from(&command.trusts);
    }
    set(draft, cluster, identity);
    authority::advance(draft);
    Ok(None)
}

/// The next certificate gets a generation, for whoever holds the newest, or that before while nobody has used it.
pub(crate) fn renew(draft: &mut Draft, leader: &Leader, command: &RenewIdentity) -> Result<Reply, Refusal> {
    let cluster = &command.cluster;
    let row = find_cluster(&draft.state, cluster)?;
    if let Some(refusal) = identity::refusal(cluster, row, command.generation) {
        return Err(refusal);
    }
    let mut identity = row.identity.clone().unwrap_or_else(|| ClusterIdentity {
        standing: Standing::Active.into(),
        standing_since_ms: draft.now().0,
        ..ClusterIdentity::default()
    });
    check_key(&identity, cluster, &command.key)?;
    if command.authority.len() != DIGEST_LENGTH {
        return Err(Code::InvalidArgument.refuse("the authority must be named by a SHA-256"));
    }
    let processes = (row.agent_instance, command.agent_instance);
    match identity::show(&mut identity, (command.generation, command.holds), processes) {
        Shown::Known => {}
        Shown::Late if identity::may_be_on_its_way(&identity, &leader.limits, draft.now().0) => {
            return Err(late(cluster));
        }
        // It has ended, and goes on asking.
        Shown::Late | Shown::Copied => {
            let reason = format!(
                "certificate {} was to be renewed after certificate {} had taken its place: two processes have the key",
                command.generation, identity.generation
            );
            return Ok(lock(draft, cluster, identity, &reason));
        }
    }
    // As long as nobody has used the newest one its answer may be lost: that before it stays good.
    if identity.seen {
        identity.previous = identity.generation;
    }
    identity.generation += 1;
    identity.seen = false;
    identity.key.clone_from(&command.key);
    identity.authority.clone_from(&command.authority);
    identity.issued_at_ms = draft.now().0;
    let generation = identity.generation;
    set(draft, cluster, identity);
    authority::advance(draft);
    Ok(Reply { body: Some(reply::Body::IdentityRenewed(IdentityRenewed { generation })) })
}

/// An agent has kept its newest certificate, or trusts other authorities than before.
pub(crate) fn see(draft: &mut Draft, command: &SeeIdentity) -> Result<Reply, Refusal> {
    let cluster = &command.cluster;
    let row = find_cluster(&draft.state, cluster)?;
    if let Some(refusal) = identity::refusal(cluster, row, command.generation) {
        return Err(refusal);
    }
    check_trusts(&command.trusts)?;
    let Some(mut identity) = row.identity.clone() else { return Ok(done()) };
    // What is late says nothing; a copy shows itself when it asks for something.
    let processes = (row.agent_instance, command.agent_instance);
    let shown = identity::show(&mut identity, (command.generation, command.holds), processes);
    if shown == Shown::Known {
        if !command.trusts.is_empty() {
            identity.trusts.clone_from(&command.trusts);
        }
        set(draft, cluster, identity);
        authority::advance(draft);
    }
    Ok(done())
}

/// An operator approves or revokes.
pub(crate) fn change(draft: &mut Draft, command: &ChangeIdentity) -> Result<Reply, Refusal> {
    let cluster = &command.cluster;
    let row = find_cluster(&draft.state, cluster)?;
    if command.reason.chars().count() > REASON_LENGTH_MAX {
        return Err(
            Code::InvalidArgument.refuse(format!("a reason has at most {REASON_LENGTH_MAX} characters"))
        );
    }
    let now_ms = draft.now().0;
    let known = row.identity.clone();
    match command.action() {
        IdentityAction::Revoke => {
            let mut identity = known.unwrap_or_default();
            if identity.standing() != Standing::Revoked {
                identity::end(&mut identity, Standing::Revoked, &command.reason, &command.actor, now_ms);
                set(draft, cluster, identity);
                authority::advance(draft);
            }
            Ok(done())
        }
        IdentityAction::Approve => {
            let mut identity = known.unwrap_or_default();
            match identity.standing() {
                Standing::Unapproved => {
                    identity.set_standing(Standing::Active);
                    identity.reason.clone_from(&command.reason);
                    identity.actor.clone_from(&command.actor);
                    identity.standing_since_ms = now_ms;
                    set(draft, cluster, identity);
                    Ok(done())
                }
                Standing::Active => Ok(done()),
                Standing::Revoked | Standing::Locked | Standing::Unspecified => {
                    Err(Code::NothingToApprove.refuse(format!(
                        "cluster {cluster:?} has no identity to approve: invite it with `argosy cluster invite {cluster}`"
                    )))
                }
            }
        }
        IdentityAction::Unspecified => {
            Err(Code::InvalidArgument.refuse("the action on the identity is missing"))
        }
    }
}
