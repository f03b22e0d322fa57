//! Items of a `withParam` list as they were written: numbers keep their digits, and names of nodes their escapes.
//!
//! Every text here was read as JSON before: the cuts below look at quotes and brackets only.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::scope::sorted_json;

/// The key of an item that is a text of JSON.
const MARK: &str = "\u{1}raw";

/// The item of a text, to be told from one that was read.
pub(crate) fn marked(text: &str) -> Value {
    json!({ MARK: text })
}

/// The texts of a list's elements.
pub(crate) fn elements(list: &str) -> Vec<&str> {
    let inside = list.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    if inside.trim().is_empty() { Vec::new() } else { cut(inside, b',') }
}

/// Cuts at a separator outside of texts, lists and objects; the parts are trimmed.
fn cut(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted, mut escaped) = (Vec::new(), 0, 0_u32, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            found if found == separator && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ordinary => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The members of an object by key.
fn members(object: &str) -> BTreeMap<String, &str> {
    let inside = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let pairs = cut(inside, b',').into_iter().filter_map(|pair| {
        let parts = cut(pair, b':');
        let [key, value] = parts.as_slice() else { return None };
        Some((serde_json::from_str(key).ok()?, *value))
    });
    pairs.collect()
}

/// How an item shows in a node's name, before it is shortened.
pub(crate) fn describe(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'"') => text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned(),
        Some(b'{') => {
            let pairs = members(text).into_iter().map(|(key, value)| format!("{key}:{}", plain(value)));
            pairs.collect::<Vec<_>>().join(",")
        }
        Some(b'[') => {
            let parts: Vec<String> = elements(text).into_iter().map(go_text).collect();
            format!("[{}]", parts.join(" "))
        }
        Some(b'n') => "[]".to_owned(),
        Some(_) | None => text.to_owned(),
    }
}

fn go_text(text: &str) -> String {
    if text.starts_with('[') { describe(text) } else { plain(text) }
}

/// The text that a tag of an item stands for.
fn plain(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).unwrap_or_default(),
        Some(b'{') => {
            let pairs = members(text).into_iter().map(|(key, value)| {
                let value = if value.starts_with('"') { value.to_owned() } else { plain(value) };
                format!("{}:{value}", Value::String(key))
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        Some(b'[') => match serde_json::from_str::<Value>(text) {
            Ok(value) => sorted_json(&value),
            Err(_) => text.to_owned(),
        },
        Some(_) | None => text.to_owned(),
    }
}

/// The names that a marked item gives; `None` for any other.
pub(crate) fn names(item: &Value) -> Option<BTreeMap<String, String>> {
    let text = item.get(MARK)?.as_str()?;
    let mut names: BTreeMap<String, String> = if text.starts_with('{') {
        members(text).into_iter().map(|(key, value)| (format!("item.{key}"), plain(value))).collect()
    } else {
        BTreeMap::new()
    };
    names.insert("item".to_owned(), plain(text));
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_digits_and_escapes() {
        let list = r#" [1.0, "a,\"b", {"k": [1, 2], "a": "x:y"}, "\u00e9", null, [1, [2]]] "#;
        let parts = elements(list);
        assert_eq!(parts.len(), 6);
        assert_eq!(describe(parts[0]), "1.0");
        assert_eq!(describe(parts[1]), r#"a,\"b"#);
        assert_eq!(describe(parts[2]), "a:x:y,k:[1,2]");
        assert_eq!(describe(parts[3]), r"\u00e9");
        assert_eq!(describe(parts[4]), "[]");
        assert_eq!(describe(parts[5]), "[1 [2]]");
        let names = names(&marked(parts[2])).unwrap();
        assert_eq!(names["item.a"], "x:y");
        assert_eq!(names["item"], r#"{"a":"x:y","k":[1,2]}"#);
        assert!(elements("[ ]").is_empty());
    }
}
