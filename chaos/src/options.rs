use argosy_link::Times;

use crate::nemesis::Intensity;
use crate::random::Random;

/// What a run is made of. [`Options::of_seed`] draws it; all that follows is drawn from the same seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of everything.
    pub seed: u64,
    /// Control-plane members.
    pub members: u64,
    /// Clusters.
    pub clusters: usize,
    /// Users.
    pub users: usize,
    /// The kind of faults, in a word.
    pub kind: &'static str,
    /// Faults.
    pub intensity: Intensity,
    /// Until then there are faults and new work, virtual milliseconds.
    pub active_ms: u64,
    /// So long after it everything must have ended.
    pub quiet_max_ms: u64,
    /// Times of the agent link.
    pub times: Times,
    /// Entries of the log that are kept: a few make snapshots frequent.
    pub log_entries_kept: u64,
    /// Work of one decide: a little makes continuations frequent.
    pub decide_work_max: u32,
    /// How long before a cluster is cut off its images begin to come slowly, as when a whole site is in trouble: some of its
    /// pods ask for their start permits when they have been taken over.
    pub held_before_ms: u64,
    /// What is added to what the seed draws.
    pub circumstances: Circumstances,
    /// Somebody's workflows hand artifacts on, in stores of which every cluster has one of its own; true: the control plane
    /// was told so.
    pub handovers: Option<bool>,
    /// A backup is made and restored.
    pub restores: bool,
    /// Every cluster's agent is one of two replicas, by a Lease.
    pub replicas: bool,
    /// Executors are killed.
    pub kills_executors: bool,
    /// Keep every line of the trace.
    pub keep_trace: bool,
    /// Print every line of the trace as it comes.
    pub echo_trace: bool,
    /// Breaks a rule on purpose, to show that a checker sees it.
    pub planted: Option<Planted>,
    /// Breaks a rule of the product on purpose.
    #[cfg(feature = "planted")]
    pub bug: Option<argosy_model::planted::Bug>,
}

/// What a run with a planted bug adds to what its seed draws: what shows that bug is rare otherwise. No rule is weaker for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Exclusive steps run for so long, with a short lease of their own.
    pub exclusive_ms: Option<u64>,
    /// Clusters are removed again and again, whatever they hold.
    pub forgets: bool,
    /// Processes are started a second time again and again.
    pub starts_again: bool,
    /// Leaders are told again and again to hand over to a member that does not hear it, with slow disks at the others.
    pub hands_over: bool,
    /// Members are down for long one after another, and little of the log is kept: they come back to snapshots, with disks
    /// that fail at once.
    pub lags: bool,
    /// Somebody drills, one loss after the other.
    pub drills: bool,
    /// Hosts are lost again and again while their steps run, and the agent connects anew soon after.
    pub unseen: bool,
    /// Clusters are cut off one after another, for longer than any lease and not much longer.
    pub cuts: bool,
}

/// A bug planted in the world, for the tests of the checkers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Members forget synced writes in a crash.
    DiskForgets,
    /// Agents grant permits without a lease: the world changes what reports say of the fence they ran under.
    ForeignResult,
    /// The runtimes never release pods.
    PodsStay,
}

/// How long a cluster that makes no pods keeps what has not started.
const DEGRADED_AFTER_MS: u64 = 8_000;

/// Of so many federations in a thousand, where clusters are touched and no artifacts are handed on, the control plane is lost and
/// restored.
const RESTORES_PER_MILLE: u64 = 250;
/// Of those where clusters are touched, agents are in replicas in so many of a thousand.
const REPLICAS_PER_MILLE: u64 = 200;
/// And executors are killed.
const EXECUTORS_PER_MILLE: u64 = 250;

impl Options {
    /// What a seed stands for where clusters come and go, and artifacts with them.
    #[must_use]
    pub fn of_handovers(seed: u64, is_told: bool) -> Self {
        Self {
            kind: "losses",
            intensity: Intensity::losses(),
            clusters: 4,
            users: 1,
            handovers: Some(is_told),
            restores: false,
            ..Self::of_seed(seed)
        }
    }

    /// What a seed stands for where agents are in replicas, and executors killed.
    #[must_use]
    pub fn of_replicas(seed: u64) -> Self {
        let drawn = Self::of_seed(seed);
        let intensity =
            if drawn.intensity.lose_cluster > 0 { drawn.intensity.clone() } else { Intensity::usual() };
        let kind = if drawn.intensity == intensity { drawn.kind } else { "usual" };
        Self { kind, intensity, replicas: true, kills_executors: true, ..drawn }
    }

    /// What a seed stands for where the control plane is lost and a backup restored.
    #[must_use]
    pub fn of_restores(seed: u64) -> Self {
        let drawn = Self::of_seed(seed);
        let intensity =
            if drawn.intensity.lose_cluster > 0 { drawn.intensity.clone() } else { Intensity::usual() };
        let kind = if drawn.intensity == intensity { drawn.kind } else { "usual" };
        Self { kind, intensity, handovers: None, restores: true, ..drawn }
    }

    /// What a seed stands for.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::of_part(seed, "options");
        let (kind, intensity) = match random.below(10) {
            0 => ("calm", Intensity::none()),
            1 | 2 => ("blackouts", Intensity::blackouts()),
            3..=7 => ("usual", Intensity::usual()),
            _ => ("fierce", Intensity::fierce()),
        };
        let lease_ms = if random.per_mille(500) { 15_000 } else { random.between(4, 12) * 1_000 };
        let times = Times {
            takeover_after_unsafe_ms: random.between(5, 40) * 1_000,
            storm_hold_max_ms: Some(random.between(5, 40) * 1_000),
            exclusive_lease_ms: random.between(8, 40) * 1_000,
            degraded_after_ms: DEGRADED_AFTER_MS,
            ..Times::with_lease(lease_ms)
        };
        let handovers = {
            let mut random = Random::of_part(seed, "handovers");
            random.per_mille(250).then(|| random.per_mille(750))
        };
        let touches_clusters = intensity.lose_cluster > 0;
        let touched =
            |part: &str, per_mille: u64| touches_clusters && Random::of_part(seed, part).per_mille(per_mille);
        Self {
            seed,
            members: if random.per_mille(150) { 5 } else { 3 },
            clusters: random.between(2, 4) as usize,
            users: random.between(1, 3) as usize,
            kind,
            intensity,
            active_ms: random.between(45, 120) * 1_000,
            quiet_max_ms: 600_000,
            times,
            log_entries_kept: if random.per_mille(500) { random.between(10, 200) } else { 20_000 },
            decide_work_max: if random.per_mille(300) { random.between(20, 200) as u32 } else { 2_000 },
            held_before_ms: 2_500,
            circumstances: Circumstances::default(),
            handovers,
            restores: touched("whether restored", RESTORES_PER_MILLE) && handovers.is_none(),
            replicas: touched("whether in replicas", REPLICAS_PER_MILLE),
            kills_executors: touched("whether executors are killed", EXECUTORS_PER_MILLE),
            keep_trace: false,
            echo_trace: false,
            planted: None,
            #[cfg(feature = "planted")]
            bug: None,
        }
    }
}
