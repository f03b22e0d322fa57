//! Durations: `1h30m`.

use super::NANOSECONDS;

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a duration as Go does (`1h30m`); nanoseconds.
///
/// # Errors
/// Go's message.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration \"{text}\"");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number = &rest[..length];
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[length..];
        let unit_length = rest.find(|next: char| next == '.' || next.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..unit_length];
        rest = &rest[unit_length..];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration \"{text}\""));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit \"{unit}\" in duration \"{text}\""));
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part: f64 =
            if part.is_empty() { 0.0 } else { format!("0.{part}").parse().map_err(|_| invalid())? };
        #[expect(clippy::cast_possible_truncation, reason = "a scale is a whole number, a part less than it")]
        let added = whole.checked_mul(*scale as i128).map(|whole| whole + (part * scale) as i128);
        total = added.and_then(|added| total.checked_add(added)).ok_or_else(invalid)?;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A duration as Go prints it: `1h30m0s`.
pub fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = i128::from(nanoseconds).abs();
    let decimal = |unit: i128, name: &str| {
        let digits = unit.to_string().len() - 1;
        let part = format!("{:0digits$}", size % unit);
        let part = part.trim_end_matches('0');
        let point = if part.is_empty() || digits == 0 { String::new() } else { format!(".{part}") };
        format!("{sign}{}{point}{name}", size / unit)
    };
    match size {
        0 => "0s".to_owned(),
        ..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..NANOSECONDS => decimal(1_000_000, "ms"),
        _ => {
            let minutes = size / (60 * NANOSECONDS);
            let rest = size % (60 * NANOSECONDS);
            let part = format!("{:09}", rest % NANOSECONDS);
            let part = part.trim_end_matches('0');
            let seconds = rest / NANOSECONDS;
            let seconds = if part.is_empty() { format!("{seconds}s") } else { format!("{seconds}.{part}s") };
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}
