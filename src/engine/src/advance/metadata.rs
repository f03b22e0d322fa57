//! `workflowMetadata`: labels as they must be in Kubernetes, and `labelsFrom`, those that expressions over the workflow's
//! own values come to, set as it starts.

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
    let Some(metadata) = parsed.manifest.spec.workflow_metadata.as_ref() else { return Ok(()) };
    for (name, value) in &metadata.labels {
        check_label(value)
            .map_err(|why| format!("invalid label value {value:?} for label {name:?}: {why}"))?;
    }
    let asked = &metadata.labels_from;
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
        check_label(&value).map_err(|why| {
            let expression = &from.expression;
            format!("invalid label value {value:?} for label {name:?} and expression {expression:?}: {why}")
        })?;
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

/// Kubernetes' rule for values of labels, in its words.
fn check_label(value: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = value.as_bytes();
    let mut broken = Vec::new();
    if bytes.len() > LABEL_LENGTH_MAX {
        broken.push(format!("must be no more than {LABEL_LENGTH_MAX} characters"));
    }
    let fits = value.is_empty()
        || bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|byte| plain(*byte) || b"-_.".contains(byte));
    if !fits {
        broken.push(LABEL_RULE.to_owned());
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join(";")) }
}

const LABEL_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                          and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
                          '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

#[cfg(test)]
mod tests {
    use super::check_label;

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
            assert_eq!(check_label(value).is_ok(), expected, "{value}");
        }
    }
}
