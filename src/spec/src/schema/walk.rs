//! The walk over a document: checks it against the tables and yields the value to keep.
#![expect(clippy::wildcard_enum_match_arm, reason = "a value of any other kind is refused alike")]

use serde_json::{Map, Value};

use super::laws::laws_of;
use super::notes::{Becomes, Deprecation, deprecation, reason};
use super::{Field, Shape, Status, Type};
use crate::manifest::any_string_of;
use crate::node::{Data, Entry, Mark, Node, Source, is_yes};
use crate::{Diagnostic, Limits, Severity, scalar, suggest};

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
    /// Unknown fields are warned of instead of refused.
    pub(crate) warn_unknown: bool,
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
    lost: Vec<String>,
}

/// What a walk comes to.
pub(crate) struct Walked {
    /// The document without dropped fields and nulls, scalars as their fields want them. Lists keep their positions:
    /// where an element can't be read, an empty one stands.
    pub(crate) value: Value,
    /// Everything that is wrong, and what to warn of.
    pub(crate) problems: Vec<Diagnostic>,
    /// Paths of values that are not in `value` because they are wrong.
    pub(crate) lost: Vec<String>,
}

/// Checks a document.
pub(crate) fn walk(node: &Node, root: &'static Type, rules: Rules<'_>) -> Walked {
    let (problems, lost) = (Vec::new(), Vec::new());
    let mut walk = Walk { rules, path: String::new(), owner: root.name, strict: false, problems, lost };
    let value = walk.object(node, root).unwrap_or(Value::Null);
    Walked { value, problems: walk.problems, lost: walk.lost }
}

