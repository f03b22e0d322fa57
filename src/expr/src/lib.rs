//! Tags and expressions: the texts inside a manifest that are evaluated.
//!
//! - [`tags`]: `{{name}}` and `{{=expression}}` tags, replaced textually in the JSON form of a step or template.
//! - [`program`]: expressions (expr-lang 1.17 with Argo's functions), in tags and in fields such as
//!   `retryStrategy.expression`, `hooks.*.expression`, `valueFrom.expression`.
//! - [`when`]: the condition of a step or task.
//! - [`depends`]: which tasks, with which results, a task waits for.
//!
//! Does not know where values come from, nor what time it is: names and time come in as data.
//!
//! # How the engine uses it
//!
//! The engine keeps its names in scope as an [`Env`] (dotted names become nested maps; clones are cheap), or implements
//! [`Environment`], which is told the paths an expression reads and may provide those alone. Late-bound names that are
//! not known yet (`item`, `retries`, `lastRetry.*`, `workflow.status`, `workflow.failures`) are just left out. An output
//! of a skipped producer is [`Value::Nil`], so that `??` works on it.
//!
//! - Objects (steps, tasks, templates): [`substitute_with`] in place of [`substitute`], pass by pass with the same
//!   [`Rules`]. Passes with [`Rules::LENIENT`] leave what they can't evaluate for a later pass; only syntax errors fail.
//! - Fields that are expressions: [`program::compile`], then [`Program::evaluate`] or [`Program::evaluate_bool`];
//!   [`Program::missing`] says which names are not known (yet).
//! - Only the leader evaluates; its outcome is replicated.
//!
//! Invariants: pure (no clock, no randomness, no input or output); the same input gives the same output on every member;
//! every text is read in time linear in its length and bounded by [`Limits`], whatever it holds.
//!
//! Failure model: nothing here panics on any text. A text that can't be read or evaluated is an [`Error`] whose message
//! is Argo's where users of Argo know it.

pub mod ast;
mod check;
pub mod date;
pub mod depends;
pub mod environment;
mod error;
mod evaluate;
mod go;
mod jsonpath;
mod lexer;
mod parser;
mod pattern;
pub mod program;
pub mod sprig;
pub mod tags;
pub mod value;
pub mod verbatim;
pub mod when;

pub use environment::{Env, Environment};
pub use error::Error;
pub use go::format_float;
pub use program::Program;
pub use tags::{Expressions, Found, Lookup, Rules, substitute, substitute_with};
pub use value::Value;

/// Bounds on what one evaluation may read and make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a text after substitution.
    pub output_bytes_max: usize,
    /// Tags in one text.
    pub tags_max: usize,
    /// Bytes of a condition, after substitution.
    pub condition_bytes_max: usize,
    /// Depth of parentheses and prefixes in a condition or an expression.
    pub depth_max: usize,
    /// Bytes of an expression.
    pub expression_bytes_max: usize,
    /// Steps that one evaluation of an expression may take.
    pub steps_max: u64,
    /// Bytes that the values made by one evaluation may take together.
    pub memory_bytes_max: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        output_bytes_max: 4 * 1024 * 1024,
        tags_max: 100_000,
        condition_bytes_max: 64 * 1024,
        depth_max: 100,
        expression_bytes_max: 64 * 1024,
        steps_max: 2_000_000,
        memory_bytes_max: 64 * 1024 * 1024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
