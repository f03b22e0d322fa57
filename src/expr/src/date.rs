//! Times, durations and zones: Go's layouts and spellings over the Gregorian calendar.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    rules: TimeZone,
    /// The name it was asked for by; empty for a plain offset.
    name: String,
}

/// A point in time, with the zone it is shown in.
#[derive(Clone, Debug)]
pub struct Time {
    stamp: Timestamp,
    zone: Zone,
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self { rules: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// The zone of an IANA name, from the rules built in: the same on every machine.
    ///
    /// # Errors
    /// Go's message for an unknown name.
    pub fn named(name: &str) -> Result<Self, String> {
        if matches!(name, "" | "UTC" | "Local") {
            return Ok(Self::utc());
        }
        let rules = TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}"))?;
        Ok(Self { rules, name: name.to_owned() })
    }

    fn fixed(seconds: i32) -> Option<Self> {
        if seconds == 0 {
            return Some(Self::utc());
        }
        let offset = Offset::from_seconds(seconds).ok()?;
        Some(Self { rules: TimeZone::fixed(offset), name: String::new() })
    }
}

const NANOSECONDS: i128 = 1_000_000_000;
const OUT_OF_RANGE: &str = "time is out of range";
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_NANO: &str = "2006-01-02T15:04:05.999999999Z07:00";
/// The layouts that `date()` tries, in this order.
const DATE_LAYOUTS: [&str; 7] = [
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    RFC3339,
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
];

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.format("2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

impl Time {
    /// The time so many milliseconds after 1970 in UTC.
    ///
    /// # Errors
    /// When that is beyond the year 9999.
    pub fn from_unix_ms(milliseconds: i64) -> Result<Self, String> {
        let stamp = Timestamp::from_millisecond(milliseconds).map_err(|_| OUT_OF_RANGE.to_owned())?;
        Ok(Self { stamp, zone: Zone::utc() })
    }

    /// Nanoseconds since 1970.
    pub fn unix_nanoseconds(&self) -> i128 {
        self.stamp.as_nanosecond()
    }

    /// The time so many nanoseconds after 1970, shown in this time's zone.
    ///
    /// # Errors
    /// When that is beyond the year 9999.
    pub fn at(&self, nanoseconds: i128) -> Result<Self, String> {
        let stamp = Timestamp::from_nanosecond(nanoseconds).map_err(|_| OUT_OF_RANGE.to_owned())?;
        Ok(Self { stamp, zone: self.zone.clone() })
    }

    /// The same time shown in another zone.
    pub fn within(&self, zone: Zone) -> Self {
        Self { stamp: self.stamp, zone }
    }

    pub(crate) fn civil(&self) -> DateTime {
        self.zone.rules.to_datetime(self.stamp)
    }

    fn offset_seconds(&self) -> i32 {
        self.zone.rules.to_offset(self.stamp).seconds()
    }

    fn abbreviation(&self) -> String {
        if self.zone.name == "UTC" {
            return "UTC".to_owned();
        }
        let info = self.zone.rules.to_offset_info(self.stamp);
        let name = info.abbreviation();
        if self.zone.name.is_empty() || name.is_empty() {
            return offset_text(self.offset_seconds(), false, true);
        }
        name.to_owned()
    }

    /// Years, months and days further on, as Go counts: 31 January and a month is 2 or 3 March.
    ///
    /// # Errors
    /// When the result is beyond the year 9999.
    pub fn add_date(&self, years: i64, months: i64, days: i64) -> Result<Self, String> {
        let civil = self.civil();
        let year = years.checked_add(i64::from(civil.year())).ok_or(OUT_OF_RANGE)?;
        let month = months.checked_add(i64::from(civil.month()) - 1).ok_or(OUT_OF_RANGE)?;
        let year = year.checked_add(month.div_euclid(12)).ok_or(OUT_OF_RANGE)?;
        let first = i16::try_from(year)
            .ok()
            .and_then(|year| Date::new(year, i8::try_from(month.rem_euclid(12) + 1).ok()?, 1).ok())
            .ok_or(OUT_OF_RANGE)?;
        let days = days.checked_add(i64::from(civil.day()) - 1).ok_or(OUT_OF_RANGE)?;
        let span = jiff::Span::new().try_days(days).map_err(|_| OUT_OF_RANGE)?;
        let date = first.checked_add(span).map_err(|_| OUT_OF_RANGE)?;
        from_civil(date.to_datetime(civil.time()), &self.zone)
    }

    /// As Go's RFC 3339 with as many digits of the second as needed.
    pub fn rfc3339(&self) -> String {
        self.format(RFC3339_NANO)
    }

    /// The time in Go's layout: `2006-01-02 15:04:05`.
    pub fn format(&self, layout: &str) -> String {
        let civil = self.civil();
        let mut out = String::new();
        let mut rest = layout;
        while !rest.is_empty() {
            let (before, element, after) = next_element(rest);
            out.push_str(before);
            if let Some(element) = element {
                self.push_element(&mut out, element, &civil);
            }
            rest = after;
        }
        out
    }

    fn push_element(&self, out: &mut String, element: Element, civil: &DateTime) {
        let month = &MONTHS[usize::try_from(civil.month() - 1).unwrap_or(0) % 12];
        let weekday = &DAYS[usize::from(civil.weekday().to_sunday_zero_offset().unsigned_abs()) % 7];
        let hour12 = if civil.hour() % 12 == 0 { 12 } else { civil.hour() % 12 };
        let afternoon = civil.hour() >= 12;
        let text = match element {
            Element::LongMonth => (*month).to_owned(),
            Element::Month => month[..3].to_owned(),
            Element::NumberMonth => civil.month().to_string(),
            Element::ZeroMonth => format!("{:02}", civil.month()),
            Element::LongWeekday => (*weekday).to_owned(),
            Element::Weekday => weekday[..3].to_owned(),
            Element::Day => civil.day().to_string(),
            Element::UnderDay => format!("{:2}", civil.day()),
            Element::ZeroDay => format!("{:02}", civil.day()),
            Element::UnderYearDay => format!("{:3}", civil.day_of_year()),
            Element::ZeroYearDay => format!("{:03}", civil.day_of_year()),
            Element::Hour => format!("{:02}", civil.hour()),
            Element::Hour12 => hour12.to_string(),
            Element::ZeroHour12 => format!("{hour12:02}"),
            Element::Minute => civil.minute().to_string(),
            Element::ZeroMinute => format!("{:02}", civil.minute()),
            Element::Second => civil.second().to_string(),
            Element::ZeroSecond => format!("{:02}", civil.second()),
            Element::LongYear => format!("{:04}", civil.year()),
            Element::Year => format!("{:02}", civil.year().rem_euclid(100)),
            Element::UpperNoon => if afternoon { "PM" } else { "AM" }.to_owned(),
            Element::LowerNoon => if afternoon { "pm" } else { "am" }.to_owned(),
            Element::ZoneName => self.abbreviation(),
            Element::Offset { utc_as_z, colon, hours_only } => {
                let seconds = self.offset_seconds();
                if utc_as_z && seconds == 0 {
                    "Z".to_owned()
                } else {
                    offset_text(seconds, colon, hours_only)
                }
            }
            Element::Fraction { digits, trim, comma } => {
                let text = format!("{:09}", civil.subsec_nanosecond());
                let text = text.get(..digits).unwrap_or(&text);
                let text = if trim { text.trim_end_matches('0') } else { text };
                if text.is_empty() {
                    String::new()
                } else {
                    format!("{}{text}", if comma { ',' } else { '.' })
                }
            }
        };
        out.push_str(&text);
    }
}

fn offset_text(seconds: i32, colon: bool, hours_only: bool) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    let (hours, minutes) = (minutes / 60, minutes % 60);
    if hours_only && minutes == 0 {
        return format!("{sign}{hours:02}");
    }
    format!("{sign}{hours:02}{}{minutes:02}", if colon { ":" } else { "" })
}

