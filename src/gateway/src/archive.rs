//! Archived workflows: finished ones that have left what is live. Argo's routes, with its selectors.

use argosy_model::WorkflowKey;
use argosy_proto::command::{
    Command, DeleteArchived, ResubmitArchived, ResubmitWorkflow, RetryArchived, RetryWorkflow,
    command::Body as CommandBody, reply,
};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

use crate::auth::Identity;
use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, idempotency_key, read_body};
use crate::list::view;
use crate::operator::shown;
use crate::selector::LabelSelector;
use crate::submission::{generated_name, label_value};
use crate::workflow::{COMMAND_VERSION, unexpected};
use crate::{App, ArchiveError, Archived, Cell, Consistency, Summary, View};

/// Items of a page when the request says nothing.
const PAGE: usize = 50;
/// Label keys or values that are told.
const LABELS_MAX: usize = 1_000;
const STATUS_LABEL: &str = "workflows.argoproj.io/workflow-archiving-status";

impl From<ArchiveError> for ApiError {
    fn from(error: ArchiveError) -> Self {
        match &error {
            ArchiveError::Gone => Self::new(Code::NotFound, "not found"),
            ArchiveError::TooLarge => Self::new(Code::ResourceExhausted, error.to_string()).stable("ARG1147"),
            ArchiveError::Unreadable(_) => Self::new(Code::Internal, error.to_string()).stable("ARG1148"),
        }
    }
}

/// Without an archive Argo answers so.
fn unsupported(verb: &str) -> ApiError {
    ApiError::new(Code::Internal, format!("{verb} archived workflows not supported"))
}

/// An archived workflow in full.
async fn full<C: Cell>(app: &App<C>, archived: &Archived) -> Result<Value, ApiError> {
    if archived.on_its_way {
        let message = "the workflow is on its way to the archive: try again in a moment";
        return Err(ApiError::new(Code::Unavailable, message).stable("ARG1146"));
    }
    let view = app.cell.archived(archived.id).await?;
    let mut workflow =
        view.workflow_json(&archived.key).ok_or_else(|| ApiError::new(Code::NotFound, "not found"))?;
    workflow["metadata"]["labels"][STATUS_LABEL] = json!("Persisted");
    Ok(workflow)
}

/// The archived workflow of a name, for those who ask for a live one that is not there (any more).
pub(crate) async fn named<C: Cell>(
    app: &App<C>,
    view: &C::View,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<Option<Value>, ApiError> {
    let key = WorkflowKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let found = match uid {
        Some(uid) => view.archived(uid).filter(|archived| archived.key == key),
        None => view.archived_named(&key),
    };
    match found.filter(|_| app.archive) {
        Some(archived) => full(app, &archived).await.map(Some),
        None => Ok(None),
    }
}

/// What a list of the archive is narrowed by.
#[derive(Debug, Default)]
struct Wanted {
    namespace: String,
    name: String,
    contains: bool,
    prefix: String,
    labels: LabelSelector,
    has_labels: bool,
    after_ms: Option<i64>,
    before_ms: Option<i64>,
}

impl Wanted {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let wrong = |message: String| ApiError::new(Code::InvalidArgument, message);
        let text = params.get("listOptions.labelSelector").unwrap_or_default();
        let mut wanted = Self {
            namespace: params.get("namespace").unwrap_or_default().to_owned(),
            prefix: params.get("namePrefix").unwrap_or_default().to_owned(),
            labels: LabelSelector::parse(text).map_err(|error| wrong(error.to_string()))?,
            has_labels: !text.is_empty(),
            ..Self::default()
        };
        let fields = params.get("listOptions.fieldSelector").unwrap_or_default();
        for term in fields.split(',').filter(|term| !term.is_empty()) {
            let time = |text: &str| {
                let time = text.parse::<jiff::Timestamp>();
                time.map(jiff::Timestamp::as_millisecond)
                    .map_err(|_| wrong(format!("field selector {term:?} names no time")))
            };
            if let Some(namespace) = term.strip_prefix("metadata.namespace=") {
                wanted.namespace = namespace.to_owned();
            } else if let Some(name) = term.strip_prefix("metadata.name=") {
                wanted.name = name.to_owned();
            } else if let Some(at) = term.strip_prefix("spec.startedAt>") {
                wanted.after_ms = Some(time(at)?);
            } else if let Some(at) = term.strip_prefix("spec.startedAt<") {
                wanted.before_ms = Some(time(at)?);
            } else if !term.starts_with("ext.showRemainingItemCount=") {
                return Err(wrong(format!("unsupported requirement {term}")));
            }
        }
        match params.get("nameFilter") {
            None | Some("Exact") => {}
            Some("Prefix") => wanted.prefix = std::mem::take(&mut wanted.name),
            Some("Contains") => wanted.contains = true,
            Some(other) => {
                return Err(wrong(format!(
                    "nameFilter is {other:?}: it has to be Exact, Prefix or Contains"
                )));
            }
        }
        Ok(wanted)
    }

    fn fits(&self, archived: &Archived, summary: &Summary) -> bool {
        let name = &archived.key.name;
        let named = if self.contains {
            name.contains(&self.name)
        } else {
            self.name.is_empty() || *name == self.name
        };
        named
            && name.starts_with(&self.prefix)
            && self.after_ms.is_none_or(|bound| summary.created_at_ms > bound)
            && self.before_ms.is_none_or(|bound| summary.created_at_ms < bound)
            && self.labels.matches(&summary.labels)
    }

    fn find<V: View>(&self, view: &V) -> Vec<(Archived, Summary)> {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let all = view.archived_all(namespace).into_iter();
        let with = all.filter_map(|archived| {
            let summary = view.archived_summary(&archived, self.has_labels)?;
            Some((archived, summary))
        });
        with.filter(|(archived, summary)| self.fits(archived, summary)).collect()
    }
}

