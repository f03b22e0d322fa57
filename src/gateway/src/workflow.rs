//! One workflow: make, read, delete.

use argosy_model::WorkflowKey;
use argosy_proto::command::{
    Command, DeleteWorkflow, Refusal, SubmitWorkflow, WorkflowAccepted, command::Body as CommandBody, reply,
};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::archive;
use crate::auth::Identity;
use crate::envelope::{Advised, AdvisedResult, Answer, ApiError, ApiResult, Code};
use crate::failover;
use crate::fields::Fields;
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::{resolve, view};
use crate::submission::{self, Submission};
use crate::{App, Cell, Consistency, View};

/// Of the commands that the gateway makes.
pub(crate) const COMMAND_VERSION: u32 = 1;

/// Milliseconds since 1970 as Kubernetes writes times: RFC 3339, UTC, to the second.
pub(crate) fn time_text(ms: i64) -> String {
    jiff::Timestamp::from_second(ms.div_euclid(1000)).map(|time| time.to_string()).unwrap_or_default()
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    params: Params,
) -> ApiResult {
    one(&app, &namespace, &name, &params).await
}

/// A workflow may be called `lint`.
pub(crate) async fn get_lint<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    one(&app, &namespace, "lint", &params).await
}

/// The workflow of that name.
pub(crate) async fn one<C: Cell>(app: &App<C>, namespace: &str, name: &str, params: &Params) -> ApiResult {
    let view = view(app, params).await?;
    let workflow = match resolve(&view, namespace, name) {
        Ok(key) => {
            let mut found = view.workflow_json(&key).ok_or_else(|| ApiError::workflow_not_found(name))?;
            failover::show_nodes(&mut found, &view, &app.cell.status(), &app.decisions);
            found
        }
        Err(missing) => {
            archive::named(app, &view, namespace, name, params.get("uid")).await?.ok_or(missing)?
        }
    };
    if params.get("uid").is_some_and(|uid| workflow["metadata"]["uid"] != uid) {
        return Err(ApiError::workflow_not_found(name));
    }
    Ok(Answer(Fields::parse(params.get("fields").unwrap_or_default()).workflow(workflow)))
}

fn is_dry(request: &Map<String, Value>) -> Option<DryRun> {
    let all =
        request.get("createOptions").and_then(|options| options.get("dryRun")).and_then(Value::as_array);
    if request.get("serverDryRun") == Some(&Value::Bool(true)) {
        Some(DryRun::Server)
    } else if all.is_some_and(|kinds| kinds.iter().any(|kind| kind == "All")) {
        Some(DryRun::Options)
    } else {
        None
    }
}

/// The two ways in which Argo's clients ask for a check without a change; the answers differ in their metadata.
pub(crate) enum DryRun {
    Server,
    Options,
}

/// POST: checks the manifest, names it, and has it accepted. Parsing happens here and not on the leader's thread, so
/// that bad input costs the cell nothing.
pub(crate) async fn create<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> AdvisedResult {
    let body = read_body(&app, body).await?;
    let mut request = decode_object(&body)?;
    let dry = is_dry(&request);
    let workflow = submission::workflow_of(&mut request)?;
    let workflow =
        workflow.ok_or_else(|| ApiError::new(Code::InvalidArgument, "workflow body not specified"))?;
    let mut submission = submission::prepare(&namespace, workflow)?;
    submission.check(Code::InvalidArgument, app.limits.body_bytes_max)?;
    let uid = uuid::Uuid::new_v4().to_string();
    finish(&app, &identity, submission, uid, (&headers, &body), dry).await
}

/// Has a checked submission accepted, or only tells what it would be.
pub(crate) async fn finish<C: Cell>(
    app: &App<C>,
    identity: &Identity,
    submission: Submission,
    uid: String,
    (headers, body): (&HeaderMap, &[u8]),
    dry: Option<DryRun>,
) -> AdvisedResult {
    let Some(dry) = dry else {
        // What the leader refuses it tells itself, by what has joined at that moment.
        let view = app.cell.read(Consistency::Stale).await.ok();
        let checked = view.map(|view| view.check_clusters(&submission.key.namespace, &submission.workflow));
        let warnings = checked.and_then(Result::ok).unwrap_or_default();
        let answer = accept(app, identity, submission, uid, headers, body).await?;
        return Ok(Advised { answer, warnings });
    };
    let view = app.cell.read(Consistency::Linearizable).await?;
    view.check_references(&submission.key.namespace, &submission.workflow)?;
    let warnings = view.check_clusters(&submission.key.namespace, &submission.workflow)?;
    let mut answer = submission.answer(&identity.name);
    if let DryRun::Server = dry {
        let now = jiff::Timestamp::now().as_millisecond();
        identify(&mut answer, &uid, &time_text(now));
    }
    Ok(Advised { answer: Answer(answer), warnings })
}

