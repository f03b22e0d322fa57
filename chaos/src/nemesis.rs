use argosy_store::Fault as DiskFault;

use crate::fault::{Fault, Way};
use crate::random::Random;

/// Lost clusters whose agent loses its ledger too, in a thousand.
pub const LEDGER_LOST_PER_MILLE: u64 = 350;
/// Largest drift of a steady clock either way; the lease's margin is made for more.
pub const DRIFT_MAX_PPM: i64 = 10_000;
/// Largest offset of a member's wall clock: beyond it a member may not lead.
pub const MEMBER_WALL_OFFSET_MAX_MS: i64 = 200;
/// Largest offset of a cluster's wall clock.
pub const CLUSTER_WALL_OFFSET_MAX_MS: i64 = 24 * 3600 * 1000;

/// Mean time between two faults inside of clusters.
const INSIDE_EVERY_MS: u64 = 12_000;
/// Longest time that a cluster is lost or cut off.
const CLUSTER_SPAN_MAX_MS: u64 = 80_000;

/// How much of each kind of fault there is. Weights are relative to each other; 0 means never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Mean time between two faults; 0 means none at all.
    pub gap_mean_ms: u64,
    /// Longest span of a fault.
    pub span_max_ms: u64,
    /// Members crash.
    pub crash_member: u64,
    /// All members crash.
    pub blackout: u64,
    /// Disks fail or are slow.
    pub disk: u64,
    /// Members are cut off from each other.
    pub peers: u64,
    /// Clusters are cut off.
    pub cut_cluster: u64,
    /// Agents crash, connections break.
    pub agent: u64,
    /// Clusters are lost with their pods.
    pub lose_cluster: u64,
    /// Pods stand still.
    pub freeze: u64,
    /// The whole network is bad.
    pub network: u64,
    /// Clocks drift and jump.
    pub clocks: u64,
}

impl Intensity {
    /// No faults.
    #[must_use]
    pub fn none() -> Self {
        Self {
            gap_mean_ms: 0,
            span_max_ms: 0,
            crash_member: 0,
            blackout: 0,
            disk: 0,
            peers: 0,
            cut_cluster: 0,
            agent: 0,
            lose_cluster: 0,
            freeze: 0,
            network: 0,
            clocks: 0,
        }
    }

    /// A bit of everything.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            gap_mean_ms: 4_000,
            span_max_ms: 30_000,
            crash_member: 4,
            blackout: 1,
            disk: 3,
            peers: 4,
            cut_cluster: 4,
            agent: 4,
            lose_cluster: 2,
            freeze: 2,
            network: 2,
            clocks: 2,
        }
    }

    /// Faults on top of each other.
    #[must_use]
    pub fn fierce() -> Self {
        Self { gap_mean_ms: 1_200, span_max_ms: 15_000, ..Self::usual() }
    }

    /// Clusters are cut off and lost, with the control plane in order.
    #[must_use]
    pub fn losses() -> Self {
        Self {
            gap_mean_ms: 6_000,
            span_max_ms: 60_000,
            cut_cluster: 5,
            lose_cluster: 3,
            agent: 1,
            ..Self::none()
        }
    }

    /// Only the control plane goes away, with every other part in order: nothing may expire.
    #[must_use]
    pub fn blackouts() -> Self {
        Self { gap_mean_ms: 25_000, span_max_ms: 60_000, blackout: 3, crash_member: 1, ..Self::none() }
    }
}

/// What the faults may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Members, numbered from 1.
    pub members: u64,
    /// Clusters, numbered from 0.
    pub clusters: usize,
}

/// The faults of a run: each with its time, in order; every one has ended by `until_ms`.
#[must_use]
pub fn schedule(
    random: &mut Random,
    intensity: &Intensity,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let mut at_ms = from_ms;
    if intensity.gap_mean_ms == 0 {
        return faults;
    }
    loop {
        at_ms += random.between(1, 2 * intensity.gap_mean_ms);
        if at_ms + 1_000 >= until_ms {
            return faults;
        }
        let left_ms = until_ms - at_ms - 500;
        // Many short ones and a few long ones.
        let span_max_ms =
            if random.per_mille(600) { intensity.span_max_ms.min(4_000) } else { intensity.span_max_ms };
        let for_ms = random.between(200, span_max_ms.min(left_ms).max(200));
        if let Some(mut fault) = draw(random, intensity, targets, for_ms) {
            if let Some(span_ms) = fault.cluster_span_ms()
                && random.per_mille(500)
            {
                // Long enough for everything to be taken over.
                *span_ms = random.between(200, CLUSTER_SPAN_MAX_MS.min(left_ms).max(200));
            }
            faults.push((at_ms, fault));
        }
    }
}

