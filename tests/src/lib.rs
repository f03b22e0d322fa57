//! What end-to-end tests share: real Kubernetes clusters on one machine.

pub mod cluster;
