//! The items of loops: numbers counted up and down, how an item shows in a node's name, and the names it gives to tags.

use argosy_expr::verbatim;
use argosy_proto::state as row;
use argosy_spec::{IntOrString, Sequence};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::advance::raw_json;
use crate::scope::sorted_json;

/// Longest description of an item in a node's name.
const DESCRIPTION_LENGTH_MAX: usize = 1024;

/// Longest format of a numeric loop: every item holds what it makes.
const FORMAT_LENGTH_MAX: usize = 1024;

/// What a numeric loop counts.
pub(crate) fn sequence_of(sequence: &Sequence, expansion: &mut row::Expansion) -> Result<(), String> {
    if sequence.format.len() > FORMAT_LENGTH_MAX {
        return Err(format!("the format of withSequence is longer than {FORMAT_LENGTH_MAX} bytes"));
    }
    let number = |field: &Option<IntOrString>| match field {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| match value {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(text) => format!("strconv.Atoi: parsing {text:?}: invalid syntax"),
        }),
    };
    let start = number(&sequence.start)?.unwrap_or(0);
    let end = match (number(&sequence.count)?, number(&sequence.end)?) {
        (Some(0), _) => {
            expansion.total = 0;
            return Ok(());
        }
        (Some(count), _) => start.saturating_add(count).saturating_sub(1),
        (None, Some(end)) => end,
        (None, None) => return Err("neither end nor count was specified in withSequence".to_owned()),
    };
    expansion.start = start;
    expansion.descending = end < start;
    expansion.total = end.abs_diff(start).saturating_add(1);
    expansion.format.clone_from(&sequence.format);
    Ok(())
}

/// The item of a loop at a place, and how it shows in the node's name.
pub(crate) fn item_at(expansion: &row::Expansion, items: &[Value], at: u64) -> (Value, String) {
    if expansion.items_json.is_empty() {
        let offset = i64::try_from(at).unwrap_or(i64::MAX);
        let offset = if expansion.descending { -offset } else { offset };
        let text = go_format(&expansion.format, expansion.start.saturating_add(offset));
        let description = describe(&Value::String(text.clone()));
        return (Value::String(text), description);
    }
    let item = usize::try_from(at).ok().and_then(|at| items.get(at)).cloned().unwrap_or_default();
    if let Some(text) = item.as_str().filter(|_| expansion.raw) {
        let description = shortened(raw_json::describe(text));
        return (raw_json::marked(text), description);
    }
    let description = describe(&item);
    (item, description)
}

/// Go's Sprintf of one integer, for the verbs that loops use: `%d`, `%x`, `%X`, `%o`, `%b`, flags `0 - +` and a width.
fn go_format(format: &str, number: i64) -> String {
    if format.is_empty() {
        return number.to_string();
    }
    let mut out = String::new();
    let mut used = false;
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = &rest[at + 1..];
        let end = spec.find(|c: char| !"0123456789-+ #".contains(c)).unwrap_or(spec.len());
        let (flags, verb) = (&spec[..end], spec[end..].chars().next());
        rest = &spec[end + verb.map_or(0, char::len_utf8)..];
        match verb {
            Some('%') => out.push('%'),
            Some(verb) if !used => {
                used = true;
                out.push_str(&go_verb(flags, verb, number));
            }
            Some(verb) => out.push_str(&format!("%!{verb}(BADINDEX)")),
            None => out.push_str("%!(NOVERB)"),
        }
    }
    out.push_str(rest);
    if !used {
        out.push_str(&format!("%!(EXTRA int={number})"));
    }
    out
}

fn go_verb(flags: &str, verb: char, number: i64) -> String {
    /// Widest padding that a format may ask for.
    const WIDTH_MAX: usize = 100;
    let magnitude = number.unsigned_abs();
    let digits = match verb {
        'd' | 'v' => magnitude.to_string(),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'o' => format!("{magnitude:o}"),
        'b' => format!("{magnitude:b}"),
        other => return format!("%!{other}(int={number})"),
    };
    let sign = if number < 0 {
        "-"
    } else if flags.contains('+') {
        "+"
    } else {
        ""
    };
    let trimmed = flags.trim_start_matches(['-', '+', ' ', '#', '0']);
    let width = trimmed.parse::<usize>().unwrap_or(0).min(WIDTH_MAX);
    let fill = width.saturating_sub(digits.len() + sign.len());
    if flags.contains('-') {
        format!("{sign}{digits}{}", " ".repeat(fill))
    } else if flags.starts_with(['0']) || flags.starts_with("+0") {
        format!("{sign}{}{digits}", "0".repeat(fill))
    } else {
        format!("{}{sign}{digits}", " ".repeat(fill))
    }
}

