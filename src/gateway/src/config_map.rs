//! ConfigMaps of the cell: parameters, limits of semaphores, artifact repositories. The objects are Kubernetes'.

use argosy_proto::command::{Command, DeleteConfigMap, StoreConfigMap, command::Body as CommandBody};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell, Consistency, View};

/// Who asks for a change, and with which body.
struct Change<'a> {
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: Bytes,
    namespace: String,
}

impl Change<'_> {
    async fn give<C: Cell>(
        &self,
        app: &App<C>,
        verb: &str,
        name: &str,
        body: CommandBody,
    ) -> Result<(), ApiError> {
        let what = format!("{verb} configmap {}/{name}", self.namespace);
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, &self.bytes)?,
            body: Some(body),
        };
        app.cell.command(command).await?;
        tracing::info!(
            config_map = name,
            namespace = self.namespace,
            verb,
            by = self.identity.name,
            "configmap"
        );
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidArgument, message)
}

/// A map of texts at a field; absent and null are empty.
fn texts(object: &Map<String, Value>, field: &str) -> Result<BTreeMap<String, String>, ApiError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    Err(invalid(format!("configMap.{field}[{key}] has to be a string")))
                }
            })
            .collect(),
        Some(_) => Err(invalid(format!("configMap.{field} has to be a map of strings"))),
    }
}

/// What a request asks to be stored.
fn stored(
    mut request: Map<String, Value>,
    namespace: &str,
    name: Option<&str>,
) -> Result<StoreConfigMap, ApiError> {
    let Some(Value::Object(object)) = request.remove("configMap") else {
        return Err(invalid("config map was not found in the request body"));
    };
    let metadata = object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    if object.get("kind").and_then(Value::as_str).is_some_and(|kind| kind != "ConfigMap") {
        return Err(invalid("the object is not a ConfigMap"));
    }
    let known = ["apiVersion", "kind", "metadata", "data", "immutable"];
    if let Some(unknown) = object.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(invalid(format!("field {unknown} of a ConfigMap is not supported here: use data")));
    }
    let other = text("namespace");
    if !other.is_empty() && other != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(invalid(message));
    }
    let name = name.map_or_else(|| text("name"), str::to_owned);
    if name.is_empty() {
        return Err(invalid("ConfigMap \"\" is invalid: metadata.name: Required value: name is required"));
    }
    Ok(StoreConfigMap {
        namespace: namespace.to_owned(),
        name,
        uid: uuid::Uuid::new_v4().to_string(),
        resource_version: text("resourceVersion"),
        labels: texts(&metadata, "labels")?,
        annotations: texts(&metadata, "annotations")?,
        data: texts(&object, "data")?,
        immutable: object.get("immutable") == Some(&Value::Bool(true)),
        create: false,
    })
}

async fn find<C: Cell>(app: &App<C>, namespace: &str, name: &str) -> ApiResult {
    let view = app.cell.read(Consistency::Linearizable).await?;
    let found = view.config_map(namespace, name);
    found.map(Answer).ok_or_else(|| ApiError::new(Code::NotFound, format!("configmaps {name:?} not found")))
}

pub(crate) async fn list<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    let view = view(&app, &params).await?;
    let mut items = view.config_maps(&namespace);
    if items.len() > app.limits.list_items_max {
        app.metrics.limit_hit("list_items_max");
        items.truncate(app.limits.list_items_max);
    }
    let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
    Ok(Answer(json!({"metadata": {"resourceVersion": view.sequence().to_string()}, "items": items})))
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
) -> ApiResult {
    find(&app, &namespace, &name).await
}

pub(crate) async fn create<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let mut command = stored(decode_object(&bytes)?, &namespace, None)?;
    command.create = true;
    let name = command.name.clone();
    let change = Change { identity: &identity, headers: &headers, bytes, namespace };
    change.give(&app, "create", &name, CommandBody::StoreConfigMap(command)).await?;
    find(&app, &change.namespace, &name).await
}

pub(crate) async fn update<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let bytes = read_body(&app, body).await?;
    let command = stored(decode_object(&bytes)?, &namespace, Some(&name))?;
    let change = Change { identity: &identity, headers: &headers, bytes, namespace };
    change.give(&app, "update", &name, CommandBody::StoreConfigMap(command)).await?;
    find(&app, &change.namespace, &name).await
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    let command = DeleteConfigMap { namespace: namespace.clone(), name: name.clone() };
    let change = Change { identity: &identity, headers: &headers, bytes: Bytes::new(), namespace };
    change.give(&app, "delete", &name, CommandBody::DeleteConfigMap(command)).await?;
    Ok(Answer(json!({})))
}
