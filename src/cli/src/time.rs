//! Times and spans as Argo's CLI words them.

use jiff::Timestamp;
use std::time::Duration;

/// Reads `90`, `30s`, `10m`, `3h`, `1d`, `1h30m`.
///
/// # Errors
/// A message that shows the forms.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a span of time: write it as in 30s, 10m, 1h30m, 1d");
    let mut total = 0u64;
    let mut digits = String::new();
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        total = count.checked_mul(unit).and_then(|span| total.checked_add(span)).ok_or_else(wrong)?;
        digits.clear();
    }
    if !digits.is_empty() {
        total = digits.parse::<u64>().ok().and_then(|span| total.checked_add(span)).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// Seconds between two times, 0 if the end is earlier.
pub(crate) fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second() - from.as_second()).unwrap_or(0)
}

/// `20s`, `3m`, `2h`, `5d`: the largest whole unit.
pub(crate) fn short(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn unit(count: u64, name: &str) -> String {
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

/// `1 minute 20 seconds`: the two largest units.
pub(crate) fn long(seconds: u64) -> String {
    let (large, small) = match seconds {
        0..60 => return unit(seconds, "second"),
        60..3600 => (unit(seconds / 60, "minute"), unit(seconds % 60, "second")),
        3600..86_400 => (unit(seconds / 3600, "hour"), unit(seconds % 3600 / 60, "minute")),
        _ => (unit(seconds / 86_400, "day"), unit(seconds % 86_400 / 3600, "hour")),
    };
    format!("{large} {small}")
}

/// `Mon Jan 02 15:04:05 +0000 (20 seconds ago)`, in UTC.
pub(crate) fn full(time: Timestamp, now: Timestamp) -> String {
    let ago = match seconds(time, now) {
        0 => "now".to_owned(),
        past => format!("{} ago", one_unit(past)),
    };
    format!("{} ({ago})", time.strftime("%a %b %d %H:%M:%S +0000"))
}

fn one_unit(seconds: u64) -> String {
    match seconds {
        0..60 => unit(seconds, "second"),
        60..3600 => unit(seconds / 60, "minute"),
        3600..86_400 => unit(seconds / 3600, "hour"),
        _ => unit(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_refuse() {
        let read = |text: &str| parse_span(text).map(|span| span.as_secs());
        assert_eq!(
            (read("90"), read("10m"), read("1h30m"), read("2d")),
            (Ok(90), Ok(600), Ok(5400), Ok(172_800))
        );
        for bad in ["", "m", "1x", "-1s", "99999999999999999999s", "9999999999999999999d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_worded() {
        assert_eq!(
            (short(59), short(60), short(7300), short(200_000)),
            ("59s".into(), "1m".into(), "2h".into(), "2d".into())
        );
        assert_eq!(
            (long(1), long(80), long(3661)),
            ("1 second".into(), "1 minute 20 seconds".into(), "1 hour 1 minute".into())
        );
        let time: Timestamp = "2026-01-05T15:04:05Z".parse().unwrap();
        let now: Timestamp = "2026-01-05T15:04:25Z".parse().unwrap();
        assert_eq!(full(time, now), "Mon Jan 05 15:04:05 +0000 (20 seconds ago)");
    }
}
