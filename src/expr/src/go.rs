//! Spellings of Go's standard library that show in Argo's output.

use std::fmt::Write;

/// Appends `text` as Go's `strconv.Quote` writes it, without the quotes.
///
/// Control characters become escapes that JSON does not know (`\a`, `\x01`): Argo then refuses the result as invalid
/// JSON, and so do we. Characters beyond ASCII that Go would write as `\u00a0` are kept as they are, which is the same
/// text in JSON.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
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
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..EXPONENT_FROM).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
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
    }
}
