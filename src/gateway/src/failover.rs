//! Failover as users see it: leases, what waits to be taken over and for what, the storm brake. Ours, not Argo's.

use argosy_engine::TakeOverWait;
use argosy_model::{Limits, display_fence, parse_fence};
use argosy_proto::command::{Command, ResumeTakeOvers, command};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::cluster::{cluster_json, state_word};
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::workflow::{COMMAND_VERSION, time_text};
use crate::{App, Cell, CellStatus, ClusterRecord, Consistency, SessionStatus, View};

/// Attempts and nodes that one answer lists, of each kind.
const WAITING_MAX: usize = 500;

fn session_of<'a>(status: &'a CellStatus, cluster: &str) -> Option<&'a SessionStatus> {
    status.sessions.iter().find(|session| session.cluster == cluster)
}

/// `live`, `expired` or `takenOver`; `none` before the first session; `unknown` to a member that has not heard from a leader.
fn lease_word(session: Option<&SessionStatus>) -> &'static str {
    match session {
        None => "unknown",
        Some(session) if session.silent_ms.is_none() => "none",
        Some(session) if session.lease_remaining_ms > 0 => "live",
        Some(session) if session.taken_over_beyond_ms.is_some() => "takenOver",
        Some(_) => "expired",
    }
}

fn lease_json(session: Option<&SessionStatus>) -> Value {
    let mut shown = json!({"state": lease_word(session)});
    if let Some((session, silent_ms)) = session.and_then(|session| Some((session, session.silent_ms?))) {
        shown["remainingSeconds"] = json!(session.lease_remaining_ms.max(0) / 1000);
        shown["silentSeconds"] = json!(silent_ms / 1000);
    }
    shown
}

/// Nobody hears the cluster: its take-over clock will not be set back soon.
fn is_silent(session: &SessionStatus) -> bool {
    session.silent_ms.is_some() && (!session.connected || session.lease_remaining_ms <= 0)
}

/// When the storm brake lets go by itself, or that only an operator can make it.
fn put_release(shown: &mut Value, status: &CellStatus) {
    match status.storm.and_then(|storm| storm.release_in_ms) {
        Some(in_ms) => shown["until"] = json!(time_text(status.observed_at_ms.saturating_add(in_ms))),
        None => shown["untilResumed"] = json!(true),
    }
}

fn storm_json(status: &CellStatus) -> Value {
    let Some(storm) = status.storm else { return json!({"held": false}) };
    let mut shown = json!({
        "held": storm.held,
        "since": time_text(status.observed_at_ms.saturating_sub(storm.since_ms)),
        "silent": storm.silent,
        "fleet": storm.fleet,
        "reason": format!("{} of {} clusters went silent together", storm.silent, storm.fleet),
    });
    if storm.held {
        put_release(&mut shown, status);
    }
    shown
}

/// The next take-over of a silent cluster.
fn take_over_json(session: &SessionStatus, status: &CellStatus) -> Option<Value> {
    let next = session.next_take_over.filter(|_| is_silent(session))?;
    let mut shown = json!({
        "at": time_text(status.observed_at_ms.saturating_add(next.in_ms)),
        "beyondSeconds": next.beyond_ms / 1000,
        "waitsFor": if next.held { "stormBrake" } else if next.paced { "pacing" } else { "lease" },
    });
    if next.held {
        put_release(&mut shown, status);
    }
    Some(shown)
}

/// Adds what failover has to say of a cluster: additive to what its record shows.
pub(crate) fn show_cluster(shown: &mut Value, record: &ClusterRecord, status: &CellStatus) {
    let session = session_of(status, &record.name);
    if record.enrolled {
        shown["lease"] = lease_json(session);
    }
    if let Some(take_over) = session.and_then(|session| take_over_json(session, status)) {
        shown["takeOver"] = take_over;
    }
    if let Some((by, at_ms)) = &record.resumed {
        shown["takeOverResumed"] = json!({"by": by, "since": time_text(*at_ms)});
    }
    if record.degraded_since_ms > 0 {
        shown["degraded"] = json!({"since": time_text(record.degraded_since_ms)});
    }
    if let Some(drill) = &record.drill {
        shown["drill"] = json!({"id": drill.id, "mode": drill.mode, "until": time_text(drill.ends_at_ms)});
    }
    if status.storm.is_some() {
        shown["stormBrake"] = storm_json(status);
    }
}

/// What one attempt of a silent cluster waits for, and when it is taken over if a clock runs.
fn wait_json(wait: TakeOverWait, session: &SessionStatus, status: &CellStatus) -> Value {
    let word = match wait {
        TakeOverWait::Lease => "lease",
        TakeOverWait::UnsafeStep(_) => "unsafeStep",
        TakeOverWait::ExclusiveLease(_) => "exclusiveLease",
        TakeOverWait::Return => "clusterReturn",
        TakeOverWait::Ledger => "ledger",
    };
    let mut shown = json!({"waitsFor": word});
    let Some((beyond_ms, silent_ms)) = wait.beyond_ms().zip(session.silent_ms) else { return shown };
    let in_ms = status.takeover_safe_ms.saturating_add(beyond_ms).saturating_sub(silent_ms);
    shown["at"] = json!(time_text(status.observed_at_ms.saturating_add(in_ms.max(0))));
    if session.next_take_over.is_some_and(|next| next.held) {
        shown["waitsFor"] = json!("stormBrake");
        put_release(&mut shown, status);
    } else if in_ms <= 0 {
        shown["waitsFor"] = json!("pacing");
    }
    shown
}

