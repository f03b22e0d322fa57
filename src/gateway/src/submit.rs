//! A workflow made of a stored template: Argo's `submit`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::envelope::{AdvisedResult, ApiError, ApiResult, Code};
use crate::http::{Params, decode_object, read_body};
use crate::submission;
use crate::workflow::{self, DryRun};
use crate::{App, Cell, Consistency, View};

/// A workflow may be called `submit`.
pub(crate) async fn get_submit<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    params: Params,
) -> ApiResult {
    workflow::one(&app, &namespace, "submit", &params).await
}

/// POST: a workflow with a reference to the template, and with what the options say.
pub(crate) async fn submit<C: Cell>(
    State(app): State<App<C>>,
    Path(namespace): Path<String>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    body: Body,
) -> AdvisedResult {
    let body = read_body(&app, body).await?;
    let request = decode_object(&body)?;
    let text = |field: &str| request.get(field).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("resourceKind"), text("resourceName"));
    let kind_word = kind.to_ascii_lowercase();
    if ["cronworkflow", "cronworkflows", "cron-workflow", "cronwf", "cwf"].contains(&kind_word.as_str()) {
        return of_cron(&app, &namespace, &identity, (&headers, &body), name, &options_of(&request)).await;
    }
    let cluster_scope = match kind_word.as_str() {
        "workflowtemplate" | "workflow-template" => false,
        "clusterworkflowtemplate" | "cluster-workflow-template" => true,
        _ => {
            let message = format!("Resource kind '{kind}' is not supported for submitting");
            return Err(ApiError::new(Code::InvalidArgument, message));
        }
    };
    let of = if cluster_scope { "" } else { namespace.as_str() };
    let view = app.cell.read(Consistency::Linearizable).await?;
    let Some(template) = view.template(cluster_scope, of, name) else {
        let resource = if cluster_scope { "clusterworkflowtemplates" } else { "workflowtemplates" };
        return Err(ApiError::new(Code::NotFound, format!("{resource}.argoproj.io {name:?} not found")));
    };
    let options = options_of(&request);
    check(&template, name, &options)?;
    let made = made_of(&namespace, cluster_scope, name, &options)?;
    let mut submission = submission::prepare(&namespace, made)?;
    submission.check(Code::InvalidArgument, app.limits.body_bytes_max)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let flag = |field: &str| options.get(field) == Some(&Value::Bool(true));
    let dry = if flag("serverDryRun") || flag("dryRun") { Some(DryRun::Server) } else { None };
    let mut answer = workflow::finish(&app, &identity, submission, uid, (&headers, &body), dry).await?;
    // Argo tells the templates that it has looked at.
    let scope = if cluster_scope { "cluster" } else { "namespaced" };
    let templates = template.pointer("/spec/templates").and_then(Value::as_array).into_iter().flatten();
    let stored: Map<String, Value> = templates
        .map(|template| {
            let mut template = template.clone();
            submission::write_out_defaults(&mut template);
            (format!("{scope}/{name}/{}", template["name"].as_str().unwrap_or_default()), template)
        })
        .collect();
    answer.answer.0["status"]["storedTemplates"] = Value::Object(stored);
    Ok(answer)
}

