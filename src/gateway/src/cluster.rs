//! Clusters: ours, not Argo's.

use argosy_model::{ClusterName, Fence, Resources};
use argosy_proto::command::{Command, ReleaseQuarantine, command};
use argosy_proto::state::{ClusterIdentity, RerunStep, Standing};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::failover;
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::workflow::{COMMAND_VERSION, time_text};
use crate::{App, Cell, CellStatus, ClusterRecord, InviteRequest, SessionStatus, View};

const INVITE_TTL_SECONDS_DEFAULT: u64 = 600;

/// The standing of an agent's identity in a word: `active`, `unapproved`, `revoked`, `locked`.
#[must_use]
pub fn standing_word(identity: &ClusterIdentity) -> &'static str {
    match identity.standing() {
        Standing::Active | Standing::Unspecified => "active",
        Standing::Unapproved => "unapproved",
        Standing::Revoked => "revoked",
        Standing::Locked => "locked",
    }
}

/// Whether the clock of a cluster's agent is further from the leader's than it should be.
#[must_use]
pub fn clock_is_off(session: &SessionStatus, status: &CellStatus) -> bool {
    session.clock_offset_ms.is_some_and(|offset| offset.unsigned_abs() > status.clock_offset_max_ms)
}

fn identity_json(identity: &ClusterIdentity) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut value = json!({
        "standing": standing_word(identity),
        "since": time_text(identity.standing_since_ms),
        "generation": identity.generation,
        "issued": time_text(identity.issued_at_ms),
        "inUse": identity.seen,
        "key": hex(&identity.key),
        "authority": hex(&identity.authority),
        "revokedBelow": identity.revoked_below,
    });
    if !identity.reason.is_empty() {
        value["reason"] = json!(identity.reason);
    }
    if !identity.actor.is_empty() {
        value["by"] = json!(identity.actor);
    }
    value
}

/// One word for people: `invited`, `connected`, `reconciling`, `cordoned`, `draining`, `degraded`, `silent`, `lost`;
/// `unapproved`, `revoked` and `locked` go before those.
#[must_use]
pub fn state_word(record: &ClusterRecord, status: &CellStatus) -> &'static str {
    let session = status.sessions.iter().find(|session| session.cluster == record.name);
    let leads = status.leader == Some(status.member);
    let standing = record.identity.as_ref().map(standing_word).filter(|word| *word != "active");
    if let Some(standing) = standing {
        standing
    } else if !record.enrolled {
        "invited"
    } else if record.lost {
        "lost"
    } else if session.is_some_and(|session| !session.connected) || (leads && session.is_none()) {
        "silent"
    } else if record.recovery.as_ref().is_some_and(|recovery| recovery.reconciling) {
        "reconciling"
    } else if !record.healthy {
        "degraded"
    } else if record.drain.as_ref().is_some_and(|drain| !drain.degraded) {
        "draining"
    } else if record.cordoned {
        "cordoned"
    } else {
        "connected"
    }
}

fn resources_json(resources: &Resources) -> Value {
    let mut value = json!({
        "cpuMilli": resources.cpu_milli,
        "memoryBytes": resources.memory_bytes,
        "ephemeralStorageBytes": resources.ephemeral_storage_bytes,
        "pods": resources.pods,
    });
    if !resources.extended.is_empty() {
        value["extended"] = json!(resources.extended);
    }
    value
}

pub(crate) fn cluster_json(record: &ClusterRecord, status: &CellStatus) -> Value {
    let mut value = json!({
        "name": record.name,
        "state": state_word(record, status),
        "runtime": record.runtime,
        "agentVersion": record.agent_version,
        "labels": record.labels,
        "allocatable": resources_json(&record.allocatable),
        "requested": resources_json(&record.requested),
        "attempts": record.attempts,
        "cordoned": record.cordoned,
        "taints": record.taints,
        "enforcesExclusive": record.enforces_exclusive,
    });
    if let Some(identity) = &record.identity {
        value["identity"] = identity_json(identity);
    }
    if let Some(recovery) = &record.recovery {
        let fence = |fence: &Fence| format!("{}-{}-{}", fence.incarnation, fence.index, fence.ordinal);
        let step = |step: &RerunStep| json!({"namespace": step.namespace, "workflow": step.workflow, "node": step.node});
        value["recovery"] = json!({
            "reconciling": recovery.reconciling,
            "adopted": recovery.adopted,
            "quarantined": recovery.quarantined.iter().map(fence).collect::<Vec<_>>(),
            "rerun": recovery.rerun,
            "rerunNamed": recovery.rerun_named.iter().map(step).collect::<Vec<_>>(),
        });
    }
    if let Some(drain) = &record.drain {
        let stuck = |(workflow, node, why): &(String, String, String)| json!({"workflow": workflow, "node": node, "reason": why});
        value["drain"] = json!({
            "since": time_text(drain.since_ms),
            "reason": if drain.degraded { "degraded" } else { "asked" },
            "waiting": drain.waiting,
            "running": drain.running,
            "cannotMove": drain.stuck.iter().map(stuck).collect::<Vec<_>>(),
        });
        if drain.deadline_ms != 0 {
            value["drain"]["deadline"] = json!(time_text(drain.deadline_ms));
        }
    }
    if let Some(session) = status.sessions.iter().find(|session| session.cluster == record.name) {
        value["connected"] = json!(session.connected);
        value["member"] = json!(session.member);
        if let Some(offset_ms) = session.clock_offset_ms {
            value["clockOffsetMs"] = json!(offset_ms);
            value["clockAlarm"] = json!(clock_is_off(session, status));
        }
        value["leaseRemainingSeconds"] = json!(session.lease_remaining_ms.div_euclid(1000));
    }
    failover::show_cluster(&mut value, record, status);
    value
}

