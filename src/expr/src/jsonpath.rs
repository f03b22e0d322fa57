//! `jsonpath(text, path)`: values of a JSON text by a path.
//!
//! Knows `$`, `.name`, `['name']`, `[0]`, `[-1]`, `[*]`, `.*`, `[1:3:1]`, `['a','b']`, `[0,1]`, `..name`, and filters
//! `[?(@.a > 1)]`, which are evaluated as expressions in which `@` is the element. Paths that may lead to several values
//! give a list.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::sync::Arc;

use crate::evaluate::Machine;
use crate::value::{List, Map, Value};

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(i64),
    All,
    Slice(Option<i64>, Option<i64>, i64),
    Several(Vec<Step>),
    Filter(String),
    Deep,
}

impl Step {
    /// Whether it may lead to several values.
    fn spreads(&self) -> bool {
        match self {
            Self::Key(_) | Self::Index(_) => false,
            Self::All | Self::Slice(..) | Self::Several(_) | Self::Filter(_) | Self::Deep => true,
        }
    }
}

/// Steps of a path at most.
const STEPS_MAX: usize = 100;

/// The value at `path` in the JSON text `document`.
pub(crate) fn read(machine: &mut Machine<'_>, document: &str, path: &str) -> Result<Value, String> {
    let steps = parse(path)?;
    let root = machine.parse_json(document)?;
    let several = steps.iter().any(Step::spreads);
    let mut found = vec![root];
    let mut spread = false;
    for step in &steps {
        let mut next = Vec::new();
        for value in &found {
            if let Err(message) = take(machine, value, step, &mut next)
                && !spread
            {
                return Err(message);
            }
        }
        spread |= step.spreads();
        found = next;
    }
    if several { machine.list(found) } else { found.pop().ok_or_else(|| invalid(path)) }
}

fn invalid(path: &str) -> String {
    format!("invalid JSONPath selector '{path}'")
}

fn take(machine: &mut Machine<'_>, value: &Value, step: &Step, out: &mut Vec<Value>) -> Result<(), String> {
    machine.charge(size_of::<Value>())?;
    machine.spend(1)?;
    match (step, value) {
        (Step::Key(name), Value::Map(map)) => {
            let found = map.get(name).ok_or_else(|| format!("key: invalid token key '{name}' not found"))?;
            out.push(found.clone());
        }
        (Step::Key(name), Value::List(list)) if name == "length" => {
            out.push(Value::Int(i64::try_from(list.items().len()).unwrap_or(i64::MAX)));
        }
        (Step::Key(_), other) => {
            return Err(format!("key: invalid token target. expected [map] got [{}]", kind(other)));
        }
        (Step::Index(index), Value::List(list)) => {
            let size = i64::try_from(list.items().len()).unwrap_or(i64::MAX);
            let place = usize::try_from(if *index < 0 { size.saturating_add(*index) } else { *index }).ok();
            let found = place.and_then(|place| list.items().get(place));
            out.push(found.ok_or_else(|| "index: invalid token out of range".to_owned())?.clone());
        }
        (Step::Index(_), other) => {
            return Err(format!("index: invalid token target. expected [array map] got [{}]", kind(other)));
        }
        (Step::Several(steps), value) => {
            for step in steps {
                // What is missing is left out.
                let _ = take(machine, value, step, out);
            }
        }
        (Step::All, Value::List(list)) => out.extend_from_slice(charged_list(machine, list)?),
        (Step::All, Value::Map(map)) => out.extend(charged_map(machine, map)?.cloned()),
        (Step::All, other) => {
            return Err(format!(
                "wildcard: invalid token target. expected [array map] got [{}]",
                kind(other)
            ));
        }
        (Step::Slice(from, to, step), Value::List(list)) => sliced(machine, list, *from, *to, *step, out)?,
        (Step::Slice(..), other) => {
            return Err(format!("range: invalid token target. expected [array] got [{}]", kind(other)));
        }
        (Step::Filter(text), Value::List(list)) => {
            for item in charged_list(machine, list)? {
                if machine.filter_holds(text, item)? {
                    out.push(item.clone());
                }
            }
        }
        (Step::Filter(text), Value::Map(map)) => {
            for item in charged_map(machine, map)? {
                if machine.filter_holds(text, item)? {
                    out.push(item.clone());
                }
            }
        }
        (Step::Filter(_), other) => {
            return Err(format!("filter: invalid token target. expected [array map] got [{}]", kind(other)));
        }
        (Step::Deep, value) => deep(machine, value, out)?,
    }
    Ok(())
}

