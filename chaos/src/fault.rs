//! What can go wrong in the simulated federation.

use argosy_store::Fault as DiskFault;

/// A direction of a cut between one end and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing passes.
    Both,
    /// It hears nothing, and is heard.
    In,
    /// It is not heard, and hears.
    Out,
}

/// A fault. Spans are virtual milliseconds; a fault with a span ends by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A member loses power: un-synced writes are lost.
    CrashMember {
        /// Which.
        member: u64,
        /// Until it starts again.
        down_ms: u64,
        /// It dies in the middle of sending what it had written.
        while_sending: bool,
    },
    /// All members lose power together.
    Blackout {
        /// Until the first starts again.
        down_ms: u64,
    },
    /// A member's disk takes so many more writes, then none; the member halts and starts again.
    DiskFails {
        /// Which.
        member: u64,
        /// Writes, or synced ones, that succeed.
        after_writes: u64,
        /// In which way.
        how: DiskFault,
    },
    /// A member's syncs take long.
    SlowDisk {
        /// Which.
        member: u64,
        /// Each.
        sync_ms: u64,
        /// In all.
        for_ms: u64,
    },
    /// A member is cut off from the other members; agents and users still reach it.
    IsolateMember {
        /// Which.
        member: u64,
        /// In which direction.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// One link between two members is cut.
    CutPeers {
        /// One.
        from: u64,
        /// The other.
        to: u64,
        /// In which direction, seen from the first.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// The stream between two members is made anew.
    ResetPeers {
        /// Sender.
        from: u64,
        /// Receiver.
        to: u64,
    },
    /// A cluster is cut off from every member; its pods run on.
    CutCluster {
        /// Which.
        cluster: usize,
        /// In which direction.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// Several clusters are cut off together.
    CutFleet {
        /// Clusters, from the first one on.
        clusters: usize,
        /// How long.
        for_ms: u64,
    },
    /// A cluster doesn't reach one member.
    CutClusterFromMember {
        /// The cluster.
        cluster: usize,
        /// The member.
        member: u64,
        /// In which direction, seen from the cluster.
        way: Way,
        /// How long.
        for_ms: u64,
    },
    /// An agent's connection breaks.
    ResetAgent {
        /// Its cluster.
        cluster: usize,
    },
    /// An agent's process is killed; pods run on, the ledger stays.
    CrashAgent {
        /// Its cluster.
        cluster: usize,
        /// Until it starts again.
        down_ms: u64,
    },
    /// A cluster is lost with its pods and comes back empty.
    LoseCluster {
        /// Which.
        cluster: usize,
        /// Until its agent starts again.
        down_ms: u64,
        /// The agent's ledger is lost too.
        with_ledger: bool,
    },
    /// An agent's process dies with what it wrote down or with the machines under its pods; what ran on those goes on.
    LoseAgent {
        /// Its cluster.
        cluster: usize,
        /// Until it starts again.
        down_ms: u64,
        /// Its ledger is lost.
        ledger: bool,
        /// The hosts are lost.
        hosts: bool,
    },
    /// A cluster is lost with its pods and does not come back.
    LoseForGood {
        /// Which.
        cluster: usize,
    },
    /// The leader stands still nearly all the time, cut off from the other members, and one cluster reaches no other.
    Strand {
        /// The cluster.
        cluster: usize,
        /// How long.
        for_ms: u64,
    },
    /// The replica of an agent that acts stands still, past its Lease or not, and goes on where it was.
    PauseReplica {
        /// Its cluster.
        cluster: usize,
        /// How long.
        for_ms: u64,
    },
    /// The executor of a pod is killed.
    KillExecutor {
        /// Its cluster.
        cluster: usize,
    },
    /// Somebody makes a backup of the control plane.
    BackUp {
        /// The member that is asked first.
        member: u64,
    },
    /// All members' disks are lost, and the backup is restored.
    Restore {
        /// The member whose store is made of it; the others join with empty ones.
        founder: u64,
        /// Until the first starts.
        down_ms: u64,
        /// Somebody ends what is left in quarantine.
        releases: bool,
    },
    /// Images come slowly to a cluster: its pods start at some time up to the end.
    HoldStarts {
        /// Which.
        cluster: usize,
        /// How long.
        for_ms: u64,
    },
    /// A cluster's API server does not answer for a time: no pod is made there.
    Sicken {
        /// Which.
        cluster: usize,
        /// How long.
        for_ms: u64,
    },
    /// The machines of a cluster are cut off for good and the records of their pods deleted; what ran on them goes on.
    LoseHosts {
        /// Which.
        cluster: usize,
    },
    /// The pods of a cluster do nothing for a time, as a machine that sleeps; their clocks go on.
    FreezeCluster {
        /// Which.
        cluster: usize,
        /// How long.
        for_ms: u64,
    },
    /// Every process that runs a step there is started a second time, as where a host comes back from an image of itself: the
    /// second one asks for a permit of its own.
    StartAgain {
        /// Which.
        cluster: usize,
    },
    /// The leader is told to hand over.
    HandOver {
        /// To this member.
        to: u64,
        /// Which hears nothing of the leader for so long.
        deaf_ms: u64,
    },
    /// Every link is bad.
    BadNetwork {
        /// Loss where it is allowed.
        loss_per_mille: u64,
        /// Frames delayed.
        spike_per_mille: u64,
        /// By at most so much.
        spike_max_ms: u64,
        /// How long.
        for_ms: u64,
    },
    /// A member's steady clock changes its rate.
    DriftMember {
        /// Which.
        member: u64,
        /// Millionths.
        drift_ppm: i64,
    },
    /// A cluster's steady clock changes its rate.
    DriftCluster {
        /// Which.
        cluster: usize,
        /// Millionths.
        drift_ppm: i64,
    },
    /// A member's wall clock is set.
    MemberWallJump {
        /// Which.
        member: u64,
        /// From the true time.
        offset_ms: i64,
    },
    /// A cluster's wall clock is set.
    ClusterWallJump {
        /// Which.
        cluster: usize,
        /// From the true time.
        offset_ms: i64,
    },
}

impl Fault {
    /// The span of a fault that takes a cluster out of reach.
    pub(crate) fn cluster_span_ms(&mut self) -> Option<&mut u64> {
        match self {
            Self::CutCluster { for_ms: span_ms, .. }
            | Self::CutFleet { for_ms: span_ms, .. }
            | Self::FreezeCluster { for_ms: span_ms, .. }
            | Self::CrashAgent { down_ms: span_ms, .. }
            | Self::LoseCluster { down_ms: span_ms, .. } => Some(span_ms),
            Self::CrashMember { .. }
            | Self::Blackout { .. }
            | Self::DiskFails { .. }
            | Self::SlowDisk { .. }
            | Self::IsolateMember { .. }
            | Self::CutPeers { .. }
            | Self::ResetPeers { .. }
            | Self::CutClusterFromMember { .. }
            | Self::ResetAgent { .. }
            | Self::LoseHosts { .. }
            | Self::LoseAgent { .. }
            | Self::LoseForGood { .. }
            | Self::StartAgain { .. }
            | Self::HandOver { .. }
            | Self::BackUp { .. }
            | Self::PauseReplica { .. }
            | Self::KillExecutor { .. }
            | Self::Restore { .. }
            | Self::Strand { .. }
            | Self::Sicken { .. }
            | Self::HoldStarts { .. }
            | Self::BadNetwork { .. }
            | Self::DriftMember { .. }
            | Self::DriftCluster { .. }
            | Self::MemberWallJump { .. }
            | Self::ClusterWallJump { .. } => None,
        }
    }

    /// How long it lasts; 0 for an instant.
    #[must_use]
    pub fn span_ms(&self) -> u64 {
        match self {
            Self::CrashMember { down_ms, .. }
            | Self::Blackout { down_ms }
            | Self::CrashAgent { down_ms, .. }
            | Self::LoseAgent { down_ms, .. }
            | Self::Restore { down_ms, .. }
            | Self::LoseCluster { down_ms, .. } => *down_ms,
            Self::SlowDisk { for_ms, .. }
            | Self::PauseReplica { for_ms, .. }
            | Self::Sicken { for_ms, .. }
            | Self::HoldStarts { for_ms, .. }
            | Self::Strand { for_ms, .. }
            | Self::IsolateMember { for_ms, .. }
            | Self::CutPeers { for_ms, .. }
            | Self::CutCluster { for_ms, .. }
            | Self::CutFleet { for_ms, .. }
            | Self::FreezeCluster { for_ms, .. }
            | Self::CutClusterFromMember { for_ms, .. }
            | Self::BadNetwork { for_ms, .. } => *for_ms,
            Self::HandOver { deaf_ms, .. } => *deaf_ms,
            Self::DiskFails { .. }
            | Self::BackUp { .. }
            | Self::KillExecutor { .. }
            | Self::ResetPeers { .. }
            | Self::ResetAgent { .. }
            | Self::LoseHosts { .. }
            | Self::LoseForGood { .. }
            | Self::StartAgain { .. }
            | Self::DriftMember { .. }
            | Self::DriftCluster { .. }
            | Self::MemberWallJump { .. }
            | Self::ClusterWallJump { .. } => 0,
        }
    }
}
