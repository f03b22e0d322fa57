//! Who a cluster's agent is. Its certificates are numbered: a generation for each that is issued. The newest may be used, and
//! the one that it was asked for with until the newest was seen, since its answer may have been lost; and those in between, if
//! one question was asked more than once: any of the answers may be the one that arrived. Whoever comes with another one has
//! a copy, unless it is a process of the agent that was known before.

use argosy_proto::command::{Refusal, Revocation};
use argosy_proto::state as row;
use argosy_proto::state::{ClusterIdentity, RollPhase, Standing};

use crate::Code;
use crate::state::State;

/// Public keys remembered as refused, for each cluster.
const REFUSED_KEYS_MAX: usize = 16;
/// Agent processes remembered for each cluster.
const EARLIER_INSTANCES_MAX: usize = 8;

/// Who comes with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The agent.
    Known,
    /// A process of the agent that has ended: its words were on their way for long.
    Late,
    /// A second holder of the key.
    Copied,
}

/// Why a certificate of that generation may not be used; generation 0 stands for one whose generation is not known.
pub(crate) fn refusal(cluster: &str, row: &row::Cluster, generation: u64) -> Option<Refusal> {
    let identity = row.identity.as_ref()?;
    let again = format!("invite it again with `argosy cluster invite {cluster}`");
    let reason = if identity.reason.is_empty() { String::new() } else { format!(" ({})", identity.reason) };
    match identity.standing() {
        Standing::Revoked => {
            let message = format!("the identity of cluster {cluster:?} was revoked{reason}: {again}");
            Some(Code::IdentityRevoked.refuse(message))
        }
        Standing::Locked => {
            let message = format!(
                "the identity of cluster {cluster:?} is locked{reason}: find out who has a copy of its key, then {again}"
            );
            Some(Code::IdentityLocked.refuse(message))
        }
        Standing::Active | Standing::Unapproved | Standing::Unspecified
            if generation != 0 && generation < identity.revoked_below =>
        {
            let message = format!(
                "certificate {generation} of cluster {cluster:?} was revoked: certificates from {} on are good; {again}",
                identity.revoked_below
            );
            Some(Code::IdentityRevoked.refuse(message))
        }
        Standing::Active | Standing::Unapproved | Standing::Unspecified => None,
    }
}

pub(crate) fn is_unapproved(row: &row::Cluster) -> bool {
    row.identity.as_ref().is_some_and(|identity| identity.standing() == Standing::Unapproved)
}

/// Takes note of a certificate in use by a process of an agent; `present` is the process of the last session. That one may
/// hold a newer certificate than the connection over which it speaks.
pub(crate) fn show(
    identity: &mut ClusterIdentity,
    (shown, holds): (u64, u64),
    (present, instance): (u64, u64),
) -> Shown {
    if shown == 0 {
        return Shown::Known;
    }
    let is_same_process = instance != 0 && instance == present;
    let is_newer = is_same_process && holds > shown && holds <= identity.generation;
    let generation = if is_newer { holds } else { shown };
    if generation > identity.generation {
        // Issued in a part of history that is lost: our authority signed it.
        identity.generation = generation;
        identity.previous = 0;
    }
    if generation == identity.generation {
        identity.seen = true;
        return Shown::Known;
    }
    let may_be_kept = !identity.seen && generation >= identity.previous;
    if may_be_kept {
        // It came after those before it.
        identity.previous = generation;
    }
    if is_same_process || may_be_kept {
        Shown::Known
    } else if identity.earlier_instances.contains(&instance) {
        Shown::Late
    } else {
        Shown::Copied
    }
}

