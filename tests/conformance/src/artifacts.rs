//! Artifacts as recordings hold them, whole: names, keys and repositories.

use serde_json::{Map, Value};

/// Where the recordings' store and HTTP server were.
pub const ADDRESS: &str = "10.200.3.1";

/// Whole artifacts, the repository, and what artifact GC left.
#[must_use]
pub fn compare(workflow: &str, ours: &Value, recording: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    let mut same = |what: String, recorded: &Value, found: &Value| {
        let recorded = fill(recorded, workflow, ours);
        if recorded != *found {
            differences.push(format!("{what}: recorded {recorded}, ours {found}"));
        }
    };
    let nodes = ours["status"]["nodes"].as_object().cloned().unwrap_or_default();
    for (name, sides) in recording["artifacts"].as_object().into_iter().flatten() {
        let name = name.replace("$WF", workflow);
        let node = nodes.values().find(|node| node["name"] == name.as_str()).cloned().unwrap_or_default();
        for side in ["inputs", "outputs"] {
            same(format!("{name} {side}.artifacts"), &sides[side], &node[side]["artifacts"]);
        }
    }
    let meta = &recording["meta"];
    if meta["artifactRepositoryRef"].is_object() {
        let found = &ours["status"]["artifactRepositoryRef"];
        same("artifactRepositoryRef".to_owned(), &meta["artifactRepositoryRef"], found);
    }
    if recording["artifacts"].is_object() {
        same("finalizers".to_owned(), &meta["finalizers"], &ours["metadata"]["finalizers"]);
    }
    let processed = |status: &Value| status["strategiesProcessed"].clone();
    let found = processed(&ours["status"]["artifactGCStatus"]);
    same("artifactGCStatus".to_owned(), &processed(&meta["artifactGCStatus"]), &found);
    differences
}

/// Fills in what recordings say instead of names.
#[must_use]
pub fn fill(value: &Value, workflow: &str, ours: &Value) -> Value {
    match value {
        Value::String(text) => {
            let mut text = text.clone();
            while let Some(start) = text.find("$POD{") {
                let Some(length) = text[start..].find('}') else { break };
                let end = start + length;
                let node = text[start + 5..end].replace("$WF", workflow);
                let nodes = ours["status"]["nodes"].as_object().into_iter().flatten();
                let found = nodes.map(|(_, found)| found).find(|found| found["name"] == node.as_str());
                let template = found.and_then(|found| found["templateName"].as_str()).unwrap_or_default();
                text.replace_range(start..=end, &argosy_model::pod_name(workflow, template, &node));
            }
            Value::String(text.replace("$WF", workflow).replace("$IP", ADDRESS))
        }
        Value::Array(items) => items.iter().map(|item| fill(item, workflow, ours)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), fill(value, workflow, ours)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
