//! The nodes of a workflow as Argo shows them. Edges between siblings are not stored: Argo hangs a group below the last
//! nodes of the group before, a task below the last nodes of what it depends on, and that follows from the manifest.

mod links;

use argosy_model::{NodePhase, NodeType, display_fence, node_id};
use argosy_proto::common::AttemptPhase;
use argosy_proto::state as row;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::advance::{hold, hooks, leaf};
use crate::leader::with_names;
use crate::references::{is_stored, local_scope, reference_json, scope_of};
use crate::scope::display_name;
use crate::state::{State, is_leaf_type, phase_of, type_of};
use crate::view::{EXACT_PROGRESS_NODES_MAX, artifact, containers, time_text};
use argosy_spec::shown_name;

pub(super) struct Tree<'a> {
    state: &'a State,
    workflow: u64,
    row: &'a row::Workflow,
    manifest: &'a Value,
    /// Where templates written in the workflow itself are: nowhere, when it has none of its own.
    local_scope: String,
    nodes: BTreeMap<u32, Arc<row::Node>>,
    /// Numbers of the Container nodes of a Pod node, which state doesn't number.
    containers: BTreeMap<u32, Vec<u32>>,
    templates: BTreeMap<&'a str, &'a Value>,
    /// (template, task) to the task's number.
    numbers: BTreeMap<(&'a str, &'a str), u64>,
    /// Edges as Argo shows them.
    edges: BTreeMap<u32, Vec<u32>>,
    /// Where what follows a node is hung.
    outbound: BTreeMap<u32, Arc<Vec<u32>>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(state: &'a State, workflow: u64, row: &'a row::Workflow, manifest: &'a Value) -> Self {
        let mut nodes: BTreeMap<u32, Arc<row::Node>> = state
            .nodes
            .range((workflow, 0)..=(workflow, u32::MAX))
            .map(|((_, index), node)| (*index, node.clone()))
            .collect();
        let containers = add_containers(&mut nodes);
        let templates = manifest.pointer("/spec/templates").and_then(Value::as_array).into_iter().flatten();
        let templates: BTreeMap<&str, &Value> =
            templates.filter_map(|template| Some((template.get("name")?.as_str()?, template))).collect();
        let mut numbers = BTreeMap::new();
        for (name, template) in &templates {
            let tasks = template.pointer("/dag/tasks").and_then(Value::as_array).into_iter().flatten();
            let named = (0_u64..)
                .zip(tasks)
                .filter_map(|(number, task)| Some(((*name, task.get("name")?.as_str()?), number)));
            numbers.extend(named);
        }
        let mut tree = Self {
            state,
            workflow,
            row,
            manifest,
            local_scope: local_scope(state, workflow, row),
            nodes,
            containers,
            templates,
            numbers,
            edges: BTreeMap::new(),
            outbound: BTreeMap::new(),
        };
        tree.connect();
        tree
    }

    pub(super) fn has_pods(&self) -> bool {
        self.nodes.values().any(|node| type_of(node) == NodeType::Pod)
    }

    pub(super) fn runs_pods(&self) -> bool {
        self.nodes.values().any(|node| type_of(node) == NodeType::Pod && phase_of(node) == NodePhase::Running)
    }

    /// Children in order, hooks left out.
    fn children(&self, index: u32) -> Vec<u32> {
        self.state
            .children_from(self.workflow, index, 0)
            .take_while(|(ordinal, _)| *ordinal < hooks::ORDINAL_FIRST)
            .map(|(_, child)| child)
            .collect()
    }

    fn child(&self, parent: u32, ordinal: u64) -> Option<u32> {
        self.state.index.children.get(&(self.workflow, parent, ordinal)).copied()
    }

    pub(super) fn nodes(&self) -> Map<String, Value> {
        let progress = self.progress();
        self.nodes
            .iter()
            .map(|(index, node)| {
                (self.id(*index), Value::Object(self.node(*index, node, progress.get(index))))
            })
            .collect()
    }

    fn id(&self, index: u32) -> String {
        self.nodes.get(&index).map_or_else(String::new, |node| node_id(&self.row.name, &node.name))
    }

    fn ids(&self, nodes: &[u32]) -> Value {
        nodes.iter().map(|index| Value::String(self.id(*index))).collect()
    }

    fn node(&self, index: u32, node: &row::Node, progress: Option<&(u64, u64)>) -> Map<String, Value> {
        let mut shown = Map::new();
        let mut put = |key: &str, value: Value| drop(shown.insert(key.to_owned(), value));
        let kind = type_of(node);
        put("id", self.id(index).into());
        put("name", node.name.clone().into());
        put("displayName", self.display(node).into());
        put("type", kind.as_str().into());
        let around = self.nodes.get(&node.boundary).and_then(|around| scope_of(&around.template));
        let reference = is_stored(&node.template)
            .then(|| reference_json(&node.template).filter(|_| scope_of(&node.template) != around))
            .flatten();
        let scope = around.map_or_else(|| self.local_scope.clone(), str::to_owned);
        let template = if reference.is_some() { "" } else { shown_name(&node.template) };
        if !template.is_empty() {
            put("templateName", template.into());
        }
        put("templateScope", scope.into());
        if let Some(reference) = reference {
            put("templateRef", reference);
        }
        put("phase", phase_of(node).as_str().into());
        if node.boundary != 0 {
            put("boundaryID", self.id(node.boundary).into());
        }
        if let Some(message) = self.message(index, node) {
            put("message", message.into());
        }
        put("startedAt", time_text(node.started_at_ms).into());
        put(
            "finishedAt",
            if node.finished_at_ms == 0 { Value::Null } else { time_text(node.finished_at_ms).into() },
        );
        if let Some((done, total)) = progress.filter(|(_, total)| *total > 0) {
            put("progress", format!("{done}/{total}").into());
        }
        let mut inputs = Map::new();
        if !node.inputs.is_empty() {
            inputs.insert("parameters".to_owned(), self.inputs(node).into());
        }
        let artifacts = &node.rare().input_artifacts;
        if !artifacts.is_empty() {
            inputs.insert("artifacts".to_owned(), artifact::list(artifacts));
        }
        if !inputs.is_empty() {
            put("inputs", Value::Object(inputs));
        }
        if let Some(outputs) = &node.outputs {
            put("outputs", self.outputs(node, outputs));
        }
        if let Some(children) = self.edges.get(&index) {
            put("children", self.ids(children));
        }
        if self.shows_outbound(index, node, kind) {
            put("outboundNodes", self.ids(&self.shown_outbound(index)));
        }
        if node.daemoned {
            put("daemoned", true.into());
        }
        let rare = node.rare();
        if !rare.pod_ip.is_empty() {
            put("podIP", rare.pod_ip.clone().into());
        }
        if !node.host.is_empty() {
            put("hostNodeName", node.host.clone().into());
        }
        if let Some((lock, _)) = self.state.waits_for((self.workflow, index)) {
            put("synchronizationStatus", json!({"waiting": lock}));
        }
        if !rare.memo_key.is_empty() {
            put(
                "memoizationStatus",
                json!({"hit": rare.memo_hit, "key": rare.memo_key, "cacheName": rare.memo_cache}),
            );
        }
        match row::NodeFlag::try_from(node.flag) {
            Ok(row::NodeFlag::Retried) => put("nodeFlag", json!({"retried": true})),
            Ok(row::NodeFlag::Hooked) => put("nodeFlag", json!({"hooked": true})),
            // Argo writes an empty one here.
            Ok(row::NodeFlag::Unspecified) if kind == NodeType::StepGroup => put("nodeFlag", json!({})),
            Ok(row::NodeFlag::Unspecified) | Err(_) => {}
        }
        self.put_attempts(index, &mut put);
        if !rare.reproductions.is_empty() {
            put("reproductions", rare.reproductions.iter().map(artifact::reproduction).collect());
        }
        shown
    }

    /// Ours: where the node's tries on clusters were and are.
    fn put_attempts(&self, index: u32, put: &mut impl FnMut(&str, Value)) {
        let fences = self.state.fences_of(argosy_model::WorkflowId(self.workflow), index);
        let mut attempts = Vec::new();
        for fence in fences {
            let Some(attempt) = self.state.attempt(&fence) else { continue };
            if !attempt.fenced {
                put("cluster", attempt.cluster.clone().into());
            }
            let mut shown = json!({
                "fence": display_fence(&fence),
                "cluster": attempt.cluster,
                "phase": attempt_phase(attempt),
                "permit": if attempt.permitted { "granted" } else { "none" },
            });
            if attempt.exclusive_lease_ms > 0 {
                shown["exclusiveLeaseMs"] = attempt.exclusive_lease_ms.into();
            }
            attempts.push(shown);
        }
        if !attempts.is_empty() {
            put("attempts", Value::Array(attempts));
        }
    }

    fn display(&self, node: &row::Node) -> String {
        let own = self.templates.get(node.template.as_str()).and_then(|template| {
            template.get("annotations")?.get("workflows.argoproj.io/display-name")?.as_str()
        });
        // In Argo the name that a Steps, DAG or Suspend node is given does not last.
        let own = own.filter(|_| type_of(node) == NodeType::Pod);
        let own = own.map(|own| self.filled(own, node)).filter(|own| leaf::is_display_name(own));
        own.unwrap_or_else(|| display_name(self.state, self.workflow, node))
    }

    /// An argument of the workflow.
    fn argument(&self, name: &str) -> Option<String> {
        let parameters = self.manifest.pointer("/spec/arguments/parameters")?.as_array()?;
        let found = parameters.iter().find(|parameter| parameter["name"] == name)?;
        found["value"].as_str().map(str::to_owned)
    }

    /// A text of a template with the workflow's names and the node's inputs filled in.
    fn filled(&self, text: &str, node: &row::Node) -> String {
        let global = |name: &str| match name.strip_prefix("workflow.parameters.") {
            Some(wanted) => self.argument(wanted),
            None => (name == "workflow.name").then(|| self.row.name.clone()),
        };
        with_names(text, &node.inputs, &global)
    }

    /// The node's message; for a leaf that no cluster can take, the reasons.
    fn message(&self, index: u32, node: &row::Node) -> Option<String> {
        if !node.message.is_empty() {
            return Some(node.message.clone());
        }
        if let Some((_, message)) = self.state.waits_for((self.workflow, index)) {
            return Some(message);
        }
        let work = self.state.works.get(&(self.workflow, index)).filter(|work| work.fence.is_none())?;
        self.state.blocked.get(&work.shape).map(|blocked| blocked.message.clone())
    }

    fn declared(&self, node: &row::Node, direction: &str, name: &str) -> Option<&'a Value> {
        let template = self.templates.get(node.template.as_str())?;
        let parameters = template.get(direction)?.get("parameters")?.as_array()?;
        parameters.iter().find(|parameter| parameter.get("name").and_then(Value::as_str) == Some(name))
    }

    fn inputs(&self, node: &row::Node) -> Vec<Value> {
        let shown = |input: &row::Parameter| {
            let mut fields = Map::new();
            fields.insert("name".to_owned(), input.name.clone().into());
            if let Some(declared) = self.declared(node, "inputs", &input.name) {
                for key in ["default", "enum", "description"] {
                    match (declared.get(key), &input.value) {
                        // Argo shows a default with its tags resolved, which is what the input came to.
                        (Some(Value::String(text)), Some(value))
                            if key == "default" && text.contains("{{") =>
                        {
                            fields.insert(key.to_owned(), value.clone().into());
                        }
                        (Some(declared), _) => drop(fields.insert(key.to_owned(), declared.clone())),
                        (None, _) => {}
                    }
                }
            }
            if let Some(value) = &input.value {
                if type_of(node) == NodeType::Suspend {
                    put_choices(&mut fields, value);
                }
                fields.insert("value".to_owned(), value.clone().into());
            }
            Value::Object(fields)
        };
        node.inputs.iter().map(shown).collect()
    }

    fn outputs(&self, node: &row::Node, outputs: &row::Outputs) -> Value {
        outputs_json(outputs, |output, fields| {
            let Some(declared) = self.declared(node, "outputs", &output.name) else { return };
            for key in ["valueFrom", "globalName"] {
                let given = output.value.is_some() && declared.pointer("/valueFrom/supplied").is_some();
                if let Some(value) = declared.get(key).filter(|_| key != "valueFrom" || !given) {
                    fields.insert(key.to_owned(), value.clone());
                }
            }
        })
    }

    /// Steps and DAG nodes show them once they ended with what their children came to.
    fn shows_outbound(&self, index: u32, node: &row::Node, kind: NodeType) -> bool {
        let ended =
            phase_of(node).is_fulfilled() && !node.rare().memo_hit && !self.outbound[&index].is_empty();
        match kind {
            NodeType::Dag => ended && node.message.is_empty(),
            NodeType::Steps => ended && phase_of(node) != NodePhase::Error && node.message != hold::FAIL_FAST,
            NodeType::Pod
            | NodeType::Container
            | NodeType::StepGroup
            | NodeType::TaskGroup
            | NodeType::Retry
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => false,
        }
    }

    fn progress(&self) -> BTreeMap<u32, (u64, u64)> {
        let own: BTreeMap<u32, (u64, u64)> = self
            .nodes
            .iter()
            .filter(|(_, node)| has_progress(node))
            .map(|(index, node)| (*index, leaf_progress(node)))
            .collect();
        let mut all = own.clone();
        if self.nodes.len() > EXACT_PROGRESS_NODES_MAX {
            for (index, node) in self.nodes.iter().rev() {
                let (done, total) = all.get(index).copied().unwrap_or_default();
                if node.parent != 0 {
                    let parent = all.entry(node.parent).or_default();
                    *parent = (parent.0 + done, parent.1 + total);
                }
            }
            return all;
        }
        for (index, node) in &self.nodes {
            if !has_progress(node) {
                all.insert(*index, self.reachable(*index, &own));
            }
        }
        all
    }

    /// The workflow's progress: of all leaves together.
    pub(super) fn total_progress(&self) -> String {
        let leaves = self.nodes.values().filter(|node| has_progress(node));
        let (done, total) = leaves
            .map(|node| leaf_progress(node))
            .fold((0_u64, 0_u64), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)));
        format!("{done}/{total}")
    }

    fn reachable(&self, from: u32, own: &BTreeMap<u32, (u64, u64)>) -> (u64, u64) {
        let mut seen = std::collections::BTreeSet::from([from]);
        let mut open = vec![from];
        let (mut done, mut total) = (0, 0);
        while let Some(index) = open.pop() {
            let (more_done, more_total) = own.get(&index).copied().unwrap_or_default();
            done += more_done;
            total += more_total;
            open.extend(
                self.edges.get(&index).into_iter().flatten().copied().filter(|child| seen.insert(*child)),
            );
        }
        (done, total)
    }
}

