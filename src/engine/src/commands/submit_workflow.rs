use argosy_model::WorkflowKey;
use argosy_proto::command::{Refusal, Reply, SubmitWorkflow, WorkflowAccepted, reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{AgendaItem, AgendaKind, Workflow};
use argosy_spec::Manifest;
use serde_json::Value;
use std::borrow::Cow;

use crate::draft::Draft;
use crate::evolve_work::agenda_item;
use crate::leader::Parsed;
use crate::references::{self, Resolved};
use crate::{Code, Leader, advance, artifacts, cron, place};
use argosy_spec::effective;

/// Longest name and namespace (Argo's and Kubernetes').
const NAME_LENGTH_MAX: usize = 253;

/// A workflow is accepted: it has a number, and its root is on the agenda.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &mut Leader,
    command: &SubmitWorkflow,
) -> Result<Reply, Refusal> {
    check_names(command)?;
    let key = WorkflowKey { namespace: command.namespace.clone(), name: command.name.clone() };
    if draft.state.workflow_id(&key).is_some() {
        return Err(
            Code::WorkflowExists.refuse(format!("workflows.argoproj.io {:?} already exists", command.name))
        );
    }
    if command.manifest_json.len() > leader.limits.manifest_bytes_max {
        return Err(Code::ManifestTooLarge.refuse(format!(
            "the manifest has {} bytes, the limit is {}",
            command.manifest_json.len(),
            leader.limits.manifest_bytes_max
        )));
    }
    if draft.state.workflows_active() >= leader.limits.workflows_active_max {
        return Err(Code::TooManyWorkflows.refuse(format!(
            "{} workflows are under way, which is the limit: submit again when some are over",
            leader.limits.workflows_active_max
        )));
    }
    let Accepted { manifest, runs: effective, resolved, text } = read(draft, leader, command)?;
    let (pod_json, summary_json) = (place::pod_json(&manifest), summary_json(&manifest));
    let preview =
        Workflow { namespace: command.namespace.clone(), name: command.name.clone(), ..Workflow::default() };
    let parsed = Parsed::new(effective.unwrap_or(manifest), &preview);
    place::check(&parsed).map_err(|reason| Code::Unplaceable.refuse(reason))?;
    place::check_runtimes(&draft.state, &parsed.manifest)?;
    let reference = parsed.manifest.spec.artifact_repository_ref.as_ref();
    let artifact_repository_json =
        artifacts::repository(&draft.state, &command.namespace, reference, &leader.artifact_repository);
    let workflow = draft.state.meta.workflow_next;
    draft.emit(Body::WorkflowAccepted(fact::WorkflowAccepted {
        workflow,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        uid: command.uid.clone(),
        creator: command.creator.clone(),
        manifest_json: text,
        pod_json,
        summary_json,
        artifact_repository_json: artifact_repository_json
            .unwrap_or_else(|problem| artifacts::unresolved(&problem)),
    }));
    if let Some(resolved) = resolved {
        draft.emit(Body::WorkflowResolved(fact::WorkflowResolved {
            workflow,
            resolved_json: resolved.manifest.to_string(),
            stored_json: resolved.stored.to_string(),
        }));
    }
    if advance::configured::configure(draft, workflow, &parsed.manifest)
        && advance::lock::enter_workflow(draft, workflow, &parsed.manifest)
    {
        advance::workflow::accepted(draft, workflow, &parsed.manifest);
        let item: AgendaItem = agenda_item(AgendaKind::Start, 0);
        draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
    }
    if !command.cron.is_empty()
        && let Some(cron) = cron::find(&draft.state, &command.namespace, &command.cron)
    {
        draft.emit(Body::WorkflowOwned(fact::WorkflowOwned { workflow, cron, backfill: false }));
    }
    Ok(Reply {
        body: Some(reply::Body::WorkflowAccepted(WorkflowAccepted {
            workflow_id: workflow,
            namespace: command.namespace.clone(),
            name: command.name.clone(),
            uid: command.uid.clone(),
            resource_version: (draft.state.sequence() + 1).to_string(),
        })),
    })
}

/// What [`decide`] would refuse of the manifest itself.
pub(crate) fn check(draft: &Draft, leader: &Leader, command: &SubmitWorkflow) -> Result<(), Refusal> {
    check_names(command)?;
    read(draft, leader, command).map(|_| ())
}