fn from_civil(civil: DateTime, zone: &Zone) -> Result<Time, String> {
    let stamp = zone.rules.to_timestamp(civil).map_err(|_| OUT_OF_RANGE.to_owned())?;
    Ok(Time { stamp, zone: zone.clone() })
}

/// The parts of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    LongMonth,
    Month,
    NumberMonth,
    ZeroMonth,
    LongWeekday,
    Weekday,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    UpperNoon,
    LowerNoon,
    ZoneName,
    Offset { utc_as_z: bool, colon: bool, hours_only: bool },
    Fraction { digits: usize, trim: bool, comma: bool },
}

const fn offset(utc_as_z: bool, colon: bool, hours_only: bool) -> Element {
    Element::Offset { utc_as_z, colon, hours_only }
}

/// Longer ones first.
const ELEMENTS: [(&str, Element); 33] = [
    ("January", Element::LongMonth),
    ("Jan", Element::Month),
    ("Monday", Element::LongWeekday),
    ("Mon", Element::Weekday),
    ("MST", Element::ZoneName),
    ("2006", Element::LongYear),
    ("002", Element::ZeroYearDay),
    ("__2", Element::UnderYearDay),
    ("_2", Element::UnderDay),
    ("01", Element::ZeroMonth),
    ("02", Element::ZeroDay),
    ("03", Element::ZeroHour12),
    ("04", Element::ZeroMinute),
    ("05", Element::ZeroSecond),
    ("06", Element::Year),
    ("15", Element::Hour),
    ("1", Element::NumberMonth),
    ("2", Element::Day),
    ("3", Element::Hour12),
    ("4", Element::Minute),
    ("5", Element::Second),
    ("PM", Element::UpperNoon),
    ("pm", Element::LowerNoon),
    ("-07:00:00", offset(false, true, false)),
    ("-070000", offset(false, false, false)),
    ("-07:00", offset(false, true, false)),
    ("-0700", offset(false, false, false)),
    ("-07", offset(false, false, true)),
    ("Z07:00:00", offset(true, true, false)),
    ("Z070000", offset(true, false, false)),
    ("Z07:00", offset(true, true, false)),
    ("Z0700", offset(true, false, false)),
    ("Z07", offset(true, false, true)),
];

