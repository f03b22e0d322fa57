//! ConfigMaps that workflows read: those with Argo's label, watched, and told whole whenever one changed.
//!
//! What does not fit the limits is left out, the last by name first, and the log says so. Without the right to read them
//! none are told, and the log says that once.

use crate::runtime::Shared;
use argosy_agent_runtime::Policy;
use argosy_agent_runtime::RuntimeEvent;
use argosy_proto::common::{ConfigMapName, ReportedConfigMap};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Argo's label; ConfigMaps of executor plugins have it as well, and are the agent's own business.
const SELECTOR: &str =
    "workflows.argoproj.io/configmap-type,workflows.argoproj.io/configmap-type!=ExecutorPlugin";
/// Annotations that mean something to workflows; others may be long.
const ANNOTATION_PREFIX: &str = "workflows.argoproj.io/";
/// Changes that come close together are told together.
const SETTLE: Duration = Duration::from_millis(300);
/// Before a table that something was left out of is listed anew, after something left it.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
const FORBIDDEN: u16 = 403;

/// How many are told, and how large they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether any are.
    pub enabled: bool,
    /// Namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// ConfigMaps.
    pub count_max: usize,
    /// Bytes of all of them.
    pub bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, namespaces: Vec::new(), count_max: 500, bytes_max: 16 * 1024 * 1024 }
    }
}

/// Those of one watch, as they are now.
#[derive(Default)]
struct Table {
    held: BTreeMap<(String, String), ReportedConfigMap>,
    bytes: usize,
    /// Something was left out.
    is_cut: bool,
}

fn size(one: &ReportedConfigMap) -> usize {
    let texts = [&one.labels, &one.annotations, &one.data];
    texts.into_iter().flatten().map(|(key, text)| key.len() + text.len()).sum()
}

fn key(of: &ConfigMap) -> (String, String) {
    (of.metadata.namespace.clone().unwrap_or_default(), of.metadata.name.clone().unwrap_or_default())
}

fn reported(of: ConfigMap) -> ReportedConfigMap {
    let (namespace, name) = key(&of);
    let annotations = of.metadata.annotations.unwrap_or_default().into_iter();
    ReportedConfigMap {
        name: Some(ConfigMapName { namespace, name }),
        labels: of.metadata.labels.unwrap_or_default(),
        annotations: annotations.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)).collect(),
        data: of.data.unwrap_or_default(),
        immutable: of.immutable.unwrap_or(false),
    }
}

/// By the control plane's name of its namespace; `None`: it has none.
fn named(policy: Option<&Policy>, one: &ReportedConfigMap) -> Option<ReportedConfigMap> {
    let mut told = one.clone();
    if let (Some(policy), Some(name)) = (policy, told.name.as_mut()) {
        name.namespace = policy.global_namespace(&name.namespace)?.to_owned();
    }
    Some(told)
}

impl Table {
    /// Takes one in; whether that is news.
    fn put(&mut self, settings: &Settings, of: ConfigMap) -> bool {
        let (key, one) = (key(&of), reported(of));
        if self.held.get(&key) == Some(&one) {
            return false;
        }
        self.remove(&key);
        self.bytes += size(&one);
        self.held.insert(key, one);
        while self.held.len() > settings.count_max || self.bytes > settings.bytes_max {
            let Some(((namespace, name), left_out)) = self.held.pop_last() else { break };
            self.bytes -= size(&left_out);
            self.is_cut = true;
            tracing::warn!(
                namespace,
                name,
                "a ConfigMap is left out: there are too many with the label, or too large"
            );
        }
        true
    }

    fn remove(&mut self, key: &(String, String)) -> bool {
        let Some(gone) = self.held.remove(key) else { return false };
        self.bytes -= size(&gone);
        true
    }
}

