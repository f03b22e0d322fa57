//! Spellings of Go's standard library that show in Argo's output.

use crate::verbatim;
use std::fmt::Write;

/// Appends `text` as Go's `strconv.Quote` writes it, without the quotes.
///
/// Control characters become escapes that JSON does not know (`\a`, `\x01`): Argo then refuses the result as invalid
/// JSON, and so do we. Characters beyond ASCII that Go would write as `\u00a0` are kept as they are, which is the same
/// text in JSON.
///
/// The braces of a marked text become escapes ([`crate::verbatim`]).
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    let mut is_marked = false;
    for character in text.chars() {
        if verbatim::is_mark(character) {
            is_marked = true;
            continue;
        }
        match character {
            '{' if is_marked => out.push_str(verbatim::BRACE),
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{07}' => out.push_str("\\a"),
            '\u{08}' => out.push_str("\\b"),
            '\u{0c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0b}' => out.push_str("\\v"),
            control if control < ' ' || control == '\u{7f}' => {
                write!(out, "\\x{:02x}", u32::from(control)).expect("writing to a string can't fail");
            }
            other => out.push(other),
        }
        is_marked = false;
    }
}

/// From this decimal exponent on, Go prints a double with an exponent when it chooses the digits itself.
const EXPONENT_FROM: i32 = 6;

/// A double as Go's `%v` prints it: the fewest digits that give it back, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    with_exponent(&format!("{value:e}"), &value.to_string())
}

/// A single as Go's `strconv.FormatFloat` prints it when it chooses the digits itself: how its YAML reader makes a text of
/// any number with a point.
pub fn format_float(value: f32) -> String {
    if !value.is_finite() || value == 0.0 {
        return format_double(f64::from(value));
    }
    with_exponent(&format!("{value:e}"), &value.to_string())
}

fn with_exponent(scientific: &str, plain: &str) -> String {
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..EXPONENT_FROM).contains(&exponent) {
        return plain.to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// In capitals, character by character: what would become two characters stays.
pub(crate) fn upper(text: &str) -> String {
    text.chars().map(|character| single(character.to_uppercase()).unwrap_or(character)).collect()
}

/// In small letters, character by character.
pub(crate) fn lower(text: &str) -> String {
    text.chars().map(|character| single(character.to_lowercase()).unwrap_or(character)).collect()
}

fn single(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next();
    first.filter(|_| characters.next().is_none())
}

/// A double as Go's `encoding/json` writes it: digits, with an exponent below 1e-6 and from 1e21 on.
pub(crate) fn json_double(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent}"),
            None => format!("{digits}e+{exponent}"),
        };
    }
    value.to_string()
}

/// Appends a text as Go's `encoding/json` writes it: characters that matter in HTML are escaped.
pub(crate) fn push_json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{08}' => out.push_str("\\b"),
            '\u{0c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a string can't fail");
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Go's words for a text that is not JSON, for the commonest ways of not being it.
pub(crate) fn json_error(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() || text.trim().is_empty() {
        return "unexpected end of JSON input".to_owned();
    }
    if error.to_string().starts_with("recursion limit") {
        return "exceeded max depth".to_owned();
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let column = error.column().saturating_sub(1);
    let start = (0..=column.min(line.len())).rev().find(|place| line.is_char_boundary(*place)).unwrap_or(0);
    let found = line[start..].chars().next().unwrap_or(' ');
    let before = &line[..start];
    for literal in ["null", "true", "false"] {
        let typed = (1..literal.len()).rev().find(|length| before.ends_with(&literal[..*length]));
        if let Some(length) = typed {
            let expected = &literal[length..=length];
            return format!("invalid character '{found}' in literal {literal} (expecting '{expected}')");
        }
    }
    let so_far = before.trim_end();
    let place = if so_far.is_empty() {
        "looking for beginning of value"
    } else if error.to_string().starts_with("trailing characters") {
        "after top-level value"
    } else if so_far.ends_with('{') {
        "looking for beginning of object key string"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character '{found}' {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_go() {
        for (value, text) in [
            (2.0, "2"),
            (1.5, "1.5"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1_704_153_600.0, "1.7041536e+09"),
            (1e-5, "1e-05"),
        ] {
            assert_eq!(format_double(value), text);
        }
        for (value, text) in
            [(1.5, "1.5"), (0.1, "0.1"), (1.234_567_9, "1.2345679"), (1e7, "1e+07"), (1e-7, "1e-07")]
        {
            assert_eq!(format_float(value), text);
        }
    }
}
