//! What a plain YAML scalar is, by the rules of YAML 1.1 as Go's reader has them.

use serde_json::{Number, Value};

use crate::node::Data;

/// The value of a plain (unquoted) scalar.
pub(crate) fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Data::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Data::Bool(false),
        "y" | "Y" | "n" | "N" => return Data::Letter(text.chars().next().unwrap_or('n')),
        _ => {}
    }
    number(text).unwrap_or_else(|| Data::String(text.to_owned()))
}

/// The value of a scalar with a tag of YAML's own; `None` when it is no such value.
pub(crate) fn tagged(tag: &str, text: &str) -> Option<Data> {
    match (tag, plain(text)) {
        ("float", Data::Number(number)) => number.as_f64().map(Data::Float),
        ("int", value @ Data::Number(_))
        | ("float", value @ Data::Float(_))
        | ("bool", value @ (Data::Bool(_) | Data::Letter(_)))
        | ("null", value @ Data::Null)
        | ("timestamp", value @ Data::String(_)) => Some(value),
        _ => None,
    }
}

fn number(text: &str) -> Option<Data> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(Data::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(Data::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Data::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    if first == b'.' {
        // Underscores are no part of numbers that begin with a point.
        return is_float(text).then(|| finite(text)).flatten();
    }
    let digits = text.replace('_', "");
    if let Some(number) = integer(&digits) {
        return Some(Data::Number(number));
    }
    is_float(&digits).then(|| finite(&digits)).flatten()
}

/// A double, unless it is beyond them: Go leaves such a text alone.
fn finite(digits: &str) -> Option<Data> {
    digits.parse::<f64>().ok().filter(|value| value.is_finite()).map(Data::Float)
}

/// Go's `ParseInt` with base 0: decimal, `0x`, `0b`, `0o`, and octal after a leading zero.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    let value = if negative { -value } else { value };
    match i64::try_from(value) {
        Ok(value) => Some(value.into()),
        Err(_) => u64::try_from(value).ok().map(Into::into),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    mantissa_fits && exponent_fits
}

/// Whole doubles up to here are written without a point.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A double as JSON has it: whole ones without a point. `None` for what JSON has no word for.
pub(crate) fn number_of(value: f64) -> Option<Number> {
    let is_negative_zero = value == 0.0 && value.is_sign_negative();
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX && !is_negative_zero {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the value is whole and within the exact range of doubles"
        )]
        return Some((value as i64).into());
    }
    Number::from_f64(value)
}

/// A scalar as a key: `y` and `n` are the booleans that YAML 1.1 says, as Go writes them. Null is no key.
pub(crate) fn key_of(data: &Data) -> Option<String> {
    match data {
        Data::Null => None,
        Data::Letter(letter) => Some(crate::node::is_yes(*letter).to_string()),
        Data::Bool(_) | Data::Number(_) | Data::Float(_) | Data::String(_) | Data::List(_) | Data::Map(_) => {
            text_of(data)
        }
    }
}

/// A scalar as text, for a field that wants a string.
pub(crate) fn text_of(data: &Data) -> Option<String> {
    match data {
        Data::Null => Some(String::new()),
        Data::Bool(flag) => Some(flag.to_string()),
        Data::Letter(letter) => Some(letter.to_string()),
        Data::Number(number) => Some(Value::Number(number.clone()).to_string()),
        // Go has seven digits for it, whatever was written.
        #[expect(clippy::cast_possible_truncation, reason = "Go's reader loses the same digits")]
        Data::Float(value) => Some(argosy_expr::format_float(*value as f32)),
        Data::String(text) => Some(text.clone()),
        Data::List(_) | Data::Map(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_as_go_reads_them() {
        for (text, json) in [
            ("5", "5"),
            ("-5", "-5"),
            ("+5", "5"),
            ("0644", "420"),
            ("08", "8"),
            ("0x1F", "31"),
            ("0b11", "3"),
            ("1_000", "1000"),
            ("1.50", "1.5"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("-0.0", "-0.0"),
            (".5", "0.5"),
            ("18446744073709551615", "18446744073709551615"),
            ("yes", "true"),
            ("Off", "false"),
            ("y", "true"),
            ("~", "null"),
            ("2024-01-02", "\"2024-01-02\""),
            ("1.2.3", "\"1.2.3\""),
            ("1e", "\"1e\""),
            (".", "\".\""),
            ("-", "\"-\""),
            ("0x", "\"0x\""),
            ("+", "\"+\""),
            ("é", "\"é\""),
        ] {
            let node = crate::node::Node { at: crate::node::Mark::default(), data: plain(text) };
            assert_eq!(node.to_json().to_string(), json, "{text}");
        }
    }
}