/// Watches and tells until it is dropped.
pub(crate) async fn tell(shared: Arc<Shared>) {
    let settings = &shared.config.config_maps;
    if settings.enabled {
        let mut refused = false;
        while watch(&shared, settings, &mut refused).await {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// Until something left a table that was cut: then there is room for what was left out.
async fn watch(shared: &Shared, settings: &Settings, refused: &mut bool) -> bool {
    let apis: Vec<Api<ConfigMap>> = match settings.namespaces.as_slice() {
        [] => vec![Api::all(shared.client.clone())],
        some => some.iter().map(|namespace| Api::namespaced(shared.client.clone(), namespace)).collect(),
    };
    let options = watcher::Config::default().labels(SELECTOR).page_size(shared.config.page_size);
    let watches = apis.into_iter().enumerate().map(|(place, api)| {
        let events = watcher(api, options.clone()).default_backoff();
        Box::pin(events.map(move |event| (place, event)))
    });
    let mut listed = vec![false; settings.namespaces.len().max(1)];
    let mut events = pin!(futures::stream::select_all(watches));
    let mut table = Table::default();
    // A list under way: what is not in it is gone once it is whole.
    let mut listing: BTreeMap<usize, Vec<(String, String)>> = BTreeMap::new();
    let mut tell_at: Option<Instant> = None;
    loop {
        let due = tell_at.unwrap_or_else(|| Instant::now() + AGAIN_AFTER);
        let (place, event) = tokio::select! {
            next = events.next() => match next {
                Some(next) => next,
                None => return true,
            },
            () = sleep_until(due), if tell_at.is_some() => {
                tell_at = None;
                let policy = shared.config.policy.as_deref();
                let all = table.held.values().filter_map(|one| named(policy, one)).collect();
                shared.send(RuntimeEvent::ConfigMaps(all)).await;
                continue;
            }
        };
        let mut is_less = false;
        let is_news = match event {
            Ok(watcher::Event::Init) => {
                listing.insert(place, Vec::new());
                false
            }
            Ok(watcher::Event::InitApply(one)) => {
                listing.entry(place).or_default().push(key(&one));
                table.put(settings, one)
            }
            Ok(watcher::Event::InitDone) => {
                let present = listing.remove(&place).unwrap_or_default();
                let of_watch = |namespace: &str| {
                    settings.namespaces.get(place).is_none_or(|watched| watched == namespace)
                };
                let gone: Vec<_> = table
                    .held
                    .keys()
                    .filter(|key| of_watch(&key.0) && !present.contains(key))
                    .cloned()
                    .collect();
                is_less = !gone.is_empty();
                gone.iter().for_each(|key| {
                    table.remove(key);
                });
                !std::mem::replace(&mut listed[place], true) || is_less
            }
            Ok(watcher::Event::Apply(one)) => table.put(settings, one),
            Ok(watcher::Event::Delete(one)) => {
                is_less = table.remove(&key(&one));
                is_less
            }
            Err(error) => {
                say(&error, refused);
                false
            }
        };
        // Before every watch has its list, what is missing would look withdrawn.
        if (is_news || tell_at.is_some()) && listed.iter().all(|listed| *listed) {
            tell_at.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        if is_less && table.is_cut {
            return true;
        }
    }
}

fn say(error: &watcher::Error, refused: &mut bool) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.code),
        watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    };
    if status != Some(FORBIDDEN) {
        tracing::warn!(%error, "the watch of ConfigMaps broke; it is taken up again");
    } else if !std::mem::replace(refused, true) {
        tracing::warn!(
            %error,
            "ConfigMaps may not be read: workflows don't see those of this cluster (role argosy-agent-config-maps)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config_map(name: &str, text: &str) -> ConfigMap {
        let object = json!({"metadata": {"namespace": "n", "name": name, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "long", "workflows.argoproj.io/x": "y"}}, "data": {"k": text}});
        serde_json::from_value(object).expect("a ConfigMap")
    }

    #[test]
    fn the_first_by_name_are_kept_within_the_limits() {
        let settings = Settings { count_max: 2, bytes_max: 200, ..Settings::default() };
        let mut table = Table::default();
        assert!(table.put(&settings, config_map("b", "1")));
        assert!(!table.put(&settings, config_map("b", "1")), "nothing new");
        assert!(table.put(&settings, config_map("c", "1")) && !table.is_cut);
        assert!(table.put(&settings, config_map("a", "1")) && table.is_cut);
        let names = |table: &Table| table.held.keys().map(|key| key.1.clone()).collect::<Vec<_>>();
        assert_eq!(names(&table), ["a", "b"]);
        table.put(&settings, config_map("a", &"x".repeat(150)));
        assert_eq!(names(&table), ["a"]);
        assert!(table.remove(&("n".into(), "a".into())) && table.bytes == 0);
    }

    #[test]
    fn only_argos_annotations_are_told() {
        let told = reported(config_map("a", "1"));
        assert_eq!(told.annotations.keys().collect::<Vec<_>>(), ["workflows.argoproj.io/x"]);
        assert_eq!(told.data["k"], "1");
    }
}
