//! The leader's sessions in a few words, told to the other members, so that each can answer how clusters stand.

use crate::leading::Leading;
use crate::{Member, Now};
use argosy_link::control::ClusterStatus;
use argosy_model::MemberId;
use argosy_proto::peer::{ClusterSession, SessionSummary, peer_frame};
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
}

fn session(leading: &Leading, status: &ClusterStatus) -> ClusterSession {
    let clock_offset_ms = leading.agent_clocks.offset_ms(&status.cluster);
    ClusterSession {
        clock_offset_ms: clock_offset_ms.unwrap_or(0),
        clock_measured: clock_offset_ms.is_some(),
        cluster: status.cluster.clone(),
        connected: status.connection.is_some(),
        member: status.connection.map_or(0, |connection| connection.member),
        lease_remaining_ms: i64::try_from(status.lease_remaining_ms).unwrap_or(i64::MAX),
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
        let own = self.config.member;
        for peer in status.peers.iter().map(|peer| peer.member).filter(|peer| *peer != own) {
            let summary = SessionSummary { term: status.term, sessions: sessions.clone() };
            self.send_peer(peer, peer_frame::Body::SessionSummary(summary));
        }
    }

    /// Only the present leader's word counts.
    pub(crate) fn sessions_told(&mut self, now: Now, from: MemberId, summary: SessionSummary) {
        if self.leader() != Some(from) || summary.sessions.len() > CLUSTERS_MAX {
            return self.drop_peer_frame("summary_of_no_leader");
        }
        let SessionSummary { term, sessions } = summary;
        self.summaries.heard = Some(Heard { at_ms: now.steady_ms, term, sessions });
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
        let term = self.consensus.status().term;
        let fresh =
            |heard: &&Heard| heard.term == term && now.steady_ms < heard.at_ms.saturating_add(FRESH_MS);
        let Some(heard) = self.summaries.heard.as_ref().filter(fresh) else { return Vec::new() };
        let age_ms = i64::try_from(now.steady_ms.saturating_sub(heard.at_ms)).unwrap_or(i64::MAX);
        let aged = |session: &ClusterSession| ClusterSession {
            lease_remaining_ms: session.lease_remaining_ms.saturating_sub(age_ms).max(0),
            ..session.clone()
        };
        heard.sessions.iter().map(aged).collect()
    }
}
