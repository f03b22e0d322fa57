//! One start of a CronWorkflow's workflow: the checks in Argo's order, and the workflow itself.

use argosy_model::WorkflowKey;
use argosy_proto::command::{Refusal, SubmitWorkflow, reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::ConcurrencyPolicy;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::Leader;
use crate::advance::workflow::TERMINATE;
use crate::commands::{shutdown_workflow, submit_workflow};
use crate::cron::{CRON_LABEL, Parsed, SCHEDULED_TIME, children, conditions};
use crate::draft::Draft;
use crate::state::Child;
use crate::view::time_text;

/// The status of a CronWorkflow as it is now.
pub(crate) fn status(draft: &Draft, cron: u64) -> row::CronStatus {
    draft.state.crons.get(&cron).and_then(|row| row.status.clone()).unwrap_or_default()
}

/// Sets it, if it is another.
pub(crate) fn set_status(draft: &mut Draft, cron: u64, new: row::CronStatus) {
    if status(draft, cron) != new {
        draft.emit(Body::CronStatusSet(fact::CronStatusSet { cron, status: Some(new) }));
    }
}

/// Checks the workflow that it would make.
pub(crate) fn check(draft: &Draft, leader: &Leader, parsed: &Parsed, row: &row::Cron) -> Result<(), Refusal> {
    let submit = workflow(parsed, row, row.name.clone(), draft.now().0, &Extra::default());
    submit_workflow::check(draft, leader, &submit)
}

/// What a backfill adds to a workflow.
#[derive(Debug, Default)]
pub(crate) struct Extra<'a> {
    /// A parameter and its value.
    pub argument: Option<(&'a str, String)>,
}

/// Tries to start the workflow for a time of the schedules (in seconds). What keeps it from starting is told by the
/// status.
pub(crate) fn try_start(draft: &mut Draft, leader: &mut Leader, parsed: &Parsed, cron: u64, due: i64) {
    let mut next = status(draft, cron);
    next.written = true;
    next.used_schedule = parsed.cron.schedule_text();
    set_status(draft, cron, next);
    let outcome = decide(draft, leader, parsed, cron, due);
    let mut next = status(draft, cron);
    match outcome {
        Ok(started) => {
            next.spec_error.clear();
            if started {
                next.submission_error.clear();
                next.phase = row::CronPhase::Active.into();
                next.last_scheduled_ms = due.saturating_mul(1000);
            }
        }
        Err(Failure::Spec(message)) => next.spec_error = message,
        Err(Failure::Submission(message)) => next.submission_error = message,
        Err(Failure::Stopped) => next.phase = row::CronPhase::Stopped.into(),
    }
    set_status(draft, cron, next);
}

enum Failure {
    Spec(String),
    Submission(String),
    Stopped,
}

/// True when it started.
fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    parsed: &Parsed,
    cron: u64,
    due: i64,
) -> Result<bool, Failure> {
    let Some(row) = draft.state.crons.get(&cron).cloned() else { return Ok(false) };
    let name = format!("{}-{due}", row.name);
    let submit = workflow(parsed, &row, name, due.saturating_mul(1000), &Extra::default());
    submit_workflow::check(draft, leader, &submit)
        .map_err(|refusal| Failure::Spec(format!("cannot validate Workflow: {}", refusal.message)))?;
    let stops = conditions::stops(draft, parsed, cron).map_err(|error| {
        Failure::Spec(format!("failed to check CronWorkflow '{}' stopping condition: {error}", row.name))
    })?;
    if stops {
        return Err(Failure::Stopped);
    }
    let stopped = status(draft, cron).phase() == row::CronPhase::Stopped;
    if parsed.cron.spec.suspend || stopped {
        return Ok(false);
    }
    let lets = conditions::lets_start(draft, parsed, cron)
        .map_err(|error| Failure::Submission(format!("run policy error: {error}")))?;
    if !lets || !clear_the_way(draft, leader, parsed, cron, &row) {
        return Ok(false);
    }
    let key = WorkflowKey { namespace: submit.namespace.clone(), name: submit.name.clone() };
    if draft.state.workflow_id(&key).is_some() {
        // It was started for this time before: Argo takes it for a repetition, too.
        return Ok(false);
    }
    accept(draft, leader, &submit, cron, false)
        .map(|_| true)
        .map_err(|refusal| Failure::Submission(format!("Failed to submit Workflow: {}", refusal.message)))
}

