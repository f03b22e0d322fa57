//! Metrics that workflows ask for, named `argo_workflows_NAME` as Argo names them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Series of all of them together; readings of others are left out.
pub const SERIES_MAX: usize = 10_000;
/// Argo's prefix.
const PREFIX: &str = "argo_workflows_";
/// Upper bounds of a histogram that names none.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What happens to a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A counter goes up.
    Count(f64),
    /// A gauge is set.
    Set(f64),
    /// A gauge goes up, or down.
    Add(f64),
    /// A histogram sees a value; the upper bounds of its buckets.
    Observe(f64, Vec<f64>),
}

/// Why a reading was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// The name is known with another kind or meaning.
    Conflict,
    /// There are as many series as there may be.
    TooMany,
}

#[derive(Debug)]
struct Family {
    kind: &'static str,
    help: String,
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Default)]
struct Series {
    value: f64,
    count: u64,
    /// Upper bounds and how many values were not above.
    buckets: Vec<(f64, u64)>,
}

/// All of them; clones count into the same place.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

impl Custom {
    /// Takes a reading.
    ///
    /// # Errors
    /// It was left out.
    pub fn take(
        &self,
        name: &str,
        help: &str,
        labels: &[(String, String)],
        reading: &Reading,
    ) -> Result<(), LeftOut> {
        let kind = match reading {
            Reading::Count(_) => "counter",
            Reading::Set(_) | Reading::Add(_) => "gauge",
            Reading::Observe(..) => "histogram",
        };
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = families.values().map(|family| family.series.len()).sum();
        let labels = shown(labels);
        let known = families.get(name);
        if known.is_some_and(|family| family.kind != kind || family.help != help) {
            return Err(LeftOut::Conflict);
        }
        if total >= SERIES_MAX && !known.is_some_and(|family| family.series.contains_key(&labels)) {
            return Err(LeftOut::TooMany);
        }
        let fresh = || Family { kind, help: help.to_owned(), series: BTreeMap::new() };
        let family = families.entry(name.to_owned()).or_insert_with(fresh);
        family.series.entry(labels).or_default().take(reading);
        Ok(())
    }

    /// The Prometheus text format of them all.
    #[must_use]
    pub fn render(&self) -> String {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (name, family) in families.iter() {
            let (kind, help) = (family.kind, family.help.replace('\\', "\\\\").replace('\n', "\\n"));
            let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
            for (labels, series) in &family.series {
                series.render(&format!("{PREFIX}{name}"), labels, kind, &mut text);
            }
        }
        text
    }
}

impl Series {
    fn take(&mut self, reading: &Reading) {
        match reading {
            Reading::Count(by) | Reading::Add(by) => self.value += by,
            Reading::Set(value) => self.value = *value,
            Reading::Observe(value, bounds) => {
                if self.buckets.is_empty() {
                    let bounds = if bounds.is_empty() { BUCKETS.as_slice() } else { bounds.as_slice() };
                    self.buckets = bounds.iter().map(|bound| (*bound, 0)).collect();
                    self.buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
                }
                self.value += value;
                self.count += 1;
                self.buckets
                    .iter_mut()
                    .filter(|(bound, _)| value <= bound)
                    .for_each(|(_, count)| *count += 1);
            }
        }
    }

    fn render(&self, name: &str, labels: &str, kind: &str, text: &mut String) {
        let braces = |inner: &str| if inner.is_empty() { String::new() } else { format!("{{{inner}}}") };
        if kind != "histogram" {
            let _ = writeln!(text, "{name}{} {}", braces(labels), self.value);
            return;
        }
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &self.buckets {
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let (labels_shown, count) = (braces(labels), self.count);
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{labels_shown} {}\n{name}_count{labels_shown} {count}", self.value);
    }
}

fn shown(labels: &[(String, String)]) -> String {
    let name = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
    };
    let value = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut pairs: Vec<String> =
        labels.iter().map(|(key, text)| format!("{}=\"{}\"", name(key), value(text))).collect();
    pairs.sort();
    pairs.dedup();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_come_out_in_prometheus_format() {
        let custom = Custom::default();
        let labels = [("name".to_owned(), "a\"b".to_owned())];
        custom.take("runs", "how often", &labels, &Reading::Count(1.0)).unwrap();
        custom.take("runs", "how often", &labels, &Reading::Count(2.0)).unwrap();
        custom.take("level", "now", &[], &Reading::Set(3.5)).unwrap();
        custom.take("level", "now", &[], &Reading::Add(-1.0)).unwrap();
        custom.take("spread", "h", &[], &Reading::Observe(3.0, vec![5.0, 2.0])).unwrap();
        let text = custom.render();
        for line in [
            "argo_workflows_runs{name=\"a\\\"b\"} 3",
            "argo_workflows_level 2.5",
            "argo_workflows_spread_bucket{le=\"2\"} 0",
            "argo_workflows_spread_bucket{le=\"5\"} 1",
            "argo_workflows_spread_bucket{le=\"+Inf\"} 1",
            "argo_workflows_spread_sum 3",
            "# TYPE argo_workflows_spread histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(custom.take("runs", "else", &[], &Reading::Count(1.0)), Err(LeftOut::Conflict));
    }

    #[test]
    fn series_are_bounded() {
        let custom = Custom::default();
        for number in 0..=SERIES_MAX {
            let labels = [("n".to_owned(), number.to_string())];
            let taken = custom.take("many", "h", &labels, &Reading::Count(1.0));
            assert_eq!(taken.is_ok(), number < SERIES_MAX);
        }
    }
}
