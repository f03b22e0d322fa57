//! Figures and how they are printed.

use std::time::Duration;

/// Latencies of many operations, and the rate of the whole.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    latencies: Vec<Duration>,
    span: Duration,
}

impl Measured {
    /// From the latencies of all operations that ended within `span`.
    pub fn new(mut latencies: Vec<Duration>, span: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, span }
    }

    /// Operations.
    pub fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Operations per second.
    pub fn per_second(&self) -> f64 {
        self.count() as f64 / self.span.as_secs_f64().max(1e-9)
    }

    /// The latency that so many of a thousand do not exceed, milliseconds.
    pub fn per_mille_ms(&self, per_mille: usize) -> f64 {
        let place = (self.count() * per_mille / 1_000).min(self.count().saturating_sub(1));
        self.latencies.get(place).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1_000.0)
    }

    /// Cells of a table: rate, p50, p99.
    pub fn cells(&self) -> [String; 3] {
        [
            thousands(self.per_second()),
            format!("{:.1} ms", self.per_mille_ms(500)),
            format!("{:.1} ms", self.per_mille_ms(990)),
        ]
    }
}

/// A number with commas between thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints a Markdown table.
pub fn print_table(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<wide$}", wide = width(column)))
            .collect();
        format!("| {} |", padded.join(" | "))
    };
    println!("\n{title}\n\n{}", line(head.to_vec()));
    let rules: Vec<String> = (0..head.len()).map(|column| "-".repeat(width(column))).collect();
    println!("{}", line(rules.iter().map(String::as_str).collect()));
    for row in rows {
        println!("{}", line(row.iter().map(String::as_str).collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rates() {
        let measured =
            Measured::new((1..=1_000).map(Duration::from_millis).collect(), Duration::from_secs(2));
        assert_eq!((measured.per_mille_ms(500), measured.per_mille_ms(990)), (501.0, 991.0));
        assert_eq!(thousands(measured.per_second()), "500");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert!(Measured::default().per_mille_ms(500).is_nan());
    }
}
