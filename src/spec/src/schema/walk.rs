//! The walk over a document: checks it against the tables and yields the value to keep.
#![expect(clippy::wildcard_enum_match_arm, reason = "a value of any other kind is refused alike")]

use serde_json::{Map, Value};

use super::{Field, Shape, Status, Type};
use crate::manifest::any_string_of;
use crate::node::{Data, Entry, Mark, Node, Source, is_yes};
use crate::{Diagnostic, Limits, scalar, suggest};

/// How a document is read.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// The text, to show places of; none for JSON values.
    pub(crate) source: Option<&'a Source<'a>>,
    /// Scalars are read as strings where a string is wanted (YAML); otherwise they are of the wrong type (JSON).
    pub(crate) coerce: bool,
    /// Wrong types are told in the words of Go's JSON reader, with this at the start of the path.
    pub(crate) go_prefix: Option<&'a str>,
    /// Unknown fields are left out instead of refused.
    pub(crate) drop_unknown: bool,
    /// Bounds.
    pub(crate) limits: Limits,
}

struct Walk<'a> {
    rules: Rules<'a>,
    /// The path of the value at hand.
    path: String,
    /// Names of the types around it, for Go's words.
    owner: &'static str,
    /// Inside the groups of a steps template.
    strict: bool,
    problems: Vec<Diagnostic>,
}

/// Checks a document; the value is without dropped fields and nulls, and scalars are as their fields want them.
pub(crate) fn walk(node: &Node, root: &'static Type, rules: Rules<'_>) -> (Value, Vec<Diagnostic>) {
    let mut walk = Walk { rules, path: String::new(), owner: root.name, strict: false, problems: Vec::new() };
    let value = walk.object(node, root).unwrap_or(Value::Null);
    (value, walk.problems)
}

