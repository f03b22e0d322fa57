//! `workflowMetadata.labelsFrom`: labels that expressions over the workflow's own values come to, set as it starts.

use argosy_proto::fact::{self, fact::Body};
use serde_json::{Value, json};

use crate::advance::Turn;
use crate::commands::parameters;
use crate::express;

/// Longest value of a label.
const LABEL_LENGTH_MAX: usize = 63;

/// Sets the labels; an error is the workflow's message.
pub(super) fn set_labels(turn: &mut Turn<'_>) -> Result<(), String> {
    let parsed = turn.parsed.clone();
    let Some(asked) = parsed.manifest.spec.workflow_metadata.as_ref().map(|metadata| &metadata.labels_from)
    else {
        return Ok(());
    };
    if asked.is_empty() {
        return Ok(());
    }
    let mut labels = Vec::with_capacity(asked.len());
    for (name, from) in asked {
        let failed = |problem: String| format!("{FAILED} {name:?} expression {:?}{problem}", from.expression);
        let value = express::text(&from.expression, &turn.scope(0))
            .map_err(|error| failed(format!(": {error}")))?
            .map_err(|kind| match kind {
                None => failed(" evaluation result is <nil> but must be a string".to_owned()),
                Some(kind) => failed(format!(" evaluted to {kind} but must be a string")),
            })?;
        if !is_label_value(&value) {
            return Err(format!("invalid label value {value:?} for label {name:?}"));
        }
        labels.push((name, value));
    }
    let amend = |text: &str| {
        let mut manifest: Value = serde_json::from_str(text).unwrap_or_default();
        if !manifest["metadata"]["labels"].is_object() {
            manifest["metadata"]["labels"] = json!({});
        }
        for (name, value) in &labels {
            manifest["metadata"]["labels"][name.as_str()] = value.as_str().into();
        }
        manifest.to_string()
    };
    let workflow = turn.workflow;
    let Some(kept) = turn.draft.state.manifests.get(&workflow).cloned() else { return Ok(()) };
    let manifest_json = amend(&kept.json);
    let (summary_json, pod_json) = parameters::derived(&manifest_json).map_err(|refusal| refusal.message)?;
    let pod_json = if kept.resolved_json.is_empty() { pod_json } else { turn.row().pod_json.clone() };
    let amended = fact::WorkflowAmended { workflow, manifest_json, summary_json, pod_json };
    turn.draft.emit(Body::WorkflowAmended(amended));
    if !kept.resolved_json.is_empty() {
        let (resolved_json, stored_json) = (amend(&kept.resolved_json), kept.stored_json.clone());
        turn.draft.emit(Body::WorkflowResolved(fact::WorkflowResolved {
            workflow,
            resolved_json,
            stored_json,
        }));
    }
    turn.leader.forget(workflow);
    if let Some(parsed) = turn.leader.parsed(&turn.draft.state, workflow) {
        turn.parsed = parsed;
    }
    Ok(())
}

/// How the message about a label's expression begins.
pub(crate) const FAILED: &str = "failed to evaluate label";

/// Kubernetes' rule.
fn is_label_value(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = value.as_bytes();
    value.is_empty()
        || bytes.len() <= LABEL_LENGTH_MAX
            && bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|byte| plain(*byte) || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::is_label_value;

    #[test]
    fn label_values_follow_kubernetes() {
        for (value, expected) in [
            ("", true),
            ("a", true),
            ("a-b_c.d", true),
            ("-a", false),
            ("a ", false),
            (&"x".repeat(64), false),
        ] {
            assert_eq!(is_label_value(value), expected, "{value}");
        }
    }
}
