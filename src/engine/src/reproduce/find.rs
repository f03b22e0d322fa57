//! Where the bytes of artifacts are: with the attempt that made them last, in a store of its cluster or of all.

use argosy_model::parse_fence;
use argosy_proto::state as row;
use serde_json::Value;

use super::refuge;
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
    let known = |key: for<'k> fn(&'k str) -> &'k str| {
        outputs.artifacts.iter().find_map(|artifact| {
            let (_, own) = artifact.stored_key.strip_prefix(&prefix)?.split_once('/')?;
            let part = rest.strip_prefix(key(own)).filter(|part| part.is_empty() || part.starts_with('/'))?;
            Some(Source { producer, artifact, part: part.to_owned() })
        })
    };
    known(|own| own).or_else(|| known(refuge::key_before))
}

/// The part of a stored key that names its attempt: inputs of one attempt are had, or not, together.
pub(crate) fn attempt_of(key: &str) -> &str {
    let of_attempt = key.match_indices('/').nth(3);
    of_attempt.map_or(key, |(at, _)| &key[..at])
}

/// Where the bytes of an artifact can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// All clusters reach its store.
    Anywhere,
    /// In this cluster alone, which may be lost.
    In(String),
}

/// Where the bytes of an artifact can be had, as far as the configuration says: else where they were made.
pub(crate) fn whereabouts(
    state: &State,
    leader: &Leader,
    workflow: u64,
    artifact: &row::Artifact,
) -> Whereabouts {
    let made = || Whereabouts::In(artifact.cluster.clone());
    if leader.store_clusters.is_empty() {
        return made();
    }
    let Some(row) = state.workflows.get(&workflow) else { return made() };
    let location = artifacts::whole_location(artifact, row);
    match refuge::owner(leader, &location) {
        Some(owner) if refuge::is_lost(state, owner) => Whereabouts::In(owner.to_owned()),
        Some(_) => Whereabouts::Anywhere,
        None if refuge::is_refuge(leader, &location) => Whereabouts::Anywhere,
        None => made(),
    }
}

/// The lost cluster that an artifact is gone with.
pub(crate) fn gone_with(
    state: &State,
    leader: &Leader,
    workflow: u64,
    artifact: &row::Artifact,
) -> Option<String> {
    match whereabouts(state, leader, workflow, artifact) {
        Whereabouts::In(cluster) if is_gone(state, &cluster) => Some(cluster),
        Whereabouts::In(_) | Whereabouts::Anywhere => None,
    }
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
        json: moved(&artifact.json, &made.json, &source.part),
        ..artifact.clone()
    }
}

/// An artifact as it is shown, at the place where it was made last.
fn moved(shown: &str, made: &str, part: &str) -> String {
    let read = |json: &str| serde_json::from_str::<argosy_spec::Artifact>(json);
    let (Ok(mut artifact), Ok(made)) = (read(shown), read(made)) else { return shown.to_owned() };
    let key = format!("{}{part}", made.key());
    artifact.location = made.location;
    artifact.set_key(&key);
    serde_json::to_string(&artifact).unwrap_or_else(|_| shown.to_owned())
}

/// A leaf's template with its inputs where they are now, and its outputs going where they can be kept now; `None`: as when
/// its node was made. It is fixed as the leaf is placed, since that was decided by where they were then.
pub(crate) fn as_of_now(
    state: &State,
    leader: &Leader,
    workflow: u64,
    node: u32,
    template: &str,
) -> Option<String> {
    let inputs = &state.node(workflow, node)?.rare().input_artifacts;
    let now: Vec<row::Artifact> = inputs.iter().map(|input| current(state, workflow, input)).collect();
    let is_lost = refuge::is_any_lost(state, leader);
    if now == *inputs && !is_lost {
        return None;
    }
    let mut raw = serde_json::from_str::<Value>(template).ok()?;
    let is_moved = is_lost && refuge::redirect(state, leader, &mut raw);
    if now == *inputs {
        return is_moved.then(|| raw.to_string());
    }
    let listed = raw.pointer_mut("/inputs/artifacts").and_then(Value::as_array_mut).into_iter().flatten();
    for shown in listed.filter_map(Value::as_object_mut) {
        let is_it = |artifact: &&row::Artifact| {
            shown.get("name").and_then(Value::as_str) == Some(artifact.name.as_str())
        };
        if let Some(artifact) = now.iter().find(is_it).filter(|artifact| !artifact.stored_key.is_empty()) {
            let read = serde_json::from_str::<argosy_spec::Artifact>(&artifact.json);
            shown.extend(read.unwrap_or_default().location);
            shown.insert(artifacts::STORED.to_owned(), artifacts::stored(artifact));
        }
    }
    Some(raw.to_string())
}

/// Keys of a node's inputs that can be lost with a cluster: they are in its store, or in a store of which every cluster has
/// one of its own, and so where they were made.
pub(crate) fn bound(state: &State, leader: &Leader, workflow: u64, node: &row::Node) -> Vec<String> {
    let inputs = &node.rare().input_artifacts;
    if inputs.is_empty() || (leader.cluster_stores.is_empty() && leader.store_clusters.is_empty()) {
        return Vec::new();
    }
    let Some(row) = state.workflows.get(&workflow) else { return Vec::new() };
    let is_bound = |input: &&row::Artifact| {
        if input.stored_key.is_empty() || input.cluster.is_empty() {
            return false;
        }
        let location = artifacts::whole_location(input, row);
        refuge::is_of_each(leader, &location) || refuge::owner(leader, &location).is_some()
    };
    inputs.iter().filter(is_bound).map(|input| input.stored_key.clone()).collect()
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