fn options_of(request: &Map<String, Value>) -> Map<String, Value> {
    request.get("submitOptions").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A workflow of a CronWorkflow's, now: it belongs to it like one that a schedule made.
async fn of_cron<C: Cell>(
    app: &App<C>,
    namespace: &str,
    identity: &Identity,
    (headers, body): (&HeaderMap, &[u8]),
    name: &str,
    options: &Map<String, Value>,
) -> AdvisedResult {
    const SCHEDULED_TIME: &str = "workflows.argoproj.io/scheduled-time";
    let view = app.cell.read(Consistency::Linearizable).await?;
    let Some(cron) = view.cron(namespace, name) else {
        let message = format!("cronworkflows.argoproj.io {name:?} not found");
        return Err(ApiError::new(Code::NotFound, message));
    };
    let mut made = made_of(namespace, false, name, options)?;
    let metadata = made.entry("metadata").or_insert_with(|| json!({}));
    let given = metadata["labels"].as_object().cloned().unwrap_or_default();
    let mut labels = Map::new();
    labels.insert("workflows.argoproj.io/cron-workflow".to_owned(), json!(name));
    let own = |field: &str| cron["spec"]["workflowMetadata"][field].as_object().cloned().unwrap_or_default();
    labels.extend(own("labels"));
    labels.extend(given.into_iter().filter(|(label, _)| label != "workflows.argoproj.io/workflow-template"));
    metadata["labels"] = Value::Object(labels);
    let mut annotations = own("annotations");
    let now = jiff::Timestamp::now().as_millisecond();
    annotations.entry(SCHEDULED_TIME).or_insert_with(|| json!(workflow::time_text(now)));
    annotations.extend(metadata["annotations"].as_object().cloned().unwrap_or_default());
    metadata["annotations"] = Value::Object(annotations);
    let over = made.remove("spec").unwrap_or_default();
    made.insert("spec".to_owned(), overridden(cron["spec"]["workflowSpec"].clone(), &over));
    let mut submission = submission::prepare(namespace, made)?;
    name.clone_into(&mut submission.cron);
    submission.check(Code::InvalidArgument, app.limits.body_bytes_max)?;
    let uid = uuid::Uuid::new_v4().to_string();
    let flag = |field: &str| options.get(field) == Some(&Value::Bool(true));
    let dry = if flag("serverDryRun") || flag("dryRun") { Some(DryRun::Server) } else { None };
    let mut answer = workflow::finish(app, identity, submission, uid, (headers, body), dry).await?;
    answer.answer.0["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "name": name,
        "uid": cron["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    }]);
    Ok(answer)
}

/// A spec with what the options of a submission say instead.
fn overridden(mut spec: Value, over: &Value) -> Value {
    for field in ["entrypoint", "serviceAccountName", "priority"] {
        if let Some(value) = over.get(field) {
            spec[field] = value.clone();
        }
    }
    for parameter in over.pointer("/arguments/parameters").and_then(Value::as_array).into_iter().flatten() {
        if !spec["arguments"]["parameters"].is_array() {
            spec["arguments"]["parameters"] = json!([]);
        }
        let Some(known) = spec["arguments"]["parameters"].as_array_mut() else { continue };
        match known.iter_mut().find(|known| known["name"] == parameter["name"]) {
            Some(known) => *known = parameter.clone(),
            None => known.push(parameter.clone()),
        }
    }
    spec
}

/// What can be said before the control plane is asked: the entrypoint exists, and parameters have values.
fn check(template: &Value, name: &str, options: &Map<String, Value>) -> Result<(), ApiError> {
    let invalid = |message: String| ApiError::new(Code::InvalidArgument, message);
    let given = parameters(options)?;
    let declared = template.pointer("/spec/arguments/parameters").and_then(Value::as_array);
    for parameter in declared.into_iter().flatten() {
        let own = parameter["name"].as_str().unwrap_or_default();
        let has_value = parameter.get("value").is_some() || parameter.get("valueFrom").is_some();
        if !has_value && !given.iter().any(|(name, _)| name == own) {
            return Err(invalid(format!(
                "spec.arguments.{own}.value or spec.arguments.{own}.valueFrom is required"
            )));
        }
    }
    let entrypoint = options.get("entryPoint").and_then(Value::as_str).unwrap_or_default();
    let templates = template.pointer("/spec/templates").and_then(Value::as_array);
    let known = templates.into_iter().flatten().any(|template| template["name"] == entrypoint);
    if !entrypoint.is_empty() && !known {
        return Err(invalid(format!("template reference {name}.{entrypoint} not found")));
    }
    Ok(())
}

fn parameters(options: &Map<String, Value>) -> Result<Vec<(String, String)>, ApiError> {
    let list = options.get("parameters").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
        .map(|pair| {
            let parts = pair.split_once('=').ok_or_else(|| {
                let message = format!("expected parameter of the form: NAME=VALUE. Received: {pair}");
                ApiError::new(Code::Internal, message)
            })?;
            Ok((parts.0.to_owned(), parts.1.to_owned()))
        })
        .collect()
}

/// `a=b,c=d` as an object.
fn pairs(text: &str) -> Map<String, Value> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), json!(value.trim()))).collect()
}

fn made_of(
    namespace: &str,
    cluster_scope: bool,
    name: &str,
    options: &Map<String, Value>,
) -> Result<Map<String, Value>, ApiError> {
    let text = |field: &str| options.get(field).and_then(Value::as_str).unwrap_or_default();
    let prefix = text("generateName");
    let prefix = if prefix.is_empty() { format!("{name}-") } else { prefix.to_owned() };
    let mut metadata = json!({"generateName": prefix, "namespace": namespace});
    if !text("name").is_empty() {
        metadata["name"] = json!(text("name"));
    }
    let kind = if cluster_scope { "cluster-workflow-template" } else { "workflow-template" };
    let mut labels = pairs(text("labels"));
    labels.insert(format!("workflows.argoproj.io/{kind}"), json!(name));
    metadata["labels"] = Value::Object(labels);
    let annotations = pairs(text("annotations"));
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    let mut arguments = json!({});
    let given = parameters(options)?;
    if !given.is_empty() {
        let list = given.iter().map(|(name, value)| json!({"name": name, "value": value}));
        arguments["parameters"] = list.collect();
    }
    let mut reference = json!({"name": name});
    if cluster_scope {
        reference["clusterScope"] = json!(true);
    }
    let mut spec = json!({"arguments": arguments, "workflowTemplateRef": reference});
    for (option, field) in [("entryPoint", "entrypoint"), ("serviceAccount", "serviceAccountName")] {
        if !text(option).is_empty() {
            spec[field] = json!(text(option));
        }
    }
    if let Some(priority) = options.get("priority").filter(|priority| priority.is_i64()) {
        spec["priority"] = priority.clone();
    }
    let mut made = Map::new();
    made.insert("metadata".to_owned(), metadata);
    made.insert("spec".to_owned(), spec);
    Ok(made)
}
