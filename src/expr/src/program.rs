//! Expressions ready to be evaluated.

use std::sync::Arc;

use crate::ast::Node;
use crate::environment::{self, Env, Path};
use crate::evaluate::Machine;
use crate::lexer::Failure;
use crate::value::Value;
use crate::{Error, Limits, check, parser};

/// An expression that was read.
#[derive(Clone, Debug)]
pub struct Program {
    source: Arc<str>,
    root: Node,
}

/// Reads an expression.
///
/// # Errors
/// [`Error::Expression`] with the place of the syntax error.
pub fn compile(text: &str) -> Result<Program, Error> {
    compile_within(text, &Limits::DEFAULT)
}

/// [`compile`] with other limits.
///
/// # Errors
/// As [`compile`].
pub fn compile_within(text: &str, limits: &Limits) -> Result<Program, Error> {
    let root = parser::parse(text, limits).map_err(|failure| Error::Expression(failure.show(text)))?;
    Ok(Program { source: text.into(), root })
}

impl Program {
    /// The text it was read from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// All names it reads, with the members asked of them: what an [`crate::Environment`] has to provide.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        environment::read(&self.root, &mut Vec::new(), &mut paths);
        paths
    }

    /// The names it needs that `env` does not know, dotted; what `?.` or `??` guards is not needed.
    pub fn missing(&self, env: &Env) -> Vec<String> {
        let mut paths = Vec::new();
        environment::required(&self.root, &mut Vec::new(), &mut paths);
        paths.retain(|path| !env.knows(path));
        paths.iter().map(|path| path.join(".")).collect()
    }

    /// The names it reads that `env` does not know, dotted, guarded ones included.
    pub fn unknown(&self, env: &Env) -> Vec<String> {
        let unknown = self.paths().into_iter().filter(|path| !env.knows(path));
        unknown.map(|path| path.join(".")).collect()
    }

    /// The first name that `env` does not know, dotted, up to the part that is not there; guarded ones count, too.
    pub fn first_unknown(&self, env: &Env) -> Option<String> {
        let unknown = |path: &Path| (1..=path.len()).find(|length| !env.knows(&path[..*length]));
        self.paths().iter().find_map(|path| unknown(path).map(|length| path[..length].join(".")))
    }

    /// Evaluates it: checks types as far as they are known beforehand, as the language demands, then computes.
    /// `now_ms` is what `now()` gives, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Error::Expression`] with the language's message and place.
    pub fn evaluate(&self, env: &Env, limits: &Limits, now_ms: i64) -> Result<Value, Error> {
        let show = |failure: Failure| Error::Expression(failure.show(&self.source));
        check::check(&self.root, env).map_err(show)?;
        Machine::new(env, limits, now_ms).run(&self.root).map_err(show)
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Program::evaluate`]; when the outcome is no boolean.
    pub fn evaluate_bool(&self, env: &Env, limits: &Limits, now_ms: i64) -> Result<bool, Error> {
        let value = self.evaluate(env, limits, now_ms)?;
        if let Value::Bool(flag) = value {
            return Ok(flag);
        }
        let shown = value.display_as_text(limits.output_bytes_max).map_err(Error::Expression)?;
        Err(Error::Expression(format!("unable to cast expression result '{shown}' to bool")))
    }
}
