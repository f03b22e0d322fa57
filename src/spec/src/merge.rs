//! How a manifest is laid over another.

use serde_json::{Map, Value};

/// Argo's merge: the values above win, objects merge by key, lists of named things by name.
pub fn merge(below: &Value, above: &Value) -> Value {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            let mut merged: Map<String, Value> = below.clone();
            for (key, value) in above {
                let value = merged.get(key).map_or_else(|| value.clone(), |below| merge(below, value));
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(below), Value::Array(above)) if named(below) && named(above) => {
            let name = |value: &Value| value.get("name").cloned();
            let mut merged = below.clone();
            for value in above {
                match merged.iter_mut().find(|known| name(known) == name(value)) {
                    Some(known) => *known = merge(known, value),
                    None => merged.push(value.clone()),
                }
            }
            Value::Array(merged)
        }
        (_, above) => above.clone(),
    }
}

fn named(list: &[Value]) -> bool {
    list.iter().all(|value| value.get("name").is_some())
}
