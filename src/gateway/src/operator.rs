//! What operators do to one workflow: suspend, resume, set, stop, terminate, retry, resubmit.

use argosy_model::WorkflowKey;
use argosy_proto::command::{
    Command, Reply, ResubmitWorkflow, ResumeWorkflow, RetryWorkflow, SetNode, ShutdownStrategy,
    ShutdownWorkflow, SuspendWorkflow, command::Body as CommandBody, reply,
};
use argosy_proto::common::OutputParameter;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::fields::restore_zero_fields;
use crate::http::{decode_object, idempotency_key, read_body};
use crate::submission::{generated_name, label_value};
use crate::workflow::{COMMAND_VERSION, alias};
use crate::{App, Cell, Consistency, View};

/// One action: who asks, about which workflow, with which body.
struct Action<'a> {
    namespace: String,
    name: String,
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: Bytes,
    request: Map<String, Value>,
}

impl<'a> Action<'a> {
    async fn read<C: Cell>(
        app: &App<C>,
        (namespace, name): (String, String),
        identity: &'a Identity,
        headers: &'a HeaderMap,
        body: Body,
    ) -> Result<Self, ApiError> {
        let bytes = read_body(app, body).await?;
        let request = decode_object(&bytes)?;
        let name = alias(app, &namespace, name).await?;
        Ok(Self { namespace, name, identity, headers, bytes, request })
    }

    fn text(&self, field: &str) -> String {
        self.request.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn flag(&self, field: &str) -> bool {
        self.request.get(field) == Some(&Value::Bool(true))
    }

    fn parameters(&self) -> Vec<String> {
        let list = self.request.get("parameters").and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn actor(&self) -> String {
        label_value(&self.identity.name)
    }

    async fn give<C: Cell>(&self, app: &App<C>, verb: &str, body: CommandBody) -> Result<Reply, ApiError> {
        let what = format!("{verb} {}/{}", self.namespace, self.name);
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, &self.bytes)?,
            body: Some(body),
        };
        let reply = app.cell.command(command).await?;
        tracing::info!(
            workflow = self.name,
            namespace = self.namespace,
            verb,
            by = self.identity.name,
            "operator"
        );
        Ok(reply)
    }

    /// Gives the command and shows the workflow as it is then.
    async fn answer<C: Cell>(&self, app: &App<C>, verb: &str, body: CommandBody) -> ApiResult {
        self.give(app, verb, body).await?;
        shown(app, &self.namespace, &self.name).await
    }
}

pub(crate) async fn shown<C: Cell>(app: &App<C>, namespace: &str, name: &str) -> ApiResult {
    let key = WorkflowKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let view = app.cell.read(Consistency::Linearizable).await?;
    let mut workflow = view.workflow_json(&key).ok_or_else(|| ApiError::workflow_not_found(name))?;
    restore_zero_fields(&mut workflow);
    Ok(Answer(workflow))
}

pub(crate) async fn suspend<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    let (namespace, name, actor) = (action.namespace.clone(), action.name.clone(), action.actor());
    let command = SuspendWorkflow { namespace, name, actor };
    action.answer(&app, "suspend", CommandBody::SuspendWorkflow(command)).await
}

pub(crate) async fn resume<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    let command = ResumeWorkflow {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        node_field_selector: action.text("nodeFieldSelector"),
        actor: action.actor(),
    };
    action.answer(&app, "resume", CommandBody::ResumeWorkflow(command)).await
}

pub(crate) async fn set<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    let command = SetNode {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        node_field_selector: action.text("nodeFieldSelector"),
        phase: action.text("phase"),
        message: action.text("message"),
        outputs: outputs(&action.text("outputParameters"))?,
        actor: action.actor(),
    };
    action.answer(&app, "set", CommandBody::SetNode(command)).await
}

/// Argo's clients send outputs as an object in a text.
fn outputs(text: &str) -> Result<Vec<OutputParameter>, ApiError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let given: std::collections::BTreeMap<String, String> = serde_json::from_str(text).map_err(|error| {
        let first = text.trim_start().chars().next().unwrap_or(' ');
        let reason = if "{[\"-tfn0123456789".contains(first) {
            error.to_string()
        } else {
            format!("invalid character '{first}' looking for beginning of value")
        };
        let message = format!("unable to parse output parameter set request: {reason}");
        ApiError::new(Code::InvalidArgument, message)
    })?;
    Ok(given.into_iter().map(|(name, value)| OutputParameter { name, value }).collect())
}

pub(crate) async fn stop<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    shut_down(&app, &action, ShutdownStrategy::Stop).await
}

pub(crate) async fn terminate<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    shut_down(&app, &action, ShutdownStrategy::Terminate).await
}

async fn shut_down<C: Cell>(app: &App<C>, action: &Action<'_>, strategy: ShutdownStrategy) -> ApiResult {
    let command = ShutdownWorkflow {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        strategy: strategy.into(),
        message: action.text("message"),
        actor: action.actor(),
        node_field_selector: action.text("nodeFieldSelector"),
    };
    action.answer(app, strategy.as_str_name(), CommandBody::ShutdownWorkflow(command)).await
}

pub(crate) async fn retry<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    let command = RetryWorkflow {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        restart_successful: action.flag("restartSuccessful"),
        node_field_selector: action.text("nodeFieldSelector"),
        parameters: action.parameters(),
        actor: action.actor(),
    };
    action.answer(&app, "retry", CommandBody::RetryWorkflow(command)).await
}

pub(crate) async fn resubmit<C: Cell>(
    State(app): State<App<C>>,
    Path(path): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let action = Action::read(&app, path, &identity, &headers, body).await?;
    let key = WorkflowKey { namespace: action.namespace.clone(), name: action.name.clone() };
    let view = app.cell.read(Consistency::Linearizable).await?;
    let old = view.workflow_json(&key).ok_or_else(|| ApiError::workflow_not_found(&action.name))?;
    let prefix = old["metadata"]["generateName"].as_str().filter(|prefix| !prefix.is_empty());
    let new_name = generated_name(&prefix.map_or_else(|| format!("{}-", action.name), str::to_owned));
    let command = ResubmitWorkflow {
        namespace: action.namespace.clone(),
        name: action.name.clone(),
        new_name,
        new_uid: uuid::Uuid::new_v4().to_string(),
        memoized: action.flag("memoized"),
        parameters: action.parameters(),
        creator: action.identity.name.clone(),
    };
    let reply = action.give(&app, "resubmit", CommandBody::ResubmitWorkflow(command)).await?;
    match reply.body {
        // A repeat with the same key tells the name that the first one drew.
        Some(reply::Body::WorkflowAccepted(accepted)) => {
            shown(&app, &accepted.namespace, &accepted.name).await
        }
        other => Err(crate::workflow::unexpected(&other)),
    }
}
