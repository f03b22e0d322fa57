//! The values of the language, and how Go writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::date::{Calendar, Time, Zone};
use crate::go;
use crate::sprig::semver::Version;

/// A list. Keeps how deeply it nests, so that no value can be nested without bound.
#[derive(Clone, Debug)]
pub struct List {
    items: Vec<Value>,
    depth: u32,
}

/// A map; keys are in order.
#[derive(Clone, Debug)]
pub struct Map {
    entries: BTreeMap<Key, Value>,
    depth: u32,
    /// Its keys may be of any type, which JSON does not know.
    any_keys: bool,
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `nil`
    Nil,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double, as a number in the same order.
    Float(u64),
    /// A text.
    Text(Arc<str>),
}

impl Key {
    /// The key as a value.
    pub fn value(&self) -> Value {
        match self {
            Self::Nil => Value::Nil,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => Value::Int(*number),
            Self::Float(code) => Value::Float(from_ordered(*code)),
            Self::Text(text) => Value::Text(text.clone()),
        }
    }

    /// The key that a value makes; `None` for what can't be one.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Nil => Self::Nil,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(number) | Value::Duration(number) | Value::Calendar(_, number) => Self::Int(*number),
            Value::Float(number) => Self::Float(ordered(*number)),
            Value::Text(text) => Self::Text(text.clone()),
            Value::List(_)
            | Value::Map(_)
            | Value::Time(_)
            | Value::Zone(_)
            | Value::Version(_)
            | Value::Function(_) => return None,
        })
    }
}

const SIGN: u64 = 1 << 63;

