//! Argo's JSON shapes of what state holds.

mod artifact;
mod config_map;
mod containers;
mod cron;
mod drill;
mod locks;
mod tree;

use argosy_model::{Fence, WorkflowId, WorkflowPhase};
use argosy_proto::common::Assignment;
use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use crate::metrics;
use crate::state::State;
use argosy_spec::effective;
use tree::Tree;

pub use config_map::{CLUSTER_ANNOTATION, DIFFERS_ANNOTATION, config_map_json, config_maps_json};
pub use cron::{
    cron_answer, cron_has_status, cron_json, crons_json, event_binding_json, event_bindings_json,
};

pub use drill::{drill_json, drill_mode_word, drill_plan_json, drill_schedules_json, drills_json};

/// A time as Kubernetes writes it: UTC, whole seconds.
pub(crate) fn time_text(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days since 1970 to a date of the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Nodes up to which a node's progress counts all that follows it, as Argo's does; above, what is below it in the tree.
const EXACT_PROGRESS_NODES_MAX: usize = 1_000;

/// The workflow as Argo's API shows it; `None` when there is none.
///
/// Nodes carry two fields of ours: `cluster`, and `attempts` with fence, cluster and phase of each.
#[must_use]
pub fn workflow_json(state: &State, id: WorkflowId) -> Option<Value> {
    let row = state.workflow(id)?;
    let manifest = stored(state, id)?;
    let mut shown = head(row, &manifest);
    if let Some(owner) = owner(state, row) {
        shown["metadata"]["ownerReferences"] = json!([owner]);
    }
    let fields = shown.as_object_mut()?;
    fields.insert("spec".to_owned(), spec(row, &manifest));
    fields.insert("status".to_owned(), status(state, id, row, &manifest));
    if artifact::waits_for_deletion(row, &manifest) {
        shown["metadata"]["finalizers"] = json!([artifact::FINALIZER]);
    }
    Some(shown)
}

/// What a list needs of a workflow: metadata, arguments, phase, progress; no nodes, no templates.
#[must_use]
pub fn summary(state: &State, id: WorkflowId) -> Option<Value> {
    let row = state.workflow(id)?;
    let manifest: Value = serde_json::from_str(&row.summary_json).ok()?;
    let mut shown = head(row, &manifest);
    let fields = shown.as_object_mut()?;
    let arguments = manifest.pointer("/spec/arguments").cloned().unwrap_or_else(|| json!({}));
    fields.insert("spec".to_owned(), json!({"arguments": arguments}));
    let mut status = Map::new();
    put_outcome(&mut status, row);
    fields.insert("status".to_owned(), Value::Object(status));
    Some(shown)
}

/// The CronWorkflow that a workflow belongs to, as Kubernetes refers to it.
fn owner(state: &State, row: &row::Workflow) -> Option<Value> {
    let cron = state.crons.get(&row.cron).filter(|_| !row.backfill)?;
    Some(json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "name": cron.name,
        "uid": cron.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }))
}

/// An archived workflow as [`summary`] shows a live one, with Argo's mark.
#[must_use]
pub fn archived_summary(state: &State, id: u64) -> Option<Value> {
    let row = state.archived(id)?;
    let manifest: Value = serde_json::from_str(&row.summary_json).ok()?;
    let mut shown = head(row, &manifest);
    shown["metadata"]["labels"]["workflows.argoproj.io/workflow-archiving-status"] = "Persisted".into();
    let arguments = manifest.pointer("/spec/arguments").cloned().unwrap_or_else(|| json!({}));
    shown["spec"] = json!({"arguments": arguments});
    let mut status = Map::new();
    put_outcome(&mut status, row);
    shown["status"] = Value::Object(status);
    Some(shown)
}

fn stored(state: &State, id: WorkflowId) -> Option<Value> {
    serde_json::from_str(&state.manifests.get(&id.0)?.json).ok()
}

