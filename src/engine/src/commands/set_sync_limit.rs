use argosy_proto::command::{Refusal, Reply, SetSyncLimit};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::commands::{done, store_config_map};
use crate::draft::Draft;
use crate::{Code, Leader};

/// Longest key (Kubernetes').
const KEY_LENGTH_MAX: usize = 253;

/// The limit of a semaphore is set, in a ConfigMap of the cell's own or in the control plane's table.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &SetSyncLimit) -> Result<Reply, Refusal> {
    let Some(limit) = u32::try_from(command.limit).ok().filter(|limit| *limit > 0) else {
        return Err(Code::InvalidArgument.refuse("limit must be greater than zero"));
    };
    let fits = |text: &String| !text.is_empty() && text.len() <= KEY_LENGTH_MAX;
    if !fits(&command.namespace) || !fits(&command.key) || command.config_map.len() > KEY_LENGTH_MAX {
        return Err(Code::InvalidArgument
            .refuse(format!("a sync limit's key and namespace must have 1 to {KEY_LENGTH_MAX} bytes")));
    }
    if command.config_map.is_empty() {
        in_table(draft, leader, command, limit)?;
    } else {
        in_config_map(draft, leader, command, limit)?;
    }
    Ok(done())
}

fn in_table(draft: &mut Draft, leader: &Leader, command: &SetSyncLimit, limit: u32) -> Result<(), Refusal> {
    let namespace = &command.namespace;
    let known = draft.state.sync_limit(namespace, &command.key).is_some();
    if known && command.create {
        return Err(Code::SyncLimitExists
            .refuse(format!("Database sync limit already exists in namespace {namespace:?}.")));
    }
    if !known && !command.create {
        return Err(missing(namespace));
    }
    if !known && draft.state.sync_limits.len() >= leader.limits.sync_limits_max {
        return Err(Code::TooManySyncLimits.refuse(format!(
            "the cell has its {} sync limits already: delete some",
            leader.limits.sync_limits_max
        )));
    }
    let (namespace, key) = (namespace.clone(), command.key.clone());
    draft.emit(Body::SyncLimitSet(fact::SyncLimitSet { namespace, key, limit }));
    Ok(())
}

pub(crate) fn missing(namespace: &str) -> Refusal {
    Code::SyncLimitMissing.refuse(format!("Database sync limit not found in namespace {namespace:?}."))
}

fn in_config_map(
    draft: &mut Draft,
    leader: &Leader,
    command: &SetSyncLimit,
    limit: u32,
) -> Result<(), Refusal> {
    let name = &command.config_map;
    let key = (command.namespace.clone(), name.clone(), String::new());
    let known = draft.state.config_maps.get(&key).cloned();
    let has_key = known.as_ref().is_some_and(|known| known.data.contains_key(&command.key));
    if has_key && command.create {
        return Err(Code::SyncLimitExists.refuse("sync limit cannot be created as it already exists"));
    }
    if known.is_none() && !command.create {
        return Err(store_config_map::missing(name));
    }
    if !has_key && !command.create {
        return Err(Code::SyncLimitMissing.refuse(format!(
            "key {} not found in configmap {}/{name} - please create it first",
            command.key, command.namespace
        )));
    }
    let mut contents = known.map_or_else(
        || row::ConfigMap { uid: command.uid.clone(), ..row::ConfigMap::default() },
        |known| known.as_ref().clone(),
    );
    contents.data.insert(command.key.clone(), limit.to_string());
    store_config_map::store(draft, leader, key, contents)
}
