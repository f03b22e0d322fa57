//! Metrics that a manifest asks for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::null_is_default;

/// `metrics` of a workflow or template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// For Prometheus.
    #[serde(deserialize_with = "null_is_default")]
    pub prometheus: Vec<Prometheus>,
}

/// One metric; exactly one of its kinds is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prometheus {
    /// Its name, without a prefix.
    pub name: String,
    /// What it means.
    pub help: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: Vec<MetricLabel>,
    /// A condition; empty for none.
    #[serde(deserialize_with = "null_is_default")]
    pub when: String,
    /// It counts.
    pub counter: Option<Counter>,
    /// It shows a level.
    pub gauge: Option<Gauge>,
    /// It shows how values are spread.
    pub histogram: Option<Histogram>,
}

/// A label of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricLabel {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// A counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counter {
    /// By how much it goes up.
    pub value: String,
}

/// A gauge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gauge {
    /// Its value.
    pub value: String,
    /// It is to follow a duration while that goes on.
    pub realtime: Option<bool>,
    /// `Set` (the default), `Add` or `Sub`.
    #[serde(deserialize_with = "null_is_default")]
    pub operation: String,
}

/// A histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// The value seen.
    pub value: String,
    /// Upper bounds.
    #[serde(deserialize_with = "null_is_default")]
    pub buckets: Vec<f64>,
}

impl Metrics {
    /// Those of a template as it was written.
    #[must_use]
    pub fn of(template: &Value) -> Option<Self> {
        let metrics = template.get("metrics").filter(|metrics| metrics.is_object())?;
        Self::deserialize(metrics).ok()
    }
}