/// Has a workflow accepted that belongs to the CronWorkflow; gives its number.
pub(crate) fn accept(
    draft: &mut Draft,
    leader: &mut Leader,
    submit: &SubmitWorkflow,
    cron: u64,
    backfill: bool,
) -> Result<u64, Refusal> {
    let accepted = submit_workflow::decide(draft, leader, submit)?;
    let workflow = match accepted.body {
        Some(reply::Body::WorkflowAccepted(accepted)) => accepted.workflow_id,
        Some(_) | None => 0,
    };
    if workflow != 0 {
        draft.emit(Body::WorkflowOwned(fact::WorkflowOwned { workflow, cron, backfill }));
    }
    Ok(workflow)
}

/// What the concurrency policy says to workflows that run: false when nothing may start beside them.
fn clear_the_way(
    draft: &mut Draft,
    leader: &mut Leader,
    parsed: &Parsed,
    cron: u64,
    row: &row::Cron,
) -> bool {
    let policy = parsed.cron.concurrency_policy().unwrap_or_default();
    let active: Vec<u64> = children(&draft.state, cron, Child::Active).collect();
    if active.is_empty() || policy == ConcurrencyPolicy::Allow {
        return true;
    }
    leader.note_policy(&row.namespace, &row.name, &parsed.cron.spec.concurrency_policy);
    if policy == ConcurrencyPolicy::Forbid {
        return false;
    }
    for workflow in active {
        draft.spend(1);
        let ends = draft.state.workflows.get(&workflow).is_some_and(|row| row.shutdown == TERMINATE);
        if !ends {
            shutdown_workflow::request(draft, workflow, TERMINATE, "");
        }
    }
    true
}

/// The workflow for a time: Argo's name, labels and annotations, with a uid that follows from both.
pub(crate) fn workflow(
    parsed: &Parsed,
    row: &row::Cron,
    name: String,
    due_ms: i64,
    extra: &Extra<'_>,
) -> SubmitWorkflow {
    let none = BTreeMap::new();
    let given = parsed.cron.spec.workflow_metadata.as_ref();
    let mut labels = Map::new();
    labels.insert(CRON_LABEL.to_owned(), json!(row.name));
    let mut annotations = Map::new();
    annotations.insert(SCHEDULED_TIME.to_owned(), json!(time_text(due_ms)));
    for (into, from) in [
        (&mut labels, given.map_or(&none, |given| &given.labels)),
        (&mut annotations, given.map_or(&none, |given| &given.annotations)),
    ] {
        into.extend(from.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    let instance = "workflows.argoproj.io/controller-instanceid";
    if let Some(value) = parsed.cron.metadata.labels.get(instance) {
        labels.insert(instance.to_owned(), json!(value));
    }
    let mut spec = parsed.value.pointer("/spec/workflowSpec").cloned().unwrap_or_else(|| json!({}));
    if let Some((argument, value)) = &extra.argument {
        put_parameter(&mut spec, argument, value);
    }
    let manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name, "namespace": row.namespace, "labels": labels, "annotations": annotations,
        },
        "spec": spec,
    });
    SubmitWorkflow {
        namespace: row.namespace.clone(),
        uid: uid(&row.uid, &name, due_ms),
        name,
        manifest_json: manifest.to_string(),
        creator: String::new(),
        cron: String::new(),
    }
}

fn put_parameter(spec: &mut Value, name: &str, value: &str) {
    if !spec["arguments"]["parameters"].is_array() {
        spec["arguments"]["parameters"] = json!([]);
    }
    let Some(parameters) = spec["arguments"]["parameters"].as_array_mut() else { return };
    match parameters.iter_mut().find(|parameter| parameter["name"] == name) {
        Some(parameter) => parameter["value"] = json!(value),
        None => parameters.push(json!({"name": name, "value": value})),
    }
}

/// A UUID (of version 8) that is the same whoever decides.
fn uid(cron: &str, name: &str, due_ms: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [cron.as_bytes(), name.as_bytes(), &due_ms.to_be_bytes()] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