fn head(row: &row::Workflow, manifest: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), row.name.clone().into());
    if let Some(prefix) =
        manifest.pointer("/metadata/generateName").filter(|prefix| prefix.as_str() != Some(""))
    {
        metadata.insert("generateName".to_owned(), prefix.clone());
    }
    metadata.insert("namespace".to_owned(), row.namespace.clone().into());
    metadata.insert("uid".to_owned(), row.uid.clone().into());
    metadata.insert("resourceVersion".to_owned(), row.changed_sequence.to_string().into());
    metadata.insert("generation".to_owned(), row.changed_sequence.into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    let of = |kind: &str| {
        let of =
            |path: String| manifest.pointer(&path).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut all = of(format!("/metadata/{kind}"));
        all.extend(of(format!("/spec/workflowMetadata/{kind}")));
        all
    };
    let mut labels = of("labels");
    if !row.creator.is_empty() {
        labels.insert("workflows.argoproj.io/creator".to_owned(), row.creator.clone().into());
    }
    if let Some(phase) = WorkflowPhase::from_number(row.phase) {
        labels.insert("workflows.argoproj.io/phase".to_owned(), phase.as_str().into());
        labels.insert("workflows.argoproj.io/completed".to_owned(), phase.is_completed().to_string().into());
    }
    for (label, value) in [("action", &row.action), ("actor", &row.actor)] {
        if !value.is_empty() {
            labels.insert(format!("workflows.argoproj.io/{label}"), value.clone().into());
        }
    }
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    let mut annotations = of("annotations");
    if row.phase != 0 {
        annotations.insert("workflows.argoproj.io/pod-name-format".to_owned(), "v2".into());
    }
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
    }
    json!({ "metadata": metadata })
}

/// The spec as submitted, with the empty objects that Argo's API adds.
fn spec(row: &row::Workflow, manifest: &Value) -> Value {
    let mut spec = manifest.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    spec.entry("arguments").or_insert_with(|| json!({}));
    for template in spec.get_mut("templates").and_then(Value::as_array_mut).into_iter().flatten() {
        default_template(template);
    }
    match shutdown(row) {
        Some(strategy) => drop(spec.insert("shutdown".to_owned(), strategy.into())),
        None => drop(spec.remove("shutdown")),
    }
    if row.suspended {
        spec.insert("suspend".to_owned(), true.into());
    } else {
        spec.remove("suspend");
    }
    Value::Object(spec)
}

/// The strategy that a user asked for.
fn shutdown(row: &row::Workflow) -> Option<&'static str> {
    match row.shutdown {
        crate::advance::workflow::STOP => Some("Stop"),
        crate::advance::workflow::TERMINATE => Some("Terminate"),
        _ => None,
    }
}

fn default_template(template: &mut Value) {
    let Some(fields) = template.as_object_mut() else { return };
    for kind in ["inputs", "outputs", "metadata"] {
        fields.entry(kind).or_insert_with(|| json!({}));
    }
    for kind in ["container", "script"] {
        if let Some(container) = fields.get_mut(kind).and_then(Value::as_object_mut) {
            container.entry("name").or_insert_with(|| "".into());
            container.entry("resources").or_insert_with(|| json!({}));
        }
    }
    let groups = fields.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    for step in groups.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut) {
        step.entry("arguments").or_insert_with(|| json!({}));
    }
    let tasks = fields.get_mut("dag").and_then(|dag| dag.get_mut("tasks")).and_then(Value::as_array_mut);
    for task in tasks.into_iter().flatten().filter_map(Value::as_object_mut) {
        task.entry("arguments").or_insert_with(|| json!({}));
    }
}

/// When its run began: as created, or at the newest retry.
pub(crate) fn started_at_ms(row: &row::Workflow) -> i64 {
    if row.started_at_ms == 0 { row.created_at_ms } else { row.started_at_ms }
}

fn put_outcome(status: &mut Map<String, Value>, row: &row::Workflow) {
    let time = |ms: i64| if ms == 0 { Value::Null } else { time_text(ms).into() };
    let phase = WorkflowPhase::from_number(row.phase);
    if let Some(phase) = phase {
        status.insert("phase".to_owned(), phase.as_str().into());
    }
    let begun = phase.filter(|phase| *phase != WorkflowPhase::Pending);
    status.insert("startedAt".to_owned(), begun.map_or(Value::Null, |_| time(started_at_ms(row))));
    status.insert("finishedAt".to_owned(), time(row.finished_at_ms));
    if !row.message.is_empty() {
        status.insert("message".to_owned(), row.message.clone().into());
    }
    if phase.is_some() {
        status.insert("progress".to_owned(), format!("{}/{}", row.leaves_succeeded, row.leaves_total).into());
    }
}

