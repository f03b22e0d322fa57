use argosy_proto::command;

use crate::fault::{Fault, Way};
use crate::network::{End, Lane, Quality};
use crate::world::{Event, Mend, World};

/// How long a process that stutters runs between two pauses.
const STUTTER_MS: u64 = 50;

/// A sync while leadership is handed over, where batches are to be in flight then.
const SLOW_SYNC_MS: u64 = 400;

impl World {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.counts.faults += 1;
        self.line(format_args!("fault: {fault:?}"));
        let span_ms = fault.span_ms();
        match fault {
            Fault::CrashMember { member, down_ms, while_sending } => {
                self.member_crash(member, down_ms, while_sending)
            }
            Fault::Blackout { down_ms } => {
                for member in 1..=self.options.members {
                    // They come back one after another.
                    let after_ms = down_ms * (self.options.members + member) / (2 * self.options.members);
                    self.member_crash(member, after_ms, member == 1);
                }
            }
            Fault::DiskFails { member, after_writes, how } => {
                if let Some(host) = self.members.get_mut(&member) {
                    host.disk_fault = Some((after_writes, how));
                }
                self.member_crash(member, 100, false);
            }
            Fault::SlowDisk { member, sync_ms, for_ms: _ } => {
                if let Some(host) = self.members.get_mut(&member) {
                    host.sync_ms = sync_ms;
                }
                self.queue.plan_after(span_ms, Event::Mend(Box::new(Mend::Disk { member })));
            }
            Fault::IsolateMember { member, way, for_ms: _ } => {
                let others =
                    (1..=self.options.members).filter(|other| *other != member).map(End::Member).collect();
                self.cut(End::Member(member), others, way, span_ms);
            }
            Fault::CutPeers { from, to, way, for_ms: _ } => {
                self.cut(End::Member(from), vec![End::Member(to)], way, span_ms);
            }
            Fault::ResetPeers { from, to } => self.network.reset(Lane::Peer { from, to }),
            Fault::CutCluster { cluster, way, for_ms: _ } => {
                self.cut(End::Cluster(cluster), self.all_members(), way, span_ms);
            }
            Fault::CutFleet { clusters, for_ms: _ } => {
                for cluster in 0..clusters.min(self.options.clusters) {
                    self.cut(End::Cluster(cluster), self.all_members(), Way::Both, span_ms);
                }
            }
            Fault::CutClusterFromMember { cluster, member, way, for_ms: _ } => {
                self.cut(End::Cluster(cluster), vec![End::Member(member)], way, span_ms);
            }
            Fault::ResetAgent { cluster } => self.agent_reset(cluster),
            Fault::CrashAgent { cluster, down_ms } => self.agent_crash(cluster, down_ms),
            Fault::LoseCluster { cluster, down_ms, with_ledger } => {
                self.cluster_lost(cluster, down_ms, with_ledger)
            }
            Fault::Sicken { cluster, for_ms } => {
                self.clusters[cluster].runtime.set_healthy(false);
                self.pods_due(cluster);
                self.queue.plan_after(for_ms, Event::Mend(Box::new(Mend::Cluster { cluster })));
            }
            Fault::LoseAgent { cluster, down_ms, ledger, hosts } => {
                self.agent_lost(cluster, down_ms, ledger, hosts);
            }
            Fault::LoseForGood { cluster } => self.cluster_gone(cluster),
            Fault::StartAgain { cluster } => {
                let now_ms = self.now_ms();
                self.clusters[cluster].runtime.start_again(now_ms);
                self.pods_due(cluster);
            }
            Fault::PauseReplica { cluster, for_ms } => self.replica_pauses(cluster, for_ms),
            Fault::KillExecutor { cluster } => self.executors_killed(cluster),
            Fault::BackUp { member } => self.back_up(member),
            Fault::Restore { founder, down_ms, releases } => self.restore(founder, down_ms, releases),
            Fault::HandOver { to, deaf_ms } => self.hand_over(to, deaf_ms),
            Fault::Strand { cluster, for_ms } => self.strand(cluster, for_ms),
            Fault::HoldStarts { cluster, for_ms } => {
                let until_ms = self.now_ms() + for_ms;
                if let Some(cluster) = self.clusters.get_mut(cluster) {
                    cluster.runtime.hold_starts(until_ms);
                }
            }
            Fault::LoseHosts { cluster } => self.hosts_lost(cluster),
            Fault::FreezeCluster { cluster, for_ms } => self.cluster_frozen(cluster, for_ms),
            Fault::BadNetwork { loss_per_mille, spike_per_mille, spike_max_ms, for_ms: _ } => {
                let quality = Quality { loss_per_mille, spike_per_mille, spike_max_ms, ..Quality::healthy() };
                self.network.set_quality(quality);
                self.queue.plan_after(span_ms, Event::Mend(Box::new(Mend::Network)));
            }
            Fault::DriftMember { .. }
            | Fault::DriftCluster { .. }
            | Fault::MemberWallJump { .. }
            | Fault::ClusterWallJump { .. } => self.clock_fault(&fault),
        }
    }

    fn clock_fault(&mut self, fault: &Fault) {
        let now_ms = self.now_ms();
        let member_clock = |world: &mut Self, member: u64, set: &dyn Fn(&mut crate::HostClock)| {
            if let Some(host) = world.members.get_mut(&member) {
                set(&mut host.clock);
            }
        };
        match *fault {
            Fault::DriftMember { member, drift_ppm } => {
                member_clock(self, member, &|clock| clock.set_drift(now_ms, drift_ppm));
            }
            Fault::MemberWallJump { member, offset_ms } => {
                member_clock(self, member, &|clock| clock.set_wall_offset(offset_ms));
            }
            Fault::DriftCluster { cluster, drift_ppm } => self.cluster_drifts(cluster, drift_ppm),
            Fault::ClusterWallJump { cluster, offset_ms } => {
                self.clusters[cluster].clock.set_wall_offset(offset_ms)
            }
            Fault::CrashMember { .. }
            | Fault::Blackout { .. }
            | Fault::DiskFails { .. }
            | Fault::SlowDisk { .. }
            | Fault::IsolateMember { .. }
            | Fault::CutPeers { .. }
            | Fault::ResetPeers { .. }
            | Fault::CutCluster { .. }
            | Fault::CutFleet { .. }
            | Fault::CutClusterFromMember { .. }
            | Fault::ResetAgent { .. }
            | Fault::CrashAgent { .. }
            | Fault::LoseCluster { .. }
            | Fault::LoseHosts { .. }
            | Fault::HoldStarts { .. }
            | Fault::LoseAgent { .. }
            | Fault::LoseForGood { .. }
            | Fault::StartAgain { .. }
            | Fault::HandOver { .. }
            | Fault::BackUp { .. }
            | Fault::PauseReplica { .. }
            | Fault::KillExecutor { .. }
            | Fault::Restore { .. }
            | Fault::Strand { .. }
            | Fault::Sicken { .. }
            | Fault::FreezeCluster { .. }
            | Fault::BadNetwork { .. } => {}
        }
    }

    /// The leader is cut off from the other members, and the cluster from all but the leader; the leader's process stands
    /// still, but for a moment each quarter of a lease: it takes its time to notice that it leads nobody.
    fn strand(&mut self, cluster: usize, for_ms: u64) {
        let leader = self.members.iter().find(|(_, host)| host.leads(self.queue.now_ms()));
        let Some(leader) = leader.map(|(id, _)| *id) else { return };
        let others: Vec<End> =
            (1..=self.options.members).filter(|other| *other != leader).map(End::Member).collect();
        self.cut(End::Member(leader), others.clone(), Way::Both, for_ms);
        self.cut(End::Cluster(cluster), others, Way::Both, for_ms);
        let pause_ms = (self.options.times.lease_ms / 4).max(500);
        let now_ms = self.now_ms();
        let mut at_ms = now_ms;
        while at_ms + pause_ms < now_ms + for_ms {
            self.queue.plan(at_ms, Event::MemberPauses { member: leader, for_ms: pause_ms - STUTTER_MS });
            at_ms += pause_ms;
        }
    }

    /// Somebody tells the leader to hand over, and does not wait for an answer.
    fn hand_over(&mut self, to: u64, deaf_ms: u64) {
        let leader = self.members.iter().find(|(_, host)| host.leads(self.queue.now_ms()));
        let Some(leader) = leader.map(|(id, _)| *id).filter(|leader| *leader != to) else { return };
        if deaf_ms > 0 {
            self.cut(End::Member(leader), vec![End::Member(to)], Way::Out, deaf_ms);
        }
        if self.options.circumstances.hands_over {
            for (member, host) in self.members.iter_mut().filter(|(member, _)| **member != leader) {
                host.sync_ms = SLOW_SYNC_MS;
                self.queue.plan_after(deaf_ms, Event::Mend(Box::new(Mend::Disk { member: *member })));
            }
        }
        let body = Some(command::command::Body::TransferLeadership(command::TransferLeadership { to }));
        let command = command::Command { version: 1, idempotency_key: None, body };
        let request = self.fresh_id();
        self.member_input(leader, argosy_member::Input::Command { request, command });
    }

    fn all_members(&self) -> Vec<End> {
        (1..=self.options.members).map(End::Member).collect()
    }

    /// Cuts an end off from others for a time.
    fn cut(&mut self, end: End, others: Vec<End>, way: Way, span_ms: u64) {
        let mut cuts = Vec::new();
        for other in others {
            if way != Way::Out {
                cuts.push((other, end));
            }
            if way != Way::In {
                cuts.push((end, other));
            }
        }
        cuts.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.queue.plan_after(span_ms, Event::Mend(Box::new(Mend::Cuts(cuts))));
    }
}
