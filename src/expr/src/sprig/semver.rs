//! Semantic versions and the ranges of `semverCompare`.

use std::cmp::Ordering;
use std::fmt;

use crate::value::Value;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    prerelease: String,
    metadata: String,
    /// As it was written.
    pub(crate) original: String,
}

const INVALID: &str = "invalid semantic version";

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(formatter, "{major}.{minor}.{patch}")?;
        if !self.prerelease.is_empty() {
            write!(formatter, "-{}", self.prerelease)?;
        }
        if !self.metadata.is_empty() {
            write!(formatter, "+{}", self.metadata)?;
        }
        Ok(())
    }
}

impl Version {
    /// Reads a version; a leading `v` and missing numbers are accepted.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (version, parts) = partial(text)?;
        if parts == 0 { Err(INVALID.to_owned()) } else { Ok(version) }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            match (self.prerelease.is_empty(), other.prerelease.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => prerelease_order(&self.prerelease, &other.prerelease),
            }
        })
    }
}

fn prerelease_order(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let ordering = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) => match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            },
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
}

/// A version of which only the first parts may be given; how many are.
fn partial(text: &str) -> Result<(Version, usize), String> {
    let body = text.strip_prefix('v').unwrap_or(text);
    let (body, metadata) = body.split_once('+').unwrap_or((body, ""));
    let (body, prerelease) = body.split_once('-').unwrap_or((body, ""));
    let mut numbers = [0; 3];
    let mut parts = 0;
    if !body.is_empty() {
        for (place, part) in body.split('.').enumerate() {
            if matches!(part, "x" | "X" | "*") {
                break;
            }
            let slot = numbers.get_mut(place).ok_or(INVALID)?;
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(INVALID.to_owned());
            }
            *slot = part.parse().map_err(|_| INVALID)?;
            parts = place + 1;
        }
    }
    let version = Version {
        numbers,
        prerelease: prerelease.to_owned(),
        metadata: metadata.to_owned(),
        original: text.to_owned(),
    };
    Ok((version, parts))
}

/// Whether a version is within a range: `>=1.2, <2 || ^3.1`.
pub(super) fn satisfies(range: &str, version: &str) -> Result<bool, String> {
    let version = Version::parse(version)?;
    for alternative in range.split("||") {
        let spaced = alternative.replace(',', " ");
        let mut all = true;
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut place = 0;
        while place < words.len() {
            if words.get(place + 1) == Some(&"-") && place + 2 < words.len() {
                all &= test(">=", words[place], &version)? && test("<=", words[place + 2], &version)?;
                place += 3;
                continue;
            }
            let mut text = words[place].to_owned();
            place += 1;
            if text.chars().all(|character| "=!<>~^".contains(character)) && place < words.len() {
                text.push_str(words[place]);
                place += 1;
            }
            let split = text.find(|character| !"=!<>~^".contains(character)).unwrap_or(text.len());
            all &= test(&text[..split], &text[split..], &version)?;
        }
        if all && !words.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn test(operator: &str, text: &str, version: &Version) -> Result<bool, String> {
    let (bound, parts) = partial(text).map_err(|_| format!("improper constraint: {operator}{text}"))?;
    // Pre-releases only match ranges that speak of pre-releases.
    if !version.prerelease.is_empty() && bound.prerelease.is_empty() && operator != "!=" {
        return Ok(false);
    }
    let ordering = version.order(&bound);
    let same_to = |count: usize| version.numbers[..count] == bound.numbers[..count];
    let at_least = ordering.is_ge();
    Ok(match operator {
        "" | "=" | "==" if parts < 3 => same_to(parts),
        "" | "=" | "==" => ordering.is_eq(),
        "!=" if parts < 3 => !same_to(parts),
        "!=" => ordering.is_ne(),
        ">" if parts < 3 => ordering.is_gt() && !same_to(parts),
        ">" => ordering.is_gt(),
        ">=" | "=>" => at_least,
        "<" => ordering.is_lt(),
        "<=" | "=<" => ordering.is_le() || (parts < 3 && same_to(parts)),
        "~" | "~>" => at_least && same_to(parts.min(2)),
        "^" => {
            let first = bound.numbers.iter().take(parts).position(|number| *number > 0);
            at_least && same_to(first.map_or(parts, |place| place + 1))
        }
        _ => return Err(format!("improper constraint: {operator}{text}")),
    })
}

/// Calls a method of a version; `None` when there is none of that name with these arguments.
pub(crate) fn method(version: &Version, name: &str, arguments: &[Value]) -> Option<Value> {
    let number = |place: usize| Value::Int(i64::try_from(version.numbers[place]).unwrap_or(i64::MAX));
    Some(match (name, arguments) {
        ("Major", []) => number(0),
        ("Minor", []) => number(1),
        ("Patch", []) => number(2),
        ("Prerelease", []) => Value::from(version.prerelease.as_str()),
        ("Metadata", []) => Value::from(version.metadata.as_str()),
        ("Original", []) => Value::from(version.original.as_str()),
        ("String", []) => Value::from(version.to_string()),
        ("Compare", [Value::Version(other)]) => Value::Int(version.order(other) as i64),
        ("LessThan", [Value::Version(other)]) => Value::Bool(version.order(other).is_lt()),
        ("GreaterThan", [Value::Version(other)]) => Value::Bool(version.order(other).is_gt()),
        ("Equal", [Value::Version(other)]) => Value::Bool(version.order(other).is_eq()),
        ("IncMajor", []) => {
            let mut next = version.clone();
            next.numbers = [version.numbers[0].saturating_add(1), 0, 0];
            (next.prerelease, next.metadata) = (String::new(), String::new());
            next.original = next.to_string();
            Value::Version(next.into())
        }
        _ => return None,
    })
}
