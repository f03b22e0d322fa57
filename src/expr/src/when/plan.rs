//! Evaluation of checked tokens.
//!
//! Operators of one level bind to the left. A side that a logical or ternary operator skips is read but not computed, so
//! it can't fail.
#![expect(clippy::wildcard_enum_match_arm, reason = "a value of any other kind is refused alike")]

use super::lexer::{Kind, Token};
use super::value::{Pattern, Value};

/// Operators from the loosest to the tightest.
const LEVELS: [&[&str]; 10] = [
    &[","],
    &["?", ":", "??"],
    &["||"],
    &["&&"],
    &["==", "!=", ">", ">=", "<", "<=", "=~", "!~", "in"],
    &["^", "&", "|"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
    &["**"],
];

struct Evaluator<'a> {
    tokens: &'a [Token],
    next: usize,
    depth_left: usize,
}

/// Evaluates the tokens of a condition.
pub(super) fn evaluate(tokens: &[Token], depth_max: usize) -> Result<Value, String> {
    Evaluator { tokens, next: 0, depth_left: depth_max }.level(0, true)
}

impl Evaluator<'_> {
    fn operator(&mut self, level: usize) -> Option<String> {
        let token = self.tokens.get(self.next)?;
        let is_operator = matches!(
            token.kind,
            Kind::Separator | Kind::Ternary | Kind::Logical | Kind::Comparator | Kind::Modifier
        );
        if !is_operator || !LEVELS[level].contains(&token.symbol()) {
            return None;
        }
        self.next += 1;
        Some(token.symbol().to_owned())
    }

    /// Evaluates everything of this level and tighter; `live` is false in a part that is skipped.
    fn level(&mut self, level: usize, live: bool) -> Result<Value, String> {
        if level == LEVELS.len() {
            return self.value(live);
        }
        let mut left = self.level(level + 1, live)?;
        while let Some(operator) = self.operator(level) {
            let skipped = match (operator.as_str(), &left) {
                ("&&" | "?", Value::Bool(false)) | ("||", Value::Bool(true)) => true,
                (":" | "??", Value::Nil) => false,
                (":" | "??", _known) => true,
                _ => false,
            };
            let right = self.level(level + 1, live && !skipped)?;
            if !live {
                continue;
            }
            left = if skipped {
                if operator == "?" { Value::Nil } else { left }
            } else {
                apply(&operator, left, right)?
            };
        }
        Ok(left)
    }

    fn value(&mut self, live: bool) -> Result<Value, String> {
        let Some(token) = self.tokens.get(self.next) else { return Ok(Value::Nil) };
        match token.kind {
            Kind::Clause => {
                self.next += 1;
                self.depth_left =
                    self.depth_left.checked_sub(1).ok_or_else(|| "nested too deeply".to_owned())?;
                let inner = self.level(0, live);
                self.depth_left += 1;
                self.next += 1;
                inner
            }
            // An empty pair of parentheses, or an operator without a right side: nothing.
            Kind::ClauseClose => Ok(Value::Nil),
            Kind::Prefix => {
                let symbol = token.symbol().to_owned();
                self.next += 1;
                self.depth_left =
                    self.depth_left.checked_sub(1).ok_or_else(|| "nested too deeply".to_owned())?;
                let inner = self.value(live)?;
                self.depth_left += 1;
                if live { prefix(&symbol, &inner) } else { Ok(Value::Nil) }
            }
            Kind::Accessor => {
                self.next += 1;
                let name = token.symbol().split('.').next().unwrap_or_default();
                if live { Err(format!("No parameter '{name}' found.")) } else { Ok(Value::Nil) }
            }
            Kind::Numeric | Kind::Boolean | Kind::String | Kind::Pattern | Kind::Time | Kind::Variable => {
                self.next += 1;
                Ok(token.value.clone())
            }
            Kind::Unknown
            | Kind::Separator
            | Kind::Comparator
            | Kind::Logical
            | Kind::Modifier
            | Kind::Ternary => Ok(Value::Nil),
        }
    }
}

fn prefix(symbol: &str, value: &Value) -> Result<Value, String> {
    match (symbol, value) {
        ("-", Value::Number(number)) => Ok(Value::Number(-number)),
        ("!", Value::Bool(flag)) => Ok(Value::Bool(!flag)),
        ("~", Value::Number(number)) => Ok(whole(!integer(*number))),
        _ => Err(format!("Value '{value}' cannot be used with the prefix '{symbol}'")),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "bit operators work on the whole part, as in Go")]
