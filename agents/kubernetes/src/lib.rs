//! The Kubernetes runtime: attempts as Pods of one cluster.
//!
//! Makes a Pod for each attempt, binds its start permit to the Pod's uid, watches, stops and releases it, reads its log
//! and tells what the cluster has. [`pod`] and [`observe`] are pure translations (assignment to Pod, Pod to observation);
//! [`KubernetesRuntime`] is the shell around the cluster's API.
//!
//! It decides nothing: the reconciler says what shall be, and repeats itself, so an action that fails for a reason that may
//! pass is logged and dropped. It makes no namespaces and no service accounts: those are prerequisites, named in the error.
//!
//! Invariants: one Pod name per fence, so an attempt has at most one Pod at a time; a permit is granted only after the
//! annotation [`names::PERMIT`] with the Pod's uid was written under the resource version that was read; a Pod keeps
//! the finalizer [`names::FINALIZER`] until its release, so its end is seen even if somebody deletes it; nothing of the
//! user's runs before the permit: where something would run beside an executor (init containers, probes, hooks, images
//! whose command nobody knows), the Pod's first container waits for the permit.
//!
//! Pods carry the labels and annotations of Argo, and ours ([`names`]). A Pod's name is the node's Argo pod name with a
//! suffix for cell and fence; `{{pod.name}}` stays Argo's name, the Pod's own is in `ARGOSY_POD_NAME` and in reports.
//! Argo finds the entrypoint of an image without `command` in its registry; here it is in a table of images, or the
//! container runs without an executor, which captures nothing.
//!
//! Steps of resource templates have no Pod: the agent sends their requests in the name of the workflow's service account
//! ([`resource`]), so that they may do what that account may.
//!
//! ConfigMaps that workflows read are watched and told ([`config_maps`]).
//!
//! Pods are made as fast as the cluster's API bears: after a 429 none for as long as it says, then slower ([`pace`]). Every
//! request has an end ([`transport`]); none is sent again without being asked for, and each may have had its effect although
//! its answer was lost.
//!
//! Released Pods that have ended stay for their logs: at most [`Config::released_pods_max`], at most
//! [`Config::released_pod_keep_ms`].
//!
//! A shell calls [`connect`], [`cluster_uid`] and [`KubernetesRuntime::start`]; events come through its channel.
//!
//! Failure model: the API server may be away or slow (`Capacity` says so), watches may break and lose history (listed
//! again), the agent may die at any instant (everything is found again by label).

mod artifacts;
pub mod capacity;
pub mod config_maps;
mod containers;
mod creation;
mod deletion;
mod drivers;
mod fields;
mod gc;
mod housekeeping;
pub mod lease;
mod left;
mod logs;
pub mod names;
pub mod observe;
mod pace;
mod patch;
pub mod pod;
mod prerequisites;
pub mod resource;
mod runtime;
mod setup;
mod tasks;
mod transport;
mod watch;

pub use drivers::ArtifactDriver;
pub use kube::Client;
pub use runtime::{Config, FINALIZER_MAX_MS, HOST_LOST_AFTER_MS, KubernetesRuntime};
pub use setup::{address_towards_hosts, cluster_uid, connect, own_namespace, secret};