/// Numbers the Container nodes after all others, so that they come after their Pod.
fn add_containers(nodes: &mut BTreeMap<u32, Arc<row::Node>>) -> BTreeMap<u32, Vec<u32>> {
    let mut next = nodes.last_key_value().map_or(0, |(last, _)| *last);
    let mut numbers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let pods = nodes.iter().filter(|(_, node)| !node.rare().containers.is_empty());
    for (pod, container) in pods
        .flat_map(|(index, node)| containers::nodes_of(*index, node).map(|container| (*index, container)))
        .collect::<Vec<_>>()
    {
        next = next.saturating_add(1);
        numbers.entry(pod).or_default().push(next);
        nodes.insert(next, container);
    }
    numbers
}

fn has_progress(node: &row::Node) -> bool {
    is_leaf_type(node.r#type) || type_of(node) == NodeType::Container
}

fn leaf_progress(node: &row::Node) -> (u64, u64) {
    let reported = node
        .rare()
        .progress
        .split_once('/')
        .and_then(|(done, total)| Some((done.parse().ok()?, total.parse().ok()?)));
    let (done, total): (u64, u64) =
        reported.filter(|(done, total)| done <= total && *total > 0).unwrap_or((0, 1));
    if phase_of(node) == NodePhase::Succeeded { (total, total) } else { (done, total) }
}

fn attempt_phase(attempt: &row::Attempt) -> &'static str {
    if attempt.fenced {
        return "Fenced";
    }
    match AttemptPhase::try_from(attempt.phase).unwrap_or_default() {
        AttemptPhase::Unspecified => "Assigned",
        AttemptPhase::Received => "Received",
        AttemptPhase::Pending => "Pending",
        AttemptPhase::Running => "Running",
        AttemptPhase::Succeeded => "Succeeded",
        AttemptPhase::Failed => "Failed",
        AttemptPhase::Error => "Error",
        AttemptPhase::Stopped => "Stopped",
    }
}

