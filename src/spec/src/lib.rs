//! Argo YAML and JSON to a typed manifest.
//!
//! [`parse_yaml`] and [`parse_json`] read a text, check it against tables of every known field and yield typed
//! [`Document`]s; [`validate`] checks what a table can't say (references, graphs, names). All problems of a manifest are
//! told at once, each as a [`Diagnostic`] with a stable code, a path and, where there is a text, line and column.
//!
//! Does not run or substitute anything and does not talk to anyone. Fields that are known to Argo and not supported yet
//! are refused by name; none is ignored in silence.
//!
//! Invariants: pure (no clock, no randomness, no input or output); bounded by [`Limits`] in time and memory for any
//! input; order of lists and maps is kept; what [`Manifest::from_value`] reads is what was checked.
//!
//! Failure model: nothing here panics on outside bytes. Whatever is wrong comes back as diagnostics.

pub mod artifact;
mod codes;
mod colocation;
mod cron;
mod decode;
mod diagnostic;
mod effective;
mod failover;
mod leaf;
pub mod manifest;
mod merge;
mod metrics;
mod node;
mod parse;
mod policy;
pub mod references;
mod report;
mod runtime;
mod scalar;
mod schema;
mod suggest;
mod synchronization;
mod validate;
mod yaml;

pub use artifact::Artifact;
pub use codes::CODES;
pub use colocation::ColocationGroup;
pub use cron::{ConcurrencyPolicy, CronSpec, CronWorkflow, Schedule, StopStrategy};
pub use diagnostic::{Diagnostic, Place, Severity};
pub use effective::{effective, is_inline, shown_name};
pub use failover::{
    EXCLUSIVE_ANNOTATION, EXCLUSIVE_LEASE_ANNOTATION, EXCLUSIVE_LEASE_MS_MIN, FAILOVER_ANNOTATION, Failover,
    IDEMPOTENT_ANNOTATION, OnReconnect,
};
pub use leaf::{
    ContainerNode, ContainerSet, ContainerSetRetry, Data, DataSource, Http, HttpBody, HttpHeader,
    HttpHeaderSource, KeySelector, MAIN_CONTAINER, MERGE_STRATEGIES, RESOURCE_ACTIONS, Resource,
    Transformation,
};
pub use manifest::{
    Arguments, Backoff, ContinueOn, Dag, Inputs, IntOrString, LabelValueFrom, LifecycleHook, Manifest,
    Memoize, Metadata, Outputs, Parameter, RetryAffinity, RetryStrategy, Script, Sequence, Step, Suspend,
    Task, Template, TemplateKind, TtlStrategy, ValueFrom, WorkflowMetadata, WorkflowSpec,
};
pub use merge::merge;
pub use metrics::{Counter, Gauge, Histogram, MetricLabel, Metrics, Prometheus};
pub use parse::{
    Document, Limits, Options, Reading, is_kind, parse_json, parse_value, parse_yaml, read_yaml, yaml_value,
};
pub use policy::ConfigMapKey;
pub use report::{DocumentReport, File, FileReport, Report, Review, review};
pub use runtime::{JoinedCluster, Need};
pub use schema::{
    FieldLine, Status, deprecated_fields, field_page, field_reasons, field_table, json_schema,
    json_schema_text,
};
pub use synchronization::{Mutex, Semaphore, SyncLimitRef, Synchronization};
pub use validate::{lint, validate};

/// Reads a time in a layout of Go's; milliseconds since 1970.
///
/// # Errors
/// Go's message.
pub fn parse_go_time(layout: &str, text: &str) -> Result<i64, String> {
    let time = argosy_expr::date::parse(layout, text, &argosy_expr::date::Zone::utc())?;
    i64::try_from(time.unix_nanoseconds() / 1_000_000).map_err(|_| format!("{text} is out of range"))
}

/// A value that doesn't fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A substituted value doesn't fit the field it stands in.
    #[error("value does not fit after substitution: {0}")]
    Fit(String),
}
