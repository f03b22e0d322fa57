//! What happens around a template's run: tries, hooks, memoization.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::{Arguments, IntOrString, null_is_default};

/// When and how often a failed node is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryStrategy {
    /// Retries after the first attempt; `None` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<IntOrString>,
    /// `Always`, `OnFailure` (the default), `OnError` or `OnTransientError`; empty for the default.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub retry_policy: String,
    /// An expression over the last try that must hold for another; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// How long to wait between attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Where the next try may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<RetryAffinity>,
}

/// Where the tries of a step may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryAffinity {
    /// There at all: each try on another host, or in another cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_anti_affinity: Option<BTreeMap<String, serde_json::Value>>,
}

/// What a workflow gets beside its own metadata as it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowMetadata {
    /// Labels.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels whose values expressions give.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels_from: BTreeMap<String, LabelValueFrom>,
}

/// Where a label's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelValueFrom {
    /// An expression over the workflow's own values.
    pub expression: String,
}

/// Waiting times between attempts: `duration * factor^n`, at most `cap`, no attempt after `max_duration`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backoff {
    /// The first wait: seconds or a Go duration.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub duration: String,
    /// The multiplier; one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<IntOrString>,
    /// Counted from the first attempt's start; empty for no bound.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub max_duration: String,
    /// The longest single wait; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub cap: String,
}

/// A template that runs beside a workflow, step or task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LifecycleHook {
    /// The template it runs.
    #[serde(deserialize_with = "null_is_default")]
    pub template: String,
    /// What it hands to the template.
    #[serde(deserialize_with = "null_is_default")]
    pub arguments: Arguments,
    /// When it runs; empty: at the end.
    #[serde(deserialize_with = "null_is_default")]
    pub expression: String,
    /// The stored template that it runs; followed by the control plane.
    #[serde(rename = "templateRef", skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<Value>,
}

/// Keeps a template's outputs, so that an equal run need not be repeated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memoize {
    /// What makes runs equal.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// A Go duration after which an entry no longer counts; empty for none.
    #[serde(deserialize_with = "null_is_default")]
    pub max_age: String,
    /// The cache.
    #[serde(deserialize_with = "null_is_default")]
    pub cache: Cache,
}

/// A memoization cache. Its name is a ConfigMap's in Argo; here the control plane keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cache {
    /// Holds the cache's name.
    #[serde(deserialize_with = "null_is_default")]
    pub config_map: CacheName,
}

/// A cache's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheName {
    /// The name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
}

/// A key of a ConfigMap (Kubernetes' ConfigMapKeySelector).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigMapKey {
    /// The ConfigMap's name.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The key.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
    /// Kubernetes' word; it means nothing to Argo, which asks for a default instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}
