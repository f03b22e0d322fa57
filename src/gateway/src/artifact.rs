//! Artifacts: Argo's downloads, and archived logs.
//!
//! The control plane has no credentials of a store. An agent whose cluster has them reads the object, part by part as the
//! client takes them, so that neither a slow client nor a large object holds anything up.

use argosy_model::WorkflowKey;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{App, ArtifactPlace, Cell, Consistency, LogError, View};

/// Bytes that are asked of an agent at a time.
const PART_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of an answer that is not an object.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An object under an artifact's key, as agents tell it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub path: String,
    pub key: String,
    pub size: u64,
}

pub(crate) async fn output<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name, node, artifact)): Path<(String, String, String, String)>,
) -> Response {
    by_name(&app, namespace, name, &node, &artifact, false).await
}

pub(crate) async fn input<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name, node, artifact)): Path<(String, String, String, String)>,
) -> Response {
    by_name(&app, namespace, name, &node, &artifact, true).await
}

pub(crate) async fn output_by_uid<C: Cell>(
    State(app): State<App<C>>,
    Path((uid, node, artifact)): Path<(String, String, String)>,
) -> Response {
    by_uid(&app, &uid, &node, &artifact, false).await
}

pub(crate) async fn input_by_uid<C: Cell>(
    State(app): State<App<C>>,
    Path((uid, node, artifact)): Path<(String, String, String)>,
) -> Response {
    by_uid(&app, &uid, &node, &artifact, true).await
}

/// `/artifact-files/{namespace}/{workflows|archived-workflows}/{id}/{node}/{inputs|outputs}/{artifact}[/{file}]`.
pub(crate) async fn file<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, discriminator, id, rest)): Path<(String, String, String, String)>,
) -> Response {
    let mut parts = rest.splitn(4, '/');
    let (Some(node), Some(side), Some(artifact)) = (parts.next(), parts.next(), parts.next()) else {
        return refused(StatusCode::BAD_REQUEST, "request path is not valid");
    };
    let file = parts.next().unwrap_or_default();
    let is_input = match side {
        "inputs" => true,
        "outputs" => false,
        _ => return refused(StatusCode::BAD_REQUEST, "request path is not valid"),
    };
    let key = match discriminator.as_str() {
        "workflows" => WorkflowKey { namespace, name: id },
        _ => match key_of_uid(&app, &id).await {
            Ok(key) => key,
            Err(refusal) => return refusal,
        },
    };
    answer(&app, &key, node, artifact, is_input, Some(file)).await
}

async fn by_name<C: Cell>(
    app: &App<C>,
    namespace: String,
    name: String,
    node: &str,
    artifact: &str,
    is_input: bool,
) -> Response {
    answer(app, &WorkflowKey { namespace, name }, node, artifact, is_input, None).await
}

async fn by_uid<C: Cell>(app: &App<C>, uid: &str, node: &str, artifact: &str, is_input: bool) -> Response {
    match key_of_uid(app, uid).await {
        Ok(key) => answer(app, &key, node, artifact, is_input, None).await,
        Err(refusal) => refusal,
    }
}

async fn key_of_uid<C: Cell>(app: &App<C>, uid: &str) -> Result<WorkflowKey, Response> {
    let view = app.cell.read(Consistency::Linearizable).await;
    let view = view.map_err(|error| refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()))?;
    let is_it = |key: &WorkflowKey| view.summary(key).is_some_and(|summary| summary.uid == uid);
    let found = view.workflow_keys(None).into_iter().find(is_it);
    found.ok_or_else(|| {
        refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("workflow with uid {uid:?} not found"))
    })
}

/// Argo's artifact server answers in plain text.
fn refused(status: StatusCode, message: &str) -> Response {
    (status, message.to_owned()).into_response()
}

