use std::collections::BTreeMap;

use crate::random::Random;

/// A place in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A control-plane member.
    Member(u64),
    /// A cluster: its agent. Pods and agent of one cluster always reach each other.
    Cluster(usize),
    /// A user.
    User(usize),
}

/// How well a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// Least latency of a frame.
    pub latency_min_ms: u64,
    /// Greatest latency without a spike.
    pub latency_max_ms: u64,
    /// Frames lost in a thousand, where the transport allows loss.
    pub loss_per_mille: u64,
    /// Frames delayed by a spike in a thousand.
    pub spike_per_mille: u64,
    /// Longest spike.
    pub spike_max_ms: u64,
}

impl Quality {
    /// A healthy network between sites.
    #[must_use]
    pub fn healthy() -> Self {
        Self {
            latency_min_ms: 1,
            latency_max_ms: 12,
            loss_per_mille: 0,
            spike_per_mille: 2,
            spike_max_ms: 60,
        }
    }
}

/// One direction of one connection. Frames of a lane arrive in the order they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// The stream of frames from one member to another.
    Peer {
        /// Sender.
        from: u64,
        /// Receiver.
        to: u64,
    },
    /// An agent's connection, towards the member.
    Up(u64),
    /// An agent's connection, towards the agent.
    Down(u64),
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// It arrives then, if the lane is still of that generation.
    Arrives {
        /// Virtual time.
        at_ms: u64,
        /// Of the lane.
        generation: u64,
    },
    /// It is lost; the sender may notice.
    Lost,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneState {
    last_arrival_ms: u64,
    generation: u64,
    /// What was sent before it does not arrive.
    least: u64,
}

/// Links with latency, loss, spikes, cuts in one or both directions, and lanes that keep order until they are reset.
#[derive(Debug)]
pub struct Network {
    random: Random,
    quality: Quality,
    cuts: BTreeMap<(End, End), u32>,
    lanes: BTreeMap<Lane, LaneState>,
}

/// Frames in flight that still arrive after their connection was reset, in a thousand: bytes that the receiver had.
const IN_FLIGHT_SURVIVES_PER_MILLE: u64 = 300;

