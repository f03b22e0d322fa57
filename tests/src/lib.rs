//! What end-to-end tests share: cells of real processes, and real Kubernetes clusters, on one machine.

pub mod cell;
pub use argosy_testcluster as cluster;
