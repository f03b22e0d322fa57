//! What the operators do to values.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use crate::ast::{Infix, Prefix};
use crate::evaluate::{BYTES_PER_STEP, Machine, members, wrong_type};
use crate::value::{Key, Value};

/// Elements of a range at most.
const RANGE_MAX: i128 = 1_000_000;

pub(super) fn unary(operator: Prefix, value: Value) -> Result<Value, String> {
    match (operator, value) {
        (Prefix::Not, Value::Bool(flag)) => Ok(Value::Bool(!flag)),
        (Prefix::Not, other) => Err(wrong_type(&other, "bool")),
        (Prefix::Minus, Value::Int(number)) => Ok(Value::Int(number.wrapping_neg())),
        (Prefix::Minus, Value::Float(number)) => Ok(Value::Float(-number)),
        (Prefix::Minus, other) => Err(format!("invalid operation: - {}", other.go_type())),
        (Prefix::Plus, value) => Ok(value),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as Go converts")]
pub(crate) fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) | Value::Duration(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Nil
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Time(_)
        | Value::Zone(_)
        | Value::Calendar(..)
        | Value::Version(_)
        | Value::Function(_) => None,
    }
}

fn mismatch(operator: Infix, left: &Value, right: &Value) -> String {
    format!("invalid operation: {} {} {}", left.go_type(), operator.text(), right.go_type())
}

