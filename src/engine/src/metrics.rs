//! Metrics that a workflow's manifest asks for (`metrics.prometheus`): readings that a batch brings about.
//!
//! Taken by the leader after it made a batch, told when the batch is committed. They are no part of state: a new leader
//! begins anew, as a restarted Argo controller does.

use argosy_expr::{Rules, when};
use argosy_model::{NodePhase, WorkflowPhase};
use argosy_proto::fact::{Batch, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{Metrics, Prometheus};
use std::collections::BTreeMap;

use crate::Leader;
use crate::advance::leaf;
use crate::express::fill;
use crate::leader::Parsed;
use crate::scope::Scope;
use crate::state::{State, phase_of};

/// Readings of one batch; more are left out.
const READINGS_MAX: usize = 10_000;

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
    let Some(metrics) =
        metrics.filter(|_| !matches!(phase_of(node), NodePhase::Skipped | NodePhase::Omitted))
    else {
        return;
    };
    let mut scope = Scope::new(state, &parsed, workflow, 0, state.log_time());
    scope.locals = names(&parsed, node);
    found.extend(metrics.prometheus.iter().filter_map(|metric| reading(metric, &scope)));
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
    found.extend(metrics.prometheus.iter().filter_map(|metric| reading(metric, &scope)));
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
            if let Some(value) = &output.value {
                names.insert(format!("outputs.parameters.{}", output.name), value.clone());
            }
        }
    }
    names
}

/// `None`: its condition does not hold, or its value is no number.
fn reading(metric: &Prometheus, scope: &Scope<'_>) -> Option<Reading> {
    let text = serde_json::to_string(metric).ok()?;
    let metric: Prometheus = if text.contains("{{") {
        serde_json::from_str(&fill(&text, scope, &Rules::LENIENT).ok()?).ok()?
    } else {
        metric.clone()
    };
    if !when::evaluate(&metric.when).ok()? {
        return None;
    }
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let change = match (&metric.counter, &metric.gauge, &metric.histogram) {
        (Some(counter), _, _) => Change::Count(number(&counter.value).filter(|number| *number >= 0.0)?),
        (None, Some(gauge), _) => match (gauge.operation.as_str(), number(&gauge.value)?) {
            ("Add", value) => Change::Add(value),
            ("Sub", value) => Change::Add(-value),
            (_, value) => Change::Set(value),
        },
        (None, None, Some(histogram)) => {
            Change::Observe(number(&histogram.value)?, histogram.buckets.clone())
        }
        (None, None, None) => return None,
    };
    let labels = metric.labels.into_iter().map(|label| (label.key, label.value)).collect();
    Some(Reading { name: metric.name, help: metric.help, labels, change })
}