/// Adds to every node that is on a cluster the lease of that cluster, and what it waits for while that is silent.
pub(crate) fn show_nodes(workflow: &mut Value, view: &impl View, status: &CellStatus, limits: &Limits) {
    let nodes = workflow["status"].get_mut("nodes").and_then(Value::as_object_mut);
    for node in nodes.into_iter().flat_map(|nodes| nodes.values_mut()) {
        let newest = node["attempts"].as_array().and_then(|attempts| attempts.last());
        let Some(fence) = newest.and_then(|attempt| parse_fence(attempt["fence"].as_str()?)) else {
            continue;
        };
        let Some(wait) = view.take_over_wait(&fence, limits) else { continue };
        let session = node["cluster"].as_str().and_then(|cluster| session_of(status, cluster));
        node["lease"] = lease_json(session);
        if let Some(session) = session.filter(|session| is_silent(session) || wait == TakeOverWait::Ledger) {
            node["takeOver"] = wait_json(wait, session, status);
        }
    }
}

/// Whether a cluster is part of what an operator wants to know on a bad day.
fn is_notable(record: &ClusterRecord, status: &CellStatus) -> bool {
    let session = session_of(status, &record.name);
    record.enrolled
        && (record.lost
            || record.degraded_since_ms > 0
            || record.drill.is_some()
            || session.is_none_or(is_silent)
            || matches!(state_word(record, status), "silent" | "lost" | "degraded" | "reconciling"))
}

fn waiting_json<V: View>(
    view: &V,
    records: &[&ClusterRecord],
    status: &CellStatus,
    limits: &Limits,
) -> Vec<Value> {
    let mut shown = Vec::new();
    for record in records {
        let Some(session) = session_of(status, &record.name).filter(|session| is_silent(session)) else {
            continue;
        };
        for waiting in view.waiting_on(&record.name, limits, WAITING_MAX.saturating_sub(shown.len())) {
            let mut one = json!({
                "namespace": waiting.namespace,
                "workflow": waiting.workflow,
                "node": waiting.node,
                "cluster": record.name,
                "fence": display_fence(&waiting.fence),
            });
            one["takeOver"] = wait_json(waiting.wait, session, status);
            shown.push(one);
        }
    }
    shown
}

/// What is silent, lost or degraded, what the storm brake holds, and what each waiting attempt waits for.
pub(crate) async fn status<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    let status = app.cell.status();
    let records = view.clusters();
    let notable: Vec<&ClusterRecord> = records.iter().filter(|record| is_notable(record, &status)).collect();
    let queued = view.taken_over_waiting(WAITING_MAX);
    let queued = queued.iter().map(|node| {
        json!({
            "namespace": node.namespace,
            "workflow": node.workflow,
            "node": node.node,
            "excluded": node.excluded,
            "reason": node.reason,
        })
    });
    Ok(Answer(json!({
        "observedAt": time_text(status.observed_at_ms),
        "leader": status.leader,
        "stormBrake": storm_json(&status),
        "clusters": notable.iter().map(|record| cluster_json(record, &status)).collect::<Vec<_>>(),
        "waiting": waiting_json(&view, &notable, &status, &app.decisions),
        "queued": queued.collect::<Vec<_>>(),
    })))
}

/// Body: `{"cluster":"eu"}`, or nothing for every cluster whose take-over is held.
pub(crate) async fn resume<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let asked = match request.get("cluster") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if !name.is_empty() => Some(name.as_str()),
        Some(other) => {
            let message = format!("cluster has to be a cluster's name, not {other}");
            return Err(ApiError::new(Code::InvalidArgument, message));
        }
    };
    let records = app.cell.read(Consistency::Linearizable).await?.clusters();
    if let Some(name) = asked.filter(|name| !records.iter().any(|record| record.name == *name)) {
        let message = format!("clusters.argosy.dev {name:?} not found");
        return Err(ApiError::new(Code::NotFound, message));
    }
    // What is not held goes into no command: a cluster that is in touch must not be without the brake later. A repeat of
    // an answered request finds nothing held, and still has to reach its first answer.
    let status = app.cell.status();
    let is_held = |session: &&SessionStatus| {
        session.next_take_over.is_some_and(|next| next.held)
            && asked.is_none_or(|name| name == session.cluster)
    };
    let clusters: Vec<String> =
        status.sessions.iter().filter(is_held).map(|session| session.cluster.clone()).collect();
    let body = ResumeTakeOvers { clusters, actor: identity.name.clone() };
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(&identity, &headers, "resume take-overs", &bytes)?,
        body: Some(command::Body::ResumeTakeOvers(body)),
    };
    app.cell.command(command).await?;
    tracing::warn!(cluster = asked.unwrap_or("all that are held"), by = identity.name, "take-overs resumed");
    let records = app.cell.read(Consistency::Linearizable).await?.clusters();
    let resumed = records.iter().filter(|record| asked.is_none_or(|name| name == record.name));
    let resumed = resumed.filter_map(|record| {
        let (by, at_ms) = record.resumed.as_ref()?;
        Some(json!({"cluster": record.name, "by": by, "since": time_text(*at_ms)}))
    });
    Ok(Answer(json!({"resumed": resumed.collect::<Vec<_>>()})))
}