fn identify(workflow: &mut Value, uid: &str, created: &str) {
    workflow["metadata"]["uid"] = json!(uid);
    workflow["metadata"]["generation"] = json!(1);
    workflow["metadata"]["creationTimestamp"] = json!(created);
}

async fn accept<C: Cell>(
    app: &App<C>,
    identity: &Identity,
    submission: Submission,
    uid: String,
    headers: &HeaderMap,
    body: &[u8],
) -> ApiResult {
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(
            identity,
            headers,
            &format!("create {}", submission.key.namespace),
            body,
        )?,
        body: Some(CommandBody::SubmitWorkflow(SubmitWorkflow {
            cron: submission.cron.clone(),
            namespace: submission.key.namespace.clone(),
            name: submission.key.name.clone(),
            uid,
            manifest_json: submission.workflow.to_string(),
            creator: identity.name.clone(),
        })),
    };
    let accepted = match app.cell.command(command).await?.body {
        Some(reply::Body::WorkflowAccepted(accepted)) => accepted,
        other => return Err(unexpected(&other)),
    };
    tracing::info!(workflow = %submission.key, workflow_id = accepted.workflow_id, "workflow accepted");
    created(app, identity, submission, accepted).await
}

/// The workflow as it was accepted: what has happened to it since is not told here, as in Argo.
async fn created<C: Cell>(
    app: &App<C>,
    identity: &Identity,
    mut submission: Submission,
    accepted: WorkflowAccepted,
) -> ApiResult {
    let key = WorkflowKey { namespace: accepted.namespace, name: accepted.name };
    submission.rename(&key);
    // The member that answered has applied it, unless it only passed the command on.
    let mut summary = app.cell.read(Consistency::Stale).await.ok().and_then(|view| view.summary(&key));
    if summary.as_ref().is_none_or(|summary| summary.uid != accepted.uid) {
        summary = app.cell.read(Consistency::Linearizable).await.ok().and_then(|view| view.summary(&key));
    }
    let mut answer = submission.answer(&identity.name);
    let created_at = summary.map(|summary| time_text(summary.created_at_ms));
    identify(&mut answer, &accepted.uid, &created_at.unwrap_or_default());
    answer["metadata"]["resourceVersion"] = json!(accepted.resource_version);
    Ok(Answer(answer))
}

pub(crate) fn unexpected(reply: &Option<reply::Body>) -> ApiError {
    tracing::error!(?reply, "a command got a reply of another kind");
    ApiError::new(
        Code::Internal,
        "the control plane gave an answer of another kind: look at the member's log",
    )
}

/// POST lint: the checks of a submission alone. Argo answers its findings with code 2.
pub(crate) async fn lint<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    body: Body,
) -> AdvisedResult {
    let body = read_body(&app, body).await?;
    let mut request = decode_object(&body)?;
    let workflow = submission::workflow_of(&mut request)?;
    let workflow = workflow.ok_or_else(|| ApiError::new(Code::Unknown, "unable to get a workflow"))?;
    let mut submission = submission::prepare(&namespace, workflow)?;
    submission.check(Code::Unknown, app.limits.body_bytes_max)?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let found = |refusal: Refusal| ApiError::new(Code::Unknown, refusal.message).stable(refusal.code);
    view.check_references(&namespace, &submission.workflow).map_err(found)?;
    let warnings = view.check_clusters(&namespace, &submission.workflow).map_err(found)?;
    let mut answer = submission.answer(&identity.name);
    if let Some(metadata) = answer["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    Ok(Advised { answer: Answer(answer), warnings })
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let name = alias(&app, &namespace, name).await?;
    let what = format!("delete {namespace}/{name}");
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(&identity, &headers, &what, b"")?,
        body: Some(CommandBody::DeleteWorkflow(DeleteWorkflow { namespace, name })),
    };
    app.cell.command(command).await?;
    Ok(Answer(json!({})))
}

/// The name itself, or the workflow that `@latest` stands for.
pub(crate) async fn alias<C: Cell>(app: &App<C>, namespace: &str, name: String) -> Result<String, ApiError> {
    if name != "@latest" {
        return Ok(name);
    }
    let view = app.cell.read(Consistency::Linearizable).await?;
    Ok(resolve(&view, namespace, &name)?.name)
}
