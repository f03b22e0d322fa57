//! Argo YAML and JSON to a typed manifest.

mod decode;
mod diagnostic;
pub mod manifest;

pub use diagnostic::{Diagnostic, Place};
pub use manifest::{
    Arguments, Backoff, ContinueOn, Dag, Failover, Inputs, IntOrString, Manifest, Metadata, Outputs, Parameter,
    RetryStrategy, Script, Sequence, Step, Suspend, Task, Template, TemplateKind, ValueFrom, WorkflowSpec,
};

/// A value that doesn't fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A substituted value doesn't fit the field it stands in.
    #[error("value does not fit after substitution: {0}")]
    Fit(String),
}
