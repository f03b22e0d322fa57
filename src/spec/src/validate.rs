//! Checks.
use crate::{Diagnostic, Manifest};
/// Checks.
pub fn validate(_manifest: &Manifest) -> Vec<Diagnostic> { Vec::new() }
