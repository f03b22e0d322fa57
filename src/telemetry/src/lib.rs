//! Logs and metrics of every Argosy process.
//!
//! [`init`] sets up the log once per process; [`Metrics`] is the one list of all metrics, cloned into the parts that
//! count. No part registers a metric of its own, so that `docs/metrics.md` is complete; a test holds the page to the list.
//!
//! Does not open sockets (the gateway serves [`Metrics::render`]), sends nothing anywhere and knows no domain types.
//!
//! Invariants: label values come from small fixed sets or from registered names (clusters, routes), never from a path or
//! a body that a stranger chose. Recording never blocks and never fails.
//!
//! Failure model: a bad filter is an error at start, not a silent default. A log line that can't be written is lost.

pub mod custom;
mod logging;
mod metrics;

pub use logging::{Error, Format, Options, init};
pub use metrics::{Description, Metrics};
pub use prometheus;
