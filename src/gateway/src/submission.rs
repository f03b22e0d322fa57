//! From a request's workflow to a named, checked manifest, and the answer that shows it with Argo's defaults.

use argosy_model::WorkflowKey;
use serde_json::{Map, Value, json};

use crate::envelope::{ApiError, Code};
use crate::fields::restore_zero_fields;

/// Letters and digits that can't form words, as Kubernetes draws them.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Kubernetes cuts the readable part here, so that generated names stay below 64.
const GENERATED_PREFIX_LENGTH_MAX: usize = 58;
/// Set by the control plane: what a client sends of them is not taken over.
const OWN_METADATA: [&str; 8] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
    "ownerReferences",
];
/// Who made it.
pub(crate) const CREATOR_LABEL: &str = "workflows.argoproj.io/creator";

/// A workflow about to be submitted.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub key: WorkflowKey,
    /// The Workflow object, name and namespace set.
    pub workflow: Value,
    /// The CronWorkflow that it is made of; empty for none.
    pub cron: String,
}

/// The `workflow` of a request's body; `None` if absent or null.
pub(crate) fn workflow_of(request: &mut Map<String, Value>) -> Result<Option<Map<String, Value>>, ApiError> {
    match request.remove("workflow") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(workflow)) => Ok(Some(workflow)),
        Some(other) => Err(cannot_unmarshal(&other, "WorkflowCreateRequest.workflow", "v1alpha1.Workflow")),
    }
}

fn cannot_unmarshal(value: &Value, field: &str, wanted: &str) -> ApiError {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    ApiError::undecodable(format!(
        "json: cannot unmarshal {kind} into Go struct field {field} of type {wanted}"
    ))
}

/// Five characters, drawn anew at each call.
pub(crate) fn draw_suffix() -> String {
    let bytes: [u8; SUFFIX_LENGTH] = rand::random();
    bytes.iter().map(|byte| char::from(SUFFIX_LETTERS[usize::from(*byte) % SUFFIX_LETTERS.len()])).collect()
}

/// A drawn name that begins so.
pub(crate) fn generated_name(prefix: &str) -> String {
    let mut end = prefix.len().min(GENERATED_PREFIX_LENGTH_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &prefix[..end], draw_suffix())
}

fn text(metadata: &Map<String, Value>, field: &str) -> Result<String, ApiError> {
    match metadata.get(field) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            Err(cannot_unmarshal(other, &format!("ObjectMeta.workflow.metadata.{field}"), "string"))
        }
    }
}

/// Settles name and namespace.
pub(crate) fn prepare(namespace: &str, mut workflow: Map<String, Value>) -> Result<Submission, ApiError> {
    let mut metadata = match workflow.remove("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            return Err(cannot_unmarshal(&other, "WorkflowCreateRequest.workflow.metadata", "v1.ObjectMeta"));
        }
    };
    let (own_namespace, name, prefix) =
        (text(&metadata, "namespace")?, text(&metadata, "name")?, text(&metadata, "generateName")?);
    if !own_namespace.is_empty() && own_namespace != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::new(Code::InvalidArgument, message));
    }
    let name = match (name.is_empty(), prefix.is_empty()) {
        (false, _) => name,
        (true, false) => generated_name(&prefix),
        (true, true) => {
            let message = "Workflow.argoproj.io \"\" is invalid: metadata.name: Required value: name or generateName is required";
            return Err(ApiError::new(Code::InvalidArgument, message));
        }
    };
    metadata.retain(|field, _| !OWN_METADATA.contains(&field.as_str()));
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), json!(namespace));
    workflow.insert("metadata".to_owned(), Value::Object(metadata));
    workflow.remove("status");
    let key = WorkflowKey { namespace: namespace.to_owned(), name };
    Ok(Submission { key, workflow: Value::Object(workflow), cron: String::new() })
}

impl Submission {
    /// Checks the manifest, and brings it into the form that is stored; what is wrong is answered with the given code.
    pub fn check(&mut self, code: Code, bytes_max: usize) -> Result<(), ApiError> {
        let options = argosy_spec::Options {
            limits: argosy_spec::Limits { bytes_max, ..argosy_spec::Limits::DEFAULT },
            drop_unknown_fields: true,
            api_path: Some("workflow"),
            ..argosy_spec::Options::default()
        };
        let kind = self.workflow.get("kind").and_then(Value::as_str).unwrap_or_default();
        if argosy_spec::is_kind(kind) && !["", "Workflow"].contains(&kind) {
            let message = format!("kind {kind} is not a workflow: create it as what it is");
            return Err(ApiError::new(Code::InvalidArgument, message));
        }
        let document = argosy_spec::parse_value(std::mem::take(&mut self.workflow), &options);
        let document = document.map_err(|problems| refusal(&problems, code))?;
        let problems = document.validate();
        self.workflow = document.value;
        if problems.is_empty() { Ok(()) } else { Err(refusal(&problems, code)) }
    }

    /// An earlier request with the same idempotency key has drawn another name.
    pub fn rename(&mut self, key: &WorkflowKey) {
        if self.key != *key {
            self.workflow["metadata"]["name"] = json!(key.name);
            self.key = key.clone();
        }
    }

