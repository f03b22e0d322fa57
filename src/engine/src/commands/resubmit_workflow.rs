use argosy_model::{NodePhase, NodeType, WorkflowPhase, node_id};
use argosy_proto::command::{Refusal, Reply, ResubmitWorkflow, SubmitWorkflow, reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use crate::commands::parameters::with_parameters;
use crate::commands::{acted, find_workflow, submit_workflow};
use crate::draft::Draft;
use crate::state::{ROW_VERSION, State, phase_of, type_of};
use crate::{Code, Leader};

/// Outcomes taken over by one resubmission: they travel in one batch.
const REMEMBERED_MAX: usize = 5_000;
/// Labels that tell of a workflow's run; its repetition has its own.
const LABELS_OF_A_RUN: [&str; 6] = [
    "workflows.argoproj.io/creator",
    "workflows.argoproj.io/phase",
    "workflows.argoproj.io/completed",
    "workflows.argoproj.io/workflow-archiving-status",
    "workflows.argoproj.io/action",
    "workflows.argoproj.io/actor",
];

/// A new workflow of an old one's manifest; memoized, what succeeded in the old one is not run again.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &ResubmitWorkflow,
) -> Result<Reply, Refusal> {
    let old = find_workflow(&draft.state, &command.namespace, &command.name)?;
    let source = draft.state.clone();
    of(draft, leader, &source, old, command)
}

/// As [`decide`], of an old workflow in another state: that of the archive.
pub(crate) fn of(
    draft: &mut Draft,
    leader: &mut Leader,
    source: &State,
    old: u64,
    command: &ResubmitWorkflow,
) -> Result<Reply, Refusal> {
    let row = source.workflows.get(&old).cloned().unwrap_or_default();
    let phase = WorkflowPhase::from_number(row.phase);
    let failed = matches!(phase, Some(WorkflowPhase::Failed | WorkflowPhase::Error));
    if command.memoized && !failed {
        return Err(Code::NotRetryable.refuse("workflow must be Failed/Error to resubmit in memoized mode"));
    }
    let stored = source.manifests.get(&old).map(|row| row.json.clone()).unwrap_or_default();
    let manifest = again(&stored, command)?;
    let submit = SubmitWorkflow {
        cron: owner(&draft.state, &row),
        namespace: command.namespace.clone(),
        name: command.new_name.clone(),
        uid: command.new_uid.clone(),
        manifest_json: with_parameters(&manifest.to_string(), &command.parameters)?,
        creator: command.creator.clone(),
    };
    let accepted = submit_workflow::decide(draft, leader, &submit)?;
    if let Some(reply::Body::WorkflowAccepted(new)) = &accepted.body {
        // As in Argo, the repetition of a workflow that somebody acted upon names who repeated it.
        if !row.actor.is_empty() {
            acted(draft, new.workflow_id, &command.creator, "");
        }
        if command.memoized {
            remember(draft, leader, outcomes(source, old, command), new.workflow_id)?;
        }
    }
    Ok(accepted)
}

/// The CronWorkflow that a workflow belongs to: its repetition does, too.
fn owner(state: &State, row: &row::Workflow) -> String {
    let cron = state.crons.get(&row.cron).filter(|cron| !cron.deleted && !row.backfill);
    cron.map(|cron| cron.name.clone()).unwrap_or_default()
}

fn again(stored: &str, command: &ResubmitWorkflow) -> Result<Value, Refusal> {
    let mut manifest: Value = serde_json::from_str(stored).map_err(|_| {
        Code::NotRetryable.refuse("the stored manifest cannot be read: submit the workflow again")
    })?;
    let metadata = manifest.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let of = |field: &str| metadata.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut labels = of("labels");
    labels.retain(|name, _| !LABELS_OF_A_RUN.contains(&name.as_str()));
    labels.insert("workflows.argoproj.io/resubmitted-from-workflow".to_owned(), json!(command.name));
    let prefix = metadata.get("generateName").and_then(Value::as_str).filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map_or_else(|| format!("{}-", command.name), str::to_owned);
    let mut fresh = Map::new();
    fresh.insert("name".to_owned(), json!(command.new_name));
    fresh.insert("generateName".to_owned(), json!(prefix));
    fresh.insert("namespace".to_owned(), json!(command.namespace));
    fresh.insert("labels".to_owned(), Value::Object(labels));
    let annotations = of("annotations");
    if !annotations.is_empty() {
        fresh.insert("annotations".to_owned(), Value::Object(annotations));
    }
    manifest["metadata"] = Value::Object(fresh);
    if let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("shutdown");
        spec.remove("suspend");
    }
    Ok(manifest)
}

fn remember(
    draft: &mut Draft,
    leader: &Leader,
    kept: Vec<(String, row::Remembered)>,
    new: u64,
) -> Result<(), Refusal> {
    draft.spend(u32::try_from(kept.len()).unwrap_or(u32::MAX));
    let too_many = || {
        Code::NotRetryable.refuse(format!(
            "more than {REMEMBERED_MAX} outcomes would have to be taken over: resubmit without --memoized, or retry"
        ))
    };
    if kept.len() > REMEMBERED_MAX {
        return Err(too_many());
    }
    for (name, outcome) in kept {
        draft.emit(Body::NodeRemembered(fact::NodeRemembered {
            workflow: new,
            name,
            outcome: Some(outcome),
        }));
        if draft.bytes() > leader.limits.batch_bytes_max {
            return Err(too_many());
        }
    }
    Ok(())
}

/// Leaves that succeeded, by the names that they have in the new workflow.
fn outcomes(state: &State, old: u64, command: &ResubmitWorkflow) -> Vec<(String, row::Remembered)> {
    let nodes = state.nodes.range((old, 0)..=(old, u32::MAX)).map(|(_, node)| node);
    let done = nodes.filter(|node| {
        !node.on_exit
            && phase_of(node) == NodePhase::Succeeded
            && matches!(
                type_of(node),
                NodeType::Pod | NodeType::Suspend | NodeType::Http | NodeType::Plugin | NodeType::Retry
            )
    });
    done.filter_map(|node| {
        let rest = node.name.strip_prefix(command.name.as_str())?;
        let outcome = row::Remembered {
            version: ROW_VERSION,
            message: format!("original pod: {}", node_id(&command.name, &node.name)),
            outputs: node.outputs.clone(),
            origin: old,
        };
        Some((format!("{}{rest}", command.new_name), outcome))
    })
    .collect()
}
