//! Durations: `1h30m`.

use super::NANOSECONDS;

pub use argosy_model::parse_duration;

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