/// The text before the next element of a layout, the element, and the rest.
fn next_element(layout: &str) -> (&str, Option<Element>, &str) {
    for (start, character) in layout.char_indices() {
        let tail = &layout[start..];
        if matches!(character, '.' | ',') {
            let digits = &tail[1..];
            let kind = digits.bytes().next();
            let count = digits.bytes().take_while(|digit| Some(*digit) == kind).count();
            let ends = !digits[count..].starts_with(|next: char| next.is_ascii_digit());
            if matches!(kind, Some(b'0' | b'9')) && ends {
                let element =
                    Element::Fraction { digits: count, trim: kind == Some(b'9'), comma: character == ',' };
                return (&layout[..start], Some(element), &tail[1 + count..]);
            }
            continue;
        }
        if tail.starts_with("_2006") {
            let after = &tail["_2006".len()..];
            return (&layout[..=start], Some(Element::LongYear), after);
        }
        for (text, element) in ELEMENTS {
            let Some(after) = tail.strip_prefix(text) else { continue };
            // "Janet" is no month.
            if text == "Jan" && after.starts_with(|next: char| next.is_ascii_lowercase()) {
                continue;
            }
            return (&layout[..start], Some(element), after);
        }
    }
    (layout, None, "")
}

/// The fields of a text read so far.
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    year_day: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanosecond: i64,
    afternoon: Option<bool>,
    offset_seconds: Option<i32>,
}

/// Reads a text by Go's layout; without a zone in it, the time is in `zone`.
///
/// # Errors
/// Go's message.
pub fn parse(layout: &str, text: &str, zone: &Zone) -> Result<Time, String> {
    let refuse = || format!("parsing time \"{text}\" as \"{layout}\": cannot parse");
    let mut fields = Fields {
        year: 0,
        month: 1,
        day: 1,
        year_day: None,
        hour: 0,
        minute: 0,
        second: 0,
        nanosecond: 0,
        afternoon: None,
        offset_seconds: None,
    };
    let mut pattern = layout;
    let mut rest = text;
    while !pattern.is_empty() {
        let (before, element, after) = next_element(pattern);
        rest = rest.strip_prefix(before).ok_or_else(refuse)?;
        if let Some(element) = element {
            rest = fields.read(element, rest, after).ok_or_else(refuse)?;
        }
        pattern = after;
    }
    if !rest.is_empty() {
        return Err(format!("parsing time \"{text}\": extra text: \"{rest}\""));
    }
    fields.time(zone).ok_or_else(|| format!("parsing time \"{text}\": day out of range"))
}

fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if count < least {
        return None;
    }
    Some((text[..count].parse().ok()?, &text[count..]))
}

fn word<'a>(text: &'a str, words: &[&str], length: Option<usize>) -> Option<(i64, &'a str)> {
    for (index, word) in words.iter().enumerate() {
        let word = &word[..length.unwrap_or(word.len())];
        if text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)) {
            return Some((i64::try_from(index).ok()?, &text[word.len()..]));
        }
    }
    None
}

