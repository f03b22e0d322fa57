//! Whether what steps need exists on this cluster: asked for by name, looked at again now and then, told when it changes.
//!
//! Only names are read. A kind that the agent may not read counts as there: then the step's own failure says so.

use crate::runtime::Shared;
use argosy_agent_runtime::RuntimeEvent;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Resource};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Between two looks at names that are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Names that are looked at again and again; beyond that, the oldest answers are given up.
const NAMES_MAX: usize = 5_000;
const FORBIDDEN: u16 = 403;

/// The names that were asked for, and what was told of them.
#[derive(Default)]
pub struct Asked {
    names: Mutex<BTreeMap<String, Option<bool>>>,
    changed: Notify,
}

impl Asked {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Option<bool>>) -> T) -> T {
        // The map is whole after each statement, so a panic elsewhere does not spoil it.
        change(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// These are asked for, again perhaps: an answer is due.
    pub fn add(&self, names: Vec<String>) {
        self.change(|known| {
            if known.len().saturating_add(names.len()) > NAMES_MAX {
                known.clear();
            }
            known.extend(names.into_iter().take(NAMES_MAX).map(|name| (name, None)));
        });
        self.changed.notify_one();
    }
}

/// Looks and tells until it is dropped.
pub async fn look(shared: Arc<Shared>) {
    loop {
        let names: Vec<(String, Option<bool>)> =
            shared.asked.change(|known| known.iter().map(|(name, told)| (name.clone(), *told)).collect());
        let mut news = BTreeMap::new();
        for (name, told) in names {
            // An API that does not answer tells nothing: it is asked again.
            let Some(found) = exists(&shared, &name).await else { continue };
            if told != Some(found) {
                news.insert(name, found);
            }
        }
        if !news.is_empty() {
            shared
                .asked
                .change(|known| known.extend(news.iter().map(|(name, found)| (name.clone(), Some(*found)))));
            shared.send(RuntimeEvent::PrerequisitesFound(news)).await;
        }
        // Whichever comes first.
        let _ = tokio::time::timeout(LOOK_EVERY, shared.asked.changed.notified()).await;
    }
}

async fn exists(shared: &Shared, name: &str) -> Option<bool> {
    let (kind, rest) = name.split_once(' ')?;
    let (namespace, object) = rest.split_once('/').unwrap_or(("", rest));
    let client = || shared.client.clone();
    // The control plane asks by its own names.
    let local = |namespace| match &shared.config.policy {
        Some(policy) => policy.local_namespace(namespace),
        None => Some(namespace),
    };
    let (Some(namespace), Some(rest)) =
        (local(namespace), if kind == "Namespace" { local(rest) } else { Some(rest) })
    else {
        return Some(false);
    };
    // An agent of single namespaces has nothing elsewhere.
    let served = &shared.config.namespaces;
    let place = if kind == "Namespace" { rest } else { namespace };
    if !served.is_empty() && !place.is_empty() && !served.iter().any(|served| served == place) {
        return Some(false);
    }
    match kind {
        "Namespace" => found(&Api::<Namespace>::all(client()), rest).await,
        "PriorityClass" => found(&Api::<PriorityClass>::all(client()), rest).await,
        "StorageClass" => found(&Api::<StorageClass>::all(client()), rest).await,
        "ServiceAccount" => found(&Api::<ServiceAccount>::namespaced(client(), namespace), object).await,
        "Secret" => found(&Api::<Secret>::namespaced(client(), namespace), object).await,
        "ConfigMap" => found(&Api::<ConfigMap>::namespaced(client(), namespace), object).await,
        "PersistentVolumeClaim" => {
            found(&Api::<PersistentVolumeClaim>::namespaced(client(), namespace), object).await
        }
        // A newer control plane may know more kinds.
        _ => Some(true),
    }
}

async fn found<K>(api: &Api<K>, name: &str) -> Option<bool>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.get_metadata_opt(name).await {
        Ok(object) => Some(object.is_some()),
        Err(kube::Error::Api(status)) if status.code == FORBIDDEN => Some(true),
        Err(error) => {
            tracing::debug!(%error, name, "a prerequisite could not be asked for");
            None
        }
    }
}