/// An item in a node's name: Argo's text of it without parentheses.
fn describe(item: &Value) -> String {
    let text = match item {
        Value::String(_) => {
            let quoted = item.to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let pairs: Vec<String> =
                sorted.into_iter().map(|(key, value)| format!("{key}:{}", item_text(value))).collect();
            pairs.join(",")
        }
        Value::Null => "[]".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => go_text(item),
    };
    shortened(text)
}

/// As it may stand in a node's name: without parentheses, and not too long.
fn shortened(text: String) -> String {
    let mut text = verbatim::plain(&text).replace(['(', ')'], "");
    let mut end = text.len().min(DESCRIPTION_LENGTH_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Go's `%v` of an item.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(_) => number_text(value),
        Value::Bool(_) | Value::Object(_) => value.to_string(),
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", parts.join(" "))
        }
    }
}

fn number_text(value: &Value) -> String {
    match value.as_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "guarded: whole and within 2^53")]
        Some(double)
            if !value.is_i64() && !value.is_u64() && double.fract() == 0.0 && double.abs() < 9.0e15 =>
        {
            (double as i64).to_string()
        }
        Some(_) | None => value.to_string(),
    }
}

/// The text that `{{item}}` stands for.
fn item_text(item: &Value) -> String {
    match item {
        Value::String(text) => text.clone(),
        Value::Number(_) => number_text(item),
        Value::Null | Value::Bool(_) => item.to_string(),
        Value::Array(_) | Value::Object(_) => sorted_json(item),
    }
}

/// The names that an item gives.
pub(crate) fn names(item: &Value) -> BTreeMap<String, String> {
    if let Some(names) = raw_json::names(item) {
        return names;
    }
    let fields = item.as_object().into_iter().flatten();
    let mut names: BTreeMap<String, String> =
        fields.map(|(key, value)| (format!("item.{key}"), item_text(value))).collect();
    names.insert("item".to_owned(), item_text(item));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_gos() {
        for (format, number, expected) in [
            ("", 3, "3"),
            ("%02d", 3, "03"),
            ("v%d.x", -2, "v-2.x"),
            ("%X", 255, "FF"),
            ("%5d|", 7, "    7|"),
            ("%s", 0, "%!s(int=0)"),
            ("none", 0, "none%!(EXTRA int=0)"),
            ("%d%%", 5, "5%"),
        ] {
            assert_eq!(go_format(format, number), expected, "{format}");
        }
    }

    #[test]
    fn items_show_as_in_argo() {
        for (item, name) in [
            (json!("a(b)"), "ab"),
            (json!({"b": 1, "a": "x"}), "a:x,b:1"),
            (json!([1, 2, 3]), "[1 2 3]"),
            (json!(null), "[]"),
            (json!("q\"uote"), "q\\\"uote"),
            (json!(true), "true"),
        ] {
            assert_eq!(describe(&item), name);
        }
    }

    #[test]
    fn sequences_count_up_and_down() {
        let of = |sequence: Value| {
            let mut expansion = row::Expansion::default();
            sequence_of(&serde_json::from_value(sequence).unwrap(), &mut expansion).map(|()| expansion)
        };
        let names = |expansion: &row::Expansion| -> Vec<String> {
            (0..expansion.total).map(|at| item_at(expansion, &[], at).1).collect()
        };
        assert_eq!(names(&of(json!({"count": "3"})).unwrap()), ["0", "1", "2"]);
        assert_eq!(names(&of(json!({"start": 3, "end": 1})).unwrap()), ["3", "2", "1"]);
        assert_eq!(names(&of(json!({"count": "-2"})).unwrap()), ["0", "-1", "-2", "-3"]);
        assert_eq!(of(json!({"count": "0"})).unwrap().total, 0);
        assert!(of(json!({"count": "x"})).is_err());
        assert!(of(json!({"count": "1", "format": "x".repeat(1025)})).is_err());
    }
}
