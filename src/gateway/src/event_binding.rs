//! WorkflowEventBindings: kept, listed, deleted. Argo's own API lists them only; events are not acted on yet.

use argosy_proto::command::{Command, DeleteEventBinding, StoreEventBinding, command::Body as CommandBody};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::objects;
use crate::submission::{self, label_value};
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell, Consistency, View};

const RESOURCE: &str = "workfloweventbindings.argoproj.io";

pub(crate) async fn list<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    let view = view(&app, &params).await?;
    objects::list(&app, &params, view.event_bindings(&namespace), view.sequence())
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
) -> ApiResult {
    let view = app.cell.read(Consistency::Linearizable).await?;
    let found = view.event_bindings(&namespace).into_iter().find(|object| object["metadata"]["name"] == name);
    found.map(Answer).ok_or_else(|| ApiError::new(Code::NotFound, format!("{RESOURCE} {name:?} not found")))
}

/// POST `{"workflowEventBinding": {...}}`: Argo leaves making them to Kubernetes' API, which is not there.
pub(crate) async fn create<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let mut request = decode_object(&bytes)?;
    let Some(Value::Object(object)) = request.remove("workflowEventBinding") else {
        let message = "workflow event binding was not found in the request body";
        return Err(ApiError::new(Code::InvalidArgument, message));
    };
    let named = objects::prepare("WorkflowEventBinding", &namespace, object, None)?;
    let bytes_max = app.limits.body_bytes_max;
    let value =
        submission::check_object(named.value, "workflowEventBinding", Code::InvalidArgument, bytes_max)?;
    let store = StoreEventBinding {
        namespace: namespace.clone(),
        name: named.name.clone(),
        uid: uuid::Uuid::new_v4().to_string(),
        manifest_json: value.to_string(),
        creator: label_value(&identity.name),
    };
    let what = format!("create event binding {namespace}/{}", named.name);
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(&identity, &headers, &what, &bytes)?,
        body: Some(CommandBody::StoreEventBinding(store)),
    };
    app.cell.command(command).await?;
    get(State(app), Path((namespace, named.name))).await
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let what = format!("delete event binding {namespace}/{name}");
    let command = Command {
        version: COMMAND_VERSION,
        idempotency_key: idempotency_key(&identity, &headers, &what, b"")?,
        body: Some(CommandBody::DeleteEventBinding(DeleteEventBinding { namespace, name })),
    };
    app.cell.command(command).await?;
    Ok(Answer(json!({})))
}