impl Walk<'_> {
    fn problem(&mut self, code: &'static str, at: Mark, message: String, suggestion: String) {
        self.tell(Severity::Error, code, at, message, suggestion);
    }

    fn tell(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Mark,
        message: String,
        suggestion: String,
    ) {
        if self.problems.len() < self.rules.limits.problems_max {
            let place = self.rules.source.and_then(|source| source.place(at));
            let path = self.path.clone();
            self.problems.push(Diagnostic { severity, code, path, message, suggestion, place });
        }
    }

    /// Notes that the value at hand is left out.
    fn lose(&mut self) {
        if self.lost.len() < self.rules.limits.problems_max {
            self.lost.push(self.path.clone());
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
        let quote = matches!(node.data, Data::Bool(_) | Data::Letter(_) | Data::Number(_) | Data::Float(_))
            && wanted == "a string";
        let suggestion = if quote { "put the value in quotes".to_owned() } else { String::new() };
        self.problem("ARG0003", node.at, message, suggestion);
        self.lose();
    }

    fn value(&mut self, node: &Node, shape: &'static Shape) -> Option<Value> {
        match shape {
            Shape::Any => Some(node.to_json()),
            Shape::String => self.string(node),
            Shape::AnyString => {
                let text = any_string_of(&node.to_json());
                self.changed(node, text.as_deref());
                text.map(Value::String)
            }
            Shape::Integer => match integer(node) {
                Some(number) => Some(number),
                None => {
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
            Shape::IntOrString => match (integer(node), &node.data) {
                (Some(number), _) => Some(number),
                (None, Data::String(text)) => Some(Value::String(text.clone())),
                (None, _) => {
                    self.wrong_type(node, "an integer or a string", "intstr.IntOrString");
                    None
                }
            },
            Shape::Object(fields) => self.object(node, fields),
            Shape::List(element) => self.list(node, |walk, node| match (&node.data, element) {
                (Data::Null, Shape::String | Shape::AnyString) => Value::String(String::new()),
                (_, element) => walk.value(node, element).unwrap_or_else(|| empty(element)),
            }),
            Shape::Objects(fields) => self.list(node, |walk, node| {
                let value = if node.data == Data::Null { None } else { walk.object(node, fields) };
                value.unwrap_or_else(|| Value::Object(Map::new()))
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
        self.changed(node, coerced.as_deref());
        coerced.map(Value::String)
    }

    /// Warns where a text is not what was written: `0644` is a number, and a text made of it says `420`.
    fn changed(&mut self, node: &Node, text: Option<&str>) {
        let (Some(source), Some(text)) = (self.rules.source, text) else { return };
        if !matches!(node.data, Data::Bool(_) | Data::Letter(_) | Data::Number(_) | Data::Float(_)) {
            return;
        }
        let written = source.word_at(node.at);
        if written != text && !written.is_empty() && !written.starts_with(['*', '&', '!']) {
            let message = format!("`{written}` is not a text in YAML, and is read as \"{text}\"");
            let suggestion = "put it in quotes if it is meant as it is written".to_owned();
            self.tell(Severity::Warning, "ARG0161", node.at, message, suggestion);
        }
    }

    /// Walks a part under a longer path.
    fn under<T>(&mut self, part: std::fmt::Arguments<'_>, walk: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        std::fmt::Write::write_fmt(&mut self.path, part).expect("writing to a string can't fail");
        let outcome = walk(self);
        self.path.truncate(length);
        outcome
    }

    fn list(&mut self, node: &Node, element: impl Fn(&mut Self, &Node) -> Value) -> Option<Value> {
        let Data::List(nodes) = &node.data else {
            self.wrong_type(node, "a list", "[]");
            return None;
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            values.push(self.under(format_args!("[{index}]"), |walk| element(walk, node)));
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
                let step = |walk: &mut Self, step: &Node| {
                    walk.object(step, fields).unwrap_or_else(|| Value::Object(Map::new()))
                };
                return walk.list(group, step).unwrap_or_else(|| Value::Array(Vec::new()));
            }
            walk.wrong_type(group, "a list of steps (write `- - name: ...`)", "[]v1alpha1.WorkflowStep");
            Value::Array(Vec::new())
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
            self.under(format_args!("{dot}{}", entry.key), |walk| {
                walk.entry(entry, node, fields, &mut values)
            });
        }
        self.owner = outer;
        self.laws(node, fields, &values);
        Some(Value::Object(values))
    }

    /// What the values of an object come to together.
    fn laws(&mut self, node: &Node, owner: &'static Type, values: &Map<String, Value>) {
        for (field, law) in laws_of(owner.name) {
            let written = node.get(field).map(|entry| &entry.value).filter(|value| value.data != Data::Null);
            let Some(wrong) = law.broken(values, field, written.is_some()) else { continue };
            let at = written.map_or(node.at, |value| value.at);
            let code = if written.is_some() { "ARG0018" } else { "ARG0010" };
            let dot = if self.path.is_empty() { "" } else { "." };
            self.under(format_args!("{dot}{field}"), |walk| {
                let message = format!("{} {wrong}", walk.path);
                walk.problem(code, at, message, String::new());
            });
        }
    }

    /// Reads one entry of `node`, an object of type `owner`, into `values`.
    fn entry(&mut self, entry: &Entry, node: &Node, owner: &'static Type, values: &mut Map<String, Value>) {
        if let Some(field) = owner.field(&entry.key) {
            if let Some(value) = self.field(entry, field) {
                values.insert(entry.key.clone(), value);
            }
        } else if let Some(old) = deprecation(owner.name, &entry.key) {
            self.deprecated(entry, owner, old, values);
        } else {
            self.unknown(entry, node, owner, values);
        }
    }

    fn field(&mut self, entry: &Entry, field: &'static Field) -> Option<Value> {
        match field.status {
            Status::Dropped => None,
            Status::Refused if entry.value.is_empty() => None,
            Status::Refused => {
                let message = format!("field `{}` is not supported", self.path);
                let why = reason(self.owner, field);
                self.problem("ARG0005", entry.at, message, why.to_owned());
                self.lose();
                None
            }
            Status::Honoured | Status::Passed if entry.value.data == Data::Null => None,
            Status::Honoured | Status::Passed => self.value(&entry.value, &field.shape),
        }
    }

    /// A field of an older Argo is read as what has taken its place.
    fn deprecated(
        &mut self,
        entry: &Entry,
        owner: &'static Type,
        old: &Deprecation,
        values: &mut Map<String, Value>,
    ) {
        let message = format!("field `{}` is deprecated: {}", self.path, old.says);
        self.tell(Severity::Warning, "ARG0160", entry.at, message, String::new());
        let Becomes::OneOf(list) = old.becomes else { return };
        let Some(field) = owner.field(list).filter(|_| entry.value.data != Data::Null) else { return };
        let value = match field.shape {
            // Supported or not: that is for the field that it has become to say.
            _ if field.status == Status::Refused => self.field(entry, field),
            Shape::List(element) => self.value(&entry.value, element),
            Shape::Objects(fields) => self.object(&entry.value, fields),
            _ => None,
        };
        let list = values.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        if let (Some(value), Some(list)) = (value, list.as_array_mut()) {
            list.push(value);
        }
    }

    fn unknown(&mut self, entry: &Entry, node: &Node, owner: &'static Type, values: &mut Map<String, Value>) {
        // Go's reader does not look at the case of names.
        let same = owner.fields.iter().find(|field| field.name.eq_ignore_ascii_case(&entry.key));
        let near = same.map(|field| field.name).or_else(|| {
            let is_listed = self.rules.drop_unknown || self.problems.len() >= self.rules.limits.problems_max;
            let names = owner.fields.iter().map(|field| field.name);
            if is_listed { None } else { suggest::nearest(&entry.key, names) }
        });
        let suggestion = match near {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("{} has no such field", owner.name),
        };
        if same.is_some() && !self.rules.drop_unknown {
            let message = format!("field `{}` is written in another case", self.path);
            self.tell(Severity::Warning, "ARG0162", entry.at, message, suggestion);
        } else if !self.rules.drop_unknown {
            let severity = if self.rules.warn_unknown { Severity::Warning } else { Severity::Error };
            self.tell(severity, "ARG0004", entry.at, format!("unknown field \"{}\"", self.path), suggestion);
        }
        // What was meant is read, so that the checks to come don't miss it; it is used only if the case alone is wrong.
        let is_read = same.is_some() || (!self.rules.drop_unknown && !self.rules.warn_unknown);
        let Some(field) = near.and_then(|name| owner.field(name)).filter(|_| is_read) else { return };
        if node.get(field.name).is_none()
            && !values.contains_key(field.name)
            && let Some(value) = self.field(entry, field)
        {
            values.insert(field.name.to_owned(), value);
        }
    }
}

/// The integer of a node. A whole number with a point or an exponent is one, too.
fn integer(node: &Node) -> Option<Value> {
    match (&node.data, node.to_json()) {
        (Data::Number(_) | Data::Float(_), Value::Number(number)) if number.is_i64() => {
            Some(Value::Number(number))
        }
        _ => None,
    }
}

/// What stands in a list for a value that can't be read.
fn empty(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::AnyString => Value::String(String::new()),
        Shape::List(_) | Shape::Objects(_) | Shape::Groups(_) => Value::Array(Vec::new()),
        Shape::Object(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::Integer | Shape::Boolean | Shape::IntOrString | Shape::Any => Value::Null,
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
