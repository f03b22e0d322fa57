//! What end-to-end tests share: cells of real processes, clients made by hand, and real Kubernetes clusters, on one
//! machine.

pub mod cell;
pub mod day;
pub mod manifests;
pub mod networks;
pub mod pods;
pub mod replicas;
pub mod scenarios;
pub mod stranger;
pub use argosy_testcluster as cluster;
