//! Kubernetes' strategic merge of a patch into a Pod's specification. Pure.
//!
//! Objects merge by key, `null` removes one. Lists are replaced, but for those in [`MERGE_KEYS`], whose elements merge by a
//! key of theirs, and [`MERGED_VALUES`]. Directives: `$patch` (`delete`, `replace`, `merge`), `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD`; `$setElementOrder/FIELD` only orders, and is left out.

use serde_json::{Map, Value};

/// Lists of objects that merge, and the key by which.
const MERGE_KEYS: [(&str, &str); 12] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("volumeMounts", "mountPath"),
    ("volumeDevices", "devicePath"),
    ("ports", "containerPort"),
];
/// One more, whose key has a default elsewhere.
const TOPOLOGY: (&str, &str) = ("topologySpreadConstraints", "topologyKey");
/// Lists of plain values that merge.
const MERGED_VALUES: [&str; 1] = ["finalizers"];
const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// The patch as written, JSON or YAML.
pub fn read(text: &str) -> Option<Map<String, Value>> {
    let value: Value = serde_json::from_str(text).ok().or_else(|| serde_yaml::from_str(text).ok())?;
    match value {
        Value::Object(fields) => Some(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    }
}

/// Merges a patch into an object; nothing when the patch's shape does not fit.
pub fn merge(mut below: Map<String, Value>, mut patch: Map<String, Value>) -> Option<Map<String, Value>> {
    match patch.shift_remove(PATCH).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => return Some(patch),
        Some(Some("delete")) => return Some(Map::new()),
        Some(_) => return None,
    }
    if let Some(retained) = patch.shift_remove(RETAIN_KEYS) {
        let retained = retained.as_array()?.clone();
        below.retain(|key, _| retained.iter().any(|name| name == key));
    }
    for (key, value) in patch {
        if key.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_VALUES) {
            let unwanted = value.as_array()?;
            if let Some(Value::Array(values)) = below.get_mut(field) {
                values.retain(|value| !unwanted.contains(value));
            }
            continue;
        }
        merge_field(&mut below, &key, value)?;
    }
    Some(below)
}

fn merge_field(below: &mut Map<String, Value>, key: &str, value: Value) -> Option<()> {
    let merged = match (below.get(key), value) {
        (_, Value::Null) => {
            below.shift_remove(key);
            return Some(());
        }
        (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge(old.clone(), new)?),
        (None | Some(Value::Null), Value::Object(new)) => Value::Object(merge(Map::new(), new)?),
        (old, Value::Array(new)) => {
            let old = match old {
                Some(Value::Array(old)) => old.clone(),
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => return None,
            };
            Value::Array(merge_list(key, old, new)?)
        }
        (_, new) => new,
    };
    below.insert(key.to_owned(), merged);
    Some(())
}

fn merge_list(field: &str, below: Vec<Value>, patch: Vec<Value>) -> Option<Vec<Value>> {
    let merge_key =
        MERGE_KEYS.iter().chain([&TOPOLOGY]).find(|(name, _)| *name == field).map(|(_, key)| *key);
    let Some(merge_key) = merge_key else {
        if !MERGED_VALUES.contains(&field) {
            return Some(patch);
        }
        let mut values = below;
        patch.into_iter().for_each(|value| {
            if !values.contains(&value) {
                values.push(value);
            }
        });
        return Some(values);
    };
    let is_replacement = |element: &Value| element.get(PATCH).is_some_and(|patch| patch == "replace");
    let mut merged = if patch.iter().any(is_replacement) { Vec::new() } else { below };
    for element in patch {
        let Value::Object(mut element) = element else { return None };
        if element.get(PATCH).is_some_and(|patch| patch == "replace") {
            element.shift_remove(PATCH);
            if element.is_empty() {
                continue;
            }
        }
        let key = element.get(merge_key)?.clone();
        let at = merged.iter().position(|known| known.get(merge_key) == Some(&key));
        if element.get(PATCH).is_some_and(|patch| patch == "delete") {
            merged.retain(|known| known.get(merge_key) != Some(&key));
        } else if let Some(at) = at {
            let Value::Object(known) = merged[at].take() else { return None };
            merged[at] = Value::Object(merge(known, element)?);
        } else {
            merged.push(Value::Object(merge(Map::new(), element)?));
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(below: Value, patch: &str) -> Option<Value> {
        let Value::Object(below) = below else { unreachable!("tests give objects") };
        merge(below, read(patch)?).map(Value::Object)
    }

    #[test]
    fn objects_merge_and_null_removes() {
        let below = json!({"hostname": "a", "nodeSelector": {"x": "1", "y": "2"}});
        let after = patched(below, r#"{"nodeSelector":{"x":null,"z":"3"},"hostname":"b"}"#);
        assert_eq!(after, Some(json!({"hostname": "b", "nodeSelector": {"y": "2", "z": "3"}})));
    }

    #[test]
    fn lists_merge_by_their_key_or_are_replaced() {
        let below = json!({
            "containers": [{"name": "main", "image": "i", "env": [{"name": "A", "value": "1"}], "args": ["x", "y"]}],
            "tolerations": [{"key": "a"}], "volumes": [{"name": "v", "emptyDir": {}}],
        });
        let patch = "containers:\n- name: main\n  env: [{name: B, value: '2'}, {name: A, value: '3'}]\n  args: [z]\n- name: side\n  image: s\ntolerations: [{key: b}]\nvolumes: [{name: v, $patch: delete}]\n";
        let after = patched(below, patch).unwrap();
        assert_eq!(
            after["containers"],
            json!([{"name": "main", "image": "i", "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}], "args": ["z"]},
                {"name": "side", "image": "s"}])
        );
        assert_eq!((&after["tolerations"], &after["volumes"]), (&json!([{"key": "b"}]), &json!([])));
    }

    #[test]
    fn directives_are_followed() {
        let below = json!({"volumes": [{"name": "v", "emptyDir": {}, "x": 1}], "affinity": {"a": 1, "b": 2}});
        let patch = r#"{"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}],
            "affinity":{"$patch":"replace","c":3},"$setElementOrder/volumes":[{"name":"v"}]}"#;
        let after = patched(below, patch);
        let expected = json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}], "affinity": {"c": 3}});
        assert_eq!(after, Some(expected));
        let all = patched(json!({"env": [{"name": "A"}]}), r#"{"env":[{"$patch":"replace"},{"name":"B"}]}"#);
        assert_eq!(all, Some(json!({"env": [{"name": "B"}]})));
    }

    #[test]
    fn what_does_not_fit_is_no_patch() {
        for patch in
            ["5", "[", r#"{"containers":[{"image":"x"}]}"#, r#"{"containers":[1]}"#, r#"{"$patch":"no"}"#]
        {
            assert_eq!(patched(json!({"containers": [{"name": "main"}]}), patch), None, "{patch}");
        }
        assert_eq!(patched(json!({"hostname": "a"}), r#"{"hostname":["b"]}"#), None);
    }
}
