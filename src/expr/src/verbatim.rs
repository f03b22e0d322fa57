//! Texts that came out of containers: what looks like a tag in them is text, in this pass and in every later one.
//!
//! Argo expands such tags again, so that what a container prints is read as part of the manifest. Here a text is *marked*
//! where it is looked up: a mark stands between braces that would open a tag. [`crate::substitute`] puts marked braces into
//! the JSON text as an escape, which no pass reads as a tag and every JSON parser reads as a brace, so nothing has to be
//! taken out again later. Where texts go from one JSON text into another, [`parse`] keeps the marks.

use serde_json::Value;
use std::borrow::Cow;

/// Stands between two braces. It is no character: texts don't have it.
const MARK: char = '\u{fdd0}';
const OPEN: &str = "{{";
/// A brace as JSON may write it, and as only this crate does.
pub(crate) const BRACE: &str = "\\u007b";

/// Marks what looks like the beginning of a tag, and a brace that would with one before the text.
#[must_use]
pub fn mark(text: &str) -> Cow<'_, str> {
    if !text.contains(OPEN) && !text.starts_with('{') {
        return Cow::Borrowed(text);
    }
    let mut marked = String::with_capacity(text.len() + text.len() / 8);
    let mut before = '{';
    for character in text.chars() {
        if before == '{' && character == '{' {
            marked.push(MARK);
        }
        marked.push(character);
        before = character;
    }
    Cow::Owned(marked)
}

/// Whether a text has marks.
#[must_use]
pub fn is_marked(text: &str) -> bool {
    text.contains(MARK)
}

/// The text without marks.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_marked(text) { Cow::Owned(text.replace(MARK, "")) } else { Cow::Borrowed(text) }
}

pub(crate) fn is_mark(character: char) -> bool {
    character == MARK
}

/// Parses a JSON text that tags were put into; braces that were marked are marked in the value as well.
///
/// # Errors
/// As [`serde_json::from_str`].
pub fn parse(text: &str) -> serde_json::Result<Value> {
    if !text.contains(BRACE) {
        return serde_json::from_str(text);
    }
    let mut marked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        marked.push_str(before);
        let length = if escape.starts_with(BRACE) {
            marked.push(MARK);
            marked.push('{');
            BRACE.len()
        } else {
            // The backslash, and what it is about.
            let length = 1 + escape[1..].chars().next().map_or(0, char::len_utf8);
            marked.push_str(&escape[..length]);
            length
        };
        rest = &escape[length..];
    }
    marked.push_str(rest);
    serde_json::from_str(&marked)
}

/// Takes the marks out of all texts of a value but those that `keep` names by their path.
pub fn unmark(value: &mut Value, keep: &dyn Fn(&[&str]) -> bool) {
    walk(value, &mut Vec::new(), keep);
}

fn walk<'a>(value: &'a mut Value, path: &mut Vec<&'a str>, keep: &dyn Fn(&[&str]) -> bool) {
    match value {
        Value::String(text) if is_marked(text) && !keep(path) => *text = plain(text).into_owned(),
        Value::Array(items) => {
            path.push("*");
            for item in items {
                let mut below = path.clone();
                walk(item, &mut below, keep);
            }
            path.pop();
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let mut below = path.clone();
                below.push(name);
                walk(field, &mut below, keep);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Found, Lookup, Rules, substitute};
    use serde_json::json;

    struct Printed(&'static str);

    impl Lookup for Printed {
        fn get(&self, name: &str) -> Option<Found<'_>> {
            match name {
                "printed" => Some(Found::Text(mark(self.0))),
                "secret" => Some(Found::Text("s3cret".into())),
                _ => None,
            }
        }
    }

    #[test]
    fn what_was_printed_is_no_tag_however_often_it_is_read() {
        for printed in
            ["{{secret}}", "{{{secret}}}", "{{{{secret}}}}", "a {{ secret }} \\u007b{secret}} b", "{{=1+1}}"]
        {
            let mut text = json!({"value": "<{{printed}}> {{secret}}"}).to_string();
            for _ in 0..3 {
                text = substitute(&text, &Printed(printed), &Rules::LENIENT).unwrap();
            }
            let wanted = format!("<{printed}> s3cret");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["value"], wanted, "{text}");
            // From one JSON text into another.
            let mut value = parse(&text).unwrap();
            text = substitute(&value.to_string(), &Printed(printed), &Rules::LENIENT).unwrap();
            value = parse(&text).unwrap();
            assert_eq!(plain(value["value"].as_str().unwrap()), wanted);
        }
    }

    #[test]
    fn marks_stay_where_they_are_wanted() {
        let marked = mark("{{x}}").into_owned();
        let mut value = json!({"keep": [{"value": marked}], "other": [marked, {"deep": marked}]});
        unmark(&mut value, &|path| path == ["keep", "*", "value"]);
        assert_eq!(value, json!({"keep": [{"value": marked}], "other": ["{{x}}", {"deep": "{{x}}"}]}));
    }

    #[test]
    fn texts_without_tags_are_left_alone() {
        assert_eq!(mark("[{\"a\": {\"b\": 1}}]"), "[{\"a\": {\"b\": 1}}]");
        assert!(is_marked(&mark("{secret}}")), "with a brace before it, it would be one");
        assert_eq!(parse("\"\\\\u007b{\"").unwrap(), "\\u007b{");
    }
}
