//! Amounts as Kubernetes writes them.

/// Bytes or units of a Kubernetes quantity, rounded up; `None` when it isn't one.
#[must_use]
pub fn quantity(text: &str, scale_milli: bool) -> Option<i64> {
    let text = text.trim();
    let split =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor: f64 = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "u" => 1e-6,
        "n" => 1e-9,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent if exponent.starts_with(['e', 'E']) => 10_f64.powi(exponent[1..].parse().ok()?),
        _ => return None,
    };
    let value = number * factor * if scale_milli { 1000.0 } else { 1.0 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what a huge quantity should do"
    )]
    let whole = (value - 1e-9).ceil() as i64;
    value.is_finite().then_some(whole.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes() {
        for (text, milli, expected) in [
            ("100m", true, Some(100)),
            ("1", true, Some(1000)),
            ("0.5", true, Some(500)),
            ("64Mi", false, Some(67_108_864)),
            ("1G", false, Some(1_000_000_000)),
            ("1e3", false, Some(1000)),
            ("x", false, None),
            ("1Zi", false, None),
            ("", false, None),
        ] {
            assert_eq!(quantity(text, milli), expected, "{text}");
        }
    }
}
