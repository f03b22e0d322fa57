//! How fast Pods are made: as fast as they come, until the cluster's API says "too many requests". Then not at all for as long
//! as it said, and at half the rate afterwards, which rises again while it is content. Pure.

/// Milliseconds of a clock that never goes back.
type Millis = u64;

/// The rate that a first refusal halves, and above which nothing is held back, Pods per second.
const RATE_MAX: f64 = 100.0;
/// The slowest.
const RATE_MIN: f64 = 1.0;
/// By how much the rate rises in a second of successes.
const RISE_PER_SECOND: f64 = 5.0;
/// Longest pause believed.
const PAUSE_MS_MAX: Millis = 60_000;

/// The pace of creations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    paused_until: Millis,
    /// Pods per second; none: as they come.
    rate: Option<f64>,
    /// The next one may be made then.
    next: Millis,
}

impl Pace {
    /// Takes the next place if it is free now; else how long to wait and ask again.
    pub fn take(&mut self, now: Millis) -> Result<(), Millis> {
        let free_at = self.paused_until.max(if self.rate.is_some() { self.next } else { 0 });
        if now < free_at {
            return Err(free_at - now);
        }
        if let Some(rate) = self.rate {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1000")]
            let every = (1_000.0 / rate) as Millis;
            self.next = now + every;
        }
        Ok(())
    }

    /// The API refused one, and said how long to wait.
    pub fn refused(&mut self, now: Millis, wait_ms: Millis) {
        // Several that were under way are refused together: that is one refusal.
        if now >= self.paused_until {
            self.rate = Some((self.rate.unwrap_or(RATE_MAX) / 2.0).max(RATE_MIN));
        }
        self.paused_until = self.paused_until.max(now + wait_ms.clamp(1, PAUSE_MS_MAX));
    }

    /// One was made.
    pub fn made(&mut self) {
        if let Some(rate) = self.rate {
            let rate = rate + RISE_PER_SECOND / rate;
            self.rate = (rate < RATE_MAX).then_some(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_refusal_nothing_waits() {
        let mut pace = Pace::default();
        assert!((0..1_000).all(|_| pace.take(5).is_ok()));
    }

    #[test]
    fn a_refusal_stops_everything_for_as_long_as_it_said_and_halves_the_rate() {
        let mut pace = Pace::default();
        pace.refused(1_000, 3_000);
        pace.refused(1_001, 2_000);
        assert_eq!(pace.take(1_500), Err(2_500));
        assert_eq!(pace.take(4_000), Ok(()));
        assert_eq!(pace.take(4_000), Err(20), "fifty a second");
        assert_eq!(pace.take(4_020), Ok(()));
        pace.refused(5_000, 0);
        assert_eq!(pace.take(5_001), Ok(()));
        assert_eq!(pace.take(5_001), Err(40));
        pace.refused(6_000, u64::MAX);
        assert_eq!(pace.take(6_000), Err(PAUSE_MS_MAX));
    }

    #[test]
    fn the_rate_never_falls_to_nothing_and_rises_until_nothing_is_held_back() {
        let mut pace = Pace::default();
        for at in 1..=20 {
            pace.refused(at * 100_000, 1);
        }
        assert_eq!(pace.take(3_000_000), Ok(()));
        assert_eq!(pace.take(3_000_000), Err(1_000));
        let made = (1..).find(|_| {
            pace.made();
            pace.rate.is_none()
        });
        assert!(made.is_some_and(|made| (500..2_000).contains(&made)), "{made:?}");
        assert!((0..10).all(|_| pace.take(9_000_000).is_ok()));
    }
}
