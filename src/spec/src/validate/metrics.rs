//! Metrics that a manifest asks for.

use super::Validator;
use crate::metrics::{Metrics, Prometheus};

impl Validator<'_> {
    /// Names and values of metrics, in the order of Argo's checks.
    pub(super) fn metrics(&mut self, metrics: Option<&Metrics>, words: &str, path: &str) {
        for (index, metric) in metrics.iter().flat_map(|metrics| &metrics.prometheus).enumerate() {
            let path = format!("{path}.metrics.prometheus[{index}]");
            if !is_metric_name(&metric.name) {
                let message = format!(
                    "{words} metric name '{}' is invalid. Metric names must contain alphanumeric characters or '_'",
                    metric.name
                );
                self.tell("ARG0012", format!("{path}.name"), message);
            }
            if metric.help.is_empty() {
                let message = format!("{words} metric '{}' must have a help string", metric.name);
                self.tell("ARG0010", format!("{path}.help"), message);
            }
            if let Some(problem) = value_problem(metric) {
                self.tell("ARG0018", path, format!("{words} metric '{}': {problem}", metric.name));
            }
        }
    }
}

fn is_metric_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(letter) && !name.as_bytes()[0].is_ascii_digit()
}

fn value_problem(metric: &Prometheus) -> Option<&'static str> {
    let kinds = [metric.counter.is_some(), metric.gauge.is_some(), metric.histogram.is_some()];
    if kinds.into_iter().filter(|there| *there).count() != 1 {
        return Some("exactly one of counter, gauge and histogram must be there");
    }
    if let Some(gauge) = &metric.gauge {
        if gauge.value.is_empty() {
            return Some("missing gauge.value");
        }
        if gauge.realtime == Some(true) && gauge.value.contains("resourcesDuration.") {
            return Some("'resourcesDuration.*' metrics cannot be used in real-time gauges");
        }
        if !["", "Set", "Add", "Sub"].contains(&gauge.operation.as_str()) {
            return Some("gauge.operation must be Set, Add or Sub");
        }
    }
    if metric.counter.as_ref().is_some_and(|counter| counter.value.is_empty()) {
        return Some("missing counter.value");
    }
    metric
        .histogram
        .as_ref()
        .is_some_and(|histogram| histogram.value.is_empty())
        .then_some("missing histogram.value")
}
