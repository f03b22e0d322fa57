//! Lists, and what there is for values of any kind.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use super::arguments::{Arguments, is_empty};
use crate::evaluate::Machine;
use crate::value::Value;

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let value = match given.name {
        "default" => match given.values {
            [default] => default.clone(),
            [default, value, ..] => {
                if is_empty(value) {
                    default.clone()
                } else {
                    value.clone()
                }
            }
            [] => return Err(given.refuse()),
        },
        "empty" => Value::Bool(is_empty(given.value(0)?)),
        "coalesce" => given.values.iter().find(|value| !is_empty(value)).cloned().unwrap_or(Value::Nil),
        "all" => Value::Bool(!given.values.iter().any(is_empty)),
        "any" => Value::Bool(given.values.iter().any(|value| !is_empty(value))),
        "ternary" => match given.value(2)? {
            Value::Bool(true) => given.value(0)?.clone(),
            Value::Bool(false) => given.value(1)?.clone(),
            _ => return Err(given.refuse()),
        },
        "deepCopy" => given.value(0)?.clone(),
        "deepEqual" => Value::Bool(machine.equal(given.value(0)?, given.value(1)?)?),
        "typeOf" => Value::from(given.value(0)?.go_type()),
        "typeIs" | "typeIsLike" => Value::Bool(given.value(1)?.go_type() == given.text(0)?),
        "kindOf" => Value::from(kind(given.value(0)?)),
        "kindIs" => Value::Bool(kind(given.value(1)?) == given.text(0)?),
        "list" | "tuple" => machine.list(given.values.to_vec())?,
        "split" | "splitn" => split_map(machine, given)?,
        "splitList" => {
            let parts = machine.split(given.text(1)?, given.text(0)?, -1, false)?;
            machine.texts(parts)?
        }
        "join" => {
            let texts = texts_of(machine, given.value(1)?)?;
            let glue = given.text(0)?;
            machine.charge(texts.iter().map(|text| text.len() + glue.len()).sum())?;
            Value::from(texts.join(glue))
        }
        "toStrings" => {
            let texts = texts_of(machine, given.value(0)?)?;
            machine.texts(texts)?
        }
        "sortAlpha" => {
            let mut texts = texts_of(machine, given.value(0)?)?;
            texts.sort();
            machine.texts(texts)?
        }
        _ => return elements(machine, given),
    };
    Ok(Some(value))
}

fn elements(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let none = Value::Nil;
    let list = match given.name {
        "append" | "push" => {
            let mut items = given.items(0)?.to_vec();
            items.push(given.value(1)?.clone());
            items
        }
        "prepend" => {
            let mut items = vec![given.value(1)?.clone()];
            items.extend_from_slice(given.items(0)?);
            items
        }
        "concat" => {
            let mut items = Vec::new();
            for place in 0..given.values.len() {
                machine.charge(size_of_val(given.items(place)?))?;
                items.extend_from_slice(given.items(place)?);
            }
            items
        }
        "first" => return Ok(Some(given.items(0)?.first().unwrap_or(&none).clone())),
        "last" => return Ok(Some(given.items(0)?.last().unwrap_or(&none).clone())),
        "rest" => given.items(0)?.iter().skip(1).cloned().collect(),
        "initial" => {
            let items = given.items(0)?;
            items[..items.len().saturating_sub(1)].to_vec()
        }
        "reverse" => given.items(0)?.iter().rev().cloned().collect(),
        "compact" => given.items(0)?.iter().filter(|item| !is_empty(item)).cloned().collect(),
        "uniq" => {
            let mut kept = Vec::new();
            for item in given.items(0)? {
                if !holds(machine, &kept, item)? {
                    kept.push(item.clone());
                }
            }
            kept
        }
        "without" => {
            let mut kept = Vec::new();
            for item in given.items(0)? {
                if !holds(machine, &given.values[1..], item)? {
                    kept.push(item.clone());
                }
            }
            kept
        }
        "has" => {
            let found = match given.value(1)? {
                Value::Nil => false,
                _ => holds(machine, given.items(1)?, given.value(0)?)?,
            };
            return Ok(Some(Value::Bool(found)));
        }
        "slice" => {
            let items = given.items(0)?;
            let bound = |place: usize, default: usize| match given.values.get(place) {
                None => Ok(default),
                Some(_) => Ok::<_, String>(usize::try_from(given.int(place)?).unwrap_or(0)),
            };
            let (from, to) = (bound(1, 0)?, bound(2, items.len())?);
            items.get(from..to).ok_or_else(|| format!("slice bounds out of range [{from}:{to}]"))?.to_vec()
        }
        "chunk" => {
            let size =
                usize::try_from(given.int(0)?).ok().filter(|size| *size > 0).ok_or_else(|| given.refuse())?;
            let mut chunks = Vec::new();
            for chunk in given.items(1)?.chunks(size) {
                chunks.push(machine.list(chunk.to_vec())?);
            }
            chunks
        }
        _ => return Ok(None),
    };
    machine.list(list).map(Some)
}

fn holds(machine: &mut Machine<'_>, items: &[Value], wanted: &Value) -> Result<bool, String> {
    for item in items {
        if machine.equal(item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The parts of a text as a map: `_0`, `_1`, ...
fn split_map(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Value, String> {
    let (most, text) = if given.name == "split" { (-1, 1) } else { (given.int(1)?, 2) };
    let parts = machine.split(given.text(text)?, given.text(0)?, most, false)?;
    let mut entries = std::collections::BTreeMap::new();
    for (place, part) in parts.into_iter().enumerate() {
        entries.insert(crate::value::Key::Text(format!("_{place}").into()), machine.text(part)?);
    }
    machine.map(entries, false)
}

fn texts_of(machine: &mut Machine<'_>, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(list) => {
            let kept = list.items().iter().filter(|item| !item.is_nil());
            kept.map(|item| machine.display(item)).collect()
        }
        Value::Nil => Ok(Vec::new()),
        other => Ok(vec![machine.display(other)?]),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Time(_) => "struct",
        Value::Duration(_) => "int64",
        Value::Zone(_) | Value::Version(_) => "ptr",
        Value::Calendar(..) => "int",
        Value::Function(_) => "func",
    }
}
