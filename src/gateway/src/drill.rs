//! Drills: losses on purpose, their reports and their schedules. Ours, not Argo's.

use argosy_proto::command::{
    AbortDrill, BeginDrill, Command, CreateDrillSchedule, DeleteDrillSchedule, command::Body as CommandBody,
    reply,
};
use argosy_proto::state::DrillMode;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::workflow::{COMMAND_VERSION, unexpected};
use crate::{App, Cell, CommandError, Consistency, View};

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidArgument, message.into())
}

fn missing(id: u64) -> ApiError {
    ApiError::new(Code::NotFound, format!("drill {id} not found")).stable("ARG1231")
}

fn text(request: &Map<String, Value>, field: &str) -> Result<String, ApiError> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(bad(format!("{field} has to be a text, not {other}"))),
    }
}

fn number(value: Option<&Value>, field: &str) -> Result<u64, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(0),
        Some(value) => {
            value.as_u64().ok_or_else(|| bad(format!("{field} has to be a whole number, not {value}")))
        }
    }
}

fn mode(request: &Map<String, Value>) -> Result<DrillMode, ApiError> {
    match text(request, "mode")?.as_str() {
        "" | "block" => Ok(DrillMode::Block),
        "kill-agent" => Ok(DrillMode::KillAgent),
        "kill-pods" => Ok(DrillMode::KillPods),
        other => Err(bad(format!("mode has to be block, kill-agent or kill-pods, not {other:?}"))),
    }
}

/// `{"cluster":"eu","mode":"block","forSeconds":120,"scope":"team=x","objective":{"recoverP99Ms":60000}}`.
fn wanted(request: &Map<String, Value>, identity: &Identity) -> Result<BeginDrill, ApiError> {
    let cluster = text(request, "cluster")?;
    if cluster.is_empty() {
        return Err(bad("cluster has to name the cluster that is to be lost"));
    }
    let objective = request.get("objective").and_then(|objective| objective.get("recoverP99Ms"));
    Ok(BeginDrill {
        cluster,
        mode: mode(request)?.into(),
        for_ms: number(request.get("forSeconds"), "forSeconds")?.saturating_mul(1_000),
        scope: text(request, "scope")?,
        recover_p99_ms_max: number(objective, "objective.recoverP99Ms")?,
        actor: identity.name.clone(),
    })
}

/// Gives a command.
async fn give<C: Cell>(
    app: &App<C>,
    identity: &Identity,
    headers: &HeaderMap,
    bytes: &Bytes,
    what: &str,
    body: CommandBody,
) -> Result<Option<reply::Body>, ApiError> {
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(identity, headers, what, bytes)?,
        body: Some(body),
    };
    let reply = app.cell.command(command).await?;
    tracing::info!(what, by = identity.name, "drill");
    Ok(reply.body)
}

async fn shown<C: Cell>(app: &App<C>, id: u64) -> ApiResult {
    let view = app.cell.read(Consistency::Linearizable).await?;
    view.drill(id).map(Answer).ok_or_else(|| missing(id))
}

pub(crate) async fn list<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    Ok(Answer(json!({"items": view.drills()})))
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path(id): Path<u64>,
    params: Params,
) -> ApiResult {
    let view = view(&app, &params).await?;
    view.drill(id).map(Answer).ok_or_else(|| missing(id))
}

/// What would be touched, and where each step could go; nothing happens.
pub(crate) async fn plan<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let drill = wanted(&request, &identity)?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let plan = view.drill_plan(&drill.cluster, drill.mode(), &drill.scope, &app.decisions);
    Ok(Answer(plan.map_err(CommandError::Refused)?))
}

pub(crate) async fn begin<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let drill = wanted(&decode_object(&bytes)?, &identity)?;
    let what = format!("begin drill of {}", drill.cluster);
    match give(&app, &identity, &headers, &bytes, &what, CommandBody::BeginDrill(drill)).await? {
        Some(reply::Body::DrillAccepted(accepted)) => shown(&app, accepted.drill).await,
        other => Err(unexpected(&other)),
    }
}

/// Body: `{"reason":"..."}`; the number 0 stands for whichever is under way.
pub(crate) async fn abort<C: Cell>(
    State(app): State<App<C>>,
    Path(id): Path<u64>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = if bytes.is_empty() { Map::new() } else { decode_object(&bytes)? };
    let view = app.cell.read(Consistency::Linearizable).await?;
    let newest = || view.drills().first().and_then(|drill| drill["id"].as_u64()).unwrap_or(0);
    let abort = AbortDrill { drill: id, reason: text(&request, "reason")?, actor: identity.name.clone() };
    let what = format!("abort drill {id}");
    give(&app, &identity, &headers, &bytes, &what, CommandBody::AbortDrill(abort)).await?;
    shown(&app, if id == 0 { newest() } else { id }).await
}

pub(crate) async fn schedules<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    Ok(Answer(json!({"items": view.drill_schedules()})))
}

/// Body: that of a drill, and `"name":"weekly","cron":"0 4 * * 1","timezone":"Europe/Berlin"`.
pub(crate) async fn create_schedule<C: Cell>(
    State(app): State<App<C>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let name = text(&request, "name")?;
    let create = CreateDrillSchedule {
        name: name.clone(),
        cron: text(&request, "cron")?,
        timezone: text(&request, "timezone")?,
        drill: Some(wanted(&request, &identity)?),
    };
    let what = format!("create drill schedule {name}");
    give(&app, &identity, &headers, &bytes, &what, CommandBody::CreateDrillSchedule(create)).await?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let made = view.drill_schedules().into_iter().find(|schedule| schedule["name"] == name.as_str());
    Ok(Answer(made.unwrap_or_else(|| json!({}))))
}

pub(crate) async fn delete_schedule<C: Cell>(
    State(app): State<App<C>>,
    Path(name): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let what = format!("delete drill schedule {name}");
    let delete = CommandBody::DeleteDrillSchedule(DeleteDrillSchedule { name });
    give(&app, &identity, &headers, &Bytes::new(), &what, delete).await?;
    Ok(Answer(json!({})))
}
