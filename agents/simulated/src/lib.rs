//! Simulated Pods.
