//! Values of conditions.
#![expect(clippy::wildcard_enum_match_arm, reason = "kinds of another crate without a counterpart in Go")]

use std::fmt;

use crate::go;

/// Bytes of a compiled pattern, so that a hostile one stays small.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    String(String),
    List(Vec<Value>),
    Pattern(Pattern),
}

impl Value {
    /// Go's equality: of one type and deeply equal.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            #[expect(clippy::float_cmp, reason = "the language compares doubles exactly")]
            (Self::Number(left), Self::Number(right)) => left == right,
            (Self::String(left), Self::String(right)) => left == right,
            (Self::List(left), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.equals(right))
            }
            (Self::Pattern(left), Self::Pattern(right)) => left.text == right.text,
            (
                Self::Nil
                | Self::Bool(_)
                | Self::Number(_)
                | Self::String(_)
                | Self::List(_)
                | Self::Pattern(_),
                _different,
            ) => false,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => formatter.write_str("<nil>"),
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Number(value) => formatter.write_str(&go::format_double(*value)),
            Self::String(value) => formatter.write_str(value),
            Self::Pattern(value) => formatter.write_str(&value.text),
            Self::List(values) => {
                formatter.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let space = if index == 0 { "" } else { " " };
                    write!(formatter, "{space}{value}")?;
                }
                formatter.write_str("]")
            }
        }
    }
}

/// A regular expression.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    regex: regex::Regex,
}

impl Pattern {
    /// Compiles it; the error is Go's where there is a counterpart.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let compiled = regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        compiled.map(|regex| Self { text: text.to_owned(), regex }).map_err(|_| syntax_error(text))
    }

    /// Whether it matches anywhere in the text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

fn syntax_error(text: &str) -> String {
    use regex_syntax::ast::ErrorKind;
    let Err(regex_syntax::Error::Parse(error)) = regex_syntax::Parser::new().parse(text) else {
        return format!("error parsing regexp: expression too large: `{text}`");
    };
    let span = error.span();
    let part = text.get(span.start.offset..span.end.offset).unwrap_or(text);
    let from = text.get(span.start.offset..).unwrap_or(text);
    let (what, shown) = match error.kind() {
        ErrorKind::GroupUnclosed => ("missing closing )", text),
        ErrorKind::GroupUnopened => ("unexpected )", text),
        ErrorKind::ClassUnclosed => ("missing closing ]", from),
        ErrorKind::ClassRangeInvalid => ("invalid character class range", part),
        ErrorKind::RepetitionMissing => {
            ("missing argument to repetition operator", from.get(..1).unwrap_or(from))
        }
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", ""),
        ErrorKind::EscapeUnrecognized => ("invalid escape sequence", part),
        _ => ("invalid syntax", part),
    };
    format!("error parsing regexp: {what}: `{shown}`")
}
