//! Quoted strings that look like dates.

/// Days before 1970-01-01 of the proleptic Gregorian day (year, month, day).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    /// Exactly so many digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let head = self.0.get(..count)?;
        if !head.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.0 = &self.0[count..];
        head.parse().ok()
    }

    fn literal(&mut self, text: &str) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn two(&mut self, bound: i64) -> Option<i64> {
        self.digits(2).filter(|value| *value < bound)
    }

    /// `Z`, `+01:00` or `+0100`; seconds east of Greenwich.
    fn zone(&mut self) -> Option<i64> {
        if self.literal("Z") {
            return Some(0);
        }
        let sign = if self.literal("+") {
            1
        } else if self.literal("-") {
            -1
        } else {
            return None;
        };
        let hours = self.two(25)?;
        self.literal(":");
        let minutes = self.two(60)?;
        Some(sign * (hours * 3600 + minutes * 60))
    }
}

/// The Unix time of a date, when `text` is one that the language knows: `2006-01-02`, with hours and minutes, with
/// seconds and a zone, with a space or a `T` between.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let mut reader = Reader(text);
    let year = reader.digits(4)?;
    let month =
        reader.literal("-").then(|| reader.digits(2)).flatten().filter(|month| (1..=12).contains(month))?;
    let day = reader.literal("-").then(|| reader.digits(2)).flatten()?;
    if !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let mut total = days(year, month, day) * 86_400;
    if !reader.0.is_empty() {
        total += time_of_day(&mut reader)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "the language has doubles only")]
    reader.0.is_empty().then_some(total as f64)
}

fn time_of_day(reader: &mut Reader<'_>) -> Option<i64> {
    let with_zone = if reader.literal("T") {
        true
    } else if reader.literal(" ") {
        false
    } else {
        return None;
    };
    let mut total = reader.two(24)? * 3600;
    let mut complete = false;
    if reader.literal(":") {
        total += reader.two(60)? * 60;
        if reader.literal(":") {
            total += reader.two(60)?;
            complete = true;
            if reader.literal(".") || reader.literal(",") {
                let rest = reader.0.trim_start_matches(|digit: char| digit.is_ascii_digit());
                (rest.len() < reader.0.len()).then_some(())?;
                reader.0 = rest;
            }
        }
    } else if !with_zone {
        return None;
    }
    if with_zone || (complete && !reader.0.is_empty()) {
        total -= reader.zone()?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates_are_seconds_and_other_texts_are_not() {
        for (text, expected) in [
            ("1970-01-01", Some(0.0)),
            ("2024-01-02", Some(1_704_153_600.0)),
            ("2000-02-29", Some(951_782_400.0)),
            ("1970-01-01 00:01", Some(60.0)),
            ("1970-01-01T01:00:00+01:00", Some(0.0)),
            ("1970-01-01T00:00:01.5Z", Some(1.0)),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-1-2", None),
            ("2024-01-02x", None),
            ("1970-01-01T00:00:01", None),
            ("é", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