/// The longest cut that is wanted in every federation: longer than lease, margin and most exclusive leases.
const LONG_CUT_MAX_MS: u64 = 70_000;
/// It begins at most so long after the other faults may.
const LONG_CUT_WITHIN_MS: u64 = 15_000;

/// One cluster is cut off for long, when it has work: what all of this is about.
#[must_use]
pub fn long_cut(
    random: &mut Random,
    intensity: &Intensity,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Option<(u64, Fault)> {
    let at_ms = from_ms + random.between(LONG_CUT_WITHIN_MS / 3, LONG_CUT_WITHIN_MS);
    let cluster = random.position(targets.clusters);
    let for_ms = LONG_CUT_MAX_MS.min(until_ms.saturating_sub(at_ms + 500));
    let comes = intensity.lose_cluster > 0 && for_ms > 0;
    comes.then_some((at_ms, Fault::CutCluster { cluster, way: Way::Both, for_ms }))
}

/// Shorter cuts take nothing over.
const HELD_CUT_MIN_MS: u64 = 15_000;

/// Pods that start late because of a cut that is to come.
#[must_use]
pub fn held_starts(faults: &[(u64, Fault)], before_ms: u64) -> Vec<(u64, Fault)> {
    let mut held = Vec::new();
    for (at_ms, fault) in faults {
        let (clusters, for_ms) = if let Fault::CutCluster { cluster, for_ms, .. } = fault {
            (*cluster..*cluster + 1, *for_ms)
        } else if let Fault::CutFleet { clusters, for_ms } = fault {
            (0..*clusters, *for_ms)
        } else {
            continue;
        };
        if for_ms >= HELD_CUT_MIN_MS {
            let begins_ms = at_ms.saturating_sub(before_ms);
            let for_ms = for_ms + at_ms - begins_ms;
            held.extend(clusters.map(|cluster| (begins_ms, Fault::HoldStarts { cluster, for_ms })));
        }
    }
    held
}

/// Of so many federations in a thousand the last cluster is lost for good.
const GONE_PER_MILLE: u64 = 350;

/// The last cluster's end, if it is to come. The first one stays: it runs every kind of step.
#[must_use]
pub fn end_of_a_cluster(
    random: &mut Random,
    intensity: &Intensity,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Option<(u64, Fault)> {
    let comes = random.per_mille(GONE_PER_MILLE) && intensity.lose_cluster > 0 && targets.clusters > 1;
    comes.then(|| {
        (random.between(from_ms, until_ms / 2), Fault::LoseForGood { cluster: targets.clusters - 1 })
    })
}

/// Lost hosts and agents, clusters that can't make pods, a leader that stutters: drawn apart from the other faults, so that those of a seed are
/// what they were without.
#[must_use]
pub fn inside_clusters(
    random: &mut Random,
    intensity: &Intensity,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    if intensity.lose_cluster == 0 {
        return faults;
    }
    let mut at_ms = from_ms;
    loop {
        at_ms += random.between(1, 2 * INSIDE_EVERY_MS);
        if at_ms + 1_000 >= until_ms {
            break;
        }
        let cluster = random.position(targets.clusters);
        let left_ms = until_ms - at_ms - 500;
        let for_ms = random.between(200, CLUSTER_SPAN_MAX_MS.min(left_ms).max(200));
        let short_ms = for_ms.min(5_000);
        let fault = match random.below(10) {
            0 => Fault::LoseHosts { cluster },
            1 => Fault::Sicken { cluster, for_ms },
            2 => Fault::LoseAgent { cluster, down_ms: short_ms, ledger: true, hosts: false },
            3..=4 => Fault::LoseAgent { cluster, down_ms: short_ms, ledger: false, hosts: true },
            5..=7 => Fault::LoseAgent { cluster, down_ms: short_ms, ledger: true, hosts: true },
            _ => Fault::Strand { cluster, for_ms },
        };
        faults.push((at_ms, fault));
    }
    faults
}

fn draw(random: &mut Random, intensity: &Intensity, targets: Targets, for_ms: u64) -> Option<Fault> {
    type Draw = fn(&mut Random, Targets, u64) -> Fault;
    let kinds: [(u64, Draw); 10] = [
        (intensity.crash_member, |random, targets, down_ms| Fault::CrashMember {
            member: random.between(1, targets.members),
            down_ms,
            while_sending: random.per_mille(500),
        }),
        (intensity.blackout, |_, _, down_ms| Fault::Blackout { down_ms }),
        (intensity.disk, disk),
        (intensity.peers, peers),
        (intensity.cut_cluster, cut_cluster),
        (intensity.agent, |random, targets, down_ms| {
            let cluster = random.position(targets.clusters);
            if random.per_mille(500) {
                Fault::ResetAgent { cluster }
            } else {
                Fault::CrashAgent { cluster, down_ms }
            }
        }),
        (intensity.lose_cluster, |random, targets, down_ms| Fault::LoseCluster {
            cluster: random.position(targets.clusters),
            down_ms,
            with_ledger: random.per_mille(LEDGER_LOST_PER_MILLE),
        }),
        (intensity.freeze, |random, targets, for_ms| Fault::FreezeCluster {
            cluster: random.position(targets.clusters),
            for_ms,
        }),
        (intensity.network, |random, _, for_ms| Fault::BadNetwork {
            loss_per_mille: random.between(5, 200),
            spike_per_mille: random.between(10, 200),
            spike_max_ms: random.between(100, 3_000),
            for_ms,
        }),
        (intensity.clocks, clocks),
    ];
    let mut rest = random.below(kinds.iter().map(|(weight, _)| weight).sum());
    for (weight, kind) in kinds {
        if rest < weight {
            return Some(kind(random, targets, for_ms));
        }
        rest -= weight;
    }
    None
}

fn way(random: &mut Random) -> Way {
    match random.below(3) {
        0 => Way::In,
        1 => Way::Out,
        _ => Way::Both,
    }
}

fn disk(random: &mut Random, targets: Targets, for_ms: u64) -> Fault {
    let member = random.between(1, targets.members);
    if random.per_mille(400) {
        let after_writes = random.below(40);
        let how = if random.per_mille(500) { DiskFault::WrittenThenFailed } else { DiskFault::DiskFull };
        Fault::DiskFails { member, after_writes, how }
    } else {
        Fault::SlowDisk { member, sync_ms: random.between(20, 600), for_ms }
    }
}

fn peers(random: &mut Random, targets: Targets, for_ms: u64) -> Fault {
    let from = random.between(1, targets.members);
    let to = 1 + (from + random.below(targets.members.saturating_sub(1).max(1))) % targets.members;
    match random.below(5) {
        0 => Fault::ResetPeers { from, to },
        1 | 2 => Fault::CutPeers { from, to, way: way(random), for_ms },
        _ => Fault::IsolateMember { member: from, way: way(random), for_ms },
    }
}

fn cut_cluster(random: &mut Random, targets: Targets, for_ms: u64) -> Fault {
    let cluster = random.position(targets.clusters);
    match random.below(6) {
        0 => Fault::CutFleet { clusters: random.between(1, targets.clusters as u64) as usize, for_ms },
        1 | 2 => Fault::CutClusterFromMember {
            cluster,
            member: random.between(1, targets.members),
            way: way(random),
            for_ms,
        },
        _ => Fault::CutCluster { cluster, way: way(random), for_ms },
    }
}

fn clocks(random: &mut Random, targets: Targets, _for_ms: u64) -> Fault {
    let member = random.between(1, targets.members);
    let cluster = random.position(targets.clusters);
    match random.below(4) {
        0 => Fault::DriftMember { member, drift_ppm: random.around_zero(DRIFT_MAX_PPM) },
        1 => Fault::DriftCluster { cluster, drift_ppm: random.around_zero(DRIFT_MAX_PPM) },
        2 => Fault::MemberWallJump { member, offset_ms: random.around_zero(MEMBER_WALL_OFFSET_MAX_MS) },
        _ => Fault::ClusterWallJump { cluster, offset_ms: random.around_zero(CLUSTER_WALL_OFFSET_MAX_MS) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets { members: 3, clusters: 4 };

    #[test]
    fn every_fault_has_ended_when_the_quiet_begins() {
        for seed in 0..200 {
            let faults = schedule(&mut Random::new(seed), &Intensity::fierce(), TARGETS, 1_000, 90_000);
            assert!(!faults.is_empty());
            assert!(faults.is_sorted_by_key(|(at_ms, _)| *at_ms));
            for (at_ms, fault) in faults {
                assert!(at_ms >= 1_000 && at_ms + fault.span_ms() <= 90_000, "{fault:?} at {at_ms}");
            }
        }
    }

    #[test]
    fn faults_name_what_exists_and_two_different_peers() {
        for (_, fault) in schedule(&mut Random::new(5), &Intensity::fierce(), TARGETS, 0, 3_000_000) {
            if let Fault::CutPeers { from, to, .. } | Fault::ResetPeers { from, to } = fault {
                assert!(from != to && (1..=3).contains(&from) && (1..=3).contains(&to));
            }
        }
    }

    #[test]
    fn no_faults_when_none_are_wanted() {
        assert!(schedule(&mut Random::new(5), &Intensity::none(), TARGETS, 0, 3_000_000).is_empty());
    }

    #[test]
    fn blackouts_touch_members_only() {
        for (_, fault) in schedule(&mut Random::new(5), &Intensity::blackouts(), TARGETS, 0, 3_000_000) {
            assert!(matches!(fault, Fault::Blackout { .. } | Fault::CrashMember { .. }), "{fault:?}");
        }
    }
}
