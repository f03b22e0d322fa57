//! What tags stand for: the workflow's globals, the inputs of the enclosing template, the results of sibling steps or
//! tasks, and what is local to a leaf. Looked up when a tag asks, so a loop is aggregated only where somebody reads it.

use argosy_expr::{Found, Lookup, verbatim};
use argosy_model::{LogTime, NodePhase, NodeType, node_id};
use argosy_proto::state as row;
use argosy_spec::Manifest;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::leader::Parsed;
use crate::state::{State, phase_of, type_of};
use crate::view::time_text;
use argosy_spec::shown_name;

/// Names that are the same all over a workflow.
pub(crate) fn globals(manifest: &Manifest, workflow: &row::Workflow) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut put = |name: &str, value: String| drop(names.insert(name.to_owned(), value));
    put("workflow.name", workflow.name.clone());
    put("workflow.namespace", workflow.namespace.clone());
    put("workflow.uid", workflow.uid.clone());
    put("workflow.mainEntrypoint", manifest.spec.entrypoint.clone());
    put("workflow.serviceAccountName", manifest.spec.service_account_name.clone());
    put("workflow.creationTimestamp", time_text(workflow.created_at_ms));
    put("workflow.creationTimestamp.RFC3339", time_text(workflow.created_at_ms));
    put("workflow.creationTimestamp.s", workflow.created_at_ms.div_euclid(1000).to_string());
    for (letter, text) in created_texts(workflow.created_at_ms) {
        put(&format!("workflow.creationTimestamp.{letter}"), text);
    }
    if let Some(priority) = manifest.spec.priority {
        put("workflow.priority", priority.to_string());
    }
    if let Some(scheduled) = manifest.metadata.annotations.get(crate::cron::SCHEDULED_TIME) {
        put("workflow.scheduledTime", scheduled.clone());
    }
    let mut list = Vec::new();
    for parameter in &manifest.spec.arguments.parameters {
        if let Some(value) = &parameter.value {
            put(&format!("workflow.parameters.{}", parameter.name), value.clone());
            let mut shown = serde_json::json!({"name": parameter.name, "value": value});
            if let Some(fields) = shown.as_object_mut() {
                if let Some(source) = &parameter.value_from {
                    // As written: the list is not told what the ConfigMap holds.
                    fields.shift_remove("value");
                    fields.insert("valueFrom".to_owned(), serde_json::json!(source));
                }
                if let Some(description) = &parameter.description {
                    fields.insert("description".to_owned(), description.clone().into());
                }
            }
            list.push(shown);
        }
    }
    put("workflow.parameters", Value::Array(list.clone()).to_string());
    let has_json = manifest.spec.arguments.parameter("json").is_some_and(|own| own.value.is_some());
    if !has_json {
        put("workflow.parameters.json", Value::Array(list).to_string());
    }
    for (kind, map) in [("labels", manifest.labels()), ("annotations", manifest.annotations())] {
        for (key, value) in &map {
            put(&format!("workflow.{kind}.{key}"), value.clone());
        }
        let text = serde_json::to_string(&map).unwrap_or_default();
        put(&format!("workflow.{kind}"), text.clone());
        put(&format!("workflow.{kind}.json"), text);
    }
    names
}

/// The letters after `workflow.creationTimestamp.` and what each stands for, as Go lays times out.
const CREATED_LAYOUTS: [(char, &str); 16] = [
    ('B', "January"),
    ('b', "Jan"),
    ('m', "01"),
    ('A', "Monday"),
    ('a', "Mon"),
    ('d', "02"),
    ('H', "15"),
    ('I', "03"),
    ('M', "04"),
    ('S', "05"),
    ('Y', "2006"),
    ('y', "06"),
    ('p', "PM"),
    ('Z', "MST"),
    ('z', "-0700"),
    ('L', ".000"),
];

/// The time of creation in parts. Kubernetes keeps it in whole seconds.
fn created_texts(created_at_ms: i64) -> impl Iterator<Item = (char, String)> {
    let seconds_ms = created_at_ms.div_euclid(1000).saturating_mul(1000);
    let time = argosy_expr::date::Time::from_unix_ms(seconds_ms).ok();
    let text = move |layout: &str| time.as_ref().map(|time| time.format(layout)).unwrap_or_default();
    CREATED_LAYOUTS.into_iter().map(move |(letter, layout)| (letter, text(layout)))
}

