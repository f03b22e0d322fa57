//! Members of the control plane: ours, not Argo's.

use argosy_model::MemberId;
use argosy_proto::command::{AddMember, Command, RemoveMember, TransferLeadership, command};
use argosy_proto::common::MemberAddresses;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures::StreamExt;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::stream::Place;
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell};

pub(crate) async fn list<C: Cell>(State(app): State<App<C>>) -> Answer {
    let status = app.cell.status();
    let items: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.id,
                "role": member.role,
                "address": member.address,
                "apiAddress": member.api_address,
                "matchedIndex": member.matched_index,
                "appliedIndex": member.applied_index,
                "reachable": member.reachable,
            })
        })
        .collect();
    Answer(json!({
        "cell": status.cell, "answeredBy": status.member, "leader": status.leader, "term": status.term,
        "ready": status.ready, "items": items,
    }))
}

fn number(field: &str, value: Option<&Value>) -> Result<MemberId, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or_else(|| {
            ApiError::new(Code::InvalidArgument, format!("{field} has to be a member's number, not {value}"))
        }),
    }
}

fn text(object: &Map<String, Value>, field: &str) -> String {
    object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Body: `{"id":4,"peer":"host:2748","agent":"host:2747","api":"host:2746","replaces":3}`. Answered when it is recorded;
/// the list shows how far the member is.
pub(crate) async fn add<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let object = decode_object(&bytes)?;
    let member = number("id", object.get("id"))?;
    let addresses = MemberAddresses {
        peer: text(&object, "peer"),
        agent: text(&object, "agent"),
        api: text(&object, "api"),
    };
    let replaces = number("replaces", object.get("replaces"))?;
    let body = command::Body::AddMember(AddMember { member, addresses: Some(addresses), replaces });
    give(&app, &identity, &headers, &format!("add member {member}"), &bytes, body).await
}

/// Query: `force=true` removes it although too few of the others are in touch.
pub(crate) async fn remove<C: Cell>(
    State(app): State<App<C>>,
    Path(member): Path<MemberId>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    params: Params,
) -> ApiResult {
    let force = params.flag("force")?;
    let body = command::Body::RemoveMember(RemoveMember { member, force });
    give(&app, &identity, &headers, &format!("remove member {member} {force}"), &[], body).await
}

/// The member should lead. Answered when the transfer has begun.
pub(crate) async fn lead<C: Cell>(
    State(app): State<App<C>>,
    Path(to): Path<MemberId>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let body = command::Body::TransferLeadership(TransferLeadership { to });
    give(&app, &identity, &headers, &format!("lead {to}"), &[], body).await
}

/// Everything that is replicated, as a file.
pub(crate) async fn backup<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
) -> Result<Response, ApiError> {
    let place = Place::take(&app, "backup")?;
    let bytes = app.cell.backup().await?;
    tracing::info!(by = identity.name, "backup");
    let bytes = bytes.map(move |piece| {
        let _open = &place;
        piece
    });
    let mut response = Response::new(Body::from_stream(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

async fn give<C: Cell>(
    app: &App<C>,
    identity: &Identity,
    headers: &HeaderMap,
    what: &str,
    bytes: &[u8],
    body: command::Body,
) -> ApiResult {
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(identity, headers, what, bytes)?,
        body: Some(body),
    };
    app.cell.command(command).await?;
    tracing::info!(what, by = identity.name, "members");
    Ok(Answer(json!({})))
}