impl Walk<'_> {
    fn problem(&mut self, code: &'static str, at: Mark, message: String, suggestion: String) {
        if self.problems.len() < self.rules.limits.problems_max {
            let place = self.rules.source.and_then(|source| source.place(at));
            self.problems.push(Diagnostic { code, path: self.path.clone(), message, suggestion, place });
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, go_type: &str) {
        let message = match self.rules.go_prefix {
            Some(prefix) => {
                let path = without_indexes(&self.path);
                let dot = if prefix.is_empty() || path.is_empty() { "" } else { "." };
                let kind = node.go_kind();
                let owner = self.owner;
                format!(
                    "json: cannot unmarshal {kind} into Go struct field {owner}.{prefix}{dot}{path} of type {go_type}"
                )
            }
            None => format!("`{}` must be {wanted}, and is {}", self.path, node.what()),
        };
        let quote =
            matches!(node.data, Data::Bool(_) | Data::Letter(_) | Data::Number(_)) && wanted == "a string";
        let suggestion = if quote { "put the value in quotes".to_owned() } else { String::new() };
        self.problem("ARG0003", node.at, message, suggestion);
    }

    fn value(&mut self, node: &Node, shape: &'static Shape) -> Option<Value> {
        match shape {
            Shape::Any => Some(node.to_json()),
            Shape::String => self.string(node),
            Shape::AnyString => any_string_of(&node.to_json()).map(Value::String),
            Shape::Integer => match &node.data {
                Data::Number(number) if number.is_i64() => Some(Value::Number(number.clone())),
                _ => {
                    self.wrong_type(node, "an integer", "int64");
                    None
                }
            },
            Shape::Boolean => match &node.data {
                Data::Bool(flag) => Some(Value::Bool(*flag)),
                Data::Letter(letter) => Some(Value::Bool(is_yes(*letter))),
                _ => {
                    self.wrong_type(node, "true or false", "bool");
                    None
                }
            },
            Shape::IntOrString => match &node.data {
                Data::Number(number) if number.is_i64() => Some(Value::Number(number.clone())),
                Data::String(text) => Some(Value::String(text.clone())),
                _ => {
                    self.wrong_type(node, "an integer or a string", "intstr.IntOrString");
                    None
                }
            },
            Shape::Object(fields) => self.object(node, fields),
            Shape::List(element) => self.list(node, |walk, node| match (&node.data, element) {
                (Data::Null, Shape::String | Shape::AnyString) => Some(Value::String(String::new())),
                _ => walk.value(node, element),
            }),
            Shape::Objects(fields) => self.list(node, |walk, node| match &node.data {
                Data::Null => Some(Value::Object(Map::new())),
                _ => walk.object(node, fields),
            }),
            Shape::Map(element) => self.map(node, element),
            Shape::Groups(fields) => self.groups(node, fields),
        }
    }

    fn string(&mut self, node: &Node) -> Option<Value> {
        if let Data::String(text) = &node.data {
            return Some(Value::String(text.clone()));
        }
        let coerced = if self.rules.coerce && !self.strict { scalar::text_of(&node.data) } else { None };
        if coerced.is_none() {
            self.wrong_type(node, "a string", "string");
        }
        coerced.map(Value::String)
    }

    /// Walks a part under a longer path.
    fn under<T>(&mut self, part: std::fmt::Arguments<'_>, walk: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        std::fmt::Write::write_fmt(&mut self.path, part).expect("writing to a string can't fail");
        let outcome = walk(self);
        self.path.truncate(length);
        outcome
    }

    fn list(&mut self, node: &Node, element: impl Fn(&mut Self, &Node) -> Option<Value>) -> Option<Value> {
        let Data::List(nodes) = &node.data else {
            self.wrong_type(node, "a list", "[]");
            return None;
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            values.extend(self.under(format_args!("[{index}]"), |walk| element(walk, node)));
        }
        Some(Value::Array(values))
    }

    fn map(&mut self, node: &Node, element: &'static Shape) -> Option<Value> {
        let Data::Map(entries) = &node.data else {
            self.wrong_type(node, "an object", "map[string]");
            return None;
        };
        let mut values = Map::new();
        for entry in entries {
            let value = self.under(format_args!(".{}", entry.key), |walk| match &entry.value.data {
                Data::Null => Some(Value::String(String::new())),
                _ => walk.value(&entry.value, element),
            });
            if let Some(value) = value {
                values.insert(entry.key.clone(), value);
            }
        }
        Some(Value::Object(values))
    }

    fn groups(&mut self, node: &Node, fields: &'static Type) -> Option<Value> {
        let outer = std::mem::replace(&mut self.strict, true);
        let groups = self.list(node, |walk, group| {
            if matches!(group.data, Data::List(_)) {
                return walk.list(group, |walk, step| walk.object(step, fields));
            }
            walk.wrong_type(group, "a list of steps (write `- - name: ...`)", "[]v1alpha1.WorkflowStep");
            None
        });
        self.strict = outer;
        groups
    }

    fn object(&mut self, node: &Node, fields: &'static Type) -> Option<Value> {
        let Data::Map(entries) = &node.data else {
            self.wrong_type(node, "an object", fields.name);
            return None;
        };
        let outer = std::mem::replace(&mut self.owner, fields.name);
        let mut values = Map::new();
        for entry in entries {
            let dot = if self.path.is_empty() { "" } else { "." };
            let value = self.under(format_args!("{dot}{}", entry.key), |walk| walk.entry(entry, fields));
            if let Some(value) = value {
                values.insert(entry.key.clone(), value);
            }
        }
        self.owner = outer;
        Some(Value::Object(values))
    }

    fn entry(&mut self, entry: &Entry, owner: &'static Type) -> Option<Value> {
        let Some(Field { shape, status, .. }) = owner.field(&entry.key) else {
            if !self.rules.drop_unknown {
                self.unknown(entry, owner);
            }
            return None;
        };
        match status {
            Status::Dropped => None,
            Status::Refused if entry.value.is_empty() => None,
            Status::Refused => {
                let message = format!("field `{}` is not supported yet", self.path);
                self.problem("ARG0005", entry.at, message, String::new());
                None
            }
            Status::Honoured | Status::Passed if entry.value.data == Data::Null => None,
            Status::Honoured | Status::Passed => self.value(&entry.value, shape),
        }
    }

    fn unknown(&mut self, entry: &Entry, owner: &Type) {
        if self.problems.len() >= self.rules.limits.problems_max {
            return;
        }
        let names = owner.fields.iter().map(|field| field.name);
        let suggestion = match suggest::nearest(&entry.key, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("{} has no such field", owner.name),
        };
        let message = format!("unknown field \"{}\"", self.path);
        self.problem("ARG0004", entry.at, message, suggestion);
    }
}

/// Go leaves indexes out of the paths of its JSON errors.
fn without_indexes(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut inside = false;
    for character in path.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            other if !inside => plain.push(other),
            _inside => {}
        }
    }
    plain
}
