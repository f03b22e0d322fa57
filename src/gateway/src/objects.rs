//! What the routes of stored objects (CronWorkflows, WorkflowEventBindings) share: names, and lists.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::envelope::{Answer, ApiError, ApiResult, Code};
use crate::http::Params;
use crate::selector::{FieldSelector, LabelSelector};
use crate::submission::generated_name;
use crate::{App, Cell};

/// Labels that the control plane sets from what it knows.
const OWN_LABELS: [&str; 3] =
    ["workflows.argoproj.io/creator", "workflows.argoproj.io/actor", "workflows.argoproj.io/action"];

/// An object with its name settled.
pub(crate) struct Named {
    pub name: String,
    pub value: Value,
}

/// Settles name and namespace; `name` is the path's, if it has one.
pub(crate) fn prepare(
    kind: &str,
    namespace: &str,
    mut object: Map<String, Value>,
    name: Option<&str>,
) -> Result<Named, ApiError> {
    object.insert("kind".to_owned(), json!(kind));
    object.shift_remove("status");
    let mut metadata = object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (own, prefix, given) = (text("name"), text("generateName"), text("namespace"));
    if !given.is_empty() && given != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    let name = match name {
        Some(name) => name.to_owned(),
        None if own.is_empty() && !prefix.is_empty() => generated_name(&prefix),
        None => own,
    };
    if name.is_empty() {
        let message = format!(
            "{kind}.argoproj.io \"\" is invalid: metadata.name: Required value: name or generateName is required"
        );
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    metadata.retain(|field, _| matches!(field.as_str(), "labels" | "annotations"));
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|label, _| !OWN_LABELS.contains(&label.as_str()));
    }
    metadata.shift_insert(0, "name".to_owned(), json!(name));
    metadata.shift_insert(1, "namespace".to_owned(), json!(namespace));
    object.insert("metadata".to_owned(), Value::Object(metadata));
    Ok(Named { name, value: Value::Object(object) })
}

/// Those that the selectors of a request choose, in Argo's list.
pub(crate) fn list<C: Cell>(app: &App<C>, params: &Params, found: Vec<Value>, sequence: u64) -> ApiResult {
    let wrong = |error: crate::selector::Invalid| ApiError::new(Code::InvalidArgument, error.to_string());
    let labels =
        LabelSelector::parse(params.get("listOptions.labelSelector").unwrap_or_default()).map_err(wrong)?;
    let fields =
        FieldSelector::parse(params.get("listOptions.fieldSelector").unwrap_or_default()).map_err(wrong)?;
    let of = |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let labels_of = |object: &Value| -> BTreeMap<String, String> {
        let pairs = object["metadata"]["labels"].as_object().into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    let wanted = |object: &Value| {
        fields.matches(&of(object, "namespace"), &of(object, "name")) && labels.matches(&labels_of(object))
    };
    let limit = app.limits.list_items_max;
    if found.len() > limit {
        app.metrics.limit_hit("list_items_max");
    }
    let items: Vec<Value> = found.into_iter().filter(wanted).take(limit).collect();
    let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
    Ok(Answer(json!({"metadata": {"resourceVersion": sequence.to_string()}, "items": items})))
}
