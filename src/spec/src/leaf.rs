//! Templates that run or wait, beside a plain container: container sets, requests, resources, data, plugins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::{IntOrString, null_is_default};

/// The container whose outputs, result and exit code are those of the step.
pub const MAIN_CONTAINER: &str = "main";

/// Containers of one Pod, each with a node of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSet {
    /// The containers, in the order of the text.
    #[serde(deserialize_with = "null_is_default")]
    pub containers: Vec<ContainerNode>,
    /// What every container mounts besides its own mounts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<Value>,
    /// How often a container's command is run again inside its container; `None`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_strategy: Option<ContainerSetRetry>,
}

/// A container of a set: a Kubernetes Container, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerNode {
    /// Its name, unique in the set.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Containers of the set that must have ended well before it starts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// The other fields of the Container, as submitted.
    #[serde(flatten)]
    pub container: BTreeMap<String, Value>,
}

/// Tries of a command inside its container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerSetRetry {
    /// Tries after the first one.
    pub retries: Option<IntOrString>,
    /// A Go duration to wait before each of them; empty: none.
    #[serde(deserialize_with = "null_is_default")]
    pub duration: String,
}

/// Something done to an object of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resource {
    /// One of [`RESOURCE_ACTIONS`].
    #[serde(deserialize_with = "null_is_default")]
    pub action: String,
    /// `strategic` (the default), `merge` or `json`; for `patch`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub merge_strategy: String,
    /// The object as YAML or JSON, or the patch.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub manifest: String,
    /// Where the object comes from instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_from: Option<Value>,
    /// The object belongs to the workflow.
    #[serde(deserialize_with = "null_is_default")]
    pub set_owner_reference: bool,
    /// Label-selector terms over fields of the object, all of which must hold; empty: it is not waited for.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub success_condition: String,
    /// The same; the step fails as soon as one holds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub failure_condition: String,
    /// Arguments of Argo's `kubectl`: options, or names of the object.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// What a resource template may do.
pub const RESOURCE_ACTIONS: [&str; 6] = ["get", "create", "apply", "delete", "replace", "patch"];
/// How a patch may be merged.
pub const MERGE_STRATEGIES: [&str; 3] = ["strategic", "merge", "json"];

/// A request over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http {
    /// The method; `GET` when empty.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Where it goes.
    #[serde(deserialize_with = "null_is_default")]
    pub url: String,
    /// Headers, in order; one may be given several times.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HttpHeader>,
    /// Seconds for the whole exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// An expression over `request` and `response`; empty: any code from 200 to 299 is a success.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub success_condition: String,
    /// The body as text.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The body as bytes; wins over the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_from: Option<HttpBody>,
    /// The server's certificate is not checked.
    #[serde(deserialize_with = "null_is_default")]
    pub insecure_skip_verify: bool,
}

/// A header of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpHeader {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its value.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Where its value comes from instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HttpHeaderSource>,
}

/// Where a header's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpHeaderSource {
    /// A key of a Secret of the workflow's namespace.
    pub secret_key_ref: Option<KeySelector>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeySelector {
    /// The Secret's name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// The key.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
}

/// A body that is no text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpBody {
    /// Base64.
    pub bytes: Option<String>,
}

/// Paths of artifacts, sifted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Data {
    /// Where they come from.
    #[serde(deserialize_with = "null_is_default")]
    pub source: DataSource,
    /// Expressions over `data`, one after the other.
    #[serde(deserialize_with = "null_is_default")]
    pub transformation: Vec<Transformation>,
}

/// Where data comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataSource {
    /// An artifact's location: the paths below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_paths: Option<Value>,
}

/// A step of a transformation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transformation {
    /// The expression.
    #[serde(deserialize_with = "null_is_default")]
    pub expression: String,
}

impl ContainerSet {
    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerNode> {
        self.containers.iter().find(|container| container.name == name)
    }
}
