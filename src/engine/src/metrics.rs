//! Metrics that a workflow's manifest asks for (`metrics.prometheus`): readings that a batch brings about.
//!
//! Taken by the leader after it made a batch, told when the batch is committed. They are no part of state: a new leader
//! begins anew, as a restarted Argo controller does.

use argosy_expr::{Rules, when};
use argosy_model::{NodePhase, NodeType, WorkflowPhase};
use argosy_proto::fact::{Batch, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Manifest, Metrics, Prometheus};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Leader;
use crate::advance::leaf;
use crate::express::fill;
use crate::leader::Parsed;
use crate::scope::Scope;
use crate::state::{State, phase_of, type_of};

/// Readings of one batch; more are left out.
const READINGS_MAX: usize = 10_000;

/// Problems of one workflow that are shown.
const PROBLEMS_MAX: usize = 20;

/// What a reading does to its series.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A counter goes up.
    Count(f64),
    /// A gauge is set.
    Set(f64),
    /// A gauge goes up, or down.
    Add(f64),
    /// A histogram sees a value; the upper bounds of its buckets.
    Observe(f64, Vec<f64>),
}

/// One reading of a metric that a manifest asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The metric's name, as written.
    pub name: String,
    /// What it means.
    pub help: String,
    /// Labels in the order of the manifest.
    pub labels: Vec<(String, String)>,
    /// What happens to it.
    pub change: Change,
}

/// The readings that a batch brings about; `state` is the one after it.
#[must_use]
pub fn readings(state: &State, batch: &Batch, leader: &mut Leader) -> Vec<Reading> {
    let mut found = Vec::new();
    for body in batch.facts.iter().filter_map(|fact| fact.body.as_ref()) {
        if found.len() >= READINGS_MAX {
            break;
        }
        // Other facts end nothing.
        if let Body::NodeFinished(over) = body {
            of_node(state, leader, over.workflow, over.node, &mut found);
        } else if let Body::WorkflowPhaseChanged(changed) = body {
            let phase = WorkflowPhase::from_number(changed.phase);
            if phase.is_some_and(WorkflowPhase::is_completed) {
                of_workflow(state, leader, changed.workflow, &mut found);
            }
        }
    }
    found
}

fn of_node(state: &State, leader: &mut Leader, workflow: u64, index: u32, found: &mut Vec<Reading>) {
    if !leader.measured.contains(&workflow) {
        return;
    }
    let (Some(parsed), Some(node)) = (leader.parsed(state, workflow), state.node(workflow, index)) else {
        return;
    };
    let metrics = parsed.template(&node.template).and_then(|template| Metrics::of(&template.raw));
    let Some(metrics) = metrics.filter(|_| is_measured(node)) else { return };
    let mut scope = Scope::new(state, &parsed, workflow, 0, state.log_time());
    scope.locals = names(&parsed, node);
    found.extend(metrics.prometheus.iter().filter_map(|metric| reading(metric, &scope).ok().flatten()));
}

fn of_workflow(state: &State, leader: &mut Leader, workflow: u64, found: &mut Vec<Reading>) {
    if !leader.measured.contains(&workflow) {
        return;
    }
    let Some(parsed) = leader.parsed(state, workflow) else { return };
    leader.forget(workflow);
    leader.measured.remove(&workflow);
    let Some(metrics) = &parsed.manifest.spec.metrics else { return };
    let mut scope = Scope::new(state, &parsed, workflow, 0, state.log_time());
    scope.on_exit = true;
    if let Some(root) = state.node(workflow, 1) {
        scope.locals = names(&parsed, root);
    }
    found.extend(metrics.prometheus.iter().filter_map(|metric| reading(metric, &scope).ok().flatten()));
}

/// A node that a template was carried out as: a group only bears the name of what its children are.
fn is_measured(node: &row::Node) -> bool {
    let is_group = matches!(type_of(node), NodeType::StepGroup | NodeType::TaskGroup);
    !is_group && !matches!(phase_of(node), NodePhase::Skipped | NodePhase::Omitted)
}