    /// The workflow with Argo's defaults written out and no status.
    pub fn answer(&self, creator: &str) -> Value {
        let mut answer = self.workflow.clone();
        if let Some(map) = answer.as_object_mut() {
            map.remove("apiVersion");
            map.remove("kind");
        }
        if !answer["metadata"]["labels"].is_object() {
            answer["metadata"]["labels"] = json!({});
        }
        answer["metadata"]["labels"][CREATOR_LABEL] = json!(label_value(creator));
        restore_zero_fields(&mut answer);
        let templates = answer["spec"].get_mut("templates").and_then(Value::as_array_mut);
        templates.into_iter().flatten().for_each(write_out_defaults);
        answer
    }
}

/// A stored template, checked, in the form that is stored.
pub(crate) fn check_template(template: Value, code: Code, bytes_max: usize) -> Result<Value, ApiError> {
    check_object(template, "template", code, bytes_max)
}

/// Any object with a kind, checked, in the form that is stored; `path` is its name in the request.
pub(crate) fn check_object(
    object: Value,
    path: &'static str,
    code: Code,
    bytes_max: usize,
) -> Result<Value, ApiError> {
    let options = argosy_spec::Options {
        limits: argosy_spec::Limits { bytes_max, ..argosy_spec::Limits::DEFAULT },
        drop_unknown_fields: true,
        api_path: Some(path),
        ..argosy_spec::Options::default()
    };
    let document = argosy_spec::parse_value(object, &options).map_err(|problems| refusal(&problems, code))?;
    let problems = document.validate();
    if problems.is_empty() { Ok(document.value) } else { Err(refusal(&problems, code)) }
}

/// All problems in one message; one that Argo has too keeps Argo's words when it is alone.
fn refusal(problems: &[argosy_spec::Diagnostic], code: Code) -> ApiError {
    let stable = problems.first().map_or("", |problem| problem.code);
    // Argo's decoder stops at the first wrong type, and its clients know the message as it is.
    let error = match problems.first() {
        Some(problem) if problem.message.starts_with("json: cannot unmarshal") => {
            ApiError::undecodable(&problem.message)
        }
        Some(_) | None => {
            let lines: Vec<String> = problems.iter().map(argosy_spec::Diagnostic::line).collect();
            ApiError::new(code, lines.join("\n"))
        }
    };
    error.stable(stable)
}

/// A name as a label's value.
pub(crate) fn label_value(name: &str) -> String {
    const LENGTH_MAX: usize = 63;
    let letter =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    let value: String = name.chars().map(letter).take(LENGTH_MAX).collect();
    value.trim_matches(['-', '_', '.']).to_owned()
}

fn default(object: &mut Value, key: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.entry(key).or_insert(value);
    }
}

/// What Argo's types write even when it is empty.
pub(crate) fn write_out_defaults(template: &mut Value) {
    for key in ["inputs", "outputs", "metadata"] {
        default(template, key, json!({}));
    }
    for kind in ["container", "script"] {
        if let Some(container) = template.get_mut(kind).filter(|container| container.is_object()) {
            default(container, "name", json!(""));
            default(container, "resources", json!({}));
        }
    }
    let groups = template.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    for step in groups.filter_map(Value::as_array_mut).flatten() {
        default(step, "arguments", json!({}));
    }
    let tasks = template.get_mut("dag").and_then(|dag| dag.get_mut("tasks")).and_then(Value::as_array_mut);
    for task in tasks.into_iter().flatten() {
        default(task, "arguments", json!({}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(metadata: Value) -> Result<Submission, ApiError> {
        let workflow = json!({"metadata": metadata, "spec": {}, "status": {"phase": "Succeeded"}});
        prepare("ns", workflow.as_object().unwrap().clone())
    }

    #[test]
    fn names_are_kept_drawn_or_missed() {
        assert_eq!(prepared(json!({"name": "a"})).unwrap().key.name, "a");
        let drawn = prepared(json!({"generateName": "a-"})).unwrap();
        assert_eq!((drawn.key.name.len(), drawn.key.name.starts_with("a-")), (7, true));
        assert_eq!(drawn.workflow["metadata"]["name"], json!(drawn.key.name));
        assert_eq!(prepared(json!({"generateName": "é".repeat(60)})).unwrap().key.name.len(), 63);
        assert!(prepared(json!({})).unwrap_err().message.contains("name or generateName is required"));
        assert!(prepared(json!({"name": 5})).unwrap_err().message.contains("cannot unmarshal number"));
    }

    #[test]
    fn another_namespace_and_the_control_planes_fields_are_not_taken() {
        assert_eq!(prepared(json!({"name": "a", "namespace": "other"})).unwrap_err().status, 400);
        let submission = prepared(json!({"name": "a", "uid": "mine", "labels": {"l": "v"}})).unwrap();
        assert_eq!(
            submission.workflow["metadata"],
            json!({"name": "a", "namespace": "ns", "labels": {"l": "v"}})
        );
        assert_eq!(submission.workflow.get("status"), None);
    }

    #[test]
    fn creators_become_labels() {
        assert_eq!(label_value("a b@c.d-"), "a-b-c.d");
    }
}
