//! Reading the arguments of a call.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use crate::evaluate::operators_double;
use crate::value::Value;

/// The name and arguments of a call.
pub(super) struct Arguments<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a [Value],
}

impl<'a> Arguments<'a> {
    pub(super) fn new(name: &'a str, values: &'a [Value]) -> Self {
        Self { name, values }
    }

    /// What is said when the arguments fit no function of that name.
    pub(super) fn refuse(&self) -> String {
        let kinds: Vec<_> = self.values.iter().map(Value::go_type).collect();
        format!("sprig.{} can't be called with ({})", self.name, kinds.join(", "))
    }

    pub(super) fn value(&self, place: usize) -> Result<&'a Value, String> {
        self.values.get(place).ok_or_else(|| self.refuse())
    }

    pub(super) fn text(&self, place: usize) -> Result<&'a str, String> {
        self.value(place)?.as_text().ok_or_else(|| self.refuse())
    }

    /// A whole number; texts are not taken for one.
    pub(super) fn int(&self, place: usize) -> Result<i64, String> {
        match self.value(place)? {
            Value::Int(number) => Ok(*number),
            other => match operators_double(other) {
                #[expect(clippy::cast_possible_truncation, reason = "as Go converts")]
                Some(number) => Ok(number as i64),
                None => Err(self.refuse()),
            },
        }
    }

    pub(super) fn items(&self, place: usize) -> Result<&'a [Value], String> {
        match self.value(place)? {
            Value::List(list) => Ok(list.items()),
            _ => Err(self.refuse()),
        }
    }
}

/// What any value is as a whole number: 0 for what is none.
pub(super) fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(number) | Value::Duration(number) => *number,
        #[expect(clippy::cast_possible_truncation, reason = "as Go converts")]
        Value::Float(number) => *number as i64,
        Value::Bool(flag) => i64::from(*flag),
        Value::Text(text) => parse_int(text),
        Value::Nil
        | Value::List(_)
        | Value::Map(_)
        | Value::Time(_)
        | Value::Zone(_)
        | Value::Calendar(..)
        | Value::Version(_)
        | Value::Function(_) => 0,
    }
}

fn parse_int(text: &str) -> i64 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let parsed = match lower.get(..2) {
        Some("0x") => i64::from_str_radix(&lower[2..], 16),
        Some("0b") => i64::from_str_radix(&lower[2..], 2),
        Some("0o") => i64::from_str_radix(&lower[2..], 8),
        _ if lower.len() > 1 && lower.starts_with('0') => i64::from_str_radix(&lower[1..], 8),
        _ => lower.parse(),
    };
    parsed.map_or(0, |number: i64| if negative { number.wrapping_neg() } else { number })
}

/// What any value is as a double: 0 for what is none.
pub(super) fn to_double(value: &Value) -> f64 {
    match value {
        Value::Text(text) => text.parse().unwrap_or(0.0),
        Value::Bool(flag) => f64::from(u8::from(*flag)),
        other => operators_double(other).unwrap_or(0.0),
    }
}

/// True for nil, zero, false, and what has nothing in it.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Nil => true,
        Value::Bool(flag) => !flag,
        Value::Int(number) | Value::Duration(number) => *number == 0,
        Value::Float(number) => *number == 0.0,
        Value::Text(text) => text.is_empty(),
        Value::List(list) => list.items().is_empty(),
        Value::Map(map) => map.entries().is_empty(),
        Value::Time(_) | Value::Zone(_) | Value::Version(_) | Value::Function(_) => false,
        Value::Calendar(_, number) => *number == 0,
    }
}
