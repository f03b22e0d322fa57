//! Looking into values: members, elements, slices, methods.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the language is dynamically typed: what fits no arm is refused, kinds yet to come too"
)]

use std::sync::Arc;

use crate::date::{self, Calendar, Time};
use crate::evaluate::{Machine, wrong_type};
use crate::value::{Function, Key, Value};

/// A whole number to count elements with.
pub(crate) fn index(value: &Value) -> Result<i64, String> {
    #[expect(clippy::cast_possible_truncation, reason = "as Go converts")]
    match value {
        Value::Int(number) | Value::Duration(number) => Ok(*number),
        Value::Float(number) => Ok(*number as i64),
        other => Err(format!("invalid operation: int({})", other.go_type())),
    }
}

const TIME_METHODS: [(&str, &str); 30] = [
    ("Year", "func() int"),
    ("Month", "func() time.Month"),
    ("Day", "func() int"),
    ("Hour", "func() int"),
    ("Minute", "func() int"),
    ("Second", "func() int"),
    ("Nanosecond", "func() int"),
    ("Weekday", "func() time.Weekday"),
    ("YearDay", "func() int"),
    ("Unix", "func() int64"),
    ("UnixMilli", "func() int64"),
    ("UnixMicro", "func() int64"),
    ("UnixNano", "func() int64"),
    ("Format", "func(string) string"),
    ("String", "func() string"),
    ("Add", "func(time.Duration) time.Time"),
    ("AddDate", "func(int, int, int) time.Time"),
    ("Sub", "func(time.Time) time.Duration"),
    ("Before", "func(time.Time) bool"),
    ("After", "func(time.Time) bool"),
    ("Equal", "func(time.Time) bool"),
    ("Compare", "func(time.Time) int"),
    ("IsZero", "func() bool"),
    ("UTC", "func() time.Time"),
    ("Local", "func() time.Time"),
    ("In", "func(*time.Location) time.Time"),
    ("Truncate", "func(time.Duration) time.Time"),
    ("Round", "func(time.Duration) time.Time"),
    ("Location", "func() *time.Location"),
    ("IsDST", "func() bool"),
];
const DURATION_METHODS: [(&str, &str); 10] = [
    ("Hours", "func() float64"),
    ("Minutes", "func() float64"),
    ("Seconds", "func() float64"),
    ("Milliseconds", "func() int64"),
    ("Microseconds", "func() int64"),
    ("Nanoseconds", "func() int64"),
    ("String", "func() string"),
    ("Abs", "func() time.Duration"),
    ("Truncate", "func(time.Duration) time.Duration"),
    ("Round", "func(time.Duration) time.Duration"),
];
const VERSION_METHODS: [(&str, &str); 12] = [
    ("Major", "func() uint64"),
    ("Minor", "func() uint64"),
    ("Patch", "func() uint64"),
    ("Prerelease", "func() string"),
    ("Metadata", "func() string"),
    ("Original", "func() string"),
    ("String", "func() string"),
    ("Compare", "func(*semver.Version) int"),
    ("LessThan", "func(*semver.Version) bool"),
    ("GreaterThan", "func(*semver.Version) bool"),
    ("Equal", "func(*semver.Version) bool"),
    ("IncMajor", "func() semver.Version"),
];

fn methods(value: &Value) -> &'static [(&'static str, &'static str)] {
    match value {
        Value::Time(_) => &TIME_METHODS,
        Value::Duration(_) => &DURATION_METHODS,
        Value::Version(_) => &VERSION_METHODS,
        Value::Zone(_) | Value::Calendar(..) => &[("String", "func() string")],
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Function(_) => &[],
    }
}

