use argosy_model::WorkflowKey;
use argosy_proto::command::{Refusal, Reply, SubmitWorkflow, WorkflowAccepted, reply};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{AgendaItem, AgendaKind, Workflow};
use argosy_spec::Manifest;
use std::borrow::Cow;

use crate::draft::Draft;
use crate::effective::effective;
use crate::evolve_work::agenda_item;
use crate::leader::Parsed;
use crate::{Code, Leader, advance, place};

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
    let (manifest, effective) = read(&command.manifest_json)?;
    let (pod_json, summary_json) = (place::pod_json(&manifest), summary_json(&manifest));
    let preview =
        Workflow { namespace: command.namespace.clone(), name: command.name.clone(), ..Workflow::default() };
    let parsed = Parsed::new(effective.unwrap_or(manifest), &preview);
    place::check(&parsed).map_err(|reason| Code::Unplaceable.refuse(reason))?;
    let workflow = draft.state.meta.workflow_next;
    draft.emit(Body::WorkflowAccepted(fact::WorkflowAccepted {
        workflow,
        namespace: command.namespace.clone(),
        name: command.name.clone(),
        uid: command.uid.clone(),
        creator: command.creator.clone(),
        manifest_json: command.manifest_json.clone(),
        pod_json,
        summary_json,
    }));
    advance::workflow::accepted(draft, workflow, &parsed.manifest);
    let item: AgendaItem = agenda_item(AgendaKind::Start, 0);
    draft.emit(Body::AgendaPushed(fact::AgendaPushed { workflow, item: Some(item) }));
    drop_oldest(draft, leader);
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
            "labels": manifest.metadata.labels,
            "annotations": manifest.metadata.annotations,
        },
        "spec": {"arguments": manifest.spec.arguments},
    })
    .to_string()
}

/// The manifest as written, and as it runs where that is something else.
fn read(json: &str) -> Result<(Manifest, Option<Manifest>), Refusal> {
    let invalid = |message: String| Code::InvalidManifest.refuse(message);
    let typed = |value| {
        Manifest::from_value(value).map_err(|problems| {
            invalid(problems.iter().map(argosy_spec::Diagnostic::line).collect::<Vec<_>>().join("\n"))
        })
    };
    let value =
        serde_json::from_str(json).map_err(|error| invalid(format!("the manifest is not JSON: {error}")))?;
    let runs = match effective(&value) {
        Cow::Borrowed(_) => None,
        Cow::Owned(value) => Some(typed(value)?),
    };
    let manifest = typed(value)?;
    place::validate(&manifest).map_err(invalid)?;
    Ok((manifest, runs))
}

/// Finished workflows beyond the maximum leave, oldest first; two per submission, so one submission never costs much.
fn drop_oldest(draft: &mut Draft, leader: &mut Leader) {
    for _ in 0..2 {
        if draft.state.index.finished.len() <= leader.limits.workflows_finished_max {
            return;
        }
        let Some((_, workflow)) = draft.state.index.finished.iter().next().copied() else { return };
        draft.emit(Body::WorkflowDeleted(fact::WorkflowDeleted { workflow }));
        leader.forget(workflow);
    }
}
