//! Stored templates: WorkflowTemplates of a namespace and ClusterWorkflowTemplates.

use argosy_proto::command::{
    Command, CreateTemplate, DeleteTemplate, UpdateTemplate, command::Body as CommandBody,
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
use crate::submission::{self, CREATOR_LABEL, generated_name, label_value, write_out_defaults};
use crate::workflow::COMMAND_VERSION;
use crate::{App, Cell, Consistency, View};

/// Which templates a route is about: of a namespace, or (without) of the whole cell.
#[derive(Clone, Debug)]
struct Scope {
    namespace: Option<String>,
}

impl Scope {
    fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_default()
    }

    fn cluster(&self) -> bool {
        self.namespace.is_none()
    }

    fn resource(&self) -> &'static str {
        if self.cluster() { "clusterworkflowtemplates.argoproj.io" } else { "workflowtemplates.argoproj.io" }
    }

    fn missing(&self, name: &str) -> ApiError {
        ApiError::new(Code::NotFound, format!("{} {name:?} not found", self.resource()))
    }
}

/// A stored template in Argo's shape, with what Argo's types write even when it is empty.
fn shown(mut template: Value) -> Value {
    if let Some(fields) = template.as_object_mut() {
        fields.shift_remove("apiVersion");
        fields.shift_remove("kind");
        fields.shift_remove("status");
    }
    if !template["spec"].is_object() {
        template["spec"] = json!({});
    }
    if template["spec"].get("arguments").is_none() {
        template["spec"]["arguments"] = json!({});
    }
    let templates = template["spec"].get_mut("templates").and_then(Value::as_array_mut);
    templates.into_iter().flatten().for_each(write_out_defaults);
    template
}

fn template_of(request: &mut Map<String, Value>, scope: &Scope) -> Result<Map<String, Value>, ApiError> {
    match request.remove("template") {
        Some(Value::Object(template)) => Ok(template),
        _ => {
            let what = if scope.cluster() { "cluster workflow template" } else { "workflow template" };
            Err(ApiError::new(Code::InvalidArgument, format!("{what} was not found in the request body")))
        }
    }
}

/// Name and namespace settled, contents checked.
fn prepare(
    scope: &Scope,
    mut template: Map<String, Value>,
    code: Code,
    bytes_max: usize,
) -> Result<(String, Value), ApiError> {
    let kind = if scope.cluster() { "ClusterWorkflowTemplate" } else { "WorkflowTemplate" };
    template.insert("kind".to_owned(), json!(kind));
    let mut metadata = template.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut name, prefix, namespace) = (text("name"), text("generateName"), text("namespace"));
    if !scope.cluster() && !namespace.is_empty() && Some(&namespace) != scope.namespace.as_ref() {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    if name.is_empty() && !prefix.is_empty() {
        name = generated_name(&prefix);
    }
    if name.is_empty() {
        let message = format!(
            "{kind}.argoproj.io \"\" is invalid: metadata.name: Required value: name or generateName is required"
        );
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    metadata.retain(|field, _| matches!(field.as_str(), "labels" | "annotations"));
    metadata.shift_insert(0, "name".to_owned(), json!(name));
    if let Some(namespace) = &scope.namespace {
        metadata.shift_insert(1, "namespace".to_owned(), json!(namespace));
    }
    template.insert("metadata".to_owned(), Value::Object(metadata));
    let value = submission::check_template(Value::Object(template), code, bytes_max)?;
    Ok((name, value))
}

/// What every change carries.
struct Change<'a> {
    scope: Scope,
    identity: &'a Identity,
    headers: &'a HeaderMap,
    bytes: Bytes,
}

impl Change<'_> {
    async fn give<C: Cell>(
        &self,
        app: &App<C>,
        verb: &str,
        name: &str,
        body: CommandBody,
    ) -> Result<(), ApiError> {
        let what = format!("{verb} template {}/{name}", self.scope.namespace());
        let command = Command {
            version: COMMAND_VERSION,
            idempotency_key: idempotency_key(self.identity, self.headers, &what, &self.bytes)?,
            body: Some(body),
        };
        app.cell.command(command).await?;
        tracing::info!(template = name, verb, by = self.identity.name, "template");
        Ok(())
    }
}

async fn find<C: Cell>(app: &App<C>, scope: &Scope, name: &str) -> ApiResult {
    let view = app.cell.read(Consistency::Linearizable).await?;
    let found = view.template(scope.cluster(), &scope.namespace(), name);
    found.map(|template| Answer(shown(template))).ok_or_else(|| scope.missing(name))
}

async fn create_in<C: Cell>(app: &App<C>, change: Change<'_>) -> ApiResult {
    let mut request = decode_object(&change.bytes)?;
    let template = template_of(&mut request, &change.scope)?;
    let (name, value) = prepare(&change.scope, template, Code::InvalidArgument, app.limits.body_bytes_max)?;
    let command = CreateTemplate {
        cluster_scope: change.scope.cluster(),
        namespace: change.scope.namespace(),
        name: name.clone(),
        uid: uuid::Uuid::new_v4().to_string(),
        manifest_json: value.to_string(),
        creator: label_value(&change.identity.name),
    };
    change.give(app, "create", &name, CommandBody::CreateTemplate(command)).await?;
    find(app, &change.scope, &name).await
}

