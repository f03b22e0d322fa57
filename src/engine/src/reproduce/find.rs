//! Where the bytes of artifacts are: with the attempt that made them last, in a store of its cluster or of all.

use argosy_model::parse_fence;
use argosy_proto::state as row;
use serde_json::{Map, Value};

use crate::artifacts;
use crate::leader::Leader;
use crate::state::State;

/// Who made an input, and what of it is meant.
pub(crate) struct Source<'a> {
    /// The node whose attempt the key names.
    pub producer: u32,
    /// Its artifact, as it is known now.
    pub artifact: &'a row::Artifact,
    /// The part of it that is meant, from the first `/` on; empty for all of it.
    part: String,
}

/// Who made an artifact; `None` where no step of the workflow did, or it is known no more.
pub(crate) fn source<'a>(state: &'a State, workflow: u64, artifact: &row::Artifact) -> Option<Source<'a>> {
    let prefix = artifacts::prefix_of(state, state.workflows.get(&workflow)?);
    let (fence, rest) = artifact.stored_key.strip_prefix(&prefix)?.split_once('/')?;
    let attempt = state.attempt(&parse_fence(fence)?).filter(|attempt| attempt.workflow == workflow)?;
    let producer = attempt.node;
    let outputs = state.node(workflow, producer)?.outputs.as_ref()?;
    outputs.artifacts.iter().find_map(|artifact| {
        let (_, own) = artifact.stored_key.strip_prefix(&prefix)?.split_once('/')?;
        let part = rest.strip_prefix(own).filter(|part| part.is_empty() || part.starts_with('/'))?;
        Some(Source { producer, artifact, part: part.to_owned() })
    })
}

/// The part of a stored key that names its attempt: inputs of one attempt are had, or not, together.
pub(crate) fn attempt_of(key: &str) -> &str {
    let of_attempt = key.match_indices('/').nth(3);
    of_attempt.map_or(key, |(at, _)| &key[..at])
}

/// An artifact as its producer has made it last: it may have been made again since somebody was told of it.
pub(crate) fn current(state: &State, workflow: u64, artifact: &row::Artifact) -> row::Artifact {
    let Some(source) = source(state, workflow, artifact) else { return artifact.clone() };
    let made = source.artifact;
    let stored_key = format!("{}{}", made.stored_key, source.part);
    if stored_key == artifact.stored_key {
        return artifact.clone();
    }
    let is_whole = source.part.is_empty();
    row::Artifact {
        stored_key,
        digest: if is_whole { made.digest.clone() } else { String::new() },
        size: if is_whole { made.size } else { artifact.size },
        cluster: made.cluster.clone(),
        ..artifact.clone()
    }
}

/// A leaf's template with its inputs where they are now; `None`: where they were when its node was made. It is fixed as
/// the leaf is placed, since that was decided by where they were then.
pub(crate) fn with_current_inputs(state: &State, workflow: u64, node: u32, template: &str) -> Option<String> {
    let inputs = &state.node(workflow, node)?.rare().input_artifacts;
    let now: Vec<row::Artifact> = inputs.iter().map(|input| current(state, workflow, input)).collect();
    if now == *inputs {
        return None;
    }
    let mut raw = serde_json::from_str::<Value>(template).ok()?;
    let listed = raw.pointer_mut("/inputs/artifacts").and_then(Value::as_array_mut).into_iter().flatten();
    for shown in listed.filter_map(Value::as_object_mut) {
        let is_it = |artifact: &&row::Artifact| {
            shown.get("name").and_then(Value::as_str) == Some(artifact.name.as_str())
        };
        if let Some(artifact) = now.iter().find(is_it).filter(|artifact| !artifact.stored_key.is_empty()) {
            shown.insert(artifacts::STORED.to_owned(), artifacts::stored(artifact));
        }
    }
    Some(raw.to_string())
}

/// Keys of a node's inputs that are in a store of which every cluster has one of its own: they are where they were made.
pub(crate) fn bound(state: &State, leader: &Leader, workflow: u64, node: &row::Node) -> Vec<String> {
    let inputs = &node.rare().input_artifacts;
    if leader.cluster_stores.is_empty() || inputs.is_empty() {
        return Vec::new();
    }
    let Some(row) = state.workflows.get(&workflow) else { return Vec::new() };
    let is_bound = |input: &&row::Artifact| {
        !input.stored_key.is_empty()
            && !input.cluster.is_empty()
            && is_of_cluster(&leader.cluster_stores, &artifacts::whole_location(input, row))
    };
    inputs.iter().filter(is_bound).map(|input| input.stored_key.clone()).collect()
}

fn is_of_cluster(stores: &[String], location: &Map<String, Value>) -> bool {
    let mut endpoints =
        location.values().filter_map(|fields| fields.get("endpoint").and_then(Value::as_str)).map(address);
    endpoints.any(|endpoint| stores.iter().any(|store| address(store) == endpoint))
}

/// The host and port of an endpoint.
fn address(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// Nothing can be had from a cluster now, and perhaps never again.
pub(crate) fn is_gone(state: &State, cluster: &str) -> bool {
    state.cluster(cluster).is_none_or(|row| row.lost || row.removed)
}

/// It will not come back.
pub(crate) fn is_removed(state: &State, cluster: &str) -> bool {
    state.cluster(cluster).is_none_or(|row| row.removed)
}

/// How people are told of it.
pub(crate) fn loss(state: &State, cluster: &str) -> String {
    let how = if is_removed(state, cluster) { "was removed" } else { "is lost" };
    format!("cluster {cluster} {how}")
}

/// The artifact was deleted on purpose: nobody makes it again.
pub(crate) fn is_deleted(artifact: &row::Artifact) -> bool {
    serde_json::from_str::<argosy_spec::Artifact>(&artifact.json).is_ok_and(|shown| shown.deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_store_is_known_by_its_address() {
        let location = |endpoint: &str| {
            json!({"s3": {"endpoint": endpoint, "bucket": "b"}}).as_object().cloned().unwrap_or_default()
        };
        let stores = ["minio.argo:9000".to_owned(), "http://store:80/".to_owned()];
        for there in ["minio.argo:9000", "http://minio.argo:9000", "store:80"] {
            assert!(is_of_cluster(&stores, &location(there)), "{there}");
        }
        for elsewhere in ["minio.argo", "minio.argo:9001", "s3.amazonaws.com", ""] {
            assert!(!is_of_cluster(&stores, &location(elsewhere)), "{elsewhere}");
        }
        assert!(!is_of_cluster(&stores, &Map::new()));
    }
}