/// A code of a double that orders as the double does; both zeros have one.
fn ordered(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn from_ordered(code: u64) -> f64 {
    f64::from_bits(if code & SIGN == 0 { !code } else { code & !SIGN })
}

/// Something that can be called.
#[derive(Clone, Debug)]
pub struct Function {
    /// What it was taken from; [`Value::Nil`] for a function of its own.
    pub receiver: Box<Value>,
    /// Its name; those of `sprig` begin with `sprig.`.
    pub name: Arc<str>,
    /// Its type as Go prints it.
    pub type_text: &'static str,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `nil`
    Nil,
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A list.
    List(Arc<List>),
    /// A map.
    Map(Arc<Map>),
    /// A point in time, with its zone.
    Time(Arc<Time>),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A month or a day of the week.
    Calendar(Calendar, i64),
    /// A time zone.
    Zone(Arc<Zone>),
    /// A semantic version.
    Version(Arc<Version>),
    /// Something that can be called.
    Function(Arc<Function>),
}

/// Deepest nesting of a value.
pub(crate) const VALUE_DEPTH_MAX: u32 = 128;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl List {
    /// The elements.
    pub fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Map {
    /// The entries.
    pub fn entries(&self) -> &BTreeMap<Key, Value> {
        &self.entries
    }

    /// An empty map.
    pub(crate) fn empty() -> Self {
        Self { entries: BTreeMap::new(), depth: 1, any_keys: false }
    }

    /// True when its keys may be of any type.
    pub fn any_keys(&self) -> bool {
        self.any_keys
    }

    /// Sets what `path` leads to; maps on the way are made. A name in front of a path gives way to it.
    pub(crate) fn insert(&mut self, path: &[&str], value: Value) {
        let [name, rest @ ..] = path else { return };
        let key = Key::Text((*name).into());
        if rest.is_empty() {
            let is_prefix = matches!(self.entries.get(&key), Some(Value::Map(_)));
            if !is_prefix || matches!(value, Value::Map(_)) {
                self.depth = self.depth.max(value.depth() + 1);
                self.entries.insert(key, value);
            }
            return;
        }
        let entry = self.entries.entry(key).or_insert(Value::Nil);
        if !matches!(entry, Value::Map(_)) {
            *entry = Value::Map(Arc::new(Self::empty()));
        }
        if let Value::Map(map) = entry {
            let map = Arc::make_mut(map);
            map.insert(rest, value);
            self.depth = self.depth.max(map.depth + 1);
        }
    }

    /// The value of a text key.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(&Key::Text(name.into()))
    }
}

impl Value {
    /// A list of values.
    ///
    /// # Errors
    /// When it would be nested too deeply.
    pub fn list(items: Vec<Self>) -> Result<Self, String> {
        let depth = deeper(items.iter())?;
        Ok(Self::List(Arc::new(List { items, depth })))
    }

    /// A list of texts.
    pub fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        let items = items.into_iter().map(|text| Self::from(text.as_ref())).collect();
        Self::List(Arc::new(List { items, depth: 1 }))
    }

    /// A map with texts as keys.
    ///
    /// # Errors
    /// When it would be nested too deeply.
    pub fn map(entries: BTreeMap<Arc<str>, Self>) -> Result<Self, String> {
        let entries: BTreeMap<Key, Self> =
            entries.into_iter().map(|(key, value)| (Key::Text(key), value)).collect();
        Self::keyed(entries, false)
    }

    /// A map; `any_keys` when Go's type of it has keys of any type.
    ///
    /// # Errors
    /// When it would be nested too deeply.
    pub fn keyed(entries: BTreeMap<Key, Self>, any_keys: bool) -> Result<Self, String> {
        let depth = deeper(entries.values())?;
        Ok(Self::Map(Arc::new(Map { entries, depth, any_keys })))
    }

    /// The value of a JSON text's value: numbers are doubles, as in Go.
    ///
    /// # Errors
    /// When it is nested too deeply.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        Ok(match value {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(flag) => Self::Bool(*flag),
            serde_json::Value::Number(number) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::from(text.as_str()),
            serde_json::Value::Array(items) => {
                Self::list(items.iter().map(Self::from_json).collect::<Result<_, _>>()?)?
            }
            serde_json::Value::Object(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| Ok((Arc::from(key.as_str()), Self::from_json(value)?)));
                Self::map(entries.collect::<Result<_, String>>()?)?
            }
        })
    }

    /// The text, when it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Time(_)
            | Self::Duration(_)
            | Self::Calendar(..)
            | Self::Zone(_)
            | Self::Version(_)
            | Self::Function(_) => None,
        }
    }

    /// True for `nil`.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// Go's name of the type (`%T`).
    pub fn go_type(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(map) if map.any_keys => "map[interface {}]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Calendar(Calendar::Month, _) => "time.Month",
            Self::Calendar(Calendar::Weekday, _) => "time.Weekday",
            Self::Zone(_) => "*time.Location",
            Self::Version(_) => "*semver.Version",
            Self::Function(function) => function.type_text,
        }
    }

    /// The language's own name of the type: what `type()` gives.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Map(_) => "map",
            Self::Time(_) => "time.Time",
            Self::Duration(_) => "time.Duration",
            Self::Calendar(Calendar::Month, _) => "time.Month",
            Self::Calendar(Calendar::Weekday, _) => "time.Weekday",
            Self::Zone(_) => "time.Location",
            Self::Version(_) => "github.com/Masterminds/semver/v3.Version",
            Self::Function(_) => "func",
        }
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Time(_)
            | Self::Duration(_)
            | Self::Calendar(..)
            | Self::Zone(_)
            | Self::Version(_)
            | Self::Function(_) => 0,
        }
    }

    /// Writes the value as Go's `%v` does; stops with an error beyond `bytes_max`.
    ///
    /// # Errors
    /// When the text grows over `bytes_max`.
    pub fn display(&self, bytes_max: usize) -> Result<String, String> {
        let mut out = String::new();
        self.push_display(&mut out, false, bytes_max)?;
        Ok(out)
    }

    /// Writes the value as Go's `%s` does, which complains of what is no text: `%!s(int=2)`.
    ///
    /// # Errors
    /// When the text grows over `bytes_max`.
    pub fn display_as_text(&self, bytes_max: usize) -> Result<String, String> {
        let mut out = String::new();
        self.push_display(&mut out, true, bytes_max)?;
        Ok(out)
    }

    fn push_display(&self, out: &mut String, as_text: bool, bytes_max: usize) -> Result<(), String> {
        match self {
            Self::Nil if as_text => out.push_str("%!s(<nil>)"),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Function(_) if as_text => {
                out.push_str("%!s(");
                out.push_str(self.go_type());
                out.push('=');
                self.push_display(out, false, bytes_max)?;
                out.push(')');
            }
            Self::Nil => out.push_str("<nil>"),
            Self::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Int(number) => push(out, number),
            Self::Float(number) => out.push_str(&go::format_double(*number)),
            Self::Text(text) => out.push_str(text),
            Self::List(list) => {
                out.push('[');
                for (index, item) in list.items.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    item.push_display(out, as_text, bytes_max)?;
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push_str("map[");
                for (index, (key, value)) in map.entries.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    key.value().push_display(out, as_text, bytes_max)?;
                    out.push(':');
                    value.push_display(out, as_text, bytes_max)?;
                }
                out.push(']');
            }
            Self::Time(time) => out.push_str(&time.to_string()),
            Self::Duration(nanoseconds) => out.push_str(&crate::date::duration_text(*nanoseconds)),
            Self::Calendar(calendar, number) => out.push_str(calendar.name(*number)),
            Self::Zone(zone) => push(out, zone),
            Self::Version(version) => push(out, version),
            Self::Function(_) => out.push_str("0x0"),
        }
        within(out, bytes_max)
    }

    /// The value as Go's `encoding/json` writes it; `indent` by two spaces or compact.
    ///
    /// # Errors
    /// Go's message for what JSON does not know; when the text grows over `bytes_max`.
    pub fn json(&self, indent: bool, bytes_max: usize) -> Result<String, String> {
        let mut out = String::new();
        self.push_json(&mut out, indent.then_some(0), bytes_max)?;
        Ok(out)
    }

    fn push_json(&self, out: &mut String, indent: Option<usize>, bytes_max: usize) -> Result<(), String> {
        match self {
            Self::Nil => out.push_str("null"),
            Self::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Int(number) | Self::Duration(number) | Self::Calendar(_, number) => push(out, number),
            Self::Float(number) if !number.is_finite() => {
                return Err(format!("json: unsupported value: {}", go::format_double(*number)));
            }
            Self::Float(number) => out.push_str(&go::json_double(*number)),
            Self::Text(text) => go::push_json_text(out, text),
            Self::List(list) => {
                let items = list.items.iter().map(|item| (None, item));
                push_members(out, ('[', ']'), items, indent, bytes_max)?;
            }
            Self::Map(map) if map.any_keys => {
                return Err(format!("json: unsupported type: {}", self.go_type()));
            }
            Self::Map(map) => {
                let entries = map.entries.iter().map(|(key, value)| (Some(key), value));
                push_members(out, ('{', '}'), entries, indent, bytes_max)?;
            }
            Self::Time(time) => {
                out.push('"');
                out.push_str(&time.rfc3339());
                out.push('"');
            }
            Self::Zone(_) => out.push_str("{}"),
            Self::Version(version) => go::push_json_text(out, &version.original),
            Self::Function(function) => {
                return Err(format!("json: unsupported type: {}", function.type_text));
            }
        }
        within(out, bytes_max)
    }
}

