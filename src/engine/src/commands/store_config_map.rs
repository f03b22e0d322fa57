use argosy_proto::command::{Refusal, Reply, StoreConfigMap};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;

use crate::commands::done;
use crate::draft::Draft;
use crate::{Code, Leader, config_maps};

/// Longest name, namespace and key (Kubernetes').
const NAME_LENGTH_MAX: usize = 253;

/// A ConfigMap of the cell's own is made or changed.
pub(crate) fn decide(draft: &mut Draft, leader: &Leader, command: &StoreConfigMap) -> Result<Reply, Refusal> {
    check_names(command)?;
    let key = (command.namespace.clone(), command.name.clone(), String::new());
    let known = draft.state.config_maps.get(&key).cloned();
    match &known {
        Some(_) if command.create => {
            return Err(Code::ConfigMapExists.refuse(format!("configmaps {:?} already exists", command.name)));
        }
        Some(known) => check_change(command, known)?,
        None if command.create => {}
        None => return Err(missing(&command.name)),
    }
    let contents = row::ConfigMap {
        uid: known.as_ref().map_or(&command.uid, |known| &known.uid).clone(),
        labels: command.labels.clone(),
        annotations: command.annotations.clone(),
        data: command.data.clone(),
        immutable: command.immutable,
        ..row::ConfigMap::default()
    };
    store(draft, leader, key, contents)?;
    Ok(done())
}

/// Keeps a ConfigMap, if there is room and it may be changed.
pub(crate) fn store(
    draft: &mut Draft,
    leader: &Leader,
    key: (String, String, String),
    contents: row::ConfigMap,
) -> Result<(), Refusal> {
    let known = draft.state.config_maps.get(&key);
    if known.is_some_and(|known| known.immutable && (!contents.immutable || contents.data != known.data)) {
        return Err(Code::ConfigMapImmutable.refuse(format!(
            "ConfigMap {:?} is invalid: data: Forbidden: field is immutable when `immutable` is set",
            key.1
        )));
    }
    check_size(draft, leader, &key, &contents)?;
    draft.emit(Body::ConfigMapStored(fact::ConfigMapStored {
        namespace: key.0,
        name: key.1,
        cluster: key.2,
        contents: Some(contents),
    }));
    Ok(())
}

pub(crate) fn missing(name: &str) -> Refusal {
    Code::ConfigMapMissing.refuse(format!("configmaps {name:?} not found"))
}

fn fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_LENGTH_MAX
}

pub(crate) fn check_name(namespace: &str, name: &str) -> Result<(), Refusal> {
    if fits(namespace) && fits(name) {
        return Ok(());
    }
    Err(Code::InvalidArgument
        .refuse(format!("a ConfigMap's name and namespace must have 1 to {NAME_LENGTH_MAX} bytes")))
}

fn check_names(command: &StoreConfigMap) -> Result<(), Refusal> {
    check_name(&command.namespace, &command.name)?;
    let plain = |key: &&String| {
        key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && fits(key)
    };
    match command.data.keys().find(|key| !plain(key)) {
        Some(odd) => Err(Code::InvalidArgument.refuse(format!(
            "ConfigMap {:?} is invalid: data[{odd}]: Invalid value: {odd:?}: a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            command.name
        ))),
        None => Ok(()),
    }
}

fn check_change(command: &StoreConfigMap, known: &row::ConfigMap) -> Result<(), Refusal> {
    let name = &command.name;
    if !command.resource_version.is_empty() && command.resource_version != known.changed_sequence.to_string()
    {
        return Err(Code::ConfigMapChanged.refuse(format!(
            "Operation cannot be fulfilled on configmaps {name:?}: the object has been modified; please apply your changes to the latest version and try again"
        )));
    }
    Ok(())
}

pub(crate) fn check_size(
    draft: &Draft,
    leader: &Leader,
    key: &(String, String, String),
    contents: &row::ConfigMap,
) -> Result<(), Refusal> {
    let limits = &leader.limits;
    let bytes = config_maps::bytes(key, contents);
    if bytes > limits.config_map_bytes_max {
        return Err(Code::ConfigMapTooLarge.refuse(format!(
            "the ConfigMap has {bytes} bytes, the limit is {}",
            limits.config_map_bytes_max
        )));
    }
    let known = draft.state.config_maps.get(key);
    let total =
        draft.state.index.config_maps_bytes - known.map_or(0, |known| config_maps::bytes(key, known)) + bytes;
    let count = draft.state.config_maps.len() + usize::from(known.is_none());
    if count > limits.config_maps_max || total > limits.config_maps_bytes_max {
        return Err(Code::TooManyConfigMaps.refuse(format!(
            "the cell's ConfigMaps may be {} and have {} bytes together, and would be {count} with {total} bytes: delete some",
            limits.config_maps_max, limits.config_maps_bytes_max
        )));
    }
    Ok(())
}