/// What the workflow holds and waits for.
fn put_locks(status: &mut Map<String, Value>, state: &State, id: WorkflowId) {
    if let Some((_, message)) = state.waits_for((id.0, 0)) {
        status.insert("message".to_owned(), message.into());
    }
    if let Some(synchronization) = locks::synchronization(state, id) {
        status.insert("synchronization".to_owned(), synchronization);
    }
}

/// What the workflow's references came to.
fn put_stored(status: &mut Map<String, Value>, stored_json: &str) {
    let Ok(Value::Object(mut stored)) = serde_json::from_str(stored_json) else { return };
    let templates = stored.get_mut("storedTemplates").and_then(Value::as_object_mut).into_iter().flatten();
    templates.for_each(|(_, template)| default_template(template));
    if let Some(spec) = stored.get_mut("storedWorkflowTemplateSpec") {
        let templates = spec.get_mut("templates").and_then(Value::as_array_mut).into_iter().flatten();
        templates.for_each(default_template);
    }
    status.append(&mut stored);
}

/// A stored template as Argo's API shows it; `None` when there is none.
#[must_use]
pub fn template_json(state: &State, cluster_scope: bool, namespace: &str, name: &str) -> Option<Value> {
    let key = (cluster_scope, namespace.to_owned(), name.to_owned());
    state.templates.get(&key).and_then(|row| shown_template(&key, row))
}

/// The stored templates of a namespace (empty: of all), or of the cell's own scope, by name.
#[must_use]
pub fn templates_json(state: &State, cluster_scope: bool, namespace: &str) -> Vec<Value> {
    let from = (cluster_scope, namespace.to_owned(), String::new());
    let mine =
        |key: &(bool, String, String)| key.0 == cluster_scope && (namespace.is_empty() || key.1 == namespace);
    let found = state.templates.range(from..).take_while(|(key, _)| mine(key));
    found.filter_map(|(key, row)| shown_template(key, row)).collect()
}

fn shown_template(key: &(bool, String, String), row: &row::Template) -> Option<Value> {
    let mut shown: Value = serde_json::from_str(&row.json).ok()?;
    let of = |kind: &str| {
        shown.pointer(&format!("/metadata/{kind}")).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (mut labels, annotations) = (of("labels"), of("annotations"));
    let action = if row.actor.is_empty() { "" } else { "Update" };
    for (label, value) in [("creator", row.creator.as_str()), ("actor", &row.actor), ("action", action)] {
        if !value.is_empty() {
            labels.insert(format!("workflows.argoproj.io/{label}"), value.into());
        }
    }
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), key.2.clone().into());
    if !key.0 {
        metadata.insert("namespace".to_owned(), key.1.clone().into());
    }
    metadata.insert("uid".to_owned(), row.uid.clone().into());
    metadata.insert("resourceVersion".to_owned(), row.changed_sequence.to_string().into());
    metadata.insert("generation".to_owned(), row.generation.into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), Value::Object(labels));
    }
    if !annotations.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(annotations));
    }
    shown["metadata"] = Value::Object(metadata);
    Some(shown)
}