fn push_members<'a>(
    out: &mut String,
    (open, close): (char, char),
    members: impl Iterator<Item = (Option<&'a Key>, &'a Value)>,
    indent: Option<usize>,
    bytes_max: usize,
) -> Result<(), String> {
    let line = |out: &mut String, level: Option<usize>| {
        if let Some(level) = level {
            out.push('\n');
            out.push_str(&"  ".repeat(level));
        }
    };
    let inner = indent.map(|level| level + 1);
    out.push(open);
    let mut any = false;
    for (key, value) in members {
        if any {
            out.push(',');
        }
        any = true;
        line(out, inner);
        if let Some(key) = key {
            go::push_json_text(out, &key.value().display(bytes_max)?);
            out.push_str(if indent.is_some() { ": " } else { ":" });
        }
        value.push_json(out, inner, bytes_max)?;
    }
    if any {
        line(out, indent);
    }
    out.push(close);
    Ok(())
}

fn deeper<'a>(children: impl Iterator<Item = &'a Value>) -> Result<u32, String> {
    let depth = children.map(Value::depth).max().unwrap_or(0) + 1;
    if depth > VALUE_DEPTH_MAX {
        return Err(format!("value is nested deeper than {VALUE_DEPTH_MAX} levels"));
    }
    Ok(depth)
}

fn push(out: &mut String, value: &dyn std::fmt::Display) {
    write!(out, "{value}").expect("writing to a string can't fail");
}

fn within(out: &str, bytes_max: usize) -> Result<(), String> {
    if out.len() > bytes_max {
        return Err(format!("text is longer than {bytes_max} bytes"));
    }
    Ok(())
}