async fn answer<C: Cell>(
    app: &App<C>,
    key: &WorkflowKey,
    node: &str,
    artifact: &str,
    is_input: bool,
    file: Option<&str>,
) -> Response {
    let view = match app.cell.read(Consistency::Linearizable).await {
        Ok(view) => view,
        Err(error) => return refused(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    if view.workflow_id(key).is_none() {
        let message = format!("workflows.argoproj.io {:?} not found", key.name);
        return refused(StatusCode::INTERNAL_SERVER_ERROR, &message);
    }
    let Some(place) = view.artifact(key, node, artifact, is_input) else {
        return refused(StatusCode::NOT_FOUND, &format!("artifact not found: {artifact:?}"));
    };
    if let Some(raw) = &place.raw {
        return sent(artifact, raw.len() as u64, Body::from(raw.clone()));
    }
    let (cluster, entries) = match stat(&app.cell, &place).await {
        Ok(found) => found,
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let wanted = file.unwrap_or_default().trim_matches('/');
    match entries.iter().find(|entry| entry.path == wanted) {
        Some(entry) => {
            let name = entry.key.rsplit('/').next().unwrap_or_default().to_owned();
            let body = Body::from_stream(bytes(app.cell.clone(), &place, cluster, entry));
            sent(&name, entry.size, body)
        }
        None if file.is_some() => listing(&entries, wanted),
        None => refused(
            StatusCode::BAD_REQUEST,
            "the artifact is a directory: ask /artifact-files/ for its list, and for each of its files",
        ),
    }
}

fn sent(name: &str, size: u64, body: Body) -> Response {
    let plain: String =
        name.chars().filter(|one| one.is_ascii_graphic() && !matches!(one, '"' | '\\')).collect();
    let kind = match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("tgz" | "gz") => "application/gzip",
        Some("zip") => "application/zip",
        Some("json") => "application/json",
        Some("txt" | "log" | "csv" | "md") => "text/plain; charset=utf-8",
        Some(_) | None => "application/octet-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("filename=\"{plain}\"")),
        // What a step wrote must not run as the control plane's own page.
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; base-uri 'none'; default-src 'none'; img-src 'self'".to_owned(),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, body).into_response()
}

/// The files right below a path, and the directories.
fn listing(entries: &[Entry], below: &str) -> Response {
    let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.path.strip_prefix(&prefix))
        .map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(directory, _)| format!("{directory}/")))
        .collect();
    names.dedup();
    if names.is_empty() {
        return refused(StatusCode::NOT_FOUND, "the artifact has no such file");
    }
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let items: String =
        names.iter().map(|name| format!("<li><a href=\"./{0}\">{0}</a></li>\n", escape(name))).collect();
    Html(format!("<!DOCTYPE html>\n<html><body><ul>\n{items}</ul></body></html>\n")).into_response()
}

/// An operation as agents read it.
pub(crate) fn operation(what: &str, place: &ArtifactPlace, more: Value) -> String {
    let mut operation = json!({"do": what, "namespace": place.namespace, "location": place.location});
    if let (Some(fields), Value::Object(more)) = (operation.as_object_mut(), more) {
        fields.extend(more);
    }
    operation.to_string()
}

/// Asks the agents that may have credentials, the one whose cluster made it first; gives who answered.
pub(crate) async fn stat<C: Cell>(cell: &C, place: &ArtifactPlace) -> Result<(String, Vec<Entry>), LogError> {
    let asked = operation("stat", place, json!({"keys": place.keys}));
    let mut last = LogError::Disconnected(place.cluster.clone());
    for cluster in clusters(cell, &place.cluster) {
        match whole(cell, &cluster, asked.clone()).await {
            Ok(bytes) => {
                let entries = serde_json::from_slice(&bytes);
                return entries
                    .map(|entries| (cluster, entries))
                    .map_err(|error| LogError::Agent(format!("the agent's answer can't be read: {error}")));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connected clusters, this one first.
fn clusters<C: Cell>(cell: &C, first: &str) -> Vec<String> {
    let mut clusters: Vec<String> =
        cell.status().sessions.into_iter().map(|session| session.cluster).collect();
    clusters.sort_by_key(|name| (name != first, name.clone()));
    clusters
}

/// The whole answer to an operation.
pub(crate) async fn whole<C: Cell>(cell: &C, cluster: &str, operation: String) -> Result<Vec<u8>, LogError> {
    let mut parts = cell.operate(cluster, operation).await?;
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part?);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(LogError::Agent("the agent's answer is too long".to_owned()));
        }
    }
    Ok(bytes)
}

/// The bytes of an object, asked for as they are taken.
pub(crate) fn bytes<C: Cell>(
    cell: C,
    place: &ArtifactPlace,
    cluster: String,
    entry: &Entry,
) -> BoxStream<'static, Result<Bytes, LogError>> {
    bytes_from(cell, place, cluster, entry, 0)
}

/// As [`bytes`], from an offset on.
pub(crate) fn bytes_from<C: Cell>(
    cell: C,
    place: &ArtifactPlace,
    cluster: String,
    entry: &Entry,
    offset: u64,
) -> BoxStream<'static, Result<Bytes, LogError>> {
    let (place, entry) = (place.clone(), entry.clone());
    let parts = stream::try_unfold(offset, move |offset| {
        let (cell, place, cluster, entry) = (cell.clone(), place.clone(), cluster.clone(), entry.clone());
        async move {
            if offset >= entry.size {
                return Ok(None);
            }
            let length = PART_BYTES.min(entry.size - offset);
            let asked =
                operation("read", &place, json!({"key": entry.key, "offset": offset, "length": length}));
            let part = whole(&cell, &cluster, asked).await?;
            if part.is_empty() {
                return Err(LogError::Agent("the object became shorter while it was read".to_owned()));
            }
            let next = offset + part.len() as u64;
            Ok(Some((Bytes::from(part), next)))
        }
    });
    parts.into_stream().boxed()
}