fn integer(number: f64) -> i64 {
    number as i64
}

#[expect(clippy::cast_precision_loss, reason = "the language has doubles only")]
fn whole(number: i64) -> Value {
    Value::Number(number as f64)
}

fn misfit(value: &Value, kind: &str, operator: &str, wanted: &str) -> String {
    format!("Value '{value}' cannot be used with the {kind} '{operator}', it is not a {wanted}")
}

fn apply(operator: &str, left: Value, right: Value) -> Result<Value, String> {
    match operator {
        "," => Ok(match left {
            Value::List(mut values) => {
                values.push(right);
                Value::List(values)
            }
            other => Value::List(vec![other, right]),
        }),
        "?" => match left {
            Value::Bool(_) => Ok(right),
            other => Err(misfit(&other, "ternary operator", operator, "bool")),
        },
        ":" | "??" => Ok(right),
        "&&" | "||" => match (&left, &right) {
            (Value::Bool(_), Value::Bool(_)) => Ok(right),
            (Value::Bool(_), other) | (other, _) => Err(misfit(other, "logical operator", operator, "bool")),
        },
        "==" => Ok(Value::Bool(left.equals(&right))),
        "!=" => Ok(Value::Bool(!left.equals(&right))),
        ">" | ">=" | "<" | "<=" => order(operator, &left, &right),
        "in" => match &right {
            Value::List(values) => Ok(Value::Bool(values.iter().any(|value| value.equals(&left)))),
            other => Err(misfit(other, "comparator", operator, "number")),
        },
        "=~" | "!~" => pattern(operator, &left, &right),
        "+" => match (&left, &right) {
            (Value::Number(left), Value::Number(right)) => Ok(Value::Number(left + right)),
            (Value::String(_), _) | (_, Value::String(_)) => Ok(Value::String(format!("{left}{right}"))),
            _ => Err(misfit(&left, "modifier", operator, "number")),
        },
        _ => match (&left, &right) {
            (Value::Number(left), Value::Number(right)) => Ok(arithmetic(operator, *left, *right)),
            (Value::Number(_), other) | (other, _) => Err(misfit(other, "modifier", operator, "number")),
        },
    }
}

fn order(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
        (Value::String(left), Value::String(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        _ => return Err(misfit(left, "comparator", operator, "number")),
    };
    Ok(Value::Bool(match operator {
        ">" => ordering.is_some_and(std::cmp::Ordering::is_gt),
        ">=" => ordering.is_some_and(std::cmp::Ordering::is_ge),
        "<" => ordering.is_some_and(std::cmp::Ordering::is_lt),
        _ => ordering.is_some_and(std::cmp::Ordering::is_le),
    }))
}

fn pattern(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let Value::String(text) = left else { return Err(misfit(left, "comparator", operator, "number")) };
    let matches = match right {
        Value::Pattern(pattern) => pattern.is_match(text),
        Value::String(pattern) => {
            let unusable = |_| format!("Unable to compile regexp pattern '{pattern}'");
            Pattern::new(pattern).map_err(unusable)?.is_match(text)
        }
        other => return Err(misfit(other, "comparator", operator, "number")),
    };
    Ok(Value::Bool(matches == (operator == "=~")))
}

fn arithmetic(operator: &str, left: f64, right: f64) -> Value {
    match operator {
        "-" => Value::Number(left - right),
        "*" => Value::Number(left * right),
        "/" => Value::Number(left / right),
        "%" => Value::Number(left % right),
        "**" => Value::Number(left.powf(right)),
        "&" => whole(integer(left) & integer(right)),
        "|" => whole(integer(left) | integer(right)),
        "^" => whole(integer(left) ^ integer(right)),
        "<<" => whole(shift(integer(left), integer(right), i64::checked_shl)),
        _ => whole(shift(integer(left), integer(right), i64::checked_shr)),
    }
}

fn shift(value: i64, by: i64, operation: fn(i64, u32) -> Option<i64>) -> i64 {
    u32::try_from(by).ok().and_then(|by| operation(value, by)).unwrap_or(0)
}