/// Tasks that a `depends` text names; empty when it can't be read, which makes the task an error when its turn comes.
pub(crate) fn depends_names(depends: &str) -> Vec<String> {
    match argosy_expr::depends::parse(depends) {
        Ok(parsed) => parsed.tasks().into_iter().map(str::to_owned).collect(),
        Err(_) => {
            argosy_expr::depends::mentions(depends).iter().map(|mention| mention.task.to_owned()).collect()
        }
    }
}

/// Everything in scope at one place of a workflow.
pub(crate) struct Scope<'a> {
    pub state: &'a State,
    pub parsed: &'a Parsed,
    pub workflow: u64,
    /// Enclosing Steps or DAG node; 0 at the top.
    pub boundary: u32,
    /// Names local to the place; they win.
    pub locals: BTreeMap<String, String>,
    /// Inside an exit handler, where the workflow's outcome is known.
    pub on_exit: bool,
    pub now: LogTime,
}

impl Lookup for Scope<'_> {
    fn get(&self, name: &str) -> Option<Found<'_>> {
        if let Some(value) = self.locals.get(name).or_else(|| self.parsed.globals.get(name)) {
            return Some(Found::Text(Cow::Borrowed(value)));
        }
        if let Some(rest) = name.strip_prefix("workflow.") {
            return self.of_workflow(rest).map(|text| Found::Text(self.as_told(rest, text)));
        }
        let rest = name.strip_prefix("steps.").or_else(|| name.strip_prefix("tasks."))?;
        let (sibling, field) = rest.split_once('.')?;
        self.of_sibling(sibling, field)
    }
}

impl<'a> Scope<'a> {
    /// The scope at a place below `boundary`, without locals.
    pub(crate) fn new(
        state: &'a State,
        parsed: &'a Parsed,
        workflow: u64,
        boundary: u32,
        now: LogTime,
    ) -> Self {
        let on_exit = state.node(workflow, boundary).is_some_and(|node| node.on_exit);
        Self { state, parsed, workflow, boundary, locals: BTreeMap::new(), on_exit, now }
    }

    fn of_workflow(&self, field: &str) -> Option<String> {
        let row = self.state.workflows.get(&self.workflow)?;
        if let Some(name) = field.strip_prefix("outputs.parameters.") {
            return row.outputs.iter().find(|output| output.name == name)?.value.clone();
        }
        match field {
            "status" if self.on_exit => Some(self.outcome().as_str().to_owned()),
            "status" => Some(
                argosy_model::WorkflowPhase::from_number(row.phase)
                    .map_or("", |phase| phase.as_str())
                    .to_owned(),
            ),
            "duration" => Some(format!(
                "{}.{:06}",
                (self.now.0 - row.created_at_ms) / 1000,
                (self.now.0 - row.created_at_ms) % 1000 * 1000
            )),
            "failures" if self.on_exit => Some(self.failures()),
            _ => None,
        }
    }

    /// The phase that the root's phase gives the workflow.
    fn outcome(&self) -> argosy_model::WorkflowPhase {
        crate::advance::workflow_phase_of(
            self.state.node(self.workflow, 1).map_or(NodePhase::Error, phase_of),
        )
    }

    /// Argo's `workflow.failures`: a JSON list as a quoted JSON string.
    fn failures(&self) -> String {
        /// Failed nodes listed; an exit handler has no use for more.
        const FAILURES_MAX: usize = 1_000;
        let rows = self.state.nodes.range((self.workflow, 0)..=(self.workflow, u32::MAX));
        let failed: Vec<Value> = rows
            .filter(|(_, node)| phase_of(node).is_failed_or_error() && !node.on_exit)
            .take(FAILURES_MAX)
            .map(|(_, node)| {
                serde_json::json!({
                    "displayName": display_name(self.state, self.workflow, node),
                    "message": node.message,
                    "templateName": shown_name(&node.template),
                    "phase": phase_of(node).as_str(),
                    "podName": self.pod_name(node),
                    "finishedAt": time_text(node.finished_at_ms),
                })
            })
            .collect();
        let text = if failed.is_empty() { "null".to_owned() } else { Value::Array(failed).to_string() };
        Value::String(text).to_string()
    }

    fn pod_name(&self, node: &row::Node) -> String {
        self.state.workflows.get(&self.workflow).map_or_else(String::new, |row| {
            argosy_model::pod_name(&row.name, shown_name(&node.template), &node.name)
        })
    }

