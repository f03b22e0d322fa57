//! `retryStrategy.affinity.nodeAntiAffinity`: the next try runs on another host or, where one is free, in another cluster.

use argosy_proto::state as row;
use serde_json::{Map, Value, json};

use crate::advance::Turn;
use crate::advance::retry;
use crate::state::type_of;

/// Where a try's host is written.
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Earlier tries that are looked at: a list of hosts must stay readable for a scheduler.
const TRIES_MAX: u64 = 100;

/// Keeps a try's Pod away from the hosts of the tries before it; gives the clusters of those, which are taken only when
/// no other has room.
pub(super) fn keep_away(turn: &Turn<'_>, index: u32, node: &row::Node, raw: &mut Value) -> Vec<String> {
    if node.flag != i32::from(row::NodeFlag::Retried) || !wanted(turn, node) {
        return Vec::new();
    }
    let (mut hosts, mut clusters) = (Vec::new(), Vec::new());
    for ordinal in node.ordinal.saturating_sub(TRIES_MAX)..node.ordinal {
        let key = (turn.workflow, node.parent, ordinal);
        let Some(before) = turn.draft.state.index.children.get(&key).copied().filter(|it| *it != index)
        else {
            continue;
        };
        let host = turn.node(before).host.clone();
        if !host.is_empty() && !hosts.contains(&host) {
            hosts.push(host);
        }
        let fences = turn.draft.state.fences_of(argosy_model::WorkflowId(turn.workflow), before);
        let attempts = fences.iter().filter_map(|fence| turn.draft.state.attempt(fence));
        for attempt in attempts.filter(|attempt| !clusters.contains(&attempt.cluster)).collect::<Vec<_>>() {
            clusters.push(attempt.cluster.clone());
        }
    }
    if !hosts.is_empty() {
        exclude(raw, &hosts);
    }
    clusters
}

fn wanted(turn: &Turn<'_>, node: &row::Node) -> bool {
    let wrapper = turn.node(node.parent);
    type_of(&wrapper) == argosy_model::NodeType::Retry
        && retry::strategy(turn, &wrapper).is_ok_and(|strategy| {
            strategy.affinity.is_some_and(|affinity| affinity.node_anti_affinity.is_some())
        })
}

/// Adds to every term that chooses hosts that these are not meant; terms are alternatives.
fn exclude(raw: &mut Value, hosts: &[String]) {
    let expression = json!({"key": HOSTNAME, "operator": "NotIn", "values": hosts});
    let Some(fields) = raw.as_object_mut() else { return };
    let required = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"]
        .iter()
        .try_fold(fields, |object, key| {
            let inner = object.entry(*key).or_insert_with(|| Value::Object(Map::new()));
            if inner.is_null() {
                *inner = Value::Object(Map::new());
            }
            inner.as_object_mut()
        });
    let Some(required) = required else { return };
    let terms = required.entry("nodeSelectorTerms").or_insert_with(|| json!([]));
    let Some(terms) = terms.as_array_mut() else { return };
    if terms.is_empty() {
        terms.push(json!({}));
    }
    for term in terms.iter_mut().filter_map(Value::as_object_mut) {
        let expressions = term.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(expressions) = expressions.as_array_mut() {
            expressions.push(expression.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alternative_excludes_the_hosts() {
        let mut raw = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}]}}}});
        exclude(&mut raw, &["one".to_owned()]);
        let path = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let terms = raw.pointer(path).unwrap().as_array().unwrap();
        assert_eq!(terms[0]["matchExpressions"].as_array().unwrap().len(), 2);
        assert_eq!(terms[1]["matchExpressions"][0]["values"], json!(["one"]));
        let mut raw = json!({"container": {}});
        exclude(&mut raw, &["one".to_owned()]);
        assert_eq!(raw.pointer(path).unwrap()[0]["matchExpressions"][0]["operator"], "NotIn");
    }
}
