//! Values of conditions.

use std::fmt;

use crate::go;

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
        Ok(Self { text: text.to_owned(), regex: crate::pattern::compile(text)? })
    }

    /// Whether it matches anywhere in the text.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}