fn dependencies(task: &Value) -> Vec<String> {
    match task.get("depends").and_then(Value::as_str).filter(|depends| !depends.is_empty()) {
        Some(depends) => crate::scope::depends_names(depends),
        None => task
            .get("dependencies")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
    }
}

/// An approval's choices may come as the value of its input: `{"enum": [...]}`.
fn put_choices(fields: &mut Map<String, Value>, value: &str) {
    let Ok(Value::Object(given)) = serde_json::from_str(value) else { return };
    let Some(choices) = given.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty())
    else {
        return;
    };
    let default = fields.get("default").or_else(|| given.get("default")).or_else(|| choices.first()).cloned();
    fields.insert("enum".to_owned(), choices.clone().into());
    fields.insert("default".to_owned(), default.unwrap_or_default());
}

/// Outputs in Argo's shape; the function adds what a parameter's declaration says.
pub(super) fn outputs_json(
    outputs: &row::Outputs,
    declare: impl Fn(&row::Parameter, &mut Map<String, Value>),
) -> Value {
    let mut shown = Map::new();
    let parameter = |output: &row::Parameter| {
        let mut fields = Map::new();
        fields.insert("name".to_owned(), output.name.clone().into());
        if let Some(value) = &output.value {
            fields.insert("value".to_owned(), value.clone().into());
        }
        declare(output, &mut fields);
        Value::Object(fields)
    };
    if !outputs.parameters.is_empty() {
        shown.insert("parameters".to_owned(), outputs.parameters.iter().map(parameter).collect());
    }
    if !outputs.artifacts.is_empty() {
        shown.insert("artifacts".to_owned(), artifact::list(&outputs.artifacts));
    }
    if let Some(result) = &outputs.result {
        shown.insert("result".to_owned(), result.clone().into());
    }
    if let Some(code) = outputs.exit_code {
        shown.insert("exitCode".to_owned(), code.to_string().into());
    }
    Value::Object(shown)
}