/// Takes note of the process that opens a session; true: it has taken the session back from another one for so many times
/// that both must be alive.
pub(crate) fn takes_turns(
    identity: &mut ClusterIdentity,
    limits: &argosy_model::Limits,
    now_ms: i64,
    (present, opening): (u64, u64),
) -> bool {
    if present == opening {
        return false;
    }
    identity.instance_since_ms = now_ms;
    if present == 0 {
        return false;
    }
    let returned = identity.earlier_instances.contains(&opening);
    identity.earlier_instances.retain(|instance| *instance != opening && *instance != present);
    identity.earlier_instances.push(present);
    let beyond = identity.earlier_instances.len().saturating_sub(EARLIER_INSTANCES_MAX);
    identity.earlier_instances.drain(..beyond);
    if !returned {
        return false;
    }
    if now_ms.saturating_sub(identity.returns_since_ms) > limits.identity_returns_window_ms {
        identity.returns = 0;
    }
    if identity.returns == 0 {
        identity.returns_since_ms = now_ms;
    }
    identity.returns += 1;
    identity.returns >= limits.identity_returns_max
}

/// Whether what an ended process of the agent asked may have been on its way since before it ended.
pub(crate) fn may_be_on_its_way(
    identity: &ClusterIdentity,
    limits: &argosy_model::Limits,
    now_ms: i64,
) -> bool {
    now_ms.saturating_sub(identity.instance_since_ms) <= limits.identity_late_max_ms
}

/// Neither the certificates that there are nor their key are good any more.
pub(crate) fn end(
    identity: &mut ClusterIdentity,
    standing: Standing,
    reason: &str,
    actor: &str,
    now_ms: i64,
) {
    identity.set_standing(standing);
    reason.clone_into(&mut identity.reason);
    actor.clone_into(&mut identity.actor);
    identity.standing_since_ms = now_ms;
    identity.revoked_below = identity.generation + 1;
    let key = identity.key.clone();
    refuse_key(identity, &key);
}

/// The key gets no certificate any more.
pub(crate) fn refuse_key(identity: &mut ClusterIdentity, key: &[u8]) {
    if !key.is_empty() && !identity.refused_keys.iter().any(|refused| refused == key) {
        identity.refused_keys.push(key.to_vec());
        let beyond = identity.refused_keys.len().saturating_sub(REFUSED_KEYS_MAX);
        identity.refused_keys.drain(..beyond);
    }
}

/// What has ended of a cluster's certificates; nothing, if all are good.
pub(crate) fn revocation(cluster: &str, identity: &ClusterIdentity) -> Option<Revocation> {
    let ended = matches!(identity.standing(), Standing::Revoked | Standing::Locked);
    // The first certificate of a cluster has number 1.
    (identity.revoked_below > 1 || ended).then(|| Revocation {
        cluster: cluster.to_owned(),
        revoked_below: identity.revoked_below,
        ended,
        reason: if ended { identity.reason.clone() } else { String::new() },
        refused_keys: identity.refused_keys.clone(),
    })
}

/// Who keeps a roll of the certificate authority from its next step: name and why.
pub(crate) fn behind(state: &State, row: &row::Authorities) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let issuing = match row.phase() {
        RollPhase::Unspecified => return found,
        RollPhase::Trust => false,
        RollPhase::Issue => true,
    };
    for member in row.members.iter().filter(|member| !state.member_left(member.member)) {
        let why = if !member.trusts.contains(&row.next) {
            "does not trust the new authority yet: it has not heard of it"
        } else if !member.holds.contains(&row.next) {
            "has no key of the new authority yet: no other member could give it"
        } else if issuing && member.issues != row.next {
            "has its own certificate from the old authority still"
        } else {
            continue;
        };
        found.push((format!("member {}", member.member), why.to_owned()));
    }
    for (name, cluster) in state.clusters() {
        let Some(identity) = cluster.identity.as_ref().filter(|_| !cluster.removed) else { continue };
        match identity.standing() {
            Standing::Active | Standing::Unapproved => {}
            Standing::Revoked | Standing::Locked | Standing::Unspecified => continue,
        }
        let why = if issuing && identity.authority != row.next {
            "has a certificate from the old authority still: it moves at its next renewal"
        } else if !issuing && !identity.trusts.contains(&row.next) && identity.authority != row.next {
            "does not trust the new authority yet: its agent has not been in touch since the roll began"
        } else {
            continue;
        };
        found.push((format!("cluster {name}"), why.to_owned()));
    }
    found
}