impl Machine<'_> {
    pub(super) fn operate(&mut self, operator: Infix, left: &Value, right: &Value) -> Result<Value, String> {
        match operator {
            Infix::Equal => self.equal(left, right).map(Value::Bool),
            Infix::NotEqual => self.equal(left, right).map(|same| Value::Bool(!same)),
            Infix::Less | Infix::LessOrEqual | Infix::More | Infix::MoreOrEqual => {
                self.order(operator, left, right).map(Value::Bool)
            }
            Infix::In => self.contained(left, right).map(Value::Bool),
            Infix::Matches | Infix::Contains | Infix::StartsWith | Infix::EndsWith => {
                self.text_test(operator, left, right).map(Value::Bool)
            }
            Infix::Range => self.range(left, right),
            Infix::Add => self.add(left, right),
            Infix::Subtract => subtract(left, right),
            Infix::Multiply => arithmetic(operator, left, right, i64::wrapping_mul, |a, b| a * b),
            Infix::Divide => match (double(left), double(right)) {
                _ if matches!(left, Value::Duration(_)) || matches!(right, Value::Duration(_)) => {
                    Err(mismatch(operator, left, right))
                }
                (Some(left), Some(right)) => Ok(Value::Float(left / right)),
                _ => Err(mismatch(operator, left, right)),
            },
            Infix::Modulo => match (left, right) {
                (Value::Int(_), Value::Int(0)) => Err("runtime error: integer divide by zero".to_owned()),
                (Value::Int(left), Value::Int(right)) => Ok(Value::Int(left.wrapping_rem(*right))),
                _ => Err(mismatch(operator, left, right)),
            },
            Infix::Power | Infix::PowerSign => match (double(left), double(right)) {
                (Some(left), Some(right)) => Ok(Value::Float(left.powf(right))),
                (None, _) => Err(format!("invalid operation: float({})", left.go_type())),
                (_, None) => Err(format!("invalid operation: float({})", right.go_type())),
            },
            Infix::And | Infix::AndWord | Infix::Or | Infix::OrWord | Infix::Coalesce => {
                Err(mismatch(operator, left, right))
            }
        }
    }

    fn add(&mut self, left: &Value, right: &Value) -> Result<Value, String> {
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                self.charge(left.len() + right.len())?;
                Ok(Value::from(format!("{left}{right}")))
            }
            (Value::Time(time), Value::Duration(span)) | (Value::Duration(span), Value::Time(time)) => {
                Ok(Value::Time(time.at(time.unix_nanoseconds() + i128::from(*span))?.into()))
            }
            _ => arithmetic(Infix::Add, left, right, i64::wrapping_add, |a, b| a + b),
        }
    }

    fn range(&mut self, left: &Value, right: &Value) -> Result<Value, String> {
        let (from, to) = (members::index(left)?, members::index(right)?);
        let size = i128::from(to) - i128::from(from) + 1;
        if size > RANGE_MAX {
            return Err("memory budget exceeded".to_owned());
        }
        self.charge(usize::try_from(size.max(0)).unwrap_or(0) * size_of::<Value>())?;
        self.list((from..=to).map(Value::Int).collect())
    }

    fn text_test(&mut self, operator: Infix, left: &Value, right: &Value) -> Result<bool, String> {
        let (Some(text), Some(part)) = (left.as_text(), right.as_text()) else {
            let wrong = if left.as_text().is_none() { left } else { right };
            return Err(wrong_type(wrong, "string"));
        };
        self.spend((text.len() + part.len()) / BYTES_PER_STEP)?;
        Ok(match operator {
            Infix::Contains => text.contains(part),
            Infix::StartsWith => text.starts_with(part),
            Infix::EndsWith => text.ends_with(part),
            _ => self.pattern(part)?.is_match(text),
        })
    }

    /// Compiles a regular expression, at the price of its length.
    pub(crate) fn pattern(&mut self, text: &str) -> Result<regex::Regex, String> {
        self.spend(1_000 + text.len() * 10)?;
        crate::pattern::compile(text)
    }

    pub(crate) fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, String> {
        self.spend(1)?;
        Ok(match (left, right) {
            (Value::Nil, Value::Nil) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Int(left), Value::Int(right)) => left == right,
            (Value::Duration(left), Value::Duration(right)) => left == right,
            (Value::Calendar(kind, left), Value::Calendar(other, right)) => kind == other && left == right,
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len() / BYTES_PER_STEP)?;
                left == right
            }
            (Value::Time(left), Value::Time(right)) => left.unix_nanoseconds() == right.unix_nanoseconds(),
            (Value::Zone(left), Value::Zone(right)) => left == right,
            (Value::Version(left), Value::Version(right)) => left.original == right.original,
            (Value::List(left), Value::List(right)) => {
                if left.items().len() != right.items().len() {
                    return Ok(false);
                }
                for (left, right) in left.items().iter().zip(right.items()) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(left), Value::Map(right)) => {
                if left.any_keys() != right.any_keys() || left.entries().len() != right.entries().len() {
                    return Ok(false);
                }
                for ((left_key, left), (right_key, right)) in left.entries().iter().zip(right.entries()) {
                    if left_key != right_key || !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => match (double(left), double(right)) {
                (Some(left), Some(right)) => left == right,
                _ => false,
            },
        })
    }

    fn order(&mut self, operator: Infix, left: &Value, right: &Value) -> Result<bool, String> {
        let ordering = match (left, right) {
            (Value::Int(left), Value::Int(right)) | (Value::Duration(left), Value::Duration(right)) => {
                Some(left.cmp(right))
            }
            (Value::Text(left), Value::Text(right)) => {
                self.spend(left.len() / BYTES_PER_STEP)?;
                Some(left.cmp(right))
            }
            (Value::Time(left), Value::Time(right)) => {
                Some(left.unix_nanoseconds().cmp(&right.unix_nanoseconds()))
            }
            _ => match (double(left), double(right)) {
                (Some(left), Some(right)) => left.partial_cmp(&right),
                _ => return Err(mismatch(operator, left, right)),
            },
        };
        Ok(match operator {
            Infix::Less => ordering.is_some_and(std::cmp::Ordering::is_lt),
            Infix::LessOrEqual => ordering.is_some_and(std::cmp::Ordering::is_le),
            Infix::More => ordering.is_some_and(std::cmp::Ordering::is_gt),
            _ => ordering.is_some_and(std::cmp::Ordering::is_ge),
        })
    }

    /// How two values are ordered when they are sorted.
    pub(crate) fn sort_order(&mut self, left: &Value, right: &Value) -> Result<std::cmp::Ordering, String> {
        self.spend(1)?;
        if self.order(Infix::Less, left, right)? {
            return Ok(std::cmp::Ordering::Less);
        }
        let more = self.order(Infix::Less, right, left)?;
        Ok(if more { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Equal })
    }

    fn contained(&mut self, needle: &Value, whole: &Value) -> Result<bool, String> {
        match whole {
            Value::Nil => Ok(false),
            Value::List(list) => {
                for item in list.items() {
                    if self.equal(item, needle)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(map) => match needle {
                Value::Text(_) => Ok(Key::of(needle).is_some_and(|key| map.entries().contains_key(&key))),
                _ if map.any_keys() => {
                    Ok(Key::of(needle).is_some_and(|key| map.entries().contains_key(&key)))
                }
                Value::Nil => Ok(map.get("").is_some()),
                other => Err(wrong_type(other, "string")),
            },
            other => Err(format!("operator \"in\" not defined on {}", other.go_type())),
        }
    }
}

fn subtract(left: &Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::Time(left), Value::Time(right)) => {
            let span = left.unix_nanoseconds() - right.unix_nanoseconds();
            Ok(Value::Duration(i64::try_from(span).unwrap_or(if span < 0 { i64::MIN } else { i64::MAX })))
        }
        (Value::Time(time), Value::Duration(span)) => {
            Ok(Value::Time(time.at(time.unix_nanoseconds() - i128::from(*span))?.into()))
        }
        _ => arithmetic(Infix::Subtract, left, right, i64::wrapping_sub, |a, b| a - b),
    }
}

fn arithmetic(
    operator: Infix,
    left: &Value,
    right: &Value,
    whole: fn(i64, i64) -> i64,
    real: fn(f64, f64) -> f64,
) -> Result<Value, String> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Ok(Value::Int(whole(*left, *right))),
        (Value::Duration(left), Value::Duration(right) | Value::Int(right))
        | (Value::Int(left), Value::Duration(right)) => Ok(Value::Duration(whole(*left, *right))),
        _ => match (double(left), double(right)) {
            (Some(left), Some(right)) => Ok(Value::Float(real(left, right))),
            _ => Err(mismatch(operator, left, right)),
        },
    }
}