pub(crate) async fn list<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    let status = app.cell.status();
    let items: Vec<Value> = view.clusters().iter().map(|record| cluster_json(record, &status)).collect();
    Ok(Answer(json!({"items": items})))
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    params: Params,
) -> ApiResult {
    let view = view(&app, &params).await?;
    let status = app.cell.status();
    let record = view.clusters().into_iter().find(|record| record.name == name);
    let missing = || ApiError::new(Code::NotFound, format!("clusters.argosy.dev {name:?} not found"));
    Ok(Answer(cluster_json(&record.ok_or_else(missing)?, &status)))
}

/// Body: `{"ttlSeconds":600}`. The token is in the answer and nowhere else.
pub(crate) async fn invite<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let body = read_body(&app, body).await?;
    let request = decode_object(&body)?;
    let cluster =
        ClusterName::new(name).map_err(|error| ApiError::new(Code::InvalidArgument, error.to_string()))?;
    let seconds = match request.get("ttlSeconds") {
        None | Some(Value::Null) => INVITE_TTL_SECONDS_DEFAULT,
        Some(value) => value.as_u64().filter(|seconds| *seconds > 0).ok_or_else(|| {
            ApiError::new(Code::InvalidArgument, "ttlSeconds has to be a whole number of seconds above 0")
        })?,
    };
    let what = format!("invite {cluster}");
    let invite = app.cell.invite(InviteRequest {
        cluster: cluster.to_string(),
        ttl_ms: seconds.saturating_mul(1000),
        idempotency_key: idempotency_key(&identity, &headers, &what, &body)?,
    });
    let invite = invite.await?;
    tracing::info!(cluster = %cluster, by = identity.name, "invite made");
    Ok(Answer(
        json!({"cluster": cluster, "token": invite.token, "expiresAt": time_text(invite.expires_at_ms)}),
    ))
}

/// Stops what was found running there after a recovery and belongs to the lost part of history.
pub(crate) async fn release_quarantine<C: Cell>(
    State(app): State<App<C>>,
    Path(cluster): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let what = format!("release quarantine {cluster}");
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(&identity, &headers, &what, &[])?,
        body: Some(command::Body::ReleaseQuarantine(ReleaseQuarantine { cluster })),
    };
    app.cell.command(command).await?;
    tracing::info!(what, by = identity.name, "recovery");
    Ok(Answer(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionStatus;

    #[test]
    fn states_in_one_word() {
        let record =
            ClusterRecord { name: "eu".into(), enrolled: true, healthy: true, ..ClusterRecord::default() };
        let session = SessionStatus { cluster: "eu".into(), connected: true, ..SessionStatus::default() };
        let leading = CellStatus { member: 1, leader: Some(1), ..CellStatus::default() };
        let connected = CellStatus { sessions: vec![session.clone()], ..leading.clone() };
        let silent =
            CellStatus { sessions: vec![SessionStatus { connected: false, ..session }], ..leading.clone() };
        let follower = CellStatus { member: 2, leader: Some(1), ..CellStatus::default() };
        assert_eq!(state_word(&record, &connected), "connected");
        assert_eq!(state_word(&record, &silent), "silent");
        assert_eq!(state_word(&record, &leading), "silent");
        assert_eq!(state_word(&record, &follower), "connected");
        assert_eq!(state_word(&ClusterRecord { healthy: false, ..record.clone() }, &connected), "degraded");
        assert_eq!(state_word(&ClusterRecord { lost: true, ..record.clone() }, &silent), "lost");
        assert_eq!(state_word(&ClusterRecord { enrolled: false, ..record }, &leading), "invited");
    }
}
