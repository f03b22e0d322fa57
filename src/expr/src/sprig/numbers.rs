//! Numbers and versions.

use super::arguments::{Arguments, to_double, to_int};
use super::semver::{self, Version};
use crate::evaluate::Machine;
use crate::value::Value;

/// Elements of a sequence at most.
const SEQUENCE_MAX: i64 = 1_000_000;

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let ints = || given.values.iter().map(to_int);
    let doubles = || given.values.iter().map(to_double);
    let nonzero = || match given.value(1).map(to_int)? {
        0 => Err("runtime error: integer divide by zero".to_owned()),
        other => Ok(other),
    };
    let value = match given.name {
        "atoi" => Value::Int(given.text(0)?.parse().unwrap_or(0)),
        "int" | "int64" => Value::Int(to_int(given.value(0)?)),
        "float64" => Value::Float(to_double(given.value(0)?)),
        "toDecimal" => {
            let text = machine.display(given.value(0)?)?;
            Value::Int(i64::from_str_radix(&text, 8).unwrap_or(0))
        }
        "add1" => Value::Int(to_int(given.value(0)?).wrapping_add(1)),
        "add" => Value::Int(ints().fold(0, i64::wrapping_add)),
        "sub" => Value::Int(to_int(given.value(0)?).wrapping_sub(to_int(given.value(1)?))),
        "div" => Value::Int(to_int(given.value(0)?).wrapping_div(nonzero()?)),
        "mod" => Value::Int(to_int(given.value(0)?).wrapping_rem(nonzero()?)),
        "mul" => {
            given.value(1)?;
            Value::Int(ints().fold(1, i64::wrapping_mul))
        }
        "add1f" => Value::Float(to_double(given.value(0)?) + 1.0),
        "addf" => Value::Float(doubles().sum()),
        "subf" => {
            Value::Float(doubles().skip(1).fold(to_double(given.value(0)?), |total, next| total - next))
        }
        "divf" => {
            Value::Float(doubles().skip(1).fold(to_double(given.value(0)?), |total, next| total / next))
        }
        "mulf" => Value::Float(doubles().product()),
        "biggest" | "max" => Value::Int(ints().max().ok_or_else(|| given.refuse())?),
        "min" => Value::Int(ints().min().ok_or_else(|| given.refuse())?),
        "maxf" => Value::Float(doubles().reduce(f64::max).ok_or_else(|| given.refuse())?),
        "minf" => Value::Float(doubles().reduce(f64::min).ok_or_else(|| given.refuse())?),
        "ceil" => Value::Float(to_double(given.value(0)?).ceil()),
        "floor" => Value::Float(to_double(given.value(0)?).floor()),
        "round" => round(given)?,
        "until" => {
            let end = given.int(0)?;
            sequence(machine, 0, end, if end < 0 { -1 } else { 1 })?
        }
        "untilStep" => sequence(machine, given.int(0)?, given.int(1)?, given.int(2)?)?,
        "seq" => seq(machine, given)?,
        "semver" => Value::Version(Version::parse(given.text(0)?)?.into()),
        "semverCompare" => Value::Bool(semver::satisfies(given.text(0)?, given.text(1)?)?),
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn round(given: &Arguments<'_>) -> Result<Value, String> {
    let number = to_double(given.value(0)?);
    let places = i32::try_from(given.int(1)?).map_err(|_| given.refuse())?;
    let up_from = given.values.get(2).map_or(0.5, to_double);
    let scale = 10_f64.powi(places);
    let scaled = number * scale;
    let whole = if (scaled % 1.0).abs() >= up_from {
        if number < 0.0 { scaled.floor() } else { scaled.ceil() }
    } else if number < 0.0 {
        scaled.ceil()
    } else {
        scaled.floor()
    };
    Ok(Value::Float(whole / scale))
}

fn numbers(machine: &mut Machine<'_>, from: i64, to: i64, step: i64) -> Result<Vec<i64>, String> {
    let mut out = Vec::new();
    let mut next = from;
    if step == 0 {
        return Ok(out);
    }
    let count = (i128::from(to) - i128::from(from)) / i128::from(step);
    if count > i128::from(SEQUENCE_MAX) {
        return Err("memory budget exceeded".to_owned());
    }
    machine.charge(usize::try_from(count.max(0)).unwrap_or(0) * size_of::<Value>())?;
    while (step > 0 && next < to) || (step < 0 && next > to) {
        out.push(next);
        next = next.saturating_add(step);
    }
    Ok(out)
}

fn sequence(machine: &mut Machine<'_>, from: i64, to: i64, step: i64) -> Result<Value, String> {
    let numbers = numbers(machine, from, to, step)?;
    machine.list(numbers.into_iter().map(Value::Int).collect())
}

/// As the command of that name: `end`, `start end` or `start step end`, the end included.
fn seq(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Value, String> {
    let (from, step, to) = match given.values {
        [] => return Ok(Value::from("")),
        [to] => (1, None, to_int(to)),
        [from, to] => (to_int(from), None, to_int(to)),
        [from, step, to] => (to_int(from), Some(to_int(step)), to_int(to)),
        _ => return Err(given.refuse()),
    };
    let step = step.unwrap_or(if to < from { -1 } else { 1 });
    let numbers = numbers(machine, from, to.saturating_add(step.signum()), step)?;
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    machine.text(texts.join(" "))
}
