//! CronWorkflows: Argo's routes, and backfills.

use argosy_proto::command::{
    BackfillCron, Command, CreateCron, DeleteCron, SuspendCron, UpdateCron, command::Body as CommandBody,
    reply,
};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::objects::{self, Named};
use crate::submission::{self, CREATOR_LABEL, label_value};
use crate::workflow::{COMMAND_VERSION, unexpected};
use crate::{App, Cell, Consistency, View};

const RESOURCE: &str = "cronworkflows.argoproj.io";

fn missing(name: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("{RESOURCE} {name:?} not found"))
}

/// The `cronWorkflow` of a request, named and checked.
fn prepare<V: View>(
    view: &V,
    namespace: &str,
    mut request: Map<String, Value>,
    name: Option<&str>,
    bytes_max: usize,
) -> Result<Named, ApiError> {
    let Some(Value::Object(object)) = request.remove("cronWorkflow") else {
        return Err(ApiError::new(Code::NotFound, "cron workflow was not found in the request body"));
    };
    let named = objects::prepare("CronWorkflow", namespace, object, name)?;
    let value = submission::check_object(named.value, "cronWorkflow", Code::InvalidArgument, bytes_max)?;
    let workflow = json!({"metadata": {"name": named.name}, "spec": value["spec"]["workflowSpec"]});
    view.check_references(namespace, &workflow).map_err(|refusal| {
        let message = format!("cannot validate Workflow: {}", refusal.message);
        ApiError::new(Code::InvalidArgument, message).stable(refusal.code)
    })?;
    Ok(Named { value, ..named })
}

/// What every change carries.
struct Change<'a> {
    namespace: &'a str,
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: &'a Bytes,
}

impl Change<'_> {
    async fn give<C: Cell>(
        &self,
        app: &App<C>,
        verb: &str,
        name: &str,
        body: CommandBody,
    ) -> Result<Option<reply::Body>, ApiError> {
        let what = format!("{verb} cron workflow {}/{name}", self.namespace);
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, self.bytes)?,
            body: Some(body),
        };
        let reply = app.cell.command(command).await?;
        tracing::info!(cron_workflow = name, verb, by = self.identity.name, "cron workflow");
        Ok(reply.body)
    }
}

async fn find<C: Cell>(app: &App<C>, namespace: &str, name: &str) -> ApiResult {
    let view = app.cell.read(Consistency::Linearizable).await?;
    view.cron(namespace, name).map(Answer).ok_or_else(|| missing(name))
}

pub(crate) async fn list<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    let view = view(&app, &params).await?;
    objects::list(&app, &params, view.crons(&namespace), view.sequence())
}

pub(crate) async fn list_all<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let view = view(&app, &params).await?;
    objects::list(&app, &params, view.crons(""), view.sequence())
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
) -> ApiResult {
    find(&app, &namespace, &name).await
}

/// A CronWorkflow may be called `lint`.
pub(crate) async fn get_lint<C: Cell>(State(app): State<App<C>>, Path(namespace): Path<String>) -> ApiResult {
    find(&app, &namespace, "lint").await
}

pub(crate) async fn create<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let named = prepare(&view, &namespace, decode_object(&bytes)?, None, app.limits.body_bytes_max)?;
    let command = CreateCron {
        namespace: namespace.clone(),
        name: named.name.clone(),
        uid: uuid::Uuid::new_v4().to_string(),
        manifest_json: named.value.to_string(),
        creator: label_value(&identity.name),
    };
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    change.give(&app, "create", &named.name, CommandBody::CreateCron(command)).await?;
    find(&app, &namespace, &named.name).await
}

pub(crate) async fn update<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let version = request.get("cronWorkflow").and_then(|object| object.pointer("/metadata/resourceVersion"));
    let resource_version = version.and_then(Value::as_str).unwrap_or_default().to_owned();
    let view = app.cell.read(Consistency::Linearizable).await?;
    let named = prepare(&view, &namespace, request, Some(&name), app.limits.body_bytes_max)?;
    let command = UpdateCron {
        namespace: namespace.clone(),
        name: name.clone(),
        manifest_json: named.value.to_string(),
        resource_version,
        actor: label_value(&identity.name),
    };
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    change.give(&app, "update", &name, CommandBody::UpdateCron(command)).await?;
    find(&app, &namespace, &name).await
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let bytes = Bytes::new();
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    let command = DeleteCron { namespace: namespace.clone(), name: name.clone() };
    change.give(&app, "delete", &name, CommandBody::DeleteCron(command)).await?;
    Ok(Answer(json!({})))
}

pub(crate) async fn lint<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let named = prepare(&view, &namespace, decode_object(&bytes)?, None, app.limits.body_bytes_max)?;
    let mut answer = argosy_engine::view::cron_answer(&named.value);
    if let Some(metadata) = answer["metadata"].as_object_mut() {
        metadata.shift_remove("namespace");
    }
    if !answer["metadata"]["labels"].is_object() {
        answer["metadata"]["labels"] = json!({});
    }
    answer["metadata"]["labels"][CREATOR_LABEL] = json!(label_value(&identity.name));
    Ok(Answer(answer))
}

async fn set_suspended<C: Cell>(app: &App<C>, change: Change<'_>, name: &str, suspend: bool) -> ApiResult {
    let namespace = change.namespace.to_owned();
    let command = SuspendCron { namespace: namespace.clone(), name: name.to_owned(), suspend };
    let verb = if suspend { "suspend" } else { "resume" };
    change.give(app, verb, name, CommandBody::SuspendCron(command)).await?;
    find(app, &namespace, name).await
}

pub(crate) async fn suspend<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    set_suspended(&app, change, &name, true).await
}

pub(crate) async fn resume<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    set_suspended(&app, change, &name, false).await
}

/// POST backfill: `{"name", "start", "end", "argumentName", "parallel", "maxWorkflowCount"}`; times are RFC 3339.
pub(crate) async fn backfill<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let text = |field: &str| request.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let time = |field: &str| {
        let text = text(field);
        let time = text.parse::<jiff::Timestamp>().map_err(|_| {
            let message = format!("{field} is {text:?}: it has to be a time such as 2026-01-31T12:00:00Z");
            ApiError::new(Code::InvalidArgument, message)
        })?;
        Ok::<i64, ApiError>(time.as_millisecond())
    };
    let command = BackfillCron {
        namespace: namespace.clone(),
        cron: name.clone(),
        name: text("name"),
        start_ms: time("start")?,
        end_ms: time("end")?,
        argument: text("argumentName"),
        parallel: request.get("parallel") == Some(&Value::Bool(true)),
        workflows_max: request
            .get("maxWorkflowCount")
            .and_then(Value::as_u64)
            .map_or(u32::MAX, |count| u32::try_from(count).unwrap_or(u32::MAX)),
    };
    let change = Change { namespace: &namespace, identity: &identity, headers: &headers, bytes: &bytes };
    match change.give(&app, "backfill", &name, CommandBody::BackfillCron(command)).await? {
        Some(reply::Body::BackfillAccepted(accepted)) => {
            let times = accepted.times_ms.iter().map(|time| json!(crate::workflow::time_text(*time)));
            Ok(Answer(json!({"prefix": accepted.prefix, "times": times.collect::<Vec<_>>()})))
        }
        other => Err(unexpected(&other)),
    }
}
