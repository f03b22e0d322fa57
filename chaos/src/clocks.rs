/// A host's clocks: a steady one that drifts within bounds and never goes back, a wall clock that may jump.
///
/// They belong to the host: a process that is started again finds them where they are.
#[derive(Clone, Debug)]
pub struct HostClock {
    steady_ms: u64,
    since_ms: u64,
    drift_ppm: i64,
    wall_offset_ms: i64,
}

/// Wall time at the beginning of every run, milliseconds since 1970.
pub const WALL_START_MS: i64 = 1_800_000_000_000;

impl HostClock {
    /// A clock that shows `steady_ms` at virtual time 0.
    #[must_use]
    pub fn new(steady_ms: u64, drift_ppm: i64, wall_offset_ms: i64) -> Self {
        Self { steady_ms, since_ms: 0, drift_ppm, wall_offset_ms }
    }

    /// The steady clock at a virtual time, not before the last change of drift.
    #[must_use]
    pub fn steady_ms(&self, at_ms: u64) -> u64 {
        let passed = i128::from(at_ms.saturating_sub(self.since_ms));
        let shown = passed * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        self.steady_ms + u64::try_from(shown).unwrap_or(0)
    }

    /// The wall clock at a virtual time.
    #[must_use]
    pub fn wall_ms(&self, at_ms: u64) -> i64 {
        WALL_START_MS + i64::try_from(at_ms).unwrap_or(i64::MAX) + self.wall_offset_ms
    }

    /// The first virtual time, at or after `at_ms`, when the steady clock shows `steady_ms`, should the drift stay.
    #[must_use]
    pub fn when_steady(&self, at_ms: u64, steady_ms: u64) -> u64 {
        let ahead = i128::from(steady_ms.saturating_sub(self.steady_ms));
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let passed = (ahead * 1_000_000 + rate - 1) / rate;
        (self.since_ms + u64::try_from(passed).unwrap_or(0)).max(at_ms)
    }

    /// From now on the steady clock is fast by so many millionths.
    pub fn set_drift(&mut self, at_ms: u64, drift_ppm: i64) {
        self.steady_ms = self.steady_ms(at_ms);
        self.since_ms = at_ms;
        self.drift_ppm = drift_ppm;
    }

    /// The wall clock is set.
    pub fn set_wall_offset(&mut self, wall_offset_ms: i64) {
        self.wall_offset_ms = wall_offset_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_clock_drifts_and_never_goes_back() {
        let mut clock = HostClock::new(500, 10_000, -40);
        assert_eq!(clock.steady_ms(0), 500);
        assert_eq!(clock.steady_ms(1_000), 1_510);
        let before = clock.steady_ms(1_000);
        clock.set_drift(1_000, -10_000);
        assert_eq!(clock.steady_ms(1_000), before);
        assert_eq!(clock.steady_ms(2_000), before + 990);
        assert_eq!(clock.wall_ms(2_000), WALL_START_MS + 1_960);
    }

    #[test]
    fn a_steady_time_is_found_again() {
        for drift_ppm in [-9_999, 0, 31, 10_000] {
            let clock = HostClock::new(77, drift_ppm, 0);
            for wanted in [78, 1_000, 123_456] {
                let at = clock.when_steady(0, wanted);
                assert!(clock.steady_ms(at) >= wanted && (at == 0 || clock.steady_ms(at - 1) < wanted));
            }
        }
    }
}
