//! Stores that belong to clusters, as the configuration names them, and where to keep what belongs into that of a lost one.

use argosy_spec::Artifact;
use argosy_spec::artifact::archive_location;
use serde_json::{Map, Value};

use crate::artifacts;
use crate::leader::Leader;
use crate::state::State;

type Location = Map<String, Value>;

/// The store is one of those of which every cluster has one of its own.
pub(super) fn is_of_each(leader: &Leader, location: &Location) -> bool {
    addresses(location).any(|found| leader.cluster_stores.iter().any(|store| address(store) == found))
}

/// The cluster that the store is in.
pub(super) fn owner<'a>(leader: &'a Leader, location: &Location) -> Option<&'a str> {
    addresses(location).find_map(|found| {
        let of_one = leader.store_clusters.iter().find(|(store, _)| address(store) == found);
        of_one.map(|(_, cluster)| cluster.as_str())
    })
}

/// The store is the one where things are kept that belong into that of a lost cluster.
pub(super) fn is_refuge(leader: &Leader, location: &Location) -> bool {
    let Some(refuge) = repository(leader) else { return false };
    !is_of_each(leader, location)
        && addresses(location).any(|found| addresses(&refuge).any(|refuge| refuge == found))
}

/// A file is not in the store of a cluster where its workflow's repository would have it: that has to be said with it.
pub(crate) fn is_elsewhere(leader: &Leader, said: &Location, is: &Location) -> bool {
    said != is && owner(leader, said).is_some()
}

/// What belongs into the store of a lost cluster can be kept somewhere else.
pub(super) fn is_there(state: &State, leader: &Leader) -> bool {
    repository(leader).is_some_and(|location| {
        !is_of_each(leader, &location) && owner(leader, &location).is_none_or(|owner| !is_lost(state, owner))
    })
}

/// The cluster that a store is in is lost. A name that no cluster has ever had says nothing: it may be a mistake.
pub(super) fn is_lost(state: &State, owner: &str) -> bool {
    state.cluster(owner).is_some_and(|row| row.lost || row.removed)
}

/// Some cluster that has a store is lost.
pub(super) fn is_any_lost(state: &State, leader: &Leader) -> bool {
    leader.store_clusters.values().any(|cluster| is_lost(state, cluster))
}

/// Has a step's files go elsewhere which belong into the store of a lost cluster; false: none does, or there is no elsewhere.
/// Their keys there begin with the names of the cluster and the bucket, so that they are nobody else's.
pub(super) fn redirect(state: &State, leader: &Leader, template: &mut Value) -> bool {
    let archive = template.get("archiveLocation").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(refuge) = repository(leader).filter(|_| is_there(state, leader)) else { return false };
    let lost = |location: &Location| owner(leader, location).filter(|owner| is_lost(state, owner));
    let mut is_moved = false;
    let outputs = template.pointer_mut("/outputs/artifacts").and_then(Value::as_array_mut);
    for raw in outputs.into_iter().flatten() {
        let Ok(declared) = serde_json::from_value::<Artifact>(raw.clone()) else { continue };
        let Some((artifact, location)) = artifacts::placed(declared, &archive) else { continue };
        let (Some(cluster), Some(fields)) = (lost(&location), raw.as_object_mut()) else { continue };
        location.keys().for_each(|kind| drop(fields.shift_remove(kind)));
        fields.extend(within(&refuge, cluster, &location, artifact.key()));
        is_moved = true;
    }
    if let Some(cluster) = lost(&archive) {
        let key = artifacts::key_of(&archive).map(|(_, key)| key).unwrap_or_default();
        let mut location = within(&refuge, cluster, &archive, &key);
        location.extend(archive.get("archiveLogs").map(|logs| ("archiveLogs".to_owned(), logs.clone())));
        template["archiveLocation"] = Value::Object(location);
        is_moved = true;
    }
    is_moved
}

fn repository(leader: &Leader) -> Option<Location> {
    let own = Some(&leader.refuge_repository).filter(|text| !text.is_empty());
    let text = own.unwrap_or(&leader.artifact_repository);
    archive_location(serde_json::from_str::<Value>(text).ok()?.as_object()?).filter(artifacts::is_store)
}

fn within(refuge: &Location, cluster: &str, was: &Location, key: &str) -> Location {
    let named = |fields: &Value| {
        let name = fields.get("bucket").or_else(|| fields.get("container"));
        name.and_then(Value::as_str).map(str::to_owned)
    };
    let bucket = was.values().find_map(named).unwrap_or_default();
    let mut moved = Artifact { location: refuge.clone(), ..Artifact::default() };
    moved.set_key(&format!("{cluster}/{bucket}/{key}"));
    moved.location
}

/// The key of what was to have this one before it went elsewhere.
pub(super) fn key_before(key: &str) -> &str {
    key.splitn(3, '/').nth(2).unwrap_or(key)
}

fn addresses(location: &Location) -> impl Iterator<Item = &str> {
    location.values().filter_map(|fields| fields.get("endpoint").and_then(Value::as_str)).map(address)
}

/// The host and port of an endpoint.
fn address(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_model::Limits;
    use serde_json::json;

    #[test]
    fn a_store_is_known_by_its_address() {
        let location = |endpoint: &str| {
            json!({"s3": {"endpoint": endpoint, "bucket": "b"}}).as_object().cloned().unwrap_or_default()
        };
        let stores = vec!["minio.argo:9000".to_owned(), "http://store:80/".to_owned()];
        let leader = Leader::new(Limits::default()).with_cluster_stores(stores);
        for there in ["minio.argo:9000", "http://minio.argo:9000", "store:80"] {
            assert!(is_of_each(&leader, &location(there)), "{there}");
        }
        for elsewhere in ["minio.argo", "minio.argo:9001", "s3.amazonaws.com", ""] {
            assert!(!is_of_each(&leader, &location(elsewhere)), "{elsewhere}");
        }
        assert!(!is_of_each(&leader, &Map::new()));
    }
}
