//! ConfigMaps as Kubernetes shows them.

use argosy_proto::state as row;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::config_maps::TYPE_LABEL;
use crate::memo_prepared::CACHE_TYPE;
use crate::view::time_text;
use crate::view::tree::outputs_json;
use crate::{State, memo_prepared};

/// Annotation that the API shows on a ConfigMap which a cluster reported.
pub const CLUSTER_ANNOTATION: &str = "argosy.dev/cluster";

/// Annotation with the clusters whose ConfigMap of that name has other data and is not read.
pub const DIFFERS_ANNOTATION: &str = "argosy.dev/differs-in";

/// Annotation of a memoization cache of which only the first entries are shown.
const CUT_ANNOTATION: &str = "argosy.dev/cut";
/// Bytes of the entries of memoization caches in one answer: as much as a ConfigMap can hold.
const ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// The ConfigMap that workflows of a namespace read under a name, with what the memoization cache of that name holds.
#[must_use]
pub fn config_map_json(state: &State, namespace: &str, name: &str) -> Option<Value> {
    let mut room = ENTRIES_BYTES_MAX;
    let found = state.config_map_entry(namespace, name);
    let cache = Cache::of(state, namespace, name, &mut room);
    (found.is_some() || cache.is_some()).then(|| shown(state, (namespace, name), found, cache))
}

/// The ConfigMaps that workflows of a namespace (empty: of all) read, and memoization caches, by name.
#[must_use]
pub fn config_maps_json(state: &State, namespace: &str) -> Vec<Value> {
    let mut room = ENTRIES_BYTES_MAX;
    let stored = state.config_maps.range((namespace.to_owned(), String::new(), String::new())..);
    let mine = |found: &str| namespace.is_empty() || found == namespace;
    let stored = stored.map(|(key, _)| (key.0.as_str(), key.1.as_str())).take_while(|name| mine(name.0));
    let mut names: BTreeSet<(&str, &str)> = stored.collect();
    names.extend(cache_names(state, namespace));
    let one = |(namespace, name): (&str, &str)| {
        let cache = Cache::of(state, namespace, name, &mut room);
        shown(state, (namespace, name), state.config_map_entry(namespace, name), cache)
    };
    names.into_iter().map(one).collect()
}

/// Namespaces and names of memoization caches.
fn cache_names<'state>(
    state: &'state State,
    namespace: &str,
) -> impl Iterator<Item = (&'state str, &'state str)> {
    let start = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let mut from = start.clone();
    std::iter::from_fn(move || {
        let (entry, _) = state.memos.range(from.clone()..).next()?;
        let (cache, _) = entry.rsplit_once('/').filter(|_| entry.starts_with(&start))?;
        // Behind the last entry of this cache.
        from = format!("{cache}0");
        cache.split_once('/')
    })
}

/// Entries of a memoization cache, as Argo writes them in ConfigMaps.
struct Cache {
    entries: BTreeMap<String, (i64, String)>,
    is_cut: bool,
}

impl Cache {
    fn of(state: &State, namespace: &str, name: &str, room: &mut usize) -> Option<Self> {
        let start = format!("{namespace}/{name}/");
        let mut cache = Self { entries: BTreeMap::new(), is_cut: false };
        for (entry, memo) in state.memos.range(start.clone()..) {
            let Some(key) = entry.strip_prefix(&start) else { break };
            let outputs = memo.outputs.as_ref().map(|outputs| outputs_json(outputs, |_, _| {}));
            let time = time_text(memo.created_at_ms);
            let text = json!({
                "nodeID": memo.node_id, "outputs": outputs, "creationTimestamp": time, "lastHitTimestamp": time,
            })
            .to_string();
            if text.len() > *room {
                cache.is_cut = true;
                break;
            }
            *room -= text.len();
            cache.entries.insert(key.to_owned(), (memo.created_at_ms, text));
        }
        (cache.is_cut || !cache.entries.is_empty()).then_some(cache)
    }
}

/// A ConfigMap with the newer entries of the cache of its name: as memoization reads both.
fn shown(
    state: &State,
    (namespace, name): (&str, &str),
    found: Option<(&str, &row::ConfigMap)>,
    cache: Option<Cache>,
) -> Value {
    let labels = BTreeMap::from([(TYPE_LABEL.to_owned(), CACHE_TYPE.to_owned())]);
    let made = || row::ConfigMap {
        labels,
        created_at_ms: cache
            .iter()
            .flat_map(|cache| cache.entries.values())
            .map(|entry| entry.0)
            .min()
            .unwrap_or(0),
        ..row::ConfigMap::default()
    };
    let (cluster, mut row) = found.map_or_else(|| ("", made()), |(cluster, row)| (cluster, row.clone()));
    let is_cache = row.labels.get(TYPE_LABEL).is_some_and(|kind| kind == CACHE_TYPE);
    if let Some(cache) = cache.filter(|_| is_cache) {
        if cache.is_cut {
            row.annotations.insert(CUT_ANNOTATION.to_owned(), "true".to_owned());
        }
        for (key, (created_at_ms, text)) in cache.entries {
            if row.data.get(&key).is_none_or(|known| memo_prepared::created_at_ms(known) <= created_at_ms) {
                row.data.insert(key, text);
            }
        }
    }
    let differing = differing(state, namespace, name);
    if !differing.is_empty() {
        row.annotations.insert(DIFFERS_ANNOTATION.to_owned(), differing);
    }
    if !cluster.is_empty() {
        row.annotations.insert(CLUSTER_ANNOTATION.to_owned(), cluster.to_owned());
    }
    object(namespace, name, &row)
}

/// The clusters whose ConfigMap of that name says something else than the one that is read.
fn differing(state: &State, namespace: &str, name: &str) -> String {
    let mut all = state.config_maps_of(namespace, name);
    let Some((_, read)) = all.next() else { return String::new() };
    let differing: Vec<&str> =
        all.filter(|(_, other)| other.data != read.data).map(|(cluster, _)| cluster).collect();
    differing.join(",")
}

fn object(namespace: &str, name: &str, row: &row::ConfigMap) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("namespace".to_owned(), namespace.into());
    if !row.uid.is_empty() {
        metadata.insert("uid".to_owned(), row.uid.clone().into());
    }
    metadata.insert("resourceVersion".to_owned(), row.changed_sequence.to_string().into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    for (field, texts) in [("labels", &row.labels), ("annotations", &row.annotations)] {
        if !texts.is_empty() {
            metadata.insert(field.to_owned(), json!(texts));
        }
    }
    let mut shown = Map::new();
    shown.insert("metadata".to_owned(), Value::Object(metadata));
    if !row.data.is_empty() {
        shown.insert("data".to_owned(), json!(row.data));
    }
    if row.immutable {
        shown.insert("immutable".to_owned(), true.into());
    }
    Value::Object(shown)
}
