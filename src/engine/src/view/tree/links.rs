//! What hangs below what: the edges of the tree as Argo draws them, and each node's outbound nodes.

use argosy_model::NodeType;
use argosy_proto::state as row;
use serde_json::Value;
use std::sync::Arc;

use super::{Tree, dependencies};
use crate::advance::hooks;
use crate::state::type_of;
use crate::view::containers;

impl<'a> Tree<'a> {
    /// A node's children are made after it, so going backwards finds every child's outbound nodes known.
    pub(super) fn connect(&mut self) {
        for index in self.nodes.keys().rev().copied().collect::<Vec<_>>() {
            let outbound = self.outbound_of(index);
            self.outbound.insert(index, Arc::new(outbound));
        }
        for (index, node) in self.nodes.clone() {
            if node.parent == 0 {
                continue;
            }
            for from in self.hangs_below(&node) {
                self.edges.entry(from).or_default().push(index);
            }
        }
    }

    /// The nodes that what comes after a node hangs below: what it shows as its `outboundNodes`, followed once more.
    fn outbound_of(&self, index: u32) -> Vec<u32> {
        let node = &self.nodes[&index];
        if node.rare().memo_hit && type_of(node) != NodeType::Retry {
            return vec![index];
        }
        match type_of(node) {
            NodeType::Steps | NodeType::Dag => self.ends(&self.shown_outbound(index)),
            // Its last child, whatever that is: a try, or a hook (`exit/retry-then-exit-hook`).
            NodeType::Retry => self.last_child(index).into_iter().collect(),
            NodeType::TaskGroup | NodeType::StepGroup => self.ends(&self.children(index)),
            NodeType::Pod if self.containers.contains_key(&index) => self.last_containers(index),
            NodeType::Pod
            | NodeType::Container
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => vec![index],
        }
    }

    /// The outbound nodes of some nodes.
    fn ends(&self, nodes: &[u32]) -> Vec<u32> {
        nodes
            .iter()
            .filter_map(|node| self.outbound.get(node))
            .flat_map(|nodes| nodes.iter().copied())
            .collect()
    }

    /// Argo's `outboundNodes` of a Steps or DAG node.
    pub(super) fn shown_outbound(&self, index: u32) -> Vec<u32> {
        let node = &self.nodes[&index];
        if node.rare().memo_hit {
            return vec![index];
        }
        if type_of(node) == NodeType::Steps {
            let last = self.children(index).pop();
            return last.map(|group| self.ends(&self.children(group))).unwrap_or_default();
        }
        let targets = self.targets(node).into_iter().filter_map(|task| self.child(index, task << 32));
        self.ends(&targets.collect::<Vec<_>>())
    }

    /// The child of a Retry node that was made last, hooks included.
    fn last_child(&self, index: u32) -> Option<u32> {
        let below = (self.workflow, index, 0)..=(self.workflow, index, u64::MAX);
        self.state.index.children.range(below).map(|(_, child)| *child).max()
    }

    /// The containers of a Pod that no other of them waits for.
    fn last_containers(&self, index: u32) -> Vec<u32> {
        let numbers = &self.containers[&index];
        let ordinals = 0..numbers.len() as u64;
        let waited: std::collections::BTreeSet<u64> =
            ordinals.clone().flat_map(|ordinal| self.container_waits(index, ordinal)).collect();
        ordinals.zip(numbers).filter(|(at, _)| !waited.contains(at)).map(|(_, number)| *number).collect()
    }

    fn container_waits(&self, pod: u32, ordinal: u64) -> Vec<u64> {
        let pod = &self.nodes[&pod];
        containers::dependencies(self.templates.get(pod.template.as_str()).copied(), pod, ordinal)
    }

    fn tasks(&self, node: &row::Node) -> &'a [Value] {
        let tasks =
            self.templates.get(node.template.as_str()).and_then(|template| template.pointer("/dag/tasks"));
        tasks.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Numbers of a DAG's target tasks.
    fn targets(&self, node: &row::Node) -> Vec<u64> {
        let tasks = self.tasks(node);
        let target = self
            .templates
            .get(node.template.as_str())
            .and_then(|template| template.pointer("/dag/target")?.as_str());
        let target = self.filled(target.unwrap_or_default(), node);
        let named: Vec<&str> = target.split_whitespace().collect();
        let waited: std::collections::BTreeSet<String> = if named.is_empty() {
            tasks.iter().flat_map(dependencies).collect()
        } else {
            std::collections::BTreeSet::new()
        };
        let is_target = |task: &Value| {
            let name = task.get("name").and_then(Value::as_str).unwrap_or_default();
            if named.is_empty() { !waited.contains(name) } else { named.contains(&name) }
        };
        (0_u64..).zip(tasks).filter(|(_, task)| is_target(task)).map(|(number, _)| number).collect()
    }

    fn hangs_below(&self, node: &row::Node) -> Vec<u32> {
        let Some(parent) = self.nodes.get(&node.parent) else { return Vec::new() };
        if node.ordinal >= hooks::ORDINAL_FIRST {
            return vec![node.parent];
        }
        match type_of(parent) {
            NodeType::Steps => {
                let before = node.ordinal.checked_sub(1).and_then(|before| self.child(node.parent, before));
                let Some(before) = before else { return vec![node.parent] };
                let last = self.outbound[&before].as_ref().clone();
                if last.is_empty() && self.children(before).is_empty() { vec![before] } else { last }
            }
            NodeType::Dag => {
                let tasks = self.tasks(parent);
                let task = usize::try_from(node.ordinal >> 32).ok().and_then(|task| tasks.get(task));
                let waits = task.map(dependencies).unwrap_or_default();
                if waits.is_empty() {
                    return vec![node.parent];
                }
                let numbers = waits
                    .iter()
                    .filter_map(|name| self.numbers.get(&(parent.template.as_str(), name.as_str())));
                let made = numbers.filter_map(|number| self.child(node.parent, number << 32));
                let mut from: Vec<u32> =
                    made.flat_map(|task| self.outbound[&task].as_ref().clone()).collect();
                from.sort_unstable();
                from.dedup();
                from
            }
            NodeType::Pod => {
                let waits = self.container_waits(node.parent, node.ordinal);
                let numbers = self.containers.get(&node.parent).map(Vec::as_slice).unwrap_or_default();
                let numbered = |at: u64| numbers.get(usize::try_from(at).unwrap_or(usize::MAX)).copied();
                if waits.is_empty() {
                    vec![node.parent]
                } else {
                    waits.into_iter().filter_map(numbered).collect()
                }
            }
            NodeType::StepGroup
            | NodeType::TaskGroup
            | NodeType::Retry
            | NodeType::Container
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => vec![node.parent],
        }
    }
}
