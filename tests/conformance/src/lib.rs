//! Recordings of the real Argo (`cases/`, facts that are never edited), and what of them is to come out the same here.
//!
//! `own/` holds small cases of our own. Most were recorded beside Argo's controller v4.0.5 on a real API server, where Pods
//! were ended by a stand-in for the kubelet; they show what once came out otherwise here.
//!
//! This library reads cases ([`case`]), brings a workflow into a recording's shape ([`normalise`]), tells the differences
//! ([`compare`], [`artifacts`]), reads operators' scripts ([`script`]) and counts outcomes ([`table`]). Two tests use it:
//! `tests/scripted.rs` replays every case through the real engine in virtual time, without a process or a cluster;
//! `argosy-tests` (`tests/tests/conformance.rs`) runs cases end to end on process clusters.
//!
//! `docs/argo-differences.md` names each case that deviates on purpose; every other difference is a failure, and so is a
//! listed case that comes out the same.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "test support that reads files, and keys that it sorts itself"
)]

pub mod artifacts;
pub mod case;
pub mod compare;
pub mod lint;
pub mod normalise;
pub mod script;
pub mod table;