fn check_names(command: &SubmitWorkflow) -> Result<(), Refusal> {
    for (what, text) in [("namespace", &command.namespace), ("name", &command.name), ("uid", &command.uid)] {
        if text.is_empty() || text.len() > NAME_LENGTH_MAX {
            return Err(Code::InvalidArgument
                .refuse(format!("the workflow's {what} must have 1 to {NAME_LENGTH_MAX} bytes")));
        }
    }
    Ok(())
}

/// Metadata and arguments: all that lists show of a manifest.
pub(crate) fn summary_json(manifest: &Manifest) -> String {
    serde_json::json!({
        "metadata": {
            "generateName": manifest.metadata.generate_name,
            "labels": manifest.labels(),
            "annotations": manifest.annotations(),
        },
        "spec": {"arguments": manifest.spec.arguments},
    })
    .to_string()
}

/// A manifest that can be accepted.
struct Accepted {
    /// As written, references to stored templates followed.
    manifest: Manifest,
    /// As it runs, where that is something else.
    runs: Option<Manifest>,
    resolved: Option<Resolved>,
    /// As it is kept.
    text: String,
}

fn read(draft: &Draft, leader: &Leader, command: &SubmitWorkflow) -> Result<Accepted, Refusal> {
    let invalid = |message: String| Code::InvalidManifest.refuse(message);
    let typed = |value| {
        Manifest::from_value(value).map_err(|problems| {
            invalid(problems.iter().map(argosy_spec::Diagnostic::line).collect::<Vec<_>>().join("\n"))
        })
    };
    let value: Value = serde_json::from_str(&command.manifest_json)
        .map_err(|error| invalid(format!("the manifest is not JSON: {error}")))?;
    if let Some(kind) =
        value.get("kind").and_then(Value::as_str).filter(|kind| !["", "Workflow"].contains(kind))
    {
        return Err(invalid(format!("kind {kind} is not a workflow: create it as a template")));
    }
    let mut resolved = references::resolve(&draft.state, &command.namespace, &value)?;
    let mut text = command.manifest_json.clone();
    let value = if resolved.is_none() && leader.defaults.is_some() {
        let value = leader.over_defaults(value);
        text = value.to_string();
        value
    } else {
        value
    };
    if let Some(resolved) = &mut resolved {
        resolved.manifest = leader.over_defaults(resolved.manifest.take());
        let labelled = labelled(value.clone(), &resolved.manifest);
        resolved.manifest["metadata"] = labelled["metadata"].clone();
        text = labelled.to_string();
    }
    let bytes_max = leader.limits.manifest_bytes_max;
    let too_large = |resolved: &Resolved| resolved.manifest.to_string().len() > bytes_max;
    if resolved.as_ref().is_some_and(too_large) {
        return Err(Code::ManifestTooLarge.refuse(format!(
            "with the templates it refers to, the manifest has more than {bytes_max} bytes"
        )));
    }
    let value = resolved.as_ref().map_or(value, |resolved| resolved.manifest.clone());
    let runs = match effective(&value) {
        Cow::Borrowed(_) => None,
        Cow::Owned(value) => Some(typed(value)?),
    };
    let manifest = typed(value)?;
    place::validate(&manifest).map_err(|message| invalid(argosy_spec::references::plain(&message)))?;
    Ok(Accepted { manifest, runs, resolved, text })
}

/// The manifest with the labels and annotations that its references and its `workflowMetadata` give it, as far as it
/// came by a reference.
fn labelled(mut value: Value, resolved: &Value) -> Value {
    let reference = value.pointer("/spec/workflowTemplateRef").and_then(Value::as_object).cloned();
    let Some(name) = reference.as_ref().and_then(|reference| reference.get("name")?.as_str()) else {
        return value;
    };
    let of_cluster = reference.as_ref().and_then(|reference| reference.get("clusterScope")?.as_bool());
    let kind = if of_cluster == Some(true) { "cluster-workflow-template" } else { "workflow-template" };
    let of = |field: &str| {
        let given = resolved.pointer(&format!("/spec/workflowMetadata/{field}"));
        given.and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut labels = of("labels");
    labels.insert(format!("workflows.argoproj.io/{kind}"), name.into());
    for (field, given) in [("labels", labels), ("annotations", of("annotations"))] {
        if given.is_empty() {
            continue;
        }
        if !value["metadata"][field].is_object() {
            value["metadata"][field] = serde_json::json!({});
        }
        for (key, text) in given {
            value["metadata"][field][key] = text;
        }
    }
    value
}
