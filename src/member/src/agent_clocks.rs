//! How far agents' clocks are from the leader's: each renewal says what time it is there.

use std::collections::{BTreeMap, VecDeque};

/// Measurements kept for each cluster.
const KEPT: usize = 8;
/// Clusters that are measured.
const CLUSTERS_MAX: usize = 10_000;

/// Leader-only memory.
#[derive(Debug, Default)]
pub(crate) struct AgentClocks(BTreeMap<String, VecDeque<i64>>);

impl AgentClocks {
    /// An agent said that it was `said_ms` there, `now_ms` here; 0 = it does not say.
    pub(crate) fn heard(&mut self, cluster: &str, said_ms: i64, now_ms: i64) {
        if said_ms == 0 || (!self.0.contains_key(cluster) && self.0.len() >= CLUSTERS_MAX) {
            return;
        }
        let kept = self.0.entry(cluster.to_owned()).or_default();
        kept.push_back(said_ms.saturating_sub(now_ms));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// How far it is ahead. The way here takes time, which makes a clock look behind: the message that came fastest is right.
    pub(crate) fn offset_ms(&self, cluster: &str) -> Option<i64> {
        self.0.get(cluster)?.iter().max().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_message_counts_and_old_ones_are_forgotten() {
        let mut clocks = AgentClocks::default();
        assert_eq!(clocks.offset_ms("eu"), None);
        for (said, now) in [(1_000, 1_400), (2_000, 2_010), (0, 9_999), (3_000, 3_800)] {
            clocks.heard("eu", said, now);
        }
        assert_eq!(clocks.offset_ms("eu"), Some(-10));
        // Its clock is set forward by a minute.
        clocks.heard("eu", 70_000, 10_050);
        assert_eq!(clocks.offset_ms("eu"), Some(59_950));
        (0..8).for_each(|_| clocks.heard("eu", 20_000, 20_020));
        assert_eq!(clocks.offset_ms("eu"), Some(-20));
    }
}
