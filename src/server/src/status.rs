//! How the member stands: asked regularly, told to the gateway and to the metrics.

use crate::alarms::Alarms;
use crate::config::ServerConfig;
use crate::core::Published;
use crate::directory::Directory;
use crate::mailbox::Mailbox;
use crate::peers::PeerLinks;
use crate::pki::Signer;
use argosy_consensus::Role;
use argosy_gateway::{CellStatus, MemberStatus, NextTakeOver, SessionStatus, StormStatus};
use argosy_link::control::NextTakeOver as NextInLine;
use argosy_model::MemberId;
use argosy_telemetry::Metrics;
use argosy_telemetry::prometheus::IntCounter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is looked at, and who is told.
pub struct Keeper {
    /// The way to the member's thread.
    pub mailbox: Mailbox,
    /// The member's configuration.
    pub config: ServerConfig,
    /// Gauges and counters.
    pub metrics: Metrics,
    /// The newest committed state.
    pub published: watch::Receiver<Published>,
    /// Where the members are.
    pub directory: Directory,
    /// Kept open to everybody who takes part.
    pub links: PeerLinks,
    /// Told where agents find the members.
    pub signer: Arc<Signer>,
    /// Takes the status.
    pub sender: watch::Sender<CellStatus>,
}

/// Keeps status, metrics and the links to members up to date until `stop`.
pub async fn keep(keeper: Keeper, stop: CancellationToken) {
    let Keeper { mailbox, config, metrics, published, directory, links, signer, sender } = keeper;
    let mut totals = Totals::default();
    let mut alarms = Alarms::default();
    let mut removed = false;
    let mut interval = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        let Some(status) = mailbox.status().await else { return };
        totals.record(&metrics, &status);
        metrics.queue_depth.with_label_values(&["mailbox"]).set(as_gauge(mailbox.depth() as u64));
        record_state(&metrics, &published);
        crate::drills::record(&metrics, &published.borrow().state.clone());
        links.keep(&peers(&directory, &status.consensus));
        signer.set_member_addresses(directory.staying().into_values().map(|member| member.agent).collect());
        let out = is_out(&config, &published, &status.consensus);
        if out && !removed {
            tracing::error!(
                member = config.member,
                "this member was removed from the cell: stop it for good, and delete its data directory"
            );
        }
        removed = out;
        let status = cell_status(&config, &status, &directory, &links);
        record_clusters(&metrics, &published, &status);
        alarms.look(&metrics, &published.borrow().state.clone(), &status);
        sender.send_replace(status);
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn takes_part(member: MemberId, consensus: &argosy_consensus::Status) -> bool {
    consensus.voters.contains(&member) || consensus.learners.contains(&member)
}

/// Peer addresses of everybody who takes part, will, or may: all but those that have left.
fn peers(directory: &Directory, consensus: &argosy_consensus::Status) -> BTreeMap<MemberId, String> {
    let staying = directory.staying();
    let mut members = directory.members();
    members.retain(|member, _| staying.contains_key(member) || takes_part(*member, consensus));
    members.into_iter().map(|(member, addresses)| (member, addresses.peer)).collect()
}

/// Whether this member has left the cell, as far as it knows.
fn is_out(
    config: &ServerConfig,
    published: &watch::Receiver<Published>,
    consensus: &argosy_consensus::Status,
) -> bool {
    published.borrow().state.member_left(config.member) && !takes_part(config.member, consensus)
}

fn cell_status(
    config: &ServerConfig,
    status: &argosy_member::MemberStatus,
    directory: &Directory,
    links: &PeerLinks,
) -> CellStatus {
    let consensus = &status.consensus;
    let (all, staying) = (directory.members(), directory.staying());
    // Gone ones are no news for anybody.
    let shown = all.iter().filter(|(id, _)| staying.contains_key(id) || takes_part(**id, consensus));
    let members = shown.map(|(id, addresses)| {
        let own = *id == config.member;
        let peer = consensus.peers.iter().find(|peer| peer.member == *id);
        let role = if consensus.leader == Some(*id) {
            "leader"
        } else if own && matches!(consensus.role, Role::Candidate | Role::PreCandidate) {
            "candidate"
        } else if consensus.learners.contains(id) {
            "learner"
        } else if !consensus.voters.contains(id) {
            "joining"
        } else if !staying.contains_key(id) {
            "leaving"
        } else if own || consensus.leader.is_some() {
            "follower"
        } else {
            "unknown"
        };
        MemberStatus {
            id: *id,
            address: addresses.peer.clone(),
            api_address: addresses.api.clone(),
            role: role.to_owned(),
            matched_index: if own { consensus.last_index } else { peer.map_or(0, |peer| peer.matched) },
            applied_index: if own { status.applied_index } else { 0 },
            reachable: own || links.is_connected(*id),
        }
    });
    let sessions = status.sessions_known.iter().map(|session| SessionStatus {
        cluster: session.cluster.clone(),
        connected: session.connected,
        member: session.member,
        lease_remaining_ms: session.lease_remaining_ms,
        clock_offset_ms: session.clock_measured.then_some(session.clock_offset_ms),
        silent_ms: session.heard.then_some(session.silent_ms),
        taken_over_beyond_ms: session.taken_over.then_some(session.taken_over_beyond_ms),
        next_take_over: session.take_over_awaited.then_some(NextTakeOver {
            in_ms: session.take_over_in_ms,
            beyond_ms: session.take_over_beyond_ms,
            held: session.take_over_held,
            paced: session.take_over_paced,
        }),
    });
    CellStatus {
        cell: config.cell.clone(),
        member: config.member,
        leader: consensus.leader,
        term: consensus.term,
        ready: status.ready,
        members: members.collect(),
        sessions: sessions.collect(),
        clock_offset_max_ms: config.identity.clock_offset_max_ms,
        storm: status.storm.as_ref().map(|storm| StormStatus {
            held: storm.held,
            since_ms: storm.since_ms,
            release_in_ms: (storm.release_in_ms > 0).then_some(storm.release_in_ms),
            silent: storm.silent,
            fleet: storm.fleet,
        }),
        observed_at_ms: crate::core::clock().wall_ms,
        takeover_safe_ms: i64::try_from(config.failover.times().takeover_safe_ms()).unwrap_or(i64::MAX),
    }
}

/// Counters of the member are totals; metrics take the difference since the last look.
#[derive(Default)]
struct Totals {
    last: BTreeMap<String, u64>,
    leader: Option<u64>,
}

impl Totals {
    fn add(&mut self, name: String, counter: &IntCounter, total: u64) {
        let last = self.last.insert(name, total).unwrap_or(0);
        // Link counters begin anew with each leadership.
        counter.inc_by(total.checked_sub(last).unwrap_or(total));
    }

    fn record(&mut self, metrics: &Metrics, status: &argosy_member::MemberStatus) {
        let consensus = &status.consensus;
        metrics.leader.set(i64::from(consensus.role == Role::Leader));
        metrics.term.set(as_gauge(consensus.term));
        metrics.commit_index.set(as_gauge(consensus.commit));
        metrics.applied_index.set(as_gauge(status.applied_index));
        if consensus.leader.is_some() && self.leader != consensus.leader {
            metrics.leader_changes.inc();
            self.leader = consensus.leader;
        }
        metrics.queue_depth.with_label_values(&["commands"]).set(as_gauge(status.commands_waiting as u64));
        metrics.queue_depth.with_label_values(&["batches"]).set(as_gauge(status.batches_in_flight as u64));
        let leads = status.link.is_some();
        metrics.storm_held.set(i64::from(leads && status.storm.is_some_and(|storm| storm.held)));
        let waits = |of: fn(&NextInLine) -> bool| {
            let next = status.sessions.iter().filter_map(|session| session.next_take_over);
            as_gauge(next.filter(of).count() as u64)
        };
        metrics.takeovers_waiting.with_label_values(&["storm_brake"]).set(waits(|next| next.held));
        metrics.takeovers_waiting.with_label_values(&["pacing"]).set(waits(|next| next.paced));
        self.record_counters(metrics, status);
        let clusters = &metrics.lease_remaining_seconds;
        clusters.reset();
        for session in &status.sessions {
            clusters.with_label_values(&[&session.cluster]).set(as_gauge(session.lease_remaining_ms / 1_000));
        }
        metrics.sessions.set(as_gauge(status.connections as u64));
    }

    fn record_counters(&mut self, metrics: &Metrics, status: &argosy_member::MemberStatus) {
        let counters = &status.counters;
        for (outcome, total) in [
            ("proposed", counters.proposals),
            ("void", counters.void_batches),
            ("lost", counters.lost_batches),
        ] {
            self.add(format!("proposals/{outcome}"), &metrics.proposals.with_label_values(&[outcome]), total);
        }
        for (outcome, total) in [
            ("decided", counters.commands),
            ("refused", counters.refusals),
            ("overloaded", counters.overloaded),
        ] {
            self.add(
                format!("commands/{outcome}"),
                &metrics.commands.with_label_values(&["all", outcome]),
                total,
            );
        }
        let consensus = &status.consensus.counters;
        for (direction, total) in [
            ("sent", consensus.snapshots_begun),
            ("failed", consensus.snapshots_failed),
            ("installed", consensus.snapshots_installed),
        ] {
            self.add(
                format!("snapshots/{direction}"),
                &metrics.snapshots.with_label_values(&[direction]),
                total,
            );
        }
        for (verdict, total) in &counters.reports {
            self.add(format!("reports/{verdict}"), &metrics.reports.with_label_values(&[verdict]), *total);
            let reason = match *verdict {
                "superseded" => "stale_fence",
                "unknown" => "unknown_attempt",
                _ => continue,
            };
            let refused = metrics.reports_refused.with_label_values(&[reason]);
            self.add(format!("reports_refused/{reason}"), &refused, *total);
        }
        for (reason, total) in &counters.peer_frames_dropped {
            let dropped = metrics.peer_frames_dropped.with_label_values(&[reason]);
            self.add(format!("peer/{reason}"), &dropped, *total);
        }
        for (reason, total) in &counters.agent_frames_dropped {
            let refused = metrics.agent_frames_refused.with_label_values(&[reason]);
            self.add(format!("agent/{reason}"), &refused, *total);
        }
        self.add("work".to_owned(), &metrics.decide_work, counters.work);
        self.add("accepted".to_owned(), &metrics.workflows_accepted, counters.workflows_accepted);
        for (phase, total) in &counters.workflows_finished {
            let finished = metrics.workflows_finished.with_label_values(&[phase]);
            self.add(format!("finished/{phase}"), &finished, *total);
        }
        for (cluster, total) in &counters.assigned {
            let assigned = metrics.attempts_assigned.with_label_values(&[cluster]);
            self.add(format!("assigned/{cluster}"), &assigned, *total);
        }
        for ((namespace, cron), total) in &counters.cron_starts {
            let starts = metrics.cron_starts.with_label_values(&[namespace, cron]);
            self.add(format!("cron/{namespace}/{cron}"), &starts, *total);
        }
        for ((namespace, cron, policy), total) in &status.cron_policies {
            let policies = metrics.cron_policies.with_label_values(&[namespace, cron, policy]);
            self.add(format!("policy/{namespace}/{cron}/{policy}"), &policies, *total);
        }
        let turned_away = metrics.limits_hit.with_label_values(&["commands_waiting_max"]);
        self.add("limits/commands".to_owned(), &turned_away, counters.overloaded);
        for (cluster, total) in &counters.take_overs {
            let takeovers = metrics.takeovers.with_label_values(&[cluster]);
            self.add(format!("takeover/{cluster}"), &takeovers, *total);
        }
        for (cluster, total) in &counters.returned {
            let returned = metrics.attempts_returned.with_label_values(&[cluster]);
            self.add(format!("returned/{cluster}"), &returned, *total);
        }
        for (reason, total) in &counters.reproductions {
            let reproductions = metrics.reproductions.with_label_values(&[reason]);
            self.add(format!("reproduction/{reason}"), &reproductions, *total);
        }
        for (reason, total) in &counters.steps_lost {
            let lost = metrics.steps_lost.with_label_values(&[reason]);
            self.add(format!("lost/{reason}"), &lost, *total);
        }
        if let Some(link) = &status.link {
            for (reason, total) in [
                ("stale_epoch", link.frames_stale),
                ("unexpected", link.frames_unexpected),
                ("session_refused", link.sessions_refused),
            ] {
                let refused = metrics.agent_frames_refused.with_label_values(&[reason]);
                self.add(format!("link/{reason}"), &refused, total);
            }
        }
    }
}

/// Clusters by state, in the words of `argosy cluster list`.
fn record_clusters(metrics: &Metrics, published: &watch::Receiver<Published>, status: &CellStatus) {
    let clusters = argosy_gateway::View::clusters(&published.borrow().state.clone());
    metrics.clusters.reset();
    for cluster in &clusters {
        metrics.clusters.with_label_values(&[argosy_gateway::state_word(cluster, status)]).inc();
    }
}

/// Gauges of replicated state: the same on every member at the same index.
fn record_state(metrics: &Metrics, published: &watch::Receiver<Published>) {
    let state = published.borrow().state.clone();
    metrics.workflows.reset();
    for (phase, count) in state.workflow_counts() {
        metrics.workflows.with_label_values(&[phase]).set(as_gauge(count));
    }
    metrics.locks.reset();
    for ((kind, word), count) in state.lock_totals() {
        metrics.locks.with_label_values(&[kind, word]).set(as_gauge(count));
    }
    metrics.archived.set(as_gauge(state.archived_count() as u64));
    metrics.cron_workflows.set(as_gauge(state.crons().count() as u64));
    metrics.attempts.reset();
    for ((cluster, phase), count) in state.attempt_counts() {
        metrics.attempts.with_label_values(&[cluster.as_str(), phase]).set(as_gauge(count));
    }
}