/// A member or element.
pub(crate) fn fetch(value: &Value, property: &Value) -> Result<Value, String> {
    if let Some(name) = property.as_text()
        && let Some((_, type_text)) = methods(value).iter().find(|(known, _)| *known == name)
    {
        let receiver = Box::new(value.clone());
        return Ok(Value::Function(Arc::new(Function { receiver, name: name.into(), type_text })));
    }
    match value {
        Value::List(list) => {
            let items = list.items();
            let place = place(property, items.len())?;
            Ok(items[place].clone())
        }
        Value::Text(text) => {
            if property.as_text().is_some() {
                return Err(format!("cannot fetch {} from string", property.as_text().unwrap_or_default()));
            }
            let place = place(property, text.len())?;
            Ok(Value::Int(i64::from(text.as_bytes()[place])))
        }
        Value::Map(map) => {
            let key = match property {
                Value::Nil if !map.any_keys() => Some(Key::Text("".into())),
                other => Key::of(other),
            };
            let key = key.ok_or_else(|| wrong_type(property, "string"))?;
            Ok(map.entries().get(&key).cloned().unwrap_or(Value::Nil))
        }
        other => {
            let name = property.display(1024).unwrap_or_default();
            Err(format!("cannot fetch {name} from {}", other.go_type()))
        }
    }
}

fn place(property: &Value, length: usize) -> Result<usize, String> {
    let size = i64::try_from(length).unwrap_or(i64::MAX);
    let asked = index(property)?;
    let index = if asked < 0 { size.saturating_add(asked) } else { asked };
    usize::try_from(index)
        .ok()
        .filter(|place| *place < length)
        .ok_or_else(|| format!("index out of range: {index} (array length is {length})"))
}

fn no_such_method(name: &str) -> String {
    format!("{name} is not supported here, or has other arguments")
}

