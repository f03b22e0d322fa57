//! Problems in a manifest, each with a stable code and a place.

use std::fmt;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The manifest is refused.
    #[default]
    Error,
    /// The manifest runs; something in it is out of date or may not mean what it seems to.
    Warning,
}

impl Severity {
    /// The word of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code, `ARG0001` and on: `docs/errors.md` has a line for each.
    pub code: &'static str,
    /// Where in the document, e.g. `spec.templates[1].container.image`; empty for the whole of it.
    pub path: String,
    /// What is wrong, on one line, in Argo's words where Argo has some.
    pub message: String,
    /// What to do about it; empty for nothing to add.
    pub suggestion: String,
    /// The place in the text, when the text is known.
    pub place: Option<Place>,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the text: a file name, or `-`.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters of the word that is meant; at least 1.
    pub length: usize,
    /// The line's text (shortened when it is very long).
    pub text: String,
}

impl Diagnostic {
    /// A problem without a place.
    pub fn plain(code: &'static str, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            path: path.into(),
            message: message.into(),
            suggestion: String::new(),
            place: None,
        }
    }

    /// As [`Diagnostic::plain`], one that doesn't stop the manifest from being used.
    pub fn warning(code: &'static str, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::plain(code, path, message) }
    }

    /// True for what the manifest is refused for.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = suggestion.into();
        self
    }

    /// The message with its suggestion on one line, for the API.
    pub fn line(&self) -> String {
        if self.suggestion.is_empty() {
            self.message.clone()
        } else {
            format!("{}; {}", self.message, self.suggestion)
        }
    }
}

/// Control characters of a manifest must not reach a terminal.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error[ARG0012]: message`, then the line with carets, then the suggestion.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(formatter, "{}:{}:{}: ", shown(&place.source), place.line, place.column)?;
        }
        write!(formatter, "{}[{}]: {}", self.severity.name(), self.code, shown(&self.message))?;
        if let Some(place) = self.place.as_ref().filter(|place| !place.text.is_empty()) {
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            let indent = " ".repeat(place.column.saturating_sub(1));
            // A tab is one column of the text, so it is shown as one.
            let text = shown(&place.text.replace('\t', " "));
            let carets = "^".repeat(place.length.max(1));
            write!(formatter, "\n {gutter} |\n {number} | {text}\n {gutter} | {indent}{carets}")?;
        }
        if !self.suggestion.is_empty() {
            write!(formatter, "\n  = {}", shown(&self.suggestion))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_shown() {
        let text = "\ta\u{1b}[2J".to_owned();
        let place = Place { source: "f".to_owned(), line: 1, column: 2, length: 1, text };
        let problem =
            Diagnostic { place: Some(place), ..Diagnostic::plain("ARG0004", "x", "unknown \"\u{1b}\n\"") };
        assert_eq!(
            problem.to_string(),
            "f:1:2: error[ARG0004]: unknown \"\u{fffd}\u{fffd}\"\n   |\n 1 |  a\u{fffd}[2J\n   |  ^"
        );
    }
}
