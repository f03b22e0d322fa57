//! Times, durations and zones: Go's layouts and spellings over the Gregorian calendar.

mod layout;
mod span;

pub use layout::{parse, parse_any};
pub use span::{duration_text, parse_duration};

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

use layout::{Element, Precision, next_element};

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
        match name {
            "" | "UTC" => return Ok(Self::utc()),
            "Local" => return Ok(Self::local()),
            _ => {}
        }
        let rules = TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}"))?;
        Ok(Self { rules, name: name.to_owned() })
    }

    /// The zone of the machine: UTC everywhere, under its own name.
    pub fn local() -> Self {
        Self { rules: TimeZone::UTC, name: "Local".to_owned() }
    }

    fn fixed(seconds: i32) -> Option<Self> {
        if seconds == 0 {
            return Some(Self::utc());
        }
        let offset = Offset::from_seconds(seconds).ok()?;
        Some(Self { rules: TimeZone::fixed(offset), name: String::new() })
    }
}

/// What a number of the calendar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// Months, from 1.
    Month,
    /// Days of the week, Sunday is 0.
    Weekday,
}

impl Calendar {
    /// The English name.
    pub fn name(self, number: i64) -> &'static str {
        let place = usize::try_from(number).ok();
        let name = match self {
            Self::Month => place.and_then(|place| MONTHS.get(place.checked_sub(1)?)),
            Self::Weekday => place.and_then(|place| DAYS.get(place)),
        };
        name.unwrap_or(&"")
    }
}

/// The first instant of the year 1: times are rounded from there.
pub(crate) const YEAR_ONE_NS: i128 = -62_135_596_800 * NANOSECONDS;
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

    pub(crate) fn zone(&self) -> &Zone {
        &self.zone
    }

    pub(crate) fn is_summer_time(&self) -> bool {
        self.zone.rules.to_offset_info(self.stamp).dst().is_dst()
    }

    fn offset_seconds(&self) -> i32 {
        self.zone.rules.to_offset(self.stamp).seconds()
    }

    fn abbreviation(&self) -> String {
        if self.zone.rules == TimeZone::UTC {
            return if self.zone.name == "Local" { "UTC".to_owned() } else { self.zone.name.clone() };
        }
        let info = self.zone.rules.to_offset_info(self.stamp);
        let name = info.abbreviation();
        if !self.zone.name.is_empty() && !name.is_empty() {
            return name.to_owned();
        }
        let seconds = self.offset_seconds();
        let precision = if seconds % 3600 == 0 { Precision::Hours } else { Precision::Minutes };
        offset_text(seconds, false, precision)
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
            Element::Offset { utc_as_z, colon, precision } => {
                let seconds = self.offset_seconds();
                if utc_as_z && seconds == 0 { "Z".to_owned() } else { offset_text(seconds, colon, precision) }
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

fn offset_text(seconds: i32, colon: bool, precision: Precision) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let size = seconds.abs();
    let (hours, minutes, seconds) = (size / 3600, size / 60 % 60, size % 60);
    let colon = if colon { ":" } else { "" };
    match precision {
        Precision::Hours => format!("{sign}{hours:02}"),
        Precision::Minutes => format!("{sign}{hours:02}{colon}{minutes:02}"),
        Precision::Seconds => format!("{sign}{hours:02}{colon}{minutes:02}{colon}{seconds:02}"),
    }
}

fn from_civil(civil: DateTime, zone: &Zone) -> Result<Time, String> {
    let stamp = zone.rules.to_timestamp(civil).map_err(|_| OUT_OF_RANGE.to_owned())?;
    Ok(Time { stamp, zone: zone.clone() })
}
