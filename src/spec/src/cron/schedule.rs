//! Schedules in cron's language, as the library that Argo uses reads them: five fields, the `@` words, `@every`, and a
//! leading `CRON_TZ=ZONE` or `TZ=ZONE`. Messages are that library's, since Argo shows them.
//!
//! When days of the month and of the week are both restricted, one of them is enough (Vixie's rule); a field that is `*`
//! or `?` (alone or with a step of one) is not restricted. A local time that a clock change skips does not come on that
//! day, one that it repeats comes twice. Zones come from the rules built in: the same on every machine.

use argosy_expr::date::parse_duration;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Years ahead that are searched for a matching day; a schedule such as 30 February has none.
const YEARS_AHEAD_MAX: i16 = 5;
/// Set in a field that restricts nothing.
const STAR: u64 = 1 << 63;
const NANOSECONDS: i64 = 1_000_000_000;
/// Windows in which the latest time before another is looked for, in seconds: dense schedules are found in a short one.
const WINDOWS: [i64; 4] = [2 * 3_600, 3 * 86_400, 93 * 86_400, 5 * 366 * 86_400];

/// A schedule that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    zone: TimeZone,
    times: Times,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    /// Every so many seconds from an anchor.
    Every(i64),
    Fields(Fields),
}

/// Bits of the numbers that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds =
    Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The zone of an IANA name.
///
/// # Errors
/// Go's message for an unknown name.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}"))
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong, in the words that Argo shows.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        let (mut rest, mut rules) = (text, TimeZone::UTC);
        if let Some(after) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, fields) = after.split_once(' ').unwrap_or((after, ""));
            rules = zone(name).map_err(|error| format!("provided bad location {name}: {error}"))?;
            rest = fields.trim();
        }
        let times = if rest.starts_with('@') { descriptor(rest)? } else { Times::Fields(fields(rest)?) };
        Ok(Self { zone: rules, times })
    }

    /// The first time after another, in seconds since 1970; `None` when there is none within five years. `anchor` is when
    /// the schedule came into force: `@every` counts from it.
    #[must_use]
    pub fn next(&self, anchor: i64, after: i64) -> Option<i64> {
        match &self.times {
            Times::Every(span) => {
                let passed = after.saturating_sub(anchor).max(0) / span;
                passed.checked_add(1)?.checked_mul(*span)?.checked_add(anchor)
            }
            Times::Fields(fields) => fields.next(&self.zone, after),
        }
    }

    /// The latest time between two others, both exclusive.
    #[must_use]
    pub fn latest(&self, anchor: i64, after: i64, before: i64) -> Option<i64> {
        if let Times::Every(span) = &self.times {
            let passed = before.saturating_sub(anchor).saturating_sub(1).max(0) / span;
            let last = passed.checked_mul(*span)?.checked_add(anchor)?;
            return (passed > 0 && last > after).then_some(last);
        }
        for window in WINDOWS {
            let from = after.max(before.saturating_sub(window));
            let mut found = None;
            let mut at = from;
            while let Some(next) = self.next(anchor, at).filter(|next| *next < before) {
                found = Some(next);
                at = next;
            }
            if found.is_some() || from == after {
                return found;
            }
        }
        None
    }
}

impl Fields {
    fn is_day(&self, local: DateTime) -> bool {
        let day = self.day & (1 << local.day()) != 0;
        let weekday = self.weekday & (1 << local.weekday().to_sunday_zero_offset()) != 0;
        if self.day & STAR != 0 || self.weekday & STAR != 0 { day && weekday } else { day || weekday }
    }

    /// Goes through the time that really passes, so that clock changes need no rule of their own.
    fn next(&self, zone: &TimeZone, after: i64) -> Option<i64> {
        let mut at = after.div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let year_max = zone.to_datetime(Timestamp::from_second(at).ok()?).year() + YEARS_AHEAD_MAX;
        loop {
            let local = zone.to_datetime(Timestamp::from_second(at).ok()?);
            if local.year() > year_max {
                return None;
            }
            if local.second() != 0 {
                // An offset of the time before zones.
                at += 60 - i64::from(local.second());
            } else if self.month & (1 << local.month()) == 0 {
                let first = local.date().last_of_month().tomorrow().ok()?;
                at = begins(zone, first.at(0, 0, 0, 0))?.max(at + 60);
            } else if !self.is_day(local) {
                at = begins(zone, local.date().tomorrow().ok()?.at(0, 0, 0, 0))?.max(at + 60);
            } else if self.hour & (1 << local.hour()) == 0 {
                at += (60 - i64::from(local.minute())) * 60;
            } else if self.minute & (1 << local.minute()) == 0 {
                at += 60;
            } else {
                return Some(at);
            }
        }
    }
}

