//! Times. "Local" is UTC.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use super::arguments::{Arguments, to_int};
use crate::date::{self, Time, Zone};
use crate::evaluate::Machine;
use crate::value::Value;

const HTML_DATE: &str = "2006-01-02";
const SECOND_NS: i64 = 1_000_000_000;

pub(super) fn call(machine: &mut Machine<'_>, given: &Arguments<'_>) -> Result<Option<Value>, String> {
    let value = match given.name {
        "now" => Value::Time(now(machine)?.into()),
        "date" => shown(machine, given.text(0)?, given.value(1)?, "UTC")?,
        "dateInZone" | "date_in_zone" => shown(machine, given.text(0)?, given.value(1)?, given.text(2)?)?,
        "htmlDate" => shown(machine, HTML_DATE, given.value(0)?, "UTC")?,
        "htmlDateInZone" => shown(machine, HTML_DATE, given.value(0)?, given.text(1)?)?,
        "dateModify" | "date_modify" => {
            let time = time_of(machine, given.value(1)?)?;
            let span = date::parse_duration(given.text(0)?)?;
            Value::Time(time.at(time.unix_nanoseconds() + i128::from(span))?.into())
        }
        "toDate" => Value::Time(date::parse(given.text(0)?, given.text(1)?, &Zone::utc())?.into()),
        "unixEpoch" => {
            let time = time_of(machine, given.value(0)?)?;
            let seconds = time.unix_nanoseconds().div_euclid(SECOND_NS.into());
            machine.text(seconds.to_string())?
        }
        "ago" => {
            let span = since(machine, given.value(0)?)?;
            machine.text(date::duration_text(span / SECOND_NS * SECOND_NS))?
        }
        "duration" => machine.text(date::duration_text(to_int(given.value(0)?).saturating_mul(SECOND_NS)))?,
        "durationRound" => {
            let span = match given.value(0)? {
                Value::Text(text) => date::parse_duration(text).unwrap_or(0),
                Value::Int(span) | Value::Duration(span) => *span,
                Value::Time(_) => since(machine, given.value(0)?)?,
                _ => 0,
            };
            machine.text(rounded(span))?
        }
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn now(machine: &Machine<'_>) -> Result<Time, String> {
    Time::from_unix_ms(machine.now_ms())
}

fn time_of(machine: &Machine<'_>, value: &Value) -> Result<Time, String> {
    match value {
        Value::Time(time) => Ok((**time).clone()),
        Value::Int(seconds) => Time::from_unix_ms(seconds.saturating_mul(1_000)),
        _ => now(machine),
    }
}

fn since(machine: &Machine<'_>, value: &Value) -> Result<i64, String> {
    let span = now(machine)?.unix_nanoseconds() - time_of(machine, value)?.unix_nanoseconds();
    Ok(i64::try_from(span).unwrap_or(if span < 0 { i64::MIN } else { i64::MAX }))
}

fn shown(machine: &mut Machine<'_>, layout: &str, value: &Value, zone: &str) -> Result<Value, String> {
    let zone = Zone::named(zone).unwrap_or_else(|_| Zone::utc());
    machine.charge(layout.len() * 8)?;
    let time = time_of(machine, value)?.within(zone);
    machine.text(time.format(layout))
}

/// The largest unit of a span: `2h`, `3d`.
fn rounded(span: i64) -> String {
    let seconds = span.unsigned_abs() / SECOND_NS.unsigned_abs();
    let units = [("y", 31_536_000), ("mo", 2_592_000), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let found = units.iter().find(|(_, size)| seconds > *size);
    found.map_or_else(|| "0s".to_owned(), |(name, size)| format!("{}{name}", seconds / size))
}
