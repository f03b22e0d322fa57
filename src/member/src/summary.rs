//! The leader's sessions in a few words, told to the other members, so that each can answer how clusters stand.

use crate::leading::Leading;
use crate::{Member, Now};
use argosy_link::control::{ClusterStatus, StormStatus};
use argosy_model::MemberId;
use argosy_proto::peer::{ClusterSession, SessionSummary, StormBrake, peer_frame};
use argosy_store::Kv;

/// Between two summaries.
const TELL_EVERY_MS: u64 = 1_000;
/// A summary older than this says nothing any more.
const FRESH_MS: u64 = 5_000;
/// Clusters in one summary.
const CLUSTERS_MAX: usize = 10_000;

/// What was told and heard.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    told_at_ms: u64,
    heard: Option<Heard>,
}

#[derive(Debug)]
struct Heard {
    at_ms: u64,
    term: u64,
    sessions: Vec<ClusterSession>,
    storm: Option<StormBrake>,
}

fn as_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn storm(status: &StormStatus) -> StormBrake {
    StormBrake {
        held: status.held,
        since_ms: as_ms(status.since_ms),
        // Due now is not never.
        release_in_ms: status.release_in_ms.map_or(0, |release_in_ms| as_ms(release_in_ms).max(1)),
        silent: u32::try_from(status.silent).unwrap_or(u32::MAX),
        fleet: u32::try_from(status.fleet).unwrap_or(u32::MAX),
    }
}

/// What was told a while ago, as it is now if nothing else happened.
fn aged(session: &ClusterSession, age_ms: i64) -> ClusterSession {
    ClusterSession {
        lease_remaining_ms: session.lease_remaining_ms.saturating_sub(age_ms).max(0),
        silent_ms: session.silent_ms.saturating_add(age_ms),
        take_over_in_ms: session.take_over_in_ms.saturating_sub(age_ms).max(0),
        ..session.clone()
    }
}

fn session(leading: &Leading, status: &ClusterStatus) -> ClusterSession {
    let next = status.next_take_over;
    let clock_offset_ms = leading.agent_clocks.offset_ms(&status.cluster);
    ClusterSession {
        clock_offset_ms: clock_offset_ms.unwrap_or(0),
        clock_measured: clock_offset_ms.is_some(),
        cluster: status.cluster.clone(),
        connected: status.connection.is_some(),
        member: status.connection.map_or(0, |connection| connection.member),
        lease_remaining_ms: as_ms(status.lease_remaining_ms),
        heard: status.silent_ms.is_some(),
        silent_ms: as_ms(status.silent_ms.unwrap_or(0)),
        live: status.live,
        taken_over: status.taken_over.is_some(),
        taken_over_beyond_ms: as_ms(status.taken_over.unwrap_or(0)),
        take_over_awaited: next.is_some(),
        take_over_in_ms: as_ms(next.map_or(0, |next| next.in_ms)),
        take_over_beyond_ms: as_ms(next.map_or(0, |next| next.beyond_ms)),
        take_over_held: next.is_some_and(|next| next.held),
        take_over_paced: next.is_some_and(|next| next.paced),
    }
}

impl<K: Kv> Member<K> {
    /// On the leader, once in a while.
    pub(crate) fn tell_sessions(&mut self, now: Now) {
        let Some(leading) = &self.leading else { return };
        if now.steady_ms < self.summaries.told_at_ms.saturating_add(TELL_EVERY_MS) {
            return;
        }
        self.summaries.told_at_ms = now.steady_ms;
        let status = self.consensus.status();
        let sessions: Vec<_> = leading
            .sessions
            .clusters(now.steady_ms)
            .take(CLUSTERS_MAX)
            .map(|status| session(leading, &status))
            .collect();
        if sessions.is_empty() {
            return;
        }
        let storm = leading.sessions.storm(now.steady_ms).as_ref().map(storm);
        let own = self.config.member;
        for peer in status.peers.iter().map(|peer| peer.member).filter(|peer| *peer != own) {
            let summary = SessionSummary { term: status.term, sessions: sessions.clone(), storm };
            self.send_peer(peer, peer_frame::Body::SessionSummary(summary));
        }
    }

    /// Only the present leader's word counts.
    pub(crate) fn sessions_told(&mut self, now: Now, from: MemberId, summary: SessionSummary) {
        if self.leader() != Some(from) || summary.sessions.len() > CLUSTERS_MAX {
            return self.drop_peer_frame("summary_of_no_leader");
        }
        let SessionSummary { term, sessions, storm } = summary;
        self.summaries.heard = Some(Heard { at_ms: now.steady_ms, term, sessions, storm });
    }

    /// How every cluster's session stands, as far as this member knows: the leader's own view, or what it told lately.
    pub(crate) fn sessions_known(&self, now: Now) -> Vec<ClusterSession> {
        if let Some(leading) = &self.leading {
            return leading
                .sessions
                .clusters(now.steady_ms)
                .map(|status| session(leading, &status))
                .collect();
        }
        let Some((heard, age_ms)) = self.fresh_summary(now) else { return Vec::new() };
        heard.sessions.iter().map(|session| aged(session, age_ms)).collect()
    }

    /// The storm under way, as far as this member knows.
    pub(crate) fn storm_known(&self, now: Now) -> Option<StormBrake> {
        if let Some(leading) = &self.leading {
            return leading.sessions.storm(now.steady_ms).as_ref().map(storm);
        }
        let (heard, age_ms) = self.fresh_summary(now)?;
        let told = heard.storm?;
        let release_in_ms = match told.release_in_ms {
            0 => 0,
            told => told.saturating_sub(age_ms).max(1),
        };
        Some(StormBrake { since_ms: told.since_ms.saturating_add(age_ms), release_in_ms, ..told })
    }

    /// What the present leader told lately, and how long ago.
    fn fresh_summary(&self, now: Now) -> Option<(&Heard, i64)> {
        let term = self.consensus.status().term;
        let fresh =
            |heard: &&Heard| heard.term == term && now.steady_ms < heard.at_ms.saturating_add(FRESH_MS);
        let heard = self.summaries.heard.as_ref().filter(fresh)?;
        Some((heard, as_ms(now.steady_ms.saturating_sub(heard.at_ms))))
    }
}