    fn of_sibling(&self, sibling: &str, field: &str) -> Option<Found<'_>> {
        let boundary = self.state.node(self.workflow, self.boundary)?;
        let nodes = self.sibling_nodes(boundary, sibling)?;
        let text = match nodes {
            Sibling::One(index) => {
                let node = self.state.node(self.workflow, index)?;
                if type_of(node) == NodeType::TaskGroup {
                    let items =
                        self.state.children_from(self.workflow, index, 0).map(|(_, child)| child).collect();
                    self.aggregate(items, field).or_else(|| self.of_node(node, field))?
                } else {
                    let told = self.last_try(index, node);
                    match self.of_node(told.unwrap_or(node), field) {
                        Some(text) => text,
                        None if is_absent(node) => return self.of_absent(node, field),
                        None => return None,
                    }
                }
            }
            Sibling::Loop { group, items } => {
                // What a loop has not itself is that of the group it is in.
                let of_group = || self.of_node(self.state.node(self.workflow, group)?, field);
                self.aggregate(items, field).or_else(of_group)?
            }
        };
        Some(Found::Text(self.as_told(field, text)))
    }

    /// What containers put out is marked as no part of the manifest, unless the workflow asks for it to be one.
    fn as_told(&self, field: &str, text: String) -> Cow<'_, str> {
        let is_output = field.starts_with("outputs.") || field == "failures";
        if !is_output || self.parsed.expands_outputs {
            return Cow::Owned(text);
        }
        match verbatim::mark(&text) {
            Cow::Borrowed(_) => Cow::Owned(text),
            Cow::Owned(marked) => Cow::Owned(marked),
        }
    }

    pub(crate) fn sibling_nodes(&self, boundary: &row::Node, sibling: &str) -> Option<Sibling> {
        match type_of(boundary) {
            NodeType::Dag => {
                let plan = self.parsed.plan(boundary)?;
                let task = plan.names.get(sibling)?;
                self.child(self.boundary, (*task as u64) << 32).map(Sibling::One)
            }
            NodeType::Steps => {
                let (group, slot) = self.parsed.step_place(&boundary.template, sibling)?;
                let group = self.child(self.boundary, group)?;
                let first = slot << 32;
                let mine: Vec<(u64, u32)> = self
                    .state
                    .children_from(self.workflow, group, first)
                    .take_while(|(ordinal, _)| ordinal >> 32 == slot)
                    .collect();
                match mine.as_slice() {
                    [] => self
                        .state
                        .expansions
                        .contains_key(&(self.workflow, group, u32::try_from(slot).ok()?))
                        .then(|| Sibling::Loop { group, items: Vec::new() }),
                    [(ordinal, node)] if *ordinal == first => Some(Sibling::One(*node)),
                    items => {
                        let items = items.iter().map(|(_, node)| *node).collect();
                        Some(Sibling::Loop { group, items })
                    }
                }
            }
            NodeType::Pod
            | NodeType::Container
            | NodeType::StepGroup
            | NodeType::TaskGroup
            | NodeType::Retry
            | NodeType::Skipped
            | NodeType::Suspend
            | NodeType::Http
            | NodeType::Plugin => None,
        }
    }

    /// Names of the output parameters of a sibling that is one node.
    pub(crate) fn output_names(&self, sibling: &str) -> Vec<String> {
        let found = self.state.node(self.workflow, self.boundary);
        let Some(Sibling::One(index)) = found.and_then(|boundary| self.sibling_nodes(boundary, sibling))
        else {
            return Vec::new();
        };
        let template =
            self.state.node(self.workflow, index).and_then(|node| self.parsed.template(&node.template));
        let declared = template.map(|template| template.outputs.parameters.as_slice()).unwrap_or_default();
        declared.iter().map(|output| output.name.clone()).collect()
    }

    fn child(&self, parent: u32, ordinal: u64) -> Option<u32> {
        self.state.index.children.get(&(self.workflow, parent, ordinal)).copied()
    }

    /// What is told of a retried step is told of its last try.
    fn last_try(&self, index: u32, node: &row::Node) -> Option<&row::Node> {
        let last = node.children_total.checked_sub(1).filter(|_| type_of(node) == NodeType::Retry)?;
        self.state.node(self.workflow, self.child(index, u64::from(last))?)
    }

    fn of_node(&self, node: &row::Node, field: &str) -> Option<String> {
        let outputs = node.outputs.as_ref();
        if let Some(name) = field.strip_prefix("outputs.parameters.") {
            return outputs?.parameters.iter().find(|output| output.name == name)?.value.clone();
        }
        match field {
            "id" => Some(node_id(&self.state.workflows.get(&self.workflow)?.name, &node.name)),
            "status" => Some(phase_of(node).as_str().to_owned()),
            "startedAt" => Some(time_text(node.started_at_ms)),
            "finishedAt" => (node.finished_at_ms != 0).then(|| time_text(node.finished_at_ms)),
            "hostNodeName" => (!node.host.is_empty()).then(|| node.host.clone()),
            "ip" => Some(&node.rare().pod_ip).filter(|ip| !ip.is_empty()).cloned(),
            "exitCode" => outputs?.exit_code.map(|code| code.to_string()),
            "outputs.result" => outputs?.result.clone(),
            _ => None,
        }
    }

    /// An output of a node that never ran: its default as written, or known to be absent.
    fn of_absent(&self, node: &row::Node, field: &str) -> Option<Found<'_>> {
        let name = field.strip_prefix("outputs.parameters.")?;
        let template = self.parsed.template(&node.template)?;
        let declared = template.outputs.parameters.iter().find(|output| output.name == name)?;
        let default = declared
            .value_from
            .as_ref()
            .and_then(|from| from.default.clone())
            .or_else(|| declared.default.clone());
        Some(default.map_or(Found::Absent, |default| Found::Text(Cow::Owned(default))))
    }

    /// Argo's aggregates over the succeeded children of a loop.
    fn aggregate(&self, items: Vec<u32>, field: &str) -> Option<String> {
        let succeeded = items
            .into_iter()
            .filter_map(|item| self.state.node(self.workflow, item))
            .filter(|node| phase_of(node) == NodePhase::Succeeded)
            .filter_map(|node| node.outputs.as_ref());
        let list: Vec<Value> = if field == "outputs.result" {
            // Results stand as they are, in their own order of keys.
            let results: Vec<Value> = succeeded
                .filter_map(|outputs| outputs.result.as_ref())
                .map(|text| embedded(text, true))
                .collect();
            return Some(Value::Array(results).to_string());
        } else if field == "outputs.parameters" {
            succeeded
                .map(|outputs| {
                    let pairs = outputs.parameters.iter().filter_map(|output| {
                        output.value.as_ref().map(|value| (output.name.clone(), Value::String(value.clone())))
                    });
                    Value::Object(pairs.collect::<Map<_, _>>())
                })
                .collect()
        } else if let Some(name) = field.strip_prefix("outputs.parameters.") {
            let texts: Vec<&String> = succeeded
                .filter_map(|outputs| {
                    outputs.parameters.iter().find(|output| output.name == name)?.value.as_ref()
                })
                .collect();
            let values: Vec<Value> = texts.iter().map(|text| embedded(text, false)).collect();
            let structured = values.iter().all(|value| !value.is_string());
            if structured {
                values
            } else {
                texts.into_iter().map(|text| Value::String(text.clone())).collect()
            }
        } else {
            return None;
        };
        Some(sorted_json(&Value::Array(list)))
    }
}

