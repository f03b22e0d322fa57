//! Log time from the leader's clocks.

use argosy_model::LogTime;

/// A member's clocks at one instant, passed in with every input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME in milliseconds: advances while the machine sleeps, never jumps.
    pub steady_ms: u64,
    /// Wall clock, milliseconds since 1970: may jump.
    pub wall_ms: i64,
}

/// Log time within one term: starts at the wall clock, within bounds, and then advances with the steady clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogClock {
    base: LogTime,
    base_steady_ms: u64,
    /// The first stamp was held back by this much: the wall clock claims to be far ahead of the log.
    pub held_back_ms: i64,
}

impl LogClock {
    /// Begins a term. `last` is the newest time in the log; the first stamp is at most `jump_max_ms` after it, except
    /// in an empty log.
    pub fn begin(last: LogTime, now: Now, jump_max_ms: i64) -> Self {
        let wanted = now.wall_ms.max(last.0);
        let bound = if last.0 == 0 { wanted } else { last.0.saturating_add(jump_max_ms) };
        let base = wanted.min(bound);
        Self { base: LogTime(base), base_steady_ms: now.steady_ms, held_back_ms: wanted - base }
    }

    /// Log time now.
    pub fn at(&self, now: Now) -> LogTime {
        let since = now.steady_ms.saturating_sub(self.base_steady_ms);
        self.base.plus_ms(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_never_goes_back_when_the_wall_clock_does() {
        let clock = LogClock::begin(LogTime(5_000), Now { steady_ms: 10, wall_ms: 1_000 }, 1_000);
        assert_eq!(clock.at(Now { steady_ms: 10, wall_ms: 0 }), LogTime(5_000));
        assert_eq!(clock.at(Now { steady_ms: 25, wall_ms: -9 }), LogTime(5_015));
    }

    #[test]
    fn a_wall_clock_far_ahead_is_held_back() {
        let clock = LogClock::begin(LogTime(5_000), Now { steady_ms: 0, wall_ms: 1_000_000 }, 1_000);
        assert_eq!(clock.at(Now { steady_ms: 0, wall_ms: 0 }), LogTime(6_000));
        assert_eq!(clock.held_back_ms, 994_000);
    }

    #[test]
    fn an_empty_log_takes_the_wall_clock() {
        let clock = LogClock::begin(LogTime(0), Now { steady_ms: 0, wall_ms: 1_000_000 }, 1_000);
        assert_eq!(clock.at(Now { steady_ms: 0, wall_ms: 0 }), LogTime(1_000_000));
    }
}
