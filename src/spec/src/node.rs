//! A document as a tree of values, each with its place in the text.

use serde_json::{Map, Number, Value};

use crate::{Place, scalar};

/// A place: line and column from 1; zero when unknown (JSON from the API has no places).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) data: Data,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// `y` or `n`, unquoted: a boolean in YAML 1.1, but a name where a name is wanted.
    Letter(char),
    Number(Number),
    /// A number with a point or an exponent, as YAML has it; whole ones are integers in JSON.
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// A tree without places.
    pub(crate) fn of_json(value: Value) -> Self {
        let data = match value {
            Value::Null => Data::Null,
            Value::Bool(flag) => Data::Bool(flag),
            Value::Number(number) => Data::Number(number),
            Value::String(text) => Data::String(text),
            Value::Array(values) => Data::List(values.into_iter().map(Self::of_json).collect()),
            Value::Object(fields) => Data::Map(
                fields
                    .into_iter()
                    .map(|(key, value)| Entry { key, at: Mark::default(), value: Self::of_json(value) })
                    .collect(),
            ),
        };
        Self { at: Mark::default(), data }
    }

    /// The plain value.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(flag) => Value::Bool(*flag),
            Data::Letter(letter) => Value::Bool(is_yes(*letter)),
            Data::Number(number) => Value::Number(number.clone()),
            Data::Float(value) => scalar::number_of(*value).map_or(Value::Null, Value::Number),
            Data::String(text) => Value::String(text.clone()),
            Data::List(nodes) => Value::Array(nodes.iter().map(Self::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// The value of a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Data::Null
            | Data::Bool(_)
            | Data::Letter(_)
            | Data::Number(_)
            | Data::Float(_)
            | Data::String(_)
            | Data::List(_) => None,
        }
    }

    /// What the value is, in words.
    pub(crate) fn what(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) | Data::Letter(_) => "a boolean",
            Data::Number(_) | Data::Float(_) => "a number",
            Data::String(_) => "a string",
            Data::List(_) => "a list",
            Data::Map(_) => "an object",
        }
    }

    /// What the value is, in the words of Go's JSON reader.
    pub(crate) fn go_kind(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) | Data::Letter(_) => "bool",
            Data::Number(_) | Data::Float(_) => "number",
            Data::String(_) => "string",
            Data::List(_) => "array",
            Data::Map(_) => "object",
        }
    }

    /// Nothing was asked for: null, an empty list or object, or false.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.data {
            Data::Null | Data::Bool(false) => true,
            Data::Letter(letter) => !is_yes(*letter),
            Data::List(nodes) => nodes.is_empty(),
            Data::Map(entries) => entries.is_empty(),
            Data::Bool(true) | Data::Number(_) | Data::Float(_) | Data::String(_) => false,
        }
    }

    /// The place of a path such as `spec.templates[1].name`, or of the longest part of it that exists.
    pub(crate) fn find(&self, path: &str) -> Mark {
        let mut node = self;
        let mut at = self.at;
        for step in steps(path) {
            match (step, &node.data) {
                (Step::Index(index), Data::List(nodes)) => {
                    let Some(next) = nodes.get(index) else { return at };
                    at = next.at;
                    node = next;
                }
                (Step::Key(key), Data::Map(_)) => {
                    let Some(entry) = node.get(key) else { return at };
                    at = entry.at;
                    node = &entry.value;
                }
                (Step::Index(_) | Step::Key(_), _other) => return at,
            }
        }
        at
    }
}

/// What a one-letter boolean says.
pub(crate) fn is_yes(letter: char) -> bool {
    letter.eq_ignore_ascii_case(&'y')
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|part| !part.is_empty()).map(|part| match part.strip_suffix(']') {
        Some(index) => index.parse().map_or(Step::Key(part), Step::Index),
        None => Step::Key(part),
    })
}

/// Longest line that is shown with a problem, in characters.
const SHOWN_LINE_MAX: usize = 200;

/// A named text, to show places of.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) lines: Vec<&'a str>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, lines: text.lines().collect() }
    }

    /// The place of a mark; `None` when the mark is unknown.
    pub(crate) fn place(&self, at: Mark) -> Option<Place> {
        if at.line == 0 {
            return None;
        }
        let line = self.lines.get(at.line - 1).copied().unwrap_or_default();
        let text = if line.chars().count() > SHOWN_LINE_MAX && at.column <= SHOWN_LINE_MAX {
            line.chars().take(SHOWN_LINE_MAX).collect()
        } else if line.chars().count() > SHOWN_LINE_MAX {
            String::new()
        } else {
            line.to_owned()
        };
        let column = at.column.max(1);
        let length = word(text.chars().skip(column - 1));
        Some(Place { source: self.name.to_owned(), line: at.line, column, length, text })
    }

    /// The place where the text begins.
    pub(crate) fn start(&self) -> Option<Place> {
        self.place(Mark { line: 1, column: 1 })
    }

    /// What is written at a mark: a quoted text with its quotes, or a plain word.
    pub(crate) fn word_at(&self, at: Mark) -> String {
        let line = self.lines.get(at.line.saturating_sub(1)).copied().unwrap_or_default();
        let rest = || line.chars().skip(at.column.saturating_sub(1));
        rest().take(word(rest().take(SHOWN_LINE_MAX))).collect()
    }
}

/// The length of the word that a text begins with: up to the closing quote, or to what ends a plain word in YAML.
fn word(text: impl Iterator<Item = char>) -> usize {
    let characters: Vec<char> = text.collect();
    let length = match characters.first() {
        Some(quote @ ('"' | '\'')) => {
            let closing = characters.iter().skip(1).position(|next| next == quote);
            closing.map_or(characters.len(), |position| position + 2)
        }
        Some('[' | '{' | '-') | None => 1,
        Some(_) => {
            let ends = |index: usize| match characters[index] {
                ',' | ']' | '}' => true,
                ':' => characters.get(index + 1).is_none_or(|next| next.is_whitespace()),
                other => other.is_whitespace(),
            };
            (0..characters.len()).find(|index| ends(*index)).unwrap_or(characters.len())
        }
    };
    length.max(1)
}
