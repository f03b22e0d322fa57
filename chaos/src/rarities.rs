//! Faults that are drawn apart from the others, so that those of a seed are what they were without.

use crate::Circumstances;
use crate::fault::{Fault, Way};
use crate::nemesis::{Intensity, Targets};
use crate::random::Random;

/// Mean time between two of them.
const EVERY_MS: u64 = 10_000;
/// How long the member that should lead hears nothing of its leader, in half of the cases.
const DEAF_MAX_MS: u64 = 4_000;

/// Processes that are started a second time, and leaders that are told to hand over, some to a member that does not hear it.
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
    // Not where nothing but the control plane's absence is judged.
    if intensity.lose_cluster == 0 {
        return faults;
    }
    loop {
        at_ms += random.between(1, 2 * EVERY_MS);
        let deaf_ms = if random.per_mille(500) { random.between(500, DEAF_MAX_MS) } else { 0 };
        if at_ms + deaf_ms + 1_000 >= until_ms {
            return faults;
        }
        let fault = if random.per_mille(500) {
            Fault::StartAgain { cluster: random.position(targets.clusters) }
        } else {
            Fault::HandOver { to: random.between(1, targets.members), deaf_ms }
        };
        faults.push((at_ms, fault));
    }
}

/// Mean time between two of those in pods.
const IN_PODS_EVERY_MS: u64 = 4_000;
/// A pause that is hardly noticed.
const PAUSE_MIN_MS: u64 = 500;
/// Longer than a replica's Lease, a cluster's lease and most exclusive ones.
const PAUSE_MAX_MS: u64 = 45_000;

/// What happens to processes in pods: replicas of agents that stand still or are killed, executors that are killed.
#[must_use]
pub fn in_pods(
    random: &mut Random,
    (pauses, kills): (bool, bool),
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    if !pauses && !kills {
        return faults;
    }
    let mut at_ms = from_ms;
    loop {
        at_ms += random.between(1, 2 * IN_PODS_EVERY_MS);
        let cluster = random.position(targets.clusters);
        let left_ms = until_ms.saturating_sub(at_ms + 1_000);
        if left_ms < PAUSE_MIN_MS {
            return faults;
        }
        let for_ms = random.between(PAUSE_MIN_MS, PAUSE_MAX_MS.min(left_ms));
        let fault = match random.below(4) {
            0 | 1 if kills => Fault::KillExecutor { cluster },
            2 if pauses => Fault::CrashAgent { cluster, down_ms: for_ms / 3 },
            _ if pauses => Fault::PauseReplica { cluster, for_ms },
            _ => continue,
        };
        faults.push((at_ms, fault));
    }
}

/// How often, in runs that ask for more of it: processes that are started again, leaders that hand over, members that lag.
const START_AGAIN_EVERY_MS: u64 = 2_000;
const HAND_OVER_EVERY_MS: u64 = 5_000;
const LAG_EVERY_MS: u64 = 12_000;
/// How long a member is down that will lag.
const LAG_MS: u64 = 8_000;

/// How often hosts are lost, and how soon after it the agent connects anew.
const UNSEEN_EVERY_MS: u64 = 6_000;
const ANEW_AFTER_MS: u64 = 500;
/// How often clusters are cut off, and for how long: what is safe to repeat is taken over by then, and its end is still to be told.
const CUT_EVERY_MS: u64 = 14_000;
const CUT_MS: u64 = 24_000;

/// Its disk takes less than so many synced writes then.
const WRITES_BEFORE_FAILURE_MAX: u64 = 7;

/// What a run with a planted bug has more of.
#[must_use]
pub fn more(
    circumstances: Circumstances,
    targets: Targets,
    from_ms: u64,
    until_ms: u64,
) -> Vec<(u64, Fault)> {
    let every = |span_ms: u64, ends_ms: u64| {
        (from_ms..until_ms.saturating_sub(ends_ms + 1_000)).step_by(span_ms as usize).zip(0_u64..)
    };
    let member = |count: u64| 1 + count % targets.members;
    let mut faults = Vec::new();
    if circumstances.starts_again {
        let again = |cluster| Fault::StartAgain { cluster };
        let all = |at_ms| (0..targets.clusters).map(move |cluster| (at_ms, again(cluster)));
        faults.extend(every(START_AGAIN_EVERY_MS, 0).flat_map(|(at_ms, _)| all(at_ms)));
    }
    if circumstances.hands_over {
        let over = |count| Fault::HandOver { to: member(count), deaf_ms: DEAF_MAX_MS / 2 };
        faults.extend(every(HAND_OVER_EVERY_MS, DEAF_MAX_MS).map(|(at_ms, count)| (at_ms, over(count))));
    }
    if circumstances.lags {
        let down =
            |count| Fault::CrashMember { member: member(count), down_ms: LAG_MS, while_sending: false };
        // Its disk fails soon after it is back: some of the time between two writes of what it is catching up with.
        let fails = |count| Fault::DiskFails {
            member: member(count),
            after_writes: count % WRITES_BEFORE_FAILURE_MAX,
            how: argosy_store::Fault::FullAfterSyncs,
        };
        for (at_ms, count) in every(LAG_EVERY_MS, LAG_MS) {
            faults.extend([(at_ms, down(count)), (at_ms + LAG_MS / 2, fails(count))]);
        }
    }
    let cluster = |count: u64| (count % targets.clusters as u64) as usize;
    if circumstances.unseen {
        for (at_ms, count) in every(UNSEEN_EVERY_MS, ANEW_AFTER_MS) {
            let cluster = cluster(count);
            faults.push((at_ms, Fault::LoseHosts { cluster }));
            faults.push((at_ms + ANEW_AFTER_MS, Fault::ResetAgent { cluster }));
        }
    }
    if circumstances.cuts {
        let cut = |count| Fault::CutCluster { cluster: cluster(count), way: Way::Both, for_ms: CUT_MS };
        faults.extend(every(CUT_EVERY_MS, CUT_MS).map(|(at_ms, count)| (at_ms, cut(count))));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_come_and_have_ended_when_the_quiet_begins() {
        let targets = Targets { members: 3, clusters: 2 };
        let faults = schedule(&mut Random::new(1), &Intensity::usual(), targets, 4_000, 600_000);
        assert!(faults.iter().any(|(_, fault)| matches!(fault, Fault::StartAgain { .. })));
        assert!(faults.iter().any(|(_, fault)| matches!(fault, Fault::HandOver { deaf_ms: 1.., .. })));
        assert!(faults.iter().all(|(at_ms, fault)| at_ms + fault.span_ms() < 600_000));
        assert!(schedule(&mut Random::new(1), &Intensity::blackouts(), targets, 4_000, 600_000).is_empty());
    }
}
