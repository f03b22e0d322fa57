//! Leases and take-overs: quorum rounds, clocks, the storm brake.

use super::cluster::{Cluster, Kind, Renewal};
use super::{Answer, NextTakeOver, Output, Sessions, StormStatus};
use crate::{Error, Millis};
use argosy_model::planted::{Bug, is_planted};
use argosy_proto::{agent, command};
use std::collections::BTreeSet;

/// The storm brake needs at least this many silent clusters.
const STORM_CLUSTERS_MIN: usize = 3;

/// Quorum rounds: one at a time serves all renewals that were received before it began.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Number of the last round begun.
    last: u64,
    /// When the round without an answer began.
    asked_at: Option<Millis>,
    /// Clusters with renewals that wait.
    waiting: BTreeSet<String>,
}

/// Take-overs and the storm brake.
#[derive(Debug, Default)]
pub(super) struct TakeOvers {
    in_flight: usize,
    held_since: Option<Millis>,
    /// The present storm was waited out.
    released: bool,
    /// A silent cluster waits that nobody has resumed.
    holds: bool,
    silent: usize,
    fleet: usize,
    /// What the owner was told last.
    announced: bool,
}

impl TakeOvers {
    pub fn is_held(&self) -> bool {
        self.held_since.is_some() && !self.released && self.holds
    }

    pub fn status(&self, now: Millis, hold_max_ms: Option<Millis>) -> Option<StormStatus> {
        let since_ms = now.saturating_sub(self.held_since?);
        Some(StormStatus {
            held: self.is_held(),
            since_ms,
            release_in_ms: hold_max_ms.map(|hold_ms| hold_ms.saturating_sub(since_ms)),
            silent: self.silent,
            fleet: self.fleet,
        })
    }
}

/// Clusters that count when it is judged whether there is a storm.
#[derive(Clone, Copy, Debug, Default)]
struct Fleet {
    all: usize,
    silent: usize,
}

impl Fleet {
    fn add(&mut self, silent: bool) {
        self.all += 1;
        self.silent += usize::from(silent);
    }

    fn is_storm(self) -> bool {
        self.silent >= STORM_CLUSTERS_MIN && self.silent * 2 > self.all
    }
}

impl Sessions {
    pub(super) fn on_renew(&mut self, now: Millis, name: &str, renew: agent::RenewLease) {
        self.counters.renewals_received += 1;
        let needs_round = self.rounds.last + 1;
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        // The one in the present round stays, or slow rounds would never acknowledge any.
        session.renewals.retain(|waiting| waiting.needs_round != needs_round);
        session.renewals.push(Renewal { sequence: renew.sequence, received_at: now, needs_round });
        self.rounds.waiting.insert(name.to_owned());
        self.tell_capacity(name, renew);
        if is_planted(Bug::RenewalWithoutQuorum) {
            self.acknowledge(name, needs_round);
        }
        self.begin_round(now);
    }

    fn tell_capacity(&mut self, name: &str, renew: agent::RenewLease) {
        let Some(allocatable) = renew.allocatable else { return };
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let told = Some((allocatable.clone(), renew.runtime_healthy));
        if cluster.telling || cluster.told == told {
            return;
        }
        cluster.telling = true;
        cluster.told = told;
        let update = command::UpdateCluster {
            cluster: name.to_owned(),
            allocatable: Some(allocatable),
            runtime_healthy: renew.runtime_healthy,
        };
        self.decide(name, Kind::Update, command::command::Body::UpdateCluster(update));
    }

