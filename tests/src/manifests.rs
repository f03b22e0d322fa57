//! Workflows as tests write them, and what they look for in answers.

use serde_json::{Value, json};

/// A container that runs a script of the shell and ends at its first failure.
#[must_use]
pub fn sh(script: &str) -> Value {
    json!({"image": "busybox", "command": ["sh", "-ec"], "args": [script]})
}

/// A workflow of these templates; it begins with `main`.
#[must_use]
pub fn workflow(name: &str, templates: Value) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": templates},
    })
}

/// The node of that display name; null if there is none.
#[must_use]
pub fn node<'a>(workflow: &'a Value, display: &str) -> &'a Value {
    let nodes = workflow["status"]["nodes"].as_object().map(|nodes| nodes.values());
    nodes.into_iter().flatten().find(|node| node["displayName"] == display).unwrap_or(&Value::Null)
}
