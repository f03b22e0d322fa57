//! Locks that a workflow or template takes before it runs.

use serde::{Deserialize, Serialize};

use crate::manifest::null_is_default;
use crate::policy::ConfigMapKey;

/// All of them are taken at once, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synchronization {
    /// Those that several may hold at a time.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub semaphores: Vec<Semaphore>,
    /// Those that one may hold at a time.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub mutexes: Vec<Mutex>,
}

/// A lock whose limit is kept elsewhere: in a ConfigMap, or by the control plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Semaphore {
    /// The key of a ConfigMap that holds the limit, which is also the lock's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKey>,
    /// A limit that the control plane keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<SyncLimitRef>,
    /// Where the limit is; empty for the workflow's own namespace.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// The name of a limit that the control plane keeps (Argo keeps them in a database).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncLimitRef {
    /// The name.
    #[serde(deserialize_with = "null_is_default")]
    pub key: String,
}

/// A lock for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mutex {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Where the name counts; empty for the workflow's own namespace.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Argo: it is kept in the database, where other controllers see it. The control plane keeps all of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub database: bool,
}
