//! The condition of a step or task (`when`), after substitution.
//!
//! The language is govaluate's, as Argo uses it: bare words are strings, so `{{status}} == Succeeded` needs no quotes;
//! numbers are doubles; a quoted string that looks like a date is a number of seconds. Errors are Argo's, word for word,
//! because users see them as messages of nodes.
//!
//! Differences: dates spelled with names of days or months are not recognised as dates but compared as strings.

mod lexer;
mod plan;
mod time;
mod value;

use crate::{Error, Limits};
use lexer::Kind;
use value::Value;

/// Evaluates a condition; an empty one is true.
///
/// # Errors
/// [`Error::When`] with Argo's message (without the "failed to resolve references: " that Argo puts before it in a node).
pub fn evaluate(text: &str) -> Result<bool, Error> {
    evaluate_within(text, &Limits::DEFAULT)
}

/// [`evaluate`] with other limits.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_within(text: &str, limits: &Limits) -> Result<bool, Error> {
    evaluate_words(text, limits, true)
}

/// As [`evaluate`], but a bare word is the name of a parameter, and there are none: as in the `when` of a CronWorkflow.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_literal(text: &str) -> Result<bool, Error> {
    evaluate_words(text, &Limits::DEFAULT, false)
}

fn evaluate_words(text: &str, limits: &Limits, words_are_strings: bool) -> Result<bool, Error> {
    if text.is_empty() {
        return Ok(true);
    }
    if text.len() > limits.condition_bytes_max {
        return Err(Error::When(format!(
            "Invalid 'when' expression: longer than {} bytes after substitution",
            limits.condition_bytes_max
        )));
    }
    let invalid = |message: String| {
        let hint = if message.contains("Invalid token") {
            " (hint: try wrapping the affected expression in quotes (\"))"
        } else {
            ""
        };
        Error::When(format!("Invalid 'when' expression '{text}': {message}{hint}"))
    };
    let mut tokens = lexer::read(text).map_err(invalid)?;
    lexer::check(&tokens).map_err(invalid)?;
    lexer::compile_patterns(&mut tokens).map_err(invalid)?;

    let word = tokens.iter().find(|token| token.kind == Kind::Variable);
    if let Some(word) = word.filter(|_| !words_are_strings) {
        let word = word.symbol();
        return Err(Error::When(format!(
            "Failed to evaluate 'when' expresion '{text}': No parameter '{word}' found."
        )));
    }
    // Bare words are strings, and the tokens are checked again as such.
    for token in &mut tokens {
        if token.kind == Kind::Variable {
            token.kind = Kind::String;
        }
    }
    let failed =
        |message: String| Error::When(format!("Failed to parse 'when' expression '{text}': {message}"));
    lexer::check(&tokens).map_err(failed)?;
    lexer::compile_patterns(&mut tokens).map_err(failed)?;

    match plan::evaluate(&tokens, limits.depth_max) {
        Ok(Value::Bool(outcome)) => Ok(outcome),
        Ok(other) => Err(Error::When(format!("Expected boolean evaluation for '{text}'. Got {other}"))),
        // "expresion" is Argo's spelling.
        Err(message) => Err(Error::When(format!("Failed to evaluate 'when' expresion '{text}': {message}"))),
    }
}

#[cfg(test)]
mod tests;
