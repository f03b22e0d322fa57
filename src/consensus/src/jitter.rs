/// A sequence of numbers from a seed (SplitMix64).
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64, member: u64, boots: u64) -> Self {
        // Members and starts with one seed must not draw the same numbers.
        Self(seed ^ member.wrapping_mul(0xd134_2543_de82_ef95) ^ boots.wrapping_mul(0xaf25_1af3_b0f0_25b5))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit.max(1)
    }
}

/// Says how many ticks are due. After a stall the missed ticks are not made up for: an election against a leader whose
/// heartbeats wait unread would begin.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    tick_ms: u64,
    ticks_max: u64,
    last_ms: u64,
}

impl TickClock {
    /// A clock at `now_ms` for a member with this configuration.
    pub fn new(config: &crate::Config, now_ms: u64) -> Self {
        let ticks_max = (config.election_ticks as u64 / 4).max(1);
        Self { tick_ms: config.tick_ms.max(1), ticks_max, last_ms: now_ms }
    }

    /// The number of times to call [`crate::Consensus::tick`] now; at most a quarter of an election timeout.
    pub fn ticks_due(&mut self, now_ms: u64) -> u64 {
        let due = now_ms.saturating_sub(self.last_ms) / self.tick_ms;
        self.last_ms += due * self.tick_ms;
        due.min(self.ticks_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_ticks_are_not_made_up_for() {
        let config = crate::Config::new(1, "cell", vec![1]);
        let mut clock = TickClock::new(&config, 1000);
        assert_eq!(clock.ticks_due(1099), 0);
        assert_eq!(clock.ticks_due(1250), 2);
        assert_eq!(clock.ticks_due(1300), 1);
        assert_eq!(clock.ticks_due(61_300), 2, "a minute's stall");
        assert_eq!(clock.ticks_due(61_300), 0);
        assert_eq!(clock.ticks_due(10), 0, "a clock that goes back");
    }

    #[test]
    fn members_draw_different_numbers() {
        let draw = |member, boots| {
            let mut sequence = Sequence::new(7, member, boots);
            (0..8).map(|_| sequence.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(2, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
    }
}
