//! Artifacts, where they are kept, and what artifact GC did, as Argo shows them; and what is to be done in object stores.

use argosy_model::{WorkflowId, node_id};
use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use super::time_text;
use crate::advance::metadata;
use crate::state::State;

/// Argo's finalizer of workflows whose artifacts are to be deleted.
pub(super) const FINALIZER: &str = "workflows.argoproj.io/artifact-gc";

pub(super) fn list(artifacts: &[row::Artifact]) -> Value {
    artifacts.iter().map(|artifact| serde_json::from_str(&artifact.json).unwrap_or(Value::Null)).collect()
}

/// Ours: that a step that ended well was run again, since somebody needed what was lost with its cluster.
pub(super) fn reproduction(one: &row::Reproduction) -> Value {
    let reason = match one.reason() {
        row::ReproductionReason::Artifact => "artifact",
        row::ReproductionReason::Unspecified => "unknown",
    };
    let outcome = match one.end() {
        row::ReproductionEnd::Unspecified => "running",
        row::ReproductionEnd::Made => "made",
        row::ReproductionEnd::Failed => "failed",
        row::ReproductionEnd::NotNeeded => "notNeeded",
    };
    let mut shown = json!({
        "reason": reason, "outcome": outcome, "lost": one.lost, "neededBy": one.reader,
        "startedAt": time_text(one.begun_at_ms),
    });
    if one.ended_at_ms != 0 {
        shown["finishedAt"] = time_text(one.ended_at_ms).into();
    }
    for (name, text) in [("cluster", &one.cluster), ("message", &one.message)] {
        if !text.is_empty() {
            shown[name] = text.clone().into();
        }
    }
    if one.outputs_differ {
        shown["outputsDiffer"] = true.into();
    }
    shown
}

/// The strategies that a workflow's artifacts have, besides `Never`.
fn strategies(manifest: &Value) -> Vec<&str> {
    let of_workflow = manifest.pointer("/spec/artifactGC/strategy").and_then(Value::as_str);
    let templates = manifest.pointer("/spec/templates").and_then(Value::as_array).into_iter().flatten();
    let artifacts = templates.filter_map(|one| one.pointer("/outputs/artifacts")?.as_array()).flatten();
    let own = artifacts.filter_map(|artifact| artifact.pointer("/artifactGC/strategy")?.as_str());
    let mut found: Vec<&str> = of_workflow.into_iter().chain(own).collect();
    found.retain(|strategy| !matches!(*strategy, "" | "Never"));
    found.sort_unstable();
    found.dedup();
    found
}

/// Some strategy is not done yet.
pub(super) fn waits_for_deletion(row: &row::Workflow, manifest: &Value) -> bool {
    strategies(manifest).iter().any(|strategy| !row.artifact_strategies.iter().any(|done| done == strategy))
}

pub(super) fn put_status(status: &mut Map<String, Value>, row: &row::Workflow, manifest: &Value) {
    let reference: Value = serde_json::from_str(&row.artifact_repository_json).unwrap_or_default();
    let reference = if reference.get("artifactRepository").is_some() {
        reference
    } else {
        json!({"default": true, "artifactRepository": {}})
    };
    status.insert("artifactRepositoryRef".to_owned(), reference);
    let begun =
        ["failed to set global parameters", "failed to resolve artifact repository", "invalid label value"];
    if begun.iter().chain([&metadata::FAILED]).any(|start| row.message.starts_with(start)) {
        // Argo looks at artifacts once the workflow's own labels are set.
    } else if strategies(manifest).is_empty() {
        status.insert("artifactGCStatus".to_owned(), json!({"notSpecified": true}));
    } else if !row.artifact_strategies.is_empty() {
        let done: Map<String, Value> =
            row.artifact_strategies.iter().map(|strategy| (strategy.clone(), true.into())).collect();
        // Argo's Pod of that strategy, which here is none: its tools look for the name.
        let pod = node_id(&format!("{}-artgc-wfcomp", row.name), &row.name);
        status.insert(
            "artifactGCStatus".to_owned(),
            json!({"strategiesProcessed": done, "podsRecouped": {pod: true}}),
        );
    }
}

impl State {
    /// What is to be done in object stores by now, oldest first.
    pub fn artifact_tasks_due(&self, now_ms: i64) -> impl Iterator<Item = (u64, &row::ArtifactTask)> + '_ {
        let tasks = self.artifact_tasks.iter().map(|(number, task)| (*number, task.as_ref()));
        tasks.filter(move |(_, task)| task.not_before_ms <= now_ms)
    }

    /// Tasks in object stores, those that wait for their time among them.
    #[must_use]
    pub fn artifact_tasks_depth(&self) -> usize {
        self.artifact_tasks.len()
    }

    /// An artifact of a node (by Argo's node id): as shown, where its bytes are, and its whole location.
    #[must_use]
    pub fn artifact(
        &self,
        id: WorkflowId,
        node: &str,
        name: &str,
        is_input: bool,
    ) -> Option<(row::Artifact, Map<String, Value>)> {
        let workflow = self.workflow(id)?;
        let nodes = self.nodes.range((id.0, 0)..=(id.0, u32::MAX));
        let (_, found) = nodes.into_iter().find(|(_, one)| node_id(&workflow.name, &one.name) == node)?;
        let list = if is_input { &found.rare().input_artifacts } else { &found.outputs.as_ref()?.artifacts };
        let artifact = list.iter().find(|artifact| artifact.name == name)?;
        let artifact = crate::reproduce::current(self, id.0, artifact);
        let location = crate::artifacts::whole_location(&artifact, workflow);
        Some((artifact, location))
    }
}