impl Machine<'_> {
    pub(super) fn cut(&mut self, value: &Value, [from, to]: [Option<i64>; 2]) -> Result<Value, String> {
        let bounds = |length: usize| {
            let size = i64::try_from(length).unwrap_or(i64::MAX);
            let clamp = |bound: i64| {
                let bound = if bound < 0 { size.saturating_add(bound) } else { bound };
                usize::try_from(bound.clamp(0, size)).unwrap_or(0)
            };
            let end = clamp(to.unwrap_or(size));
            (clamp(from.unwrap_or(0)).min(end), end)
        };
        match value {
            Value::List(list) => {
                let (from, to) = bounds(list.items().len());
                self.charge((to - from) * size_of::<Value>())?;
                self.list(list.items()[from..to].to_vec())
            }
            Value::Text(text) => {
                // Texts are cut by bytes; half a character becomes a replacement character.
                let (from, to) = bounds(text.len());
                self.text(String::from_utf8_lossy(&text.as_bytes()[from..to]))
            }
            other => Err(format!("cannot slice {}", other.go_type())),
        }
    }

    pub(super) fn method(
        &mut self,
        receiver: &Value,
        name: &str,
        arguments: &[Value],
    ) -> Result<Value, String> {
        match receiver {
            Value::Time(time) => self.time_method(time, name, arguments),
            Value::Duration(span) => self.duration_method(*span, name, arguments),
            Value::Version(version) => {
                crate::sprig::semver::method(version, name, arguments).ok_or_else(|| no_such_method(name))
            }
            Value::Zone(zone) => self.text(zone.to_string()),
            Value::Calendar(calendar, number) => self.text(calendar.name(*number)),
            other => Err(format!("cannot fetch {name} from {}", other.go_type())),
        }
    }

    fn time_method(&mut self, time: &Arc<Time>, name: &str, arguments: &[Value]) -> Result<Value, String> {
        let civil = time.civil();
        let nanoseconds = time.unix_nanoseconds();
        let int = |value: i128| Ok(Value::Int(i64::try_from(value).unwrap_or(i64::MAX)));
        match (name, arguments) {
            ("Year", []) => int(civil.year().into()),
            ("Month", []) => Ok(Value::Calendar(Calendar::Month, civil.month().into())),
            ("Day", []) => int(civil.day().into()),
            ("Hour", []) => int(civil.hour().into()),
            ("Minute", []) => int(civil.minute().into()),
            ("Second", []) => int(civil.second().into()),
            ("Nanosecond", []) => int(civil.subsec_nanosecond().into()),
            ("Weekday", []) => {
                Ok(Value::Calendar(Calendar::Weekday, civil.weekday().to_sunday_zero_offset().into()))
            }
            ("YearDay", []) => int(civil.day_of_year().into()),
            ("Unix", []) => int(nanoseconds.div_euclid(1_000_000_000)),
            ("UnixMilli", []) => int(nanoseconds.div_euclid(1_000_000)),
            ("UnixMicro", []) => int(nanoseconds.div_euclid(1_000)),
            ("UnixNano", []) => int(nanoseconds),
            ("Format", [Value::Text(layout)]) => {
                self.charge(layout.len() * 8)?;
                self.text(time.format(layout))
            }
            ("String", []) => self.text(time.to_string()),
            ("Add", [Value::Duration(span)]) => {
                Ok(Value::Time(time.at(nanoseconds + i128::from(*span))?.into()))
            }
            ("AddDate", [Value::Int(years), Value::Int(months), Value::Int(days)]) => {
                Ok(Value::Time(time.add_date(*years, *months, *days)?.into()))
            }
            ("Sub", [Value::Time(other)]) => {
                let span = nanoseconds - other.unix_nanoseconds();
                Ok(Value::Duration(i64::try_from(span).unwrap_or(if span < 0 { i64::MIN } else { i64::MAX })))
            }
            ("Before", [Value::Time(other)]) => Ok(Value::Bool(nanoseconds < other.unix_nanoseconds())),
            ("After", [Value::Time(other)]) => Ok(Value::Bool(nanoseconds > other.unix_nanoseconds())),
            ("Equal", [Value::Time(other)]) => Ok(Value::Bool(nanoseconds == other.unix_nanoseconds())),
            ("Compare", [Value::Time(other)]) => int(nanoseconds.cmp(&other.unix_nanoseconds()) as i128),
            ("IsZero", []) => Ok(Value::Bool(nanoseconds == date::YEAR_ONE_NS)),
            ("IsDST", []) => Ok(Value::Bool(time.is_summer_time())),
            ("Location", []) => Ok(Value::Zone(time.zone().clone().into())),
            ("Local", []) => Ok(Value::Time(time.within(date::Zone::local()).into())),
            ("UTC", []) => Ok(Value::Time(time.within(date::Zone::utc()).into())),
            ("In", [Value::Zone(zone)]) => Ok(Value::Time(time.within((**zone).clone()).into())),
            ("Truncate", [Value::Duration(unit)]) if *unit > 0 => {
                let rest = (nanoseconds - date::YEAR_ONE_NS).rem_euclid((*unit).into());
                Ok(Value::Time(time.at(nanoseconds - rest)?.into()))
            }
            ("Round", [Value::Duration(unit)]) if *unit > 0 => {
                let rest = (nanoseconds - date::YEAR_ONE_NS).rem_euclid((*unit).into());
                let up = if rest * 2 >= i128::from(*unit) { i128::from(*unit) } else { 0 };
                Ok(Value::Time(time.at(nanoseconds - rest + up)?.into()))
            }
            ("Truncate" | "Round", [Value::Duration(_)]) => Ok(Value::Time(time.clone())),
            _ => Err(no_such_method(name)),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as Go converts")]
    fn duration_method(&mut self, span: i64, name: &str, arguments: &[Value]) -> Result<Value, String> {
        match (name, arguments) {
            ("Hours", []) => Ok(Value::Float(span as f64 / 3600e9)),
            ("Minutes", []) => Ok(Value::Float(span as f64 / 60e9)),
            ("Seconds", []) => Ok(Value::Float(span as f64 / 1e9)),
            ("Milliseconds", []) => Ok(Value::Int(span / 1_000_000)),
            ("Microseconds", []) => Ok(Value::Int(span / 1_000)),
            ("Nanoseconds", []) => Ok(Value::Int(span)),
            ("String", []) => self.text(date::duration_text(span)),
            ("Abs", []) => Ok(Value::Duration(span.saturating_abs())),
            ("Truncate", [Value::Duration(unit)]) if *unit > 0 => Ok(Value::Duration(span - span % unit)),
            ("Round", [Value::Duration(unit)]) if *unit > 0 => {
                let rest = span % unit;
                let away = if rest.unsigned_abs() >= unit.unsigned_abs() - rest.unsigned_abs() {
                    unit.saturating_mul(span.signum())
                } else {
                    0
                };
                Ok(Value::Duration((span - rest).saturating_add(away)))
            }
            ("Truncate" | "Round", [Value::Duration(_)]) => Ok(Value::Duration(span)),
            _ => Err(no_such_method(name)),
        }
    }
}