impl Network {
    /// A healthy network.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self { random, quality: Quality::healthy(), cuts: BTreeMap::new(), lanes: BTreeMap::new() }
    }

    /// Replaces the quality of every link.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// Cuts one direction. Cuts are counted: each needs its own mend.
    pub fn cut(&mut self, from: End, to: End) {
        *self.cuts.entry((from, to)).or_insert(0) += 1;
    }

    /// Takes one cut of a direction back.
    pub fn mend(&mut self, from: End, to: End) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// Whether frames get from one end to the other.
    #[must_use]
    pub fn carries(&self, from: End, to: End) -> bool {
        !self.cuts.contains_key(&(from, to))
    }

    /// Whether any cut remains.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cuts.is_empty()
    }

    fn latency_ms(&mut self) -> u64 {
        let quality = self.quality;
        let mut latency_ms = self.random.between(quality.latency_min_ms, quality.latency_max_ms);
        if self.random.per_mille(quality.spike_per_mille) {
            latency_ms += self.random.between(1, quality.spike_max_ms);
        }
        latency_ms
    }

    /// Sends a frame that belongs to no lane (a request of its own connection, or its answer).
    pub fn send_alone(&mut self, now_ms: u64, from: End, to: End) -> Option<u64> {
        let latency_ms = self.latency_ms();
        let lost = self.random.per_mille(self.quality.loss_per_mille);
        (self.carries(from, to) && !lost).then_some(now_ms + latency_ms)
    }

    /// Sends a frame of a lane that may lose single frames.
    pub fn send_lossy(&mut self, now_ms: u64, lane: Lane, from: End, to: End) -> Carried {
        if self.random.per_mille(self.quality.loss_per_mille) {
            return Carried::Lost;
        }
        self.send_whole(now_ms, lane, from, to)
    }

    /// Sends a frame of a lane that breaks as a whole: lost means that the connection is broken.
    pub fn send_whole(&mut self, now_ms: u64, lane: Lane, from: End, to: End) -> Carried {
        let latency_ms = self.latency_ms();
        if !self.carries(from, to) {
            return Carried::Lost;
        }
        let state = self.lanes.entry(lane).or_default();
        state.last_arrival_ms = state.last_arrival_ms.max(now_ms + latency_ms);
        Carried::Arrives { at_ms: state.last_arrival_ms, generation: state.generation }
    }

    /// The lane's connection ends and another begins: what is in flight may be lost, or arrive behind what is sent now.
    pub fn reset(&mut self, lane: Lane) {
        let state = self.lanes.entry(lane).or_default();
        state.generation += 1;
        state.last_arrival_ms = 0;
    }

    /// Whether a frame that was sent in that generation arrives now.
    pub fn arrives(&mut self, lane: Lane, generation: u64) -> bool {
        let state = self.lanes.get(&lane).copied().unwrap_or_default();
        if generation < state.least {
            return false;
        }
        state.generation == generation || self.random.per_mille(IN_FLIGHT_SURVIVES_PER_MILLE)
    }

    /// All members are replaced: nothing that was on its way between them arrives.
    pub fn forget_peers(&mut self) {
        let between = |lane: &Lane| matches!(lane, Lane::Peer { .. });
        for (_, state) in self.lanes.iter_mut().filter(|(lane, _)| between(lane)) {
            *state = LaneState {
                generation: state.generation + 1,
                least: state.generation + 1,
                last_arrival_ms: 0,
            };
        }
    }

    /// The lane will not be used again.
    pub fn forget(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
    }

    /// A wait drawn from the network's own randomness, for time-outs of connections.
    pub fn draw_ms(&mut self, least_ms: u64, most_ms: u64) -> u64 {
        self.random.between(least_ms, most_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane::Peer { from: 1, to: 2 };
    const A: End = End::Member(1);
    const B: End = End::Member(2);

    fn arrival(carried: Carried) -> u64 {
        match carried {
            Carried::Arrives { at_ms, .. } => at_ms,
            Carried::Lost => panic!("lost"),
        }
    }

    #[test]
    fn a_lane_keeps_order_whatever_the_spikes() {
        let mut network = Network::new(Random::new(1));
        network.set_quality(Quality { spike_per_mille: 300, spike_max_ms: 900, ..Quality::healthy() });
        let arrivals: Vec<u64> = (0..500).map(|now| arrival(network.send_whole(now, LANE, A, B))).collect();
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn a_cut_has_a_direction_and_is_counted() {
        let mut network = Network::new(Random::new(1));
        network.cut(A, B);
        network.cut(A, B);
        assert_eq!(network.send_whole(0, LANE, A, B), Carried::Lost);
        assert!(network.carries(B, A));
        network.mend(A, B);
        assert!(!network.carries(A, B));
        network.mend(A, B);
        assert!(network.carries(A, B) && network.is_whole());
        network.mend(A, B);
        assert!(network.is_whole());
    }

    #[test]
    fn a_reset_loses_frames_in_flight_and_lets_later_ones_overtake() {
        let mut network = Network::new(Random::new(1));
        let Carried::Arrives { generation, .. } = network.send_whole(0, LANE, A, B) else { panic!("lost") };
        assert!(network.arrives(LANE, generation));
        network.reset(LANE);
        let survived = (0..1_000).filter(|_| network.arrives(LANE, generation)).count();
        assert!((200..400).contains(&survived), "{survived}");
    }

    #[test]
    fn loss_is_where_it_is_allowed() {
        let mut network = Network::new(Random::new(1));
        network.set_quality(Quality { loss_per_mille: 500, ..Quality::healthy() });
        let lost = (0..1_000).filter(|now| network.send_lossy(*now, LANE, A, B) == Carried::Lost).count();
        assert!((400..600).contains(&lost), "{lost}");
        assert!((0..1_000).all(|now| network.send_whole(now, LANE, A, B) != Carried::Lost));
    }
}
