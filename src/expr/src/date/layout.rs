//! Go's layouts: `2006-01-02 15:04:05`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{DAYS, MONTHS, RFC3339, Time, Zone, from_civil};

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

/// How exactly an offset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    Hours,
    Minutes,
    Seconds,
}

/// The parts of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
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
    Offset { utc_as_z: bool, colon: bool, precision: Precision },
    Fraction { digits: usize, trim: bool, comma: bool },
}

const fn offset(utc_as_z: bool, colon: bool, precision: Precision) -> Element {
    Element::Offset { utc_as_z, colon, precision }
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
    ("-07:00:00", offset(false, true, Precision::Seconds)),
    ("-070000", offset(false, false, Precision::Seconds)),
    ("-07:00", offset(false, true, Precision::Minutes)),
    ("-0700", offset(false, false, Precision::Minutes)),
    ("-07", offset(false, false, Precision::Hours)),
    ("Z07:00:00", offset(true, true, Precision::Seconds)),
    ("Z070000", offset(true, false, Precision::Seconds)),
    ("Z07:00", offset(true, true, Precision::Minutes)),
    ("Z0700", offset(true, false, Precision::Minutes)),
    ("Z07", offset(true, false, Precision::Hours)),
];

/// The text before the next element of a layout, the element, and the rest.
pub(super) fn next_element(layout: &str) -> (&str, Option<Element>, &str) {
    for (start, character) in layout.char_indices() {
        let tail = &layout[start..];
        if matches!(character, '.' | ',') {
            let digits = &tail[character.len_utf8()..];
            let kind = digits.bytes().next().filter(|digit| matches!(digit, b'0' | b'9'));
            let count = digits.bytes().take_while(|digit| Some(*digit) == kind).count();
            let ends = !digits[count..].starts_with(|next: char| next.is_ascii_digit());
            if count > 0 && ends {
                let element =
                    Element::Fraction { digits: count, trim: kind == Some(b'9'), comma: character == ',' };
                return (&layout[..start], Some(element), &tail[1 + count..]);
            }
            continue;
        }
        if let Some(after) = tail.strip_prefix("_2006") {
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
    zone: Option<Zone>,
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
        zone: None,
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
            Element::Offset { utc_as_z, colon, precision } => {
                if utc_as_z && let Some(rest) = text.strip_prefix('Z') {
                    self.zone = Some(Zone::utc());
                    return Some(rest);
                }
                return self.offset(text, colon, precision);
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

    fn offset<'a>(&mut self, text: &'a str, colon: bool, precision: Precision) -> Option<&'a str> {
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let more = match precision {
            Precision::Hours => 0,
            Precision::Minutes => 1,
            Precision::Seconds => 2,
        };
        let (mut total, mut rest) = digits(&text[1..], 2, 2).filter(|(hours, _)| *hours <= 24)?;
        for _ in 0..more {
            if colon {
                rest = rest.strip_prefix(':')?;
            }
            let part;
            (part, rest) = digits(rest, 2, 2).filter(|(part, _)| *part < 60)?;
            total = total * 60 + part;
        }
        for _ in more..2 {
            total *= 60;
        }
        self.zone = Zone::fixed(sign * i32::try_from(total).ok()?);
        self.zone.is_some().then_some(rest)
    }

    fn zone_name<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
        if !(3..=5).contains(&length) {
            return None;
        }
        // A name that is not known where the text is read counts as offset zero.
        self.zone = Some(Zone { rules: TimeZone::UTC, name: text[..length].to_owned() });
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
        from_civil(civil, self.zone.as_ref().unwrap_or(zone)).ok()
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