fn charged_list<'a>(machine: &mut Machine<'_>, list: &'a List) -> Result<&'a [Value], String> {
    machine.charge(size_of_val(list.items()))?;
    Ok(list.items())
}

fn charged_map<'a>(
    machine: &mut Machine<'_>,
    map: &'a Map,
) -> Result<impl Iterator<Item = &'a Value> + use<'a>, String> {
    machine.charge(map.entries().len() * size_of::<Value>())?;
    Ok(map.entries().values())
}

/// The value and everything below it.
fn deep(machine: &mut Machine<'_>, value: &Value, out: &mut Vec<Value>) -> Result<(), String> {
    machine.charge(size_of::<Value>())?;
    out.push(value.clone());
    match value {
        Value::List(list) => list.items().iter().try_for_each(|item| deep(machine, item, out)),
        Value::Map(map) => map.entries().values().try_for_each(|item| deep(machine, item, out)),
        _ => Ok(()),
    }
}

fn sliced(
    machine: &mut Machine<'_>,
    list: &Arc<List>,
    from: Option<i64>,
    to: Option<i64>,
    step: i64,
    out: &mut Vec<Value>,
) -> Result<(), String> {
    let items = charged_list(machine, list)?;
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let clamp = |bound: i64| (if bound < 0 { size.saturating_add(bound) } else { bound }).clamp(0, size);
    let step =
        usize::try_from(step).ok().filter(|step| *step > 0).ok_or("range: invalid token out of range")?;
    let (from, to) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(size)));
    let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
    out.extend(items.get(from..to).unwrap_or_default().iter().step_by(step).cloned());
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Calendar(..) => "struct",
        Value::Time(_) | Value::Duration(_) | Value::Zone(_) | Value::Version(_) | Value::Function(_) => {
            "struct"
        }
    }
}

fn parse(path: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest =
        path.trim().strip_prefix('$').ok_or_else(|| "unexpected token. expected '$'".to_owned())?;
    while !rest.is_empty() {
        if steps.len() >= STEPS_MAX {
            return Err(invalid(path));
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Deep);
            if after.starts_with('[') {
                rest = after;
                continue;
            }
            rest = dotted(after, &mut steps).ok_or_else(|| invalid(path))?;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = dotted(after, &mut steps).ok_or_else(|| invalid(path))?;
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after).ok_or_else(|| invalid(path))?;
            steps.push(bracketed(after[..end].trim()).ok_or_else(|| invalid(path))?);
            rest = &after[end + 1..];
        } else {
            return Err(invalid(path));
        }
    }
    Ok(steps)
}

fn dotted<'a>(text: &'a str, steps: &mut Vec<Step>) -> Option<&'a str> {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let name = &text[..end];
    if name.is_empty() {
        return None;
    }
    steps.push(if name == "*" { Step::All } else { Step::Key(name.to_owned()) });
    Some(&text[end..])
}

/// Where the bracket that is open closes.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (place, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[' | '(') => depth += 1,
            (None, ']') if depth == 0 => return Some(place),
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
    }
    None
}

fn bracketed(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(Step::Filter(filter.trim().to_owned()));
    }
    if let Some(key) = quoted(text) {
        return Some(Step::Key(key));
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    if text.contains(',') {
        let parts = text.split(',').map(|part| bracketed(part.trim()));
        return parts.collect::<Option<Vec<_>>>().filter(|parts| parts.len() <= STEPS_MAX).map(Step::Several);
    }
    let mut bounds = text.split(':').map(str::trim);
    let bound = |text: Option<&str>| match text {
        None | Some("") => Some(None),
        Some(text) => text.parse::<i64>().ok().map(Some),
    };
    let (from, to, step) = (bound(bounds.next())?, bound(bounds.next())?, bound(bounds.next())?);
    if !text.contains(':') || bounds.next().is_some() {
        return None;
    }
    Some(Step::Slice(from, to, step.unwrap_or(1)))
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.to_owned())
}

/// The name under which a filter sees its element.
pub(crate) const ELEMENT: &str = "_element";

/// A filter as an expression: `@` outside of quotes is the element.
pub(crate) fn filter_expression(filter: &str) -> String {
    let (mut out, mut quote) = (String::new(), None);
    for character in filter.chars() {
        match (quote, character) {
            (None, '@') => {
                out.push_str(ELEMENT);
                continue;
            }
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None | Some(_), _) => {}
        }
        out.push(character);
    }
    out
}
