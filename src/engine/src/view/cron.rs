//! CronWorkflows and WorkflowEventBindings as Argo's API shows them.

use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use super::{default_template, time_text};
use crate::cron::{self, children};
use crate::state::{Child, State};

/// The schedules that were used last.
const USED_SCHEDULE: &str = "cronworkflows.argoproj.io/last-used-schedule";
/// Nothing starts any more.
const COMPLETED: &str = "cronworkflows.argoproj.io/completed";

/// A CronWorkflow; `None` when there is none.
#[must_use]
pub fn cron_json(state: &State, namespace: &str, name: &str) -> Option<Value> {
    shown_cron(state, cron::find(state, namespace, name)?)
}

/// The CronWorkflows of a namespace (empty: of all), by name.
#[must_use]
pub fn crons_json(state: &State, namespace: &str) -> Vec<Value> {
    let from = (std::sync::Arc::from(namespace), std::sync::Arc::from(""));
    let mine = |found: &str| namespace.is_empty() || found == namespace;
    let found = state.index.crons.range(from..).take_while(|((found, _), _)| mine(found));
    found.filter_map(|(_, id)| shown_cron(state, *id)).collect()
}

fn shown_cron(state: &State, id: u64) -> Option<Value> {
    let row = state.crons.get(&id)?;
    let status = row.status.clone().unwrap_or_default();
    let object: Value = serde_json::from_str(&row.json).ok()?;
    let mut shown = json!({});
    let mut metadata = head(&object, &row.name, &row.namespace, &row.uid, row.changed_sequence);
    metadata.insert("generation".to_owned(), row.generation.into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    let mut labels = of(&object, "labels");
    let action = if row.actor.is_empty() { "" } else { "Update" };
    for (label, value) in [("creator", row.creator.as_str()), ("actor", &row.actor), ("action", action)] {
        if !value.is_empty() {
            labels.insert(format!("workflows.argoproj.io/{label}"), value.into());
        }
    }
    if status.phase() == row::CronPhase::Stopped {
        labels.insert(COMPLETED.to_owned(), "true".into());
    }
    let mut annotations = of(&object, "annotations");
    if !status.used_schedule.is_empty() {
        annotations.insert(USED_SCHEDULE.to_owned(), status.used_schedule.clone().into());
    }
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(map));
        }
    }
    shown["metadata"] = Value::Object(metadata);
    shown["spec"] = spec(&object);
    shown["status"] = status_json(state, id, row, &status);
    Some(shown)
}

/// An object that is not stored, with what Argo's types write even when it is empty.
#[must_use]
pub fn cron_answer(object: &Value) -> Value {
    let mut shown = json!({"metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({}))});
    shown["spec"] = spec(object);
    shown["status"] = json!({
        "active": null, "lastScheduledTime": null, "conditions": null, "succeeded": 0, "failed": 0, "phase": "",
    });
    shown
}

fn of(object: &Value, kind: &str) -> Map<String, Value> {
    object.pointer(&format!("/metadata/{kind}")).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn head(object: &Value, name: &str, namespace: &str, uid: &str, sequence: u64) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    if let Some(prefix) =
        object.pointer("/metadata/generateName").filter(|prefix| prefix.as_str() != Some(""))
    {
        metadata.insert("generateName".to_owned(), prefix.clone());
    }
    metadata.insert("namespace".to_owned(), namespace.into());
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("resourceVersion".to_owned(), sequence.to_string().into());
    metadata
}

/// The spec with the empty objects that Argo's types write.
fn spec(object: &Value) -> Value {
    let mut spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
    if spec.get("suspend") == Some(&Value::Bool(false)) {
        spec.as_object_mut().map(|fields| fields.shift_remove("suspend"));
    }
    if !spec["workflowSpec"].is_object() {
        spec["workflowSpec"] = json!({});
    }
    if spec["workflowSpec"].get("arguments").is_none() {
        spec["workflowSpec"]["arguments"] = json!({});
    }
    let templates = spec["workflowSpec"].get_mut("templates").and_then(Value::as_array_mut);
    templates.into_iter().flatten().for_each(default_template);
    spec
}

fn status_json(state: &State, id: u64, row: &row::Cron, status: &row::CronStatus) -> Value {
    let active: Vec<Value> = children(state, id, Child::Active)
        .filter_map(|workflow| {
            let child = state.workflows.get(&workflow)?;
            Some(json!({
                "kind": "Workflow",
                "namespace": child.namespace,
                "name": child.name,
                "uid": child.uid,
                "apiVersion": "argoproj.io/v1alpha1",
                "resourceVersion": child.changed_sequence.to_string(),
            }))
        })
        .collect();
    let conditions: Vec<Value> =
        [("SpecError", &status.spec_error), ("SubmissionError", &status.submission_error)]
            .into_iter()
            .filter(|(_, message)| !message.is_empty())
            .map(|(kind, message)| json!({"type": kind, "status": "True", "message": message}))
            .collect();
    let list = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    let last = status.last_scheduled_ms;
    json!({
        "active": list(active),
        "lastScheduledTime": if last == 0 { Value::Null } else { time_text(last).into() },
        "conditions": list(conditions),
        "succeeded": row.succeeded,
        "failed": row.failed,
        "phase": match status.phase() {
            row::CronPhase::Unspecified => "",
            row::CronPhase::Active => "Active",
            row::CronPhase::Stopped => "Stopped",
        },
    })
}

/// Whether a CronWorkflow's controller has written a status: Argo's API shows an empty one in any case.
#[must_use]
pub fn cron_has_status(state: &State, namespace: &str, name: &str) -> bool {
    let row = cron::find(state, namespace, name).and_then(|id| state.crons.get(&id));
    row.and_then(|row| row.status.as_ref()).is_some_and(|status| status.written)
}

/// A WorkflowEventBinding; `None` when there is none.
#[must_use]
pub fn event_binding_json(state: &State, namespace: &str, name: &str) -> Option<Value> {
    let key = (namespace.to_owned(), name.to_owned());
    shown_binding(&key, state.event_bindings.get(&key)?)
}

/// The WorkflowEventBindings of a namespace (empty: of all), by name.
#[must_use]
pub fn event_bindings_json(state: &State, namespace: &str) -> Vec<Value> {
    let from = (namespace.to_owned(), String::new());
    let mine = |found: &str| namespace.is_empty() || found == namespace;
    let found = state.event_bindings.range(from..).take_while(|(key, _)| mine(&key.0));
    found.filter_map(|(key, row)| shown_binding(key, row)).collect()
}

fn shown_binding(key: &(String, String), row: &row::EventBinding) -> Option<Value> {
    let object: Value = serde_json::from_str(&row.json).ok()?;
    let mut metadata = head(&object, &key.1, &key.0, &row.uid, row.changed_sequence);
    metadata.insert("generation".to_owned(), row.generation.into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    let mut labels = of(&object, "labels");
    if !row.creator.is_empty() {
        labels.insert("workflows.argoproj.io/creator".to_owned(), row.creator.clone().into());
    }
    for (field, map) in [("labels", labels), ("annotations", of(&object, "annotations"))] {
        if !map.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(map));
        }
    }
    Some(json!({"metadata": metadata, "spec": object.get("spec").cloned().unwrap_or_else(|| json!({}))}))
}
