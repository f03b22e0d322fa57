//! Tags and expressions: the texts inside a manifest that are evaluated.
//!
//! - [`tags`]: `{{name}}` tags, replaced textually in the JSON form of a step or template.
//! - [`when`]: the condition of a step or task.
//! - [`depends`]: which tasks, with which results, a task waits for.
//!
//! Does not evaluate `{{=expression}}` tags: such a tag stays as it is, and validation refuses it by name.
//!
//! Invariants: pure (no clock, no randomness, no input or output); the same input gives the same output on every member;
//! every text is read in time linear in its length and bounded by [`Limits`], whatever it holds.
//!
//! Failure model: nothing here panics on any text. A text that can't be read or evaluated is an [`Error`] whose message
//! is Argo's where users of Argo know it.

pub mod depends;
mod error;
mod go;
pub mod tags;
pub mod when;

pub use error::Error;
pub use tags::{Found, Lookup, Rules, substitute};

/// Bounds on what one evaluation may read and make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a text after substitution.
    pub output_bytes_max: usize,
    /// Tags in one text.
    pub tags_max: usize,
    /// Bytes of a condition, after substitution.
    pub condition_bytes_max: usize,
    /// Depth of parentheses and prefixes in a condition.
    pub depth_max: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        output_bytes_max: 4 * 1024 * 1024,
        tags_max: 100_000,
        condition_bytes_max: 64 * 1024,
        depth_max: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