async fn update_in<C: Cell>(app: &App<C>, change: Change<'_>, name: String) -> ApiResult {
    let mut request = decode_object(&change.bytes)?;
    let mut template = template_of(&mut request, &change.scope)?;
    let metadata = template.entry("metadata").or_insert_with(|| json!({}));
    let resource_version = metadata["resourceVersion"].as_str().unwrap_or_default().to_owned();
    metadata["name"] = json!(name);
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        // The control plane's own: told from what it knows.
        for label in ["creator", "actor", "action"] {
            labels.shift_remove(&format!("workflows.argoproj.io/{label}"));
        }
    }
    let (_, value) = prepare(&change.scope, template, Code::InvalidArgument, app.limits.body_bytes_max)?;
    let command = UpdateTemplate {
        cluster_scope: change.scope.cluster(),
        namespace: change.scope.namespace(),
        name: name.clone(),
        manifest_json: value.to_string(),
        resource_version,
        actor: label_value(&change.identity.name),
    };
    change.give(app, "update", &name, CommandBody::UpdateTemplate(command)).await?;
    find(app, &change.scope, &name).await
}

async fn delete_in<C: Cell>(app: &App<C>, change: Change<'_>, name: String) -> ApiResult {
    let command = DeleteTemplate {
        cluster_scope: change.scope.cluster(),
        namespace: change.scope.namespace(),
        name: name.clone(),
    };
    change.give(app, "delete", &name, CommandBody::DeleteTemplate(command)).await?;
    Ok(Answer(json!({})))
}

fn lint_in<C: Cell>(app: &App<C>, scope: &Scope, identity: &Identity, bytes: &Bytes) -> ApiResult {
    let mut request = decode_object(bytes)?;
    let template = template_of(&mut request, scope)?;
    let (_, value) = prepare(scope, template, Code::Unknown, app.limits.body_bytes_max)?;
    let mut answer = shown(value);
    if let Some(metadata) = answer["metadata"].as_object_mut() {
        metadata.shift_remove("namespace");
    }
    if !answer["metadata"]["labels"].is_object() {
        answer["metadata"]["labels"] = json!({});
    }
    answer["metadata"]["labels"][CREATOR_LABEL] = json!(label_value(&identity.name));
    Ok(Answer(answer))
}

async fn list_in<C: Cell>(app: &App<C>, scope: &Scope, params: &Params) -> ApiResult {
    let view = view(app, params).await?;
    let pattern = params.get("namePattern").unwrap_or_default();
    let wanted =
        |template: &Value| template["metadata"]["name"].as_str().unwrap_or_default().contains(pattern);
    let found = view.templates(scope.cluster(), &scope.namespace());
    let limit = app.limits.list_items_max;
    if found.len() > limit {
        app.metrics.limit_hit("list_items_max");
    }
    let items: Vec<Value> = found.into_iter().filter(wanted).take(limit).map(shown).collect();
    let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
    Ok(Answer(json!({"metadata": {"resourceVersion": view.sequence().to_string()}, "items": items})))
}

/// The handlers of one scope; the two differ in what their paths hold.
macro_rules! handlers {
    ($module:ident, $scope:ty, $named:ty, $of:expr, $of_named:expr) => {
        pub(crate) mod $module {
            use super::*;

            pub(crate) async fn list<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$scope>,
                params: Params,
            ) -> ApiResult {
                list_in(&app, &$of(path), &params).await
            }

            pub(crate) async fn create<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$scope>,
                Extension(identity): Extension<Identity>,
                headers: HeaderMap,
                body: Body,
            ) -> ApiResult {
                let bytes = read_body(&app, body).await?;
                let change = Change { scope: $of(path), identity: &identity, headers: &headers, bytes };
                create_in(&app, change).await
            }

            pub(crate) async fn lint<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$scope>,
                Extension(identity): Extension<Identity>,
                body: Body,
            ) -> ApiResult {
                let bytes = read_body(&app, body).await?;
                lint_in(&app, &$of(path), &identity, &bytes)
            }

            pub(crate) async fn get<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$named>,
            ) -> ApiResult {
                let (scope, name) = $of_named(path);
                find(&app, &scope, &name).await
            }

            pub(crate) async fn update<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$named>,
                Extension(identity): Extension<Identity>,
                headers: HeaderMap,
                body: Body,
            ) -> ApiResult {
                let (scope, name) = $of_named(path);
                let bytes = read_body(&app, body).await?;
                update_in(&app, Change { scope, identity: &identity, headers: &headers, bytes }, name).await
            }

            pub(crate) async fn delete<C: Cell>(
                State(app): State<App<C>>,
                Path(path): Path<$named>,
                Extension(identity): Extension<Identity>,
                headers: HeaderMap,
            ) -> ApiResult {
                let (scope, name) = $of_named(path);
                let bytes = Bytes::new();
                delete_in(&app, Change { scope, identity: &identity, headers: &headers, bytes }, name).await
            }
        }
    };
}

handlers!(namespaced, String, (String, String), |namespace| Scope { namespace: Some(namespace) }, |(
    namespace,
    name,
)| (
    Scope { namespace: Some(namespace) },
    name
));
handlers!(cluster, (), String, |()| Scope { namespace: None }, |name| (Scope { namespace: None }, name));