/// What a metric can say of a node.
fn names(parsed: &Parsed, node: &row::Node) -> BTreeMap<String, String> {
    let mut names = leaf::inputs_of(parsed, node);
    names.insert("status".to_owned(), phase_of(node).as_str().to_owned());
    let span_ms = node.finished_at_ms.saturating_sub(node.started_at_ms).max(0);
    names.insert("duration".to_owned(), format!("{}.{:06}", span_ms / 1000, span_ms % 1000 * 1000));
    for resource in ["cpu", "memory"] {
        // Argo estimates them from requests; here nobody does.
        names.insert(format!("resourcesDuration.{resource}"), "0".to_owned());
    }
    if let Some(outputs) = &node.outputs {
        if let Some(code) = outputs.exit_code {
            names.insert("exitCode".to_owned(), code.to_string());
        }
        if let Some(result) = &outputs.result {
            names.insert("outputs.result".to_owned(), result.clone());
        }
        for output in &outputs.parameters {
            let value = output.value.clone().unwrap_or_default();
            names.insert(format!("outputs.parameters.{}", output.name), value);
        }
    }
    names
}

/// `None`: its condition does not hold. An error is Argo's message.
fn reading(metric: &Prometheus, scope: &Scope<'_>) -> Result<Option<Reading>, String> {
    let name = &metric.name;
    let unfilled = |error: &dyn std::fmt::Display| {
        format!("unable to substitute parameters for metric '{name}': {error}")
    };
    let text = serde_json::to_string(metric).map_err(|error| unfilled(&error))?;
    let metric: Prometheus = if text.contains("{{") {
        let text = fill(&text, scope, &Rules::STRICT).map_err(|error| unfilled(&error))?;
        serde_json::from_str(&text).map_err(|error| unfilled(&error))?
    } else {
        metric.clone()
    };
    let holds = when::evaluate(&metric.when).map_err(|error| {
        let workflow = scope.parsed.globals.get("workflow.name").map_or("", String::as_str);
        format!("unable to compute 'when' clause for metric '{workflow}': {error}")
    })?;
    if !holds {
        return Ok(None);
    }
    let number = |text: &str| {
        text.parse::<f64>().map_err(|_| {
            format!(
                "could not construct metric '{name}': strconv.ParseFloat: parsing {text:?}: invalid syntax"
            )
        })
    };
    let change = match (&metric.counter, &metric.gauge, &metric.histogram) {
        (Some(counter), _, _) => Change::Count(number(&counter.value)?),
        (None, Some(gauge), _) => match (gauge.operation.as_str(), number(&gauge.value)?) {
            ("Add", value) => Change::Add(value),
            ("Sub", value) => Change::Add(-value),
            (_, value) => Change::Set(value),
        },
        (None, None, Some(histogram)) => {
            Change::Observe(number(&histogram.value)?, histogram.buckets.clone())
        }
        (None, None, None) => return Ok(None),
    };
    let fits = match change {
        Change::Count(value) => value.is_finite() && value >= 0.0,
        Change::Set(value) | Change::Add(value) | Change::Observe(value, _) => value.is_finite(),
    };
    let labels = metric.labels.into_iter().map(|label| (label.key, label.value)).collect();
    Ok(fits.then_some(Reading { name: metric.name, help: metric.help, labels, change }))
}

/// What was wrong with the metrics that a workflow asked for: Argo's condition `MetricsError`. Found anew from what its
/// nodes came to.
pub(crate) fn problems(state: &State, workflow: u64, row: &row::Workflow, manifest: &Value) -> Vec<String> {
    let templates = manifest.pointer("/spec/templates").and_then(Value::as_array);
    let measured = templates.into_iter().flatten().any(|template| template.get("metrics").is_some());
    if !measured && manifest.pointer("/spec/metrics").is_none() {
        return Vec::new();
    }
    let Ok(read) = Manifest::from_value(manifest.clone()) else { return Vec::new() };
    let parsed = Parsed::new(read, row);
    let mut scope = Scope::new(state, &parsed, workflow, 0, state.log_time());
    let mut found = Vec::new();
    let mut tell = |metrics: &Metrics, scope: &Scope<'_>| {
        let wrong = metrics.prometheus.iter().filter_map(|metric| reading(metric, scope).err());
        found.extend(wrong.take(PROBLEMS_MAX.saturating_sub(found.len())));
    };
    for (_, node) in state.nodes.range((workflow, 0)..=(workflow, u32::MAX)) {
        if !phase_of(node).is_fulfilled() || !is_measured(node) {
            continue;
        }
        let template = parsed.template(&node.template);
        let Some(metrics) = template.and_then(|template| Metrics::of(&template.raw)) else { continue };
        scope.locals = names(&parsed, node);
        tell(&metrics, &scope);
    }
    if let (Some(metrics), true) = (&parsed.manifest.spec.metrics, row.finished_at_ms != 0) {
        scope.on_exit = true;
        scope.locals = state.node(workflow, 1).map(|root| names(&parsed, root)).unwrap_or_default();
        tell(metrics, &scope);
    }
    found
}
