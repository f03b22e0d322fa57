//! Container nodes: state keeps them in their Pod's row, Argo shows them as nodes of their own.

use std::sync::Arc;

use argosy_model::NodeType;
use argosy_proto::state as row;
use serde_json::Value;

/// The Container nodes of a Pod node.
pub(super) fn nodes_of(index: u32, pod: &row::Node) -> impl Iterator<Item = Arc<row::Node>> + '_ {
    (0_u64..).zip(&pod.rare().containers).map(move |(ordinal, container)| {
        Arc::new(row::Node {
            version: pod.version,
            parent: index,
            ordinal,
            name: format!("{}.{}", pod.name, container.name),
            r#type: NodeType::Container.number(),
            phase: container.phase,
            message: container.message.clone(),
            template: pod.template.clone(),
            boundary: index,
            flag: pod.flag,
            started_at_ms: if container.started_at_ms > 0 {
                container.started_at_ms
            } else {
                pod.started_at_ms
            },
            finished_at_ms: container.finished_at_ms,
            host: pod.host.clone(),
            ..row::Node::default()
        })
    })
}

/// The places in its set of what a container waits for.
pub(super) fn dependencies(template: Option<&Value>, pod: &row::Node, ordinal: u64) -> Vec<u64> {
    let Some(container) = usize::try_from(ordinal).ok().and_then(|at| pod.rare().containers.get(at)) else {
        return Vec::new();
    };
    let declared = template.and_then(|template| template.pointer("/containerSet/containers")?.as_array());
    let named = |one: &&Value| one.get("name").and_then(Value::as_str) == Some(container.name.as_str());
    let waits = declared
        .and_then(|declared| declared.iter().find(named)?.get("dependencies")?.as_array())
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    let place = |name: &str| (0_u64..).zip(&pod.rare().containers).find(|(_, one)| one.name == name);
    waits.filter_map(|name| place(name).map(|(place, _)| place)).collect()
}