pub(crate) async fn list<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    if !app.archive {
        return Ok(Answer(json!({"metadata": {}, "items": null})));
    }
    let wanted = Wanted::read(&params)?;
    let view = view(&app, &params).await?;
    let number = |name: &str| -> Result<Option<usize>, ApiError> {
        Ok(params.number(name)?.map(|number| usize::try_from(number).unwrap_or(usize::MAX)))
    };
    let limit = number("listOptions.limit")?
        .filter(|limit| *limit > 0)
        .unwrap_or(PAGE)
        .min(app.limits.list_items_max);
    let offset = number("listOptions.continue")?.unwrap_or(0);
    let mut found = wanted.find(&view);
    // Argo's order: what started last comes first.
    found.sort_by_key(|(archived, summary)| std::cmp::Reverse((summary.created_at_ms, archived.id)));
    let page = found.iter().skip(offset).take(limit);
    let items: Vec<Value> = page.filter_map(|(archived, _)| view.archived_json(archived)).collect();
    let mut metadata = json!({});
    let seen = offset.saturating_add(items.len());
    if seen < found.len() {
        metadata["continue"] = json!(seen.to_string());
        metadata["remainingItemCount"] = json!(found.len() - seen);
    }
    let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
    Ok(Answer(json!({"metadata": metadata, "items": items})))
}

pub(crate) async fn label_keys<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    labels(&app, &params, |labels, found| found.extend(labels.keys().cloned())).await
}

/// The values of the label that the selector names.
pub(crate) async fn label_values<C: Cell>(State(app): State<App<C>>, params: Params) -> ApiResult {
    let text = params.get("listOptions.labelSelector").unwrap_or_default();
    let selector = LabelSelector::parse(text);
    let selector = selector.map_err(|error| ApiError::new(Code::InvalidArgument, error.to_string()))?;
    let keys: Vec<String> = selector.keys().map(str::to_owned).collect();
    let [key] = keys.as_slice() else {
        return Err(ApiError::new(
            Code::InvalidArgument,
            "only allow 1 labelRequirement, found something else",
        ));
    };
    labels(&app, &params, |labels, found| found.extend(labels.get(key).cloned())).await
}

async fn labels<C: Cell>(
    app: &App<C>,
    params: &Params,
    collect: impl Fn(&std::collections::BTreeMap<String, String>, &mut BTreeSet<String>),
) -> ApiResult {
    if !app.archive {
        return Ok(Answer(json!({})));
    }
    let view = view(app, params).await?;
    let mut found = BTreeSet::new();
    for archived in view.archived_all(params.get("namespace")) {
        if let Some(summary) = view.archived_summary(&archived, true) {
            collect(&summary.labels, &mut found);
        }
    }
    let items: Vec<String> = found.into_iter().take(LABELS_MAX).collect();
    Ok(Answer(if items.is_empty() { json!({}) } else { json!({"items": items}) }))
}

