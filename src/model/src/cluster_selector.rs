//! The keys of `nodeSelector` that choose clusters.

use std::collections::BTreeMap;

/// Prefix of nodeSelector keys that choose the cluster and are not passed to the Pod.
pub const SELECTOR_PREFIX: &str = "cluster.argosy.dev/";
/// The selector key of a cluster's name.
pub const SELECTOR_NAME: &str = "cluster.argosy.dev/name";

/// Whether a cluster has what a key of a selector asks for: its name, or a label.
#[must_use]
pub fn selector_matches(key: &str, wanted: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
    if key.eq_ignore_ascii_case(SELECTOR_NAME) {
        return wanted == name;
    }
    let label = key.strip_prefix(SELECTOR_PREFIX).unwrap_or(key);
    labels.get(label).is_some_and(|value| value == wanted)
}