    pub(super) fn on_updated(&mut self, name: &str, answer: &Answer) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.telling = false;
        match answer {
            Answer::Reply(_) => {}
            Answer::Refused(_) | Answer::Lost => cluster.told = None,
        }
    }

    fn begin_round(&mut self, now: Millis) {
        if self.rounds.asked_at.is_none() && !self.rounds.waiting.is_empty() {
            self.rounds.last += 1;
            self.rounds.asked_at = Some(now);
            self.outputs.push(Output::AskQuorum { round: self.rounds.last });
        }
    }

    pub(super) fn retry_round(&mut self, now: Millis) {
        let late = |asked_at: Millis| now.saturating_sub(asked_at) >= self.times.quorum_retry_ms;
        if self.rounds.asked_at.is_some_and(late) {
            self.rounds.asked_at = None;
        }
        self.begin_round(now);
    }

    /// A late answer of an earlier round is good for the renewals received before that round.
    pub(super) fn on_quorum(&mut self, now: Millis, round: u64) {
        if round > self.rounds.last {
            self.counters.frames_unexpected += 1;
            return;
        }
        if round == self.rounds.last {
            self.rounds.asked_at = None;
        }
        for name in std::mem::take(&mut self.rounds.waiting) {
            if self.acknowledge(&name, round) {
                self.rounds.waiting.insert(name);
            }
        }
        self.begin_round(now);
    }

    /// Acknowledges what `round` covers; whether renewals still wait.
    fn acknowledge(&mut self, name: &str, round: u64) -> bool {
        let Some(cluster) = self.clusters.get_mut(name).filter(|cluster| !cluster.removing) else {
            return false;
        };
        let Some(session) = cluster.session.as_mut() else { return false };
        let (connection, epoch) = (session.connection, session.epoch);
        let (covered, waiting): (Vec<_>, Vec<_>) =
            session.renewals.drain(..).partition(|renewal| renewal.needs_round <= round);
        session.renewals = waiting;
        let still = !session.renewals.is_empty();
        cluster.heard = cluster.heard.max(covered.iter().map(|renewal| renewal.received_at).max());
        for renewal in covered {
            self.counters.renewals_acknowledged += 1;
            let renewed = agent::LeaseRenewed { sequence: renewal.sequence };
            self.send(connection, epoch, agent::control_frame::Body::LeaseRenewed(renewed));
        }
        still
    }

    /// Asks for every take-over that is due and not held.
    pub(super) fn take_over_due(&mut self, now: Millis) {
        self.judge_storm(now);
        let held = self.takeovers.is_held();
        let due: Vec<(String, Millis)> = self
            .clusters
            .iter()
            .filter(|(_, cluster)| !cluster.taking_over && now >= cluster.takeover_retry_at)
            .filter(|(_, cluster)| !held || cluster.is_resumed())
            .filter_map(|(name, cluster)| {
                let (in_ms, beyond_ms) = self.next_due(cluster, now)?;
                (in_ms == 0).then(|| (name.clone(), beyond_ms))
            })
            .take(self.limits.takeovers_in_flight_max.saturating_sub(self.takeovers.in_flight))
            .collect();
        for (name, beyond_ms) in due {
            self.take_over(&name, beyond_ms);
        }
    }

    /// When a silent cluster's next take-over is due, and what it takes: waits of so much beyond lease and margin.
    fn next_due(&self, cluster: &Cluster, now: Millis) -> Option<(Millis, Millis)> {
        let silent_ms = now.saturating_sub(cluster.heard?);
        let early = is_planted(Bug::TakeOverInsideLease);
        let safe_ms = if early { self.times.lease_ms / 2 } else { self.times.takeover_safe_ms() };
        let beyond_ms = cluster.next_wait_ms(self.times.takeover_after_unsafe_ms)?;
        Some((safe_ms.saturating_add(beyond_ms).saturating_sub(silent_ms), beyond_ms))
    }

    /// What is taken over next, for views.
    pub(super) fn next_take_over(&self, cluster: &Cluster, now: Millis) -> Option<NextTakeOver> {
        let (in_ms, beyond_ms) = self.next_due(cluster, now)?;
        let silent = cluster.heard.is_some_and(|heard| now.saturating_sub(heard) >= self.times.lease_ms);
        let held = silent && self.takeovers.is_held() && !cluster.is_resumed();
        Some(NextTakeOver { in_ms, beyond_ms, held, paced: in_ms == 0 && !held })
    }

    fn take_over(&mut self, name: &str, beyond_ms: Millis) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.taking_over = true;
        let epoch = cluster.epoch;
        // From here on nothing of this session may be acknowledged: the agent has to open another, which tells it what
        // it lost before its lease counts again.
        if let Some(session) = cluster.session.take() {
            let error = Error::StaleSession { cluster: name.to_owned(), given: session.epoch };
            self.refuse(session.connection, session.epoch, &error);
        }
        self.takeovers.in_flight += 1;
        self.counters.takeovers_asked += 1;
        let scope = if beyond_ms == 0 { command::TakeOverScope::Safe } else { command::TakeOverScope::All };
        let body = command::TakeOver {
            cluster: name.to_owned(),
            session_epoch: epoch,
            scope: scope.into(),
            beyond_ms,
        };
        self.decide(name, Kind::TakeOver { epoch, beyond_ms }, command::command::Body::TakeOver(body));
    }

    pub(super) fn on_taken_over(
        &mut self,
        now: Millis,
        name: &str,
        epoch: u64,
        beyond_ms: Millis,
        answer: &Answer,
    ) {
        self.takeovers.in_flight = self.takeovers.in_flight.saturating_sub(1);
        let retry_at = now.saturating_add(self.times.decision_retry_ms);
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.taking_over = false;
        match answer {
            Answer::Reply(_) => {
                self.counters.takeovers_decided += 1;
                // A session opened meanwhile made it void.
                if cluster.epoch == epoch {
                    cluster.taken_over = cluster.taken_over.max(Some(beyond_ms));
                }
            }
            Answer::Refused(_) | Answer::Lost => cluster.takeover_retry_at = retry_at,
        }
    }

    /// Sets or releases the brake. Clusters count as silent from the end of their lease, a margin before they are due,
    /// so that a fleet whose renewals are spread over a renewal period is seen as a whole.
    fn judge_storm(&mut self, now: Millis) {
        let lease_ms = self.times.lease_ms;
        let (mut present, mut with_resumed, mut waiting) = (Fleet::default(), Fleet::default(), 0_usize);
        for cluster in self.clusters.values() {
            let Some(heard) = cluster.heard else { continue };
            let silent = now.saturating_sub(heard) >= lease_ms;
            if cluster.taken_over.is_none() {
                present.add(silent);
                waiting += usize::from(silent && !cluster.is_resumed());
            }
            if cluster.taken_over.is_none() || cluster.is_resumed() {
                with_resumed.add(silent);
            }
        }
        let storms = &mut self.takeovers;
        // What an operator resumed does not end the storm for the others.
        let goes_on =
            storms.held_since.is_some() && !storms.released && waiting > 0 && with_resumed.is_storm();
        if present.is_storm() || goes_on {
            let since = *storms.held_since.get_or_insert(now);
            if self.times.storm_hold_max_ms.is_some_and(|hold_ms| now.saturating_sub(since) >= hold_ms) {
                storms.released = true;
            }
        } else if !storms.released || present.silent == 0 {
            // A released storm lasts until the last of its clusters is taken over or back: each take-over shrinks the
            // fleet and must not set the brake anew.
            storms.held_since = None;
            storms.released = false;
        }
        storms.holds = waiting > 0;
        (storms.silent, storms.fleet) = (present.silent, present.all);
        let held = self.takeovers.is_held();
        if std::mem::replace(&mut self.takeovers.announced, held) != held {
            self.outputs.push(Output::Storm { held });
        }
    }
}