/// The archived workflow of a uid; `-` or an unknown one may come with namespace and name in the query, as from Argo's CLI.
fn find<V: View>(view: &V, uid: &str, params: &Params) -> Result<Archived, ApiError> {
    let by_name = || {
        let key = WorkflowKey {
            namespace: params.get("namespace")?.to_owned(),
            name: params.get("name")?.to_owned(),
        };
        view.archived_named(&key)
    };
    view.archived(uid).or_else(by_name).ok_or_else(|| ApiError::new(Code::NotFound, "not found"))
}

pub(crate) async fn get<C: Cell>(
    State(app): State<App<C>>,
    Path(uid): Path<String>,
    params: Params,
) -> ApiResult {
    if !app.archive {
        return Err(unsupported("getting"));
    }
    let view = view(&app, &params).await?;
    let archived = find(&view, &uid, &params)?;
    full(&app, &archived).await.map(Answer)
}

/// What every change carries.
struct Change<'a> {
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: &'a [u8],
}

impl Change<'_> {
    async fn give<C: Cell>(
        &self,
        app: &App<C>,
        verb: &str,
        uid: &str,
        body: CommandBody,
    ) -> Result<Option<reply::Body>, ApiError> {
        let what = format!("{verb} archived {uid}");
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, self.bytes)?,
            body: Some(body),
        };
        let reply = app.cell.command(command).await?;
        tracing::info!(uid, verb, by = self.identity.name, "archived workflow");
        Ok(reply.body)
    }
}

pub(crate) async fn delete<C: Cell>(
    State(app): State<App<C>>,
    Path(uid): Path<String>,
    params: Params,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> ApiResult {
    if !app.archive {
        return Err(unsupported("deleting"));
    }
    let view = app.cell.read(Consistency::Linearizable).await?;
    let uid = find(&view, &uid, &params)?.uid;
    let change = Change { identity: &identity, headers: &headers, bytes: b"" };
    change
        .give(&app, "delete", &uid, CommandBody::DeleteArchived(DeleteArchived { uid: uid.clone() }))
        .await?;
    Ok(Answer(json!({})))
}

fn strings(request: &Map<String, Value>, field: &str) -> Vec<String> {
    let list = request.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The namespace and name that a request's body gives, like a query.
fn place(request: &Map<String, Value>) -> Params {
    let text = |field: &str| request.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    Params(vec![("namespace".to_owned(), text("namespace")), ("name".to_owned(), text("name"))])
}

pub(crate) async fn retry<C: Cell>(
    State(app): State<App<C>>,
    Path(uid): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    if !app.archive {
        return Err(unsupported("retrying"));
    }
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let archived = find(&view, &uid, &place(&request))?;
    let retry = RetryWorkflow {
        restart_successful: request.get("restartSuccessful") == Some(&Value::Bool(true)),
        node_field_selector: request
            .get("nodeFieldSelector")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        parameters: strings(&request, "parameters"),
        actor: label_value(&identity.name),
        ..RetryWorkflow::default()
    };
    let command = RetryArchived { uid: archived.uid.clone(), retry: Some(retry) };
    let change = Change { identity: &identity, headers: &headers, bytes: &bytes };
    change.give(&app, "retry", &archived.uid, CommandBody::RetryArchived(command)).await?;
    shown(&app, &archived.key.namespace, &archived.key.name).await
}

pub(crate) async fn resubmit<C: Cell>(
    State(app): State<App<C>>,
    Path(uid): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    if !app.archive {
        return Err(unsupported("resubmitting"));
    }
    let bytes = read_body(&app, body).await?;
    let request = decode_object(&bytes)?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let archived = find(&view, &uid, &place(&request))?;
    let old = view.archived_json(&archived).unwrap_or_default();
    let prefix = old["metadata"]["generateName"].as_str().filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map_or_else(|| format!("{}-", archived.key.name), str::to_owned);
    let resubmit = ResubmitWorkflow {
        new_name: generated_name(&prefix),
        new_uid: uuid::Uuid::new_v4().to_string(),
        memoized: request.get("memoized") == Some(&Value::Bool(true)),
        parameters: strings(&request, "parameters"),
        creator: identity.name.clone(),
        ..ResubmitWorkflow::default()
    };
    let command = ResubmitArchived { uid: archived.uid.clone(), resubmit: Some(resubmit) };
    let change = Change { identity: &identity, headers: &headers, bytes: &bytes };
    match change.give(&app, "resubmit", &archived.uid, CommandBody::ResubmitArchived(command)).await? {
        Some(reply::Body::WorkflowAccepted(accepted)) => {
            shown(&app, &accepted.namespace, &accepted.name).await
        }
        other => Err(unexpected(&other)),
    }
}
