//! ConfigMaps as Kubernetes shows them.

use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use crate::State;
use crate::view::time_text;

/// Annotation that the API shows on a ConfigMap which a cluster reported.
pub const CLUSTER_ANNOTATION: &str = "argosy.dev/cluster";

/// The ConfigMap that workflows of a namespace read under a name.
#[must_use]
pub fn config_map_json(state: &State, namespace: &str, name: &str) -> Option<Value> {
    let (cluster, row) = state.config_map_entry(namespace, name)?;
    Some(shown(namespace, name, cluster, row))
}

/// The ConfigMaps that workflows of a namespace (empty: of all) read, by name.
#[must_use]
pub fn config_maps_json(state: &State, namespace: &str) -> Vec<Value> {
    let from = (namespace.to_owned(), String::new(), String::new());
    let mine = |key: &(String, String, String)| namespace.is_empty() || key.0 == namespace;
    let mut found: Vec<Value> = Vec::new();
    let mut last: Option<(&str, &str)> = None;
    for (key, row) in state.config_maps.range(from..).take_while(|(key, _)| mine(key)) {
        let name = (key.0.as_str(), key.1.as_str());
        if last.replace(name) != Some(name) {
            found.push(shown(&key.0, &key.1, &key.2, row));
        }
    }
    found
}

fn shown(namespace: &str, name: &str, cluster: &str, row: &row::ConfigMap) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("namespace".to_owned(), namespace.into());
    if !row.uid.is_empty() {
        metadata.insert("uid".to_owned(), row.uid.clone().into());
    }
    metadata.insert("resourceVersion".to_owned(), row.changed_sequence.to_string().into());
    metadata.insert("creationTimestamp".to_owned(), time_text(row.created_at_ms).into());
    let mut annotations = row.annotations.clone();
    if !cluster.is_empty() {
        annotations.insert(CLUSTER_ANNOTATION.to_owned(), cluster.to_owned());
    }
    for (field, texts) in [("labels", &row.labels), ("annotations", &annotations)] {
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