/// The first moment at or after a local time.
fn begins(zone: &TimeZone, local: DateTime) -> Option<i64> {
    zone.to_ambiguous_timestamp(local).compatible().ok().map(Timestamp::as_second)
}

fn descriptor(text: &str) -> Result<Times, String> {
    let any = |bounds: &Bounds| bits(bounds.low, bounds.high, 1) | STAR;
    let once = Fields { minute: 1, hour: 1, day: 1 << 1, month: 1 << 1, weekday: any(&WEEKDAYS) };
    Ok(Times::Fields(match text {
        "@yearly" | "@annually" => once,
        "@monthly" => Fields { month: any(&MONTHS), ..once },
        "@weekly" => Fields { day: any(&DAYS), month: any(&MONTHS), weekday: 1, ..once },
        "@daily" | "@midnight" => Fields { day: any(&DAYS), month: any(&MONTHS), ..once },
        "@hourly" => Fields { hour: any(&HOURS), day: any(&DAYS), month: any(&MONTHS), ..once },
        _ => {
            let span = text.strip_prefix("@every ");
            let span = span.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            let nanoseconds =
                parse_duration(span).map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            return Ok(Times::Every((nanoseconds / NANOSECONDS).max(1)));
        }
    }))
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        let found = parts.join(" ");
        return Err(format!("expected exactly 5 fields, found {}: [{found}]", parts.len()));
    };
    Ok(Fields {
        minute: field(minute, &MINUTES)?,
        hour: field(hour, &HOURS)?,
        day: field(day, &DAYS)?,
        month: field(month, &MONTHS)?,
        weekday: field(weekday, &WEEKDAYS)?,
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts.map(|part| range(part, bounds)).try_fold(0, |all, part| Ok(all | part?))
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let halves: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = halves[0].split('-').collect();
    let (start, mut end, mut star) = match ends.as_slice() {
        ["*" | "?", ..] => (bounds.low, bounds.high, STAR),
        [one] => {
            let number = number_or_name(one, bounds)?;
            (number, number, 0)
        }
        [low, high] => (number_or_name(low, bounds)?, number_or_name(high, bounds)?, 0),
        [..] => return Err(format!("too many hyphens: {text}")),
    };
    let step = match halves.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if ends.len() == 1 && star == 0 {
                end = bounds.high;
            }
            if step > 1 {
                star = 0;
            }
            step
        }
        [..] => return Err(format!("too many slashes: {text}")),
    };
    let Bounds { low, high, .. } = bounds;
    if start < *low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {text}"));
    }
    if end > *high {
        return Err(format!("end of range ({end}) above maximum ({high}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(bits(start, end, step) | star)
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match bounds.names.iter().zip(bounds.low..).find(|(name, _)| **name == lower) {
        Some((_, number)) => Ok(number),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        ));
    }
    let Ok(number) = text.parse::<i64>() else {
        return Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range"
        ));
    };
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn bits(start: u32, end: u32, step: u32) -> u64 {
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    (start..=end).step_by(step).fold(0, |all, number| all | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_second()
    }

    fn shown(second: i64) -> String {
        Timestamp::from_second(second).unwrap().to_string()
    }

    /// Times after another, in UTC.
    fn times(schedule: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        let (anchor, mut at) = (seconds(after), seconds(after));
        let mut found = Vec::new();
        while let Some(next) = schedule.next(anchor, at).filter(|_| found.len() < count) {
            found.push(shown(next));
            at = next;
        }
        found
    }

    #[test]
    fn fields_and_words() {
        assert_eq!(
            times("*/15 3 * * *", "2026-01-01T03:20:00Z", 3),
            ["2026-01-01T03:30:00Z", "2026-01-01T03:45:00Z", "2026-01-02T03:00:00Z"]
        );
        assert_eq!(
            times("5/20 * * * *", "2026-01-01T00:00:00Z", 3),
            ["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00Z"]
        );
        assert_eq!(
            times("0 9 * FEB Mon-wed", "2026-01-01T00:00:00Z", 2),
            ["2026-02-02T09:00:00Z", "2026-02-03T09:00:00Z"]
        );
        assert_eq!(times("@weekly", "2026-01-01T00:00:00Z", 1), ["2026-01-04T00:00:00Z"]);
        assert_eq!(times("@yearly", "2026-01-01T00:00:00Z", 1), ["2027-01-01T00:00:00Z"]);
        assert_eq!(times("@hourly", "2026-01-01T00:00:01Z", 1), ["2026-01-01T01:00:00Z"]);
        assert_eq!(times("0 0 29 2 *", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
        assert!(times("0 0 30 2 *", "2026-01-01T00:00:00Z", 1).is_empty(), "no such day");
    }

    #[test]
    fn days_of_month_or_of_week() {
        // Both restricted: one is enough.
        assert_eq!(
            times("0 0 13 * 5", "2026-02-01T00:00:00Z", 3),
            ["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"]
        );
        // One open: both must fit. A step makes a star a restriction.
        assert_eq!(times("0 0 * * 5", "2026-02-01T00:00:00Z", 1), ["2026-02-06T00:00:00Z"]);
        assert_eq!(
            times("0 0 */10 * 5", "2026-02-01T00:00:00Z", 2),
            ["2026-02-06T00:00:00Z", "2026-02-11T00:00:00Z"]
        );
    }

    #[test]
    fn an_hour_that_is_skipped_and_one_that_comes_twice() {
        // Berlin: 02:00 to 03:00 is missing on 29 March 2026, and comes twice on 25 October.
        assert_eq!(
            times("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // Sao Paulo had no midnight on 4 November 2018.
        assert_eq!(
            times("TZ=America/Sao_Paulo 0 0 * * *", "2018-11-03T12:00:00Z", 1),
            ["2018-11-05T02:00:00Z"]
        );
        // Lord Howe moves its clocks by half an hour.
        assert_eq!(
            times("TZ=Australia/Lord_Howe 45 1 * * *", "2026-04-04T00:00:00Z", 2),
            ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"]
        );
    }

    #[test]
    fn every_counts_from_its_anchor() {
        assert_eq!(
            times("@every 1h30m", "2026-01-01T00:10:00Z", 2),
            ["2026-01-01T01:40:00Z", "2026-01-01T03:10:00Z"]
        );
        assert_eq!(times("@every 100ms", "2026-01-01T00:00:00Z", 1), ["2026-01-01T00:00:01Z"]);
        let schedule = Schedule::parse("@every 10s").unwrap();
        assert_eq!(schedule.next(100, 137), Some(140));
        assert_eq!(schedule.latest(100, 100, 137), Some(130));
        assert_eq!(schedule.latest(100, 130, 137), None);
        assert_eq!(schedule.latest(100, 0, 101), None);
    }

    #[test]
    fn the_latest_of_a_long_time() {
        let latest = |schedule: &str, after: &str, before: &str| {
            Schedule::parse(schedule).unwrap().latest(0, seconds(after), seconds(before)).map(shown)
        };
        let found = latest("* * * * *", "2020-01-01T00:00:00Z", "2026-01-01T00:00:30Z");
        assert_eq!(found.as_deref(), Some("2026-01-01T00:00:00Z"));
        let found = latest("0 0 1 1 *", "2020-01-01T00:00:00Z", "2025-12-31T00:00:00Z");
        assert_eq!(found.as_deref(), Some("2025-01-01T00:00:00Z"));
        assert_eq!(latest("0 0 1 1 *", "2025-01-01T00:00:00Z", "2025-12-31T00:00:00Z"), None);
        // The end is not among it.
        assert_eq!(latest("0 0 1 1 *", "2025-01-02T00:00:00Z", "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn what_is_wrong_is_told_in_argos_words() {
        for (text, told) in [
            ("", "empty spec string"),
            ("every day", "expected exactly 5 fields, found 2: [every day]"),
            ("TZ=Moon/Base * * * * *", "provided bad location Moon/Base: unknown time zone Moon/Base"),
            ("CRON_TZ=UTC TZ=UTC * * * * *", "expected exactly 5 fields, found 6: [TZ=UTC * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(text), Err(told.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        /// No text panics, and whatever is read moves on.
        #[test]
        fn any_text_is_read_or_refused(text in "[-@0-9a-zA-Z*,/? =_]{0,40}", after in 0i64..4_000_000_000) {
            if let Ok(schedule) = Schedule::parse(&text)
                && let Some(next) = schedule.next(0, after)
            {
                proptest::prop_assert!(next > after);
            }
        }
    }
}
