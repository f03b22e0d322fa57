//! Labels that a workflow asks to be computed: `workflowMetadata.labelsFrom`.

use argosy_expr::{Env, Limits, Value, program};
use argosy_spec::Manifest;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The computed labels of a workflow that is accepted under this name.
///
/// # Errors
/// Argo's message: the workflow ends with it when it starts.
pub(crate) fn computed_labels(
    manifest: &Manifest,
    namespace: &str,
    name: &str,
    now_ms: i64,
) -> Result<BTreeMap<String, String>, String> {
    let asked = manifest.spec.workflow_metadata.iter().flat_map(|metadata| &metadata.labels_from);
    let mut labels = BTreeMap::new();
    for (label, from) in asked {
        let expression = from.expression.as_str();
        let told = |reason: String| {
            format!("failed to evaluate label {label:?} expression {expression:?}: {reason}")
        };
        let value = program::compile(expression)
            .and_then(|program| program.evaluate(&names(manifest, namespace, name), &Limits::DEFAULT, now_ms))
            .map_err(|error| told(error.to_string()))?;
        let text = value.as_text().ok_or_else(|| {
            let kind = value.go_type();
            format!("failed to evaluate label {label:?} expression {expression:?} evaluted to {kind} but must be a string")
        })?;
        labels.insert(label.clone(), text.to_owned());
    }
    Ok(labels)
}

/// What the expressions can name.
fn names(manifest: &Manifest, namespace: &str, name: &str) -> Env {
    let mut env = Env::default();
    env.insert_text("workflow.name", name);
    env.insert_text("workflow.namespace", namespace);
    env.insert_text("workflow.mainEntrypoint", &manifest.spec.entrypoint);
    env.insert_text("workflow.serviceAccountName", &manifest.spec.service_account_name);
    let parameters = &manifest.spec.arguments.parameters;
    let values = parameters.iter().filter_map(|parameter| {
        let value = parameter.value.as_ref().or(parameter.default.as_ref())?;
        Some((parameter.name.clone(), value.clone()))
    });
    for (group, values) in [
        ("parameters", values.collect()),
        ("labels", manifest.labels()),
        ("annotations", manifest.annotations()),
    ] {
        let values: BTreeMap<Arc<str>, Value> =
            values.into_iter().map(|(name, value)| (Arc::from(name), Value::from(value.as_str()))).collect();
        // A map of texts is always within the bounds of depth.
        env.insert(&format!("workflow.{group}"), Value::map(values).unwrap_or(Value::Nil));
    }
    env
}