fn status(state: &State, id: WorkflowId, row: &row::Workflow, manifest: &Value) -> Value {
    let mut status = Map::new();
    put_outcome(&mut status, row);
    put_locks(&mut status, state, id);
    if row.phase == 0 {
        return Value::Object(status);
    }
    let kept = state.manifests.get(&id.0);
    let resolved: Option<Value> = kept
        .filter(|kept| !kept.resolved_json.is_empty())
        .and_then(|kept| serde_json::from_str(&kept.resolved_json).ok());
    put_stored(&mut status, kept.map_or("", |kept| kept.stored_json.as_str()));
    let manifest = effective(resolved.as_ref().unwrap_or(manifest));
    let tree = Tree::new(state, id.0, row, &manifest);
    status.insert("progress".to_owned(), tree.total_progress().into());
    status.insert("nodes".to_owned(), Value::Object(tree.nodes()));
    let mut conditions = Vec::new();
    if tree.has_pods() {
        let running = if row.finished_at_ms == 0 && tree.runs_pods() { "True" } else { "False" };
        conditions.push(json!({"type": "PodRunning", "status": running}));
    }
    if row.finished_at_ms != 0 {
        conditions.push(json!({"type": "Completed", "status": "True"}));
    }
    let problems = metrics::problems(state, id.0, row, &manifest);
    if !problems.is_empty() {
        let message = problems.join(", ");
        conditions.push(json!({"type": "MetricsError", "status": "True", "message": message}));
    }
    if !conditions.is_empty() {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
    let mut outputs = Map::new();
    if !row.outputs.is_empty() {
        let shown = row.outputs.iter().map(|output| json!({"name": output.name, "value": output.value}));
        outputs.insert("parameters".to_owned(), shown.collect());
    }
    if !row.artifacts.is_empty() {
        outputs.insert("artifacts".to_owned(), artifact::list(&row.artifacts));
    }
    if !outputs.is_empty() {
        status.insert("outputs".to_owned(), Value::Object(outputs));
    }
    artifact::put_status(&mut status, row, &manifest);
    let claims = claims(row, &manifest);
    if !claims.is_empty() {
        status.insert("persistentVolumeClaims".to_owned(), Value::Array(claims));
    }
    Value::Object(status)
}

/// The claims of the workflow's own: agents make them with its first Pods, and remove them as `volumeClaimGC` says.
fn claims(row: &row::Workflow, manifest: &Value) -> Vec<Value> {
    let phase = WorkflowPhase::from_number(row.phase);
    let strategy = manifest.pointer("/spec/volumeClaimGC/strategy").and_then(Value::as_str);
    let is_gone = phase == Some(WorkflowPhase::Succeeded)
        || strategy == Some("OnWorkflowCompletion") && phase.is_some_and(WorkflowPhase::is_completed);
    let templates = manifest.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    let names = templates
        .into_iter()
        .flatten()
        .filter_map(|claim| claim.pointer("/metadata/name").and_then(Value::as_str));
    let shown = |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": format!("{}-{name}", row.name)}});
    if is_gone { Vec::new() } else { names.map(shown).collect() }
}

impl State {
    /// What the cluster of a fence is to run; `None` when it should not run (any more).
    #[must_use]
    pub fn assignment(&self, fence: &Fence) -> Option<Assignment> {
        let attempt = self.attempts.get(fence).filter(|attempt| !attempt.stopping && !attempt.left)?;
        let work = self
            .works
            .get(&(attempt.workflow, attempt.node))
            .filter(|work| work.fence.as_ref() == Some(fence))?;
        let node = self.node(attempt.workflow, attempt.node)?;
        let workflow = self.workflows.get(&attempt.workflow)?;
        Some(Assignment {
            fence: Some(*fence),
            namespace: workflow.namespace.clone(),
            workflow: workflow.name.clone(),
            workflow_uid: workflow.uid.clone(),
            node_id: argosy_model::node_id(&workflow.name, &node.name),
            node_name: node.name.clone(),
            pod_name: argosy_model::pod_name(&workflow.name, &work.template_name, &node.name),
            template_json: work.template_json.clone(),
            workflow_pod_json: if work.workflow_pod_json.is_empty() {
                workflow.pod_json.clone()
            } else {
                work.workflow_pod_json.clone()
            },
            requests: work.requests.clone(),
            exclusive: attempt.exclusive_lease_ms > 0,
            on_exit: node.on_exit,
            deadline_ms: work.deadline_ms,
            stop_grace_ms: work.stop_grace_ms,
            capture_result: Some(work.capture_result),
            exclusive_lease_ms: attempt.exclusive_lease_ms,
            artifact_prefix: argosy_model::artifact_prefix(self.cell(), &workflow.uid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(1_709_210_096_789), "2024-02-29T12:34:56Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59Z");
    }
}
