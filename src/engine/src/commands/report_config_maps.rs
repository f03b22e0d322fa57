use argosy_proto::command::{self, Refusal, Reply, ReportConfigMaps, reply};
use argosy_proto::common::{ConfigMapName, ConfigMapNotice, ReportedConfigMap};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use std::collections::BTreeSet;

use crate::commands::store_config_map;
use crate::draft::Draft;
use crate::{Code, Leader, config_maps};

type Key = (String, String, String);

/// ConfigMaps of a cluster, as its agent sees them. Only news is recorded: a new session tells everything again.
///
/// One that can't be kept is withdrawn, and its cluster is told: what it held before must not be read as if it still did.
pub(crate) fn decide(
    draft: &mut Draft,
    leader: &Leader,
    command: &ReportConfigMaps,
) -> Result<Reply, Refusal> {
    let name = &command.cluster;
    let cluster = draft
        .state
        .cluster(name)
        .ok_or_else(|| Code::ClusterMissing.refuse(format!("cluster {name:?} is not registered")))?;
    if cluster.session_epoch != command.session_epoch {
        return Err(Code::StaleSession.refuse(format!(
            "session {} of cluster {name:?} is over, {} is the current one: reconnect",
            command.session_epoch, cluster.session_epoch
        )));
    }
    let count_max = leader.limits.config_maps_per_cluster_max;
    if command.present.len() > count_max {
        return Err(Code::TooManyConfigMaps.refuse(format!(
            "cluster {name:?} has {} ConfigMaps that workflows could read, the limit is {count_max}",
            command.present.len()
        )));
    }
    let present: BTreeSet<(&str, &str)> =
        command.present.iter().map(|present| (present.namespace.as_str(), present.name.as_str())).collect();
    withdraw_others(draft, name, &present);
    let mut notices = Vec::new();
    for reported in &command.changed {
        let Some(ConfigMapName { namespace, name: own }) = &reported.name else { continue };
        if !present.contains(&(namespace.as_str(), own.as_str())) {
            continue;
        }
        let key = (namespace.clone(), own.clone(), name.clone());
        let (refused, told) = match keep(draft, leader, &key, reported) {
            Ok(()) => (false, conflict(draft, &key)),
            Err(refusal) => {
                withdraw(draft, key);
                (true, Some(refusal))
            }
        };
        if let Some(Refusal { code, message, .. }) = told {
            notices.push(ConfigMapNotice { name: reported.name.clone(), refused, code, message });
        }
    }
    Ok(Reply { body: Some(reply::Body::ConfigMapsTaken(command::ConfigMapsTaken { notices })) })
}

/// What of a cluster's is not among these is gone.
pub(crate) fn withdraw_others(draft: &mut Draft, cluster: &str, present: &BTreeSet<(&str, &str)>) {
    let of_cluster = draft.state.config_maps.keys().filter(|key| key.2 == cluster);
    let gone: Vec<Key> =
        of_cluster.filter(|key| !present.contains(&(key.0.as_str(), key.1.as_str()))).cloned().collect();
    gone.into_iter().for_each(|key| withdraw(draft, key));
}

fn withdraw(draft: &mut Draft, key: Key) {
    if draft.state.config_maps.contains_key(&key) {
        let (namespace, name, cluster) = key;
        draft.emit(Body::ConfigMapDeleted(fact::ConfigMapDeleted { namespace, name, cluster }));
    }
}

fn keep(draft: &mut Draft, leader: &Leader, key: &Key, reported: &ReportedConfigMap) -> Result<(), Refusal> {
    store_config_map::check_name(&key.0, &key.1)?;
    let contents = row::ConfigMap {
        labels: reported.labels.clone(),
        annotations: reported.annotations.clone(),
        data: reported.data.clone(),
        immutable: reported.immutable,
        ..row::ConfigMap::default()
    };
    let known = draft.state.config_maps.get(key);
    let is_news = known.is_none_or(|known| {
        let before = (&known.labels, &known.annotations, &known.data, known.immutable);
        before != (&contents.labels, &contents.annotations, &contents.data, contents.immutable)
    });
    if !is_news {
        return Ok(());
    }
    store_config_map::check_size(draft, leader, key, &contents)?;
    let others = draft.state.config_maps.iter().filter(|(other, _)| other.2 == key.2 && *other != key);
    let bytes: usize = others.map(|(other, row)| config_maps::bytes(other, row)).sum();
    let bytes_max = leader.limits.config_maps_bytes_per_cluster_max;
    if bytes + config_maps::bytes(key, &contents) > bytes_max {
        return Err(Code::TooManyConfigMaps.refuse(format!(
            "the ConfigMaps of cluster {:?} that workflows could read have more than {bytes_max} bytes together",
            key.2
        )));
    }
    draft.emit(Body::ConfigMapStored(fact::ConfigMapStored {
        namespace: key.0.clone(),
        name: key.1.clone(),
        cluster: key.2.clone(),
        contents: Some(contents),
    }));
    Ok(())
}

/// One of the same name says something else: who wins.
fn conflict(draft: &Draft, key: &Key) -> Option<Refusal> {
    let (namespace, name, cluster) = key;
    let mine = draft.state.config_maps.get(key)?;
    let (read, _) = draft.state.config_map_entry(namespace, name)?;
    let differing = draft.state.config_maps_of(namespace, name).find(|(_, row)| row.data != mine.data)?.0;
    let told = |whose: &str| match whose {
        "" => "the cell's own".to_owned(),
        whose => format!("that of cluster {whose:?}"),
    };
    let first =
        format!("ConfigMap {namespace}/{name} of cluster {cluster:?} differs from {}", told(differing));
    Some(Code::ConfigMapDiffers.refuse(format!("{first}; workflows read {}", told(read))))
}
