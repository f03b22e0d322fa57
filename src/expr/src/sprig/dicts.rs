//! Maps. None is changed in place: `set`, `unset` and the merges give a new one.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::collections::BTreeMap;

use super::arguments::Arguments;
use crate::evaluate::Machine;
use crate::value::{Key, Value};

type Entries = BTreeMap<Key, Value>;

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let key = |place: usize| given.text(place).map(|text| Key::Text(text.into()));
    let value = match given.name {
        "dict" => {
            let mut entries = Entries::new();
            for pair in given.values.chunks(2) {
                let name = machine.display(&pair[0])?;
                let value = pair.get(1).cloned().unwrap_or_else(|| Value::from(""));
                entries.insert(Key::Text(name.into()), value);
            }
            machine.map(entries, false)?
        }
        "get" => entries_of(given, 0)?.get(&key(1)?).cloned().unwrap_or_else(|| Value::from("")),
        "hasKey" => Value::Bool(entries_of(given, 0)?.contains_key(&key(1)?)),
        "set" | "unset" => {
            let mut entries = copy(machine, given, 0)?;
            if given.name == "set" {
                entries.insert(key(1)?, given.value(2)?.clone());
            } else {
                entries.remove(&key(1)?);
            }
            machine.map(entries, false)?
        }
        "keys" => {
            let mut keys = Vec::new();
            for place in 0..given.values.len() {
                keys.extend(entries_of(given, place)?.keys().map(Key::value));
            }
            machine.list(keys)?
        }
        "values" => machine.list(entries_of(given, 0)?.values().cloned().collect())?,
        "pick" | "omit" => {
            let picks = given.name == "pick";
            let named = (1..given.values.len()).map(key).collect::<Result<Vec<_>, _>>()?;
            let mut entries = copy(machine, given, 0)?;
            entries.retain(|key, _| named.contains(key) == picks);
            machine.map(entries, false)?
        }
        "pluck" => {
            let key = key(0)?;
            let mut found = Vec::new();
            for place in 1..given.values.len() {
                found.extend(entries_of(given, place)?.get(&key).cloned());
            }
            machine.list(found)?
        }
        "merge" | "mergeOverwrite" => {
            let mut entries = copy(machine, given, 0)?;
            for place in 1..given.values.len() {
                merge(machine, &mut entries, entries_of(given, place)?, given.name == "mergeOverwrite")?;
            }
            machine.map(entries, false)?
        }
        "dig" => dig(given)?,
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn entries_of<'a>(given: &Arguments<'a>, place: usize) -> Result<&'a Entries, String> {
    match given.value(place)? {
        Value::Map(map) => Ok(map.entries()),
        _ => Err(given.refuse()),
    }
}

fn copy(machine: &mut Machine<'_>, given: &Arguments<'_>, place: usize) -> Result<Entries, String> {
    let entries = entries_of(given, place)?;
    machine.charge(entries.len() * 4 * size_of::<Value>())?;
    Ok(entries.clone())
}

/// Adds what is missing, all the way down; what is there gives way only when `overwrite`.
fn merge(
    machine: &mut Machine<'_>,
    into: &mut Entries,
    from: &Entries,
    overwrite: bool,
) -> Result<(), String> {
    machine.charge(from.len() * 4 * size_of::<Value>())?;
    for (key, value) in from {
        let merged = match (into.get(key), value) {
            (Some(Value::Map(old)), Value::Map(new)) => {
                let mut entries = old.entries().clone();
                merge(machine, &mut entries, new.entries(), overwrite)?;
                machine.map(entries, false)?
            }
            (Some(old), _) if !overwrite && !super::arguments::is_empty(old) => continue,
            (Some(_) | None, value) => value.clone(),
        };
        into.insert(key.clone(), merged);
    }
    Ok(())
}

fn dig(given: &Arguments<'_>) -> Result<Value, String> {
    let [path @ .., default, map] = given.values else { return Err(given.refuse()) };
    let mut value = map.clone();
    for name in path {
        let name = name.as_text().ok_or_else(|| given.refuse())?;
        let Value::Map(map) = &value else { return Err(given.refuse()) };
        let Some(next) = map.get(name).cloned() else { return Ok(default.clone()) };
        value = next;
    }
    Ok(value)
}