impl Fields {
    fn read<'a>(&mut self, element: Element, text: &'a str, after: &str) -> Option<&'a str> {
        let (value, rest) = match element {
            Element::LongMonth => word(text, &MONTHS, None)?,
            Element::Month => word(text, &MONTHS, Some(3))?,
            Element::LongWeekday => return word(text, &DAYS, None).map(|(_, rest)| rest),
            Element::Weekday => return word(text, &DAYS, Some(3)).map(|(_, rest)| rest),
            Element::UpperNoon | Element::LowerNoon => word(text, &["AM", "PM"], None)?,
            Element::LongYear => digits(text, 4, 4)?,
            Element::Year
            | Element::ZeroMonth
            | Element::ZeroDay
            | Element::ZeroMinute
            | Element::ZeroSecond => digits(text, 2, 2)?,
            Element::ZeroYearDay => digits(text, 3, 3)?,
            Element::UnderYearDay => digits(text.trim_start_matches(' '), 1, 3)?,
            Element::UnderDay => digits(text.strip_prefix(' ').unwrap_or(text), 1, 2)?,
            Element::Hour
            | Element::NumberMonth
            | Element::Day
            | Element::Hour12
            | Element::ZeroHour12
            | Element::Minute
            | Element::Second => digits(text, 1, 2)?,
            Element::ZoneName => return self.zone_name(text),
            Element::Offset { utc_as_z, colon, hours_only } => {
                if utc_as_z && let Some(rest) = text.strip_prefix('Z') {
                    self.offset_seconds = Some(0);
                    return Some(rest);
                }
                return self.offset(text, colon, hours_only);
            }
            Element::Fraction { digits: count, trim, comma: _ } => return self.fraction(text, count, trim),
        };
        match element {
            Element::LongMonth | Element::Month => self.month = value + 1,
            Element::NumberMonth | Element::ZeroMonth => self.month = value,
            Element::LongYear => self.year = value,
            Element::Year => self.year = if value >= 69 { 1900 + value } else { 2000 + value },
            Element::Day | Element::UnderDay | Element::ZeroDay => self.day = value,
            Element::ZeroYearDay | Element::UnderYearDay => self.year_day = Some(value),
            Element::Hour | Element::Hour12 | Element::ZeroHour12 => self.hour = value,
            Element::Minute | Element::ZeroMinute => self.minute = value,
            Element::UpperNoon | Element::LowerNoon => self.afternoon = Some(value == 1),
            Element::Second | Element::ZeroSecond => {
                self.second = value;
                // A fraction may follow the seconds although the layout has none.
                let fraction_next = matches!(next_element(after), ("", Some(Element::Fraction { .. }), _));
                if !fraction_next && rest.starts_with(['.', ',']) {
                    return self.fraction(rest, 0, true);
                }
            }
            Element::LongWeekday
            | Element::Weekday
            | Element::ZoneName
            | Element::Offset { .. }
            | Element::Fraction { .. } => {}
        }
        Some(rest)
    }

    fn fraction<'a>(&mut self, text: &'a str, count: usize, trim: bool) -> Option<&'a str> {
        let Some(tail) = text.strip_prefix(['.', ',']) else { return trim.then_some(text) };
        let length = tail.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 || (!trim && length != count) {
            return None;
        }
        let kept = &tail[..length.min(9)];
        self.nanosecond = format!("{kept:0<9}").parse().ok()?;
        Some(&tail[length..])
    }

    fn offset<'a>(&mut self, text: &'a str, colon: bool, hours_only: bool) -> Option<&'a str> {
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let (hours, mut rest) = digits(&text[1..], 2, 2)?;
        let mut minutes = 0;
        if !hours_only {
            if colon {
                rest = rest.strip_prefix(':')?;
            }
            (minutes, rest) = digits(rest, 2, 2)?;
        }
        if hours > 24 || minutes > 59 {
            return None;
        }
        self.offset_seconds = Some(sign * i32::try_from(hours * 3600 + minutes * 60).ok()?);
        Some(rest)
    }

    fn zone_name<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
        if !(3..=5).contains(&length) {
            return None;
        }
        // A name that is not known where the text is read counts as offset zero.
        self.offset_seconds = Some(0);
        Some(&text[length..])
    }

    fn time(&self, zone: &Zone) -> Option<Time> {
        let mut hour = self.hour;
        match self.afternoon {
            Some(true) if hour < 12 => hour += 12,
            Some(false) if hour == 12 => hour = 0,
            Some(_) | None => {}
        }
        let small = |value: i64| i8::try_from(value).ok();
        let civil = DateTime::new(
            i16::try_from(self.year).ok()?,
            small(self.month)?,
            small(self.day)?,
            small(hour)?,
            small(self.minute)?,
            small(self.second)?,
            i32::try_from(self.nanosecond).ok()?,
        )
        .ok()?;
        let civil = match self.year_day {
            None => civil,
            Some(day) => {
                let date = civil.date().with().day_of_year(i16::try_from(day).ok()?).build().ok()?;
                date.to_datetime(civil.time())
            }
        };
        let zone = match self.offset_seconds {
            None => zone.clone(),
            Some(seconds) => Zone::fixed(seconds)?,
        };
        from_civil(civil, &zone).ok()
    }
}

/// Reads a date in any of the usual layouts.
///
/// # Errors
/// When it is in none of them.
pub fn parse_any(text: &str, zone: &Zone) -> Result<Time, String> {
    DATE_LAYOUTS
        .iter()
        .find_map(|layout| parse(layout, text, zone).ok())
        .ok_or_else(|| format!("invalid date {text}"))
}

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