pub(crate) enum Sibling {
    One(u32),
    /// The items of a loop, and the group that they are in.
    Loop {
        group: u32,
        items: Vec<u32>,
    },
}

fn is_absent(node: &row::Node) -> bool {
    matches!(phase_of(node), NodePhase::Skipped | NodePhase::Omitted)
}

/// Compact JSON with the keys of objects in order, as Go writes maps.
pub(crate) fn sorted_json(value: &Value) -> String {
    sorted(value).to_string()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, Value> =
                fields.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A value inside an aggregate: objects and lists as themselves (and any JSON for results), other text as a string.
fn embedded(text: &str, any_json: bool) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if any_json || value.is_object() || value.is_array() => value,
        Ok(_) | Err(_) => Value::String(text.to_owned()),
    }
}

/// Argo's display name: the node's name without its boundary's and without a leading `[n].` or `.`.
pub(crate) fn display_name(state: &State, workflow: u64, node: &row::Node) -> String {
    let Some(boundary) = state.node(workflow, node.boundary) else { return node.name.clone() };
    let rest = node.name.strip_prefix(boundary.name.as_str()).unwrap_or(&node.name);
    let rest = if rest.starts_with('[') {
        rest.split_once("].").map_or(rest, |(_, step)| step)
    } else {
        rest.strip_prefix('.').unwrap_or(rest)
    };
    rest.to_owned()
}
