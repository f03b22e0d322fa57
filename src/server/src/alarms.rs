//! What operators should hear of agents' identities and clocks: a line in the leader's log when it begins and ends, gauges while
//! it lasts.

use argosy_engine::State;
use argosy_gateway::{CellStatus, clock_is_off, standing_word};
use argosy_telemetry::Metrics;
use std::collections::{BTreeMap, BTreeSet};

/// What was told.
#[derive(Default)]
pub(crate) struct Alarms {
    standings: BTreeMap<String, &'static str>,
    clocks: BTreeSet<String>,
    /// The first look tells nothing: it may be of long ago.
    has_looked: bool,
}

impl Alarms {
    pub(crate) fn look(&mut self, metrics: &Metrics, state: &State, status: &CellStatus) {
        let leads = status.leader == Some(status.member);
        self.identities(metrics, state, leads);
        self.agent_clocks(metrics, status, leads);
        self.has_looked = true;
    }

    fn identities(&mut self, metrics: &Metrics, state: &State, leads: bool) {
        let mut counts: BTreeMap<&'static str, i64> =
            ["active", "unapproved", "revoked", "locked"].map(|word| (word, 0)).into();
        let mut standings = BTreeMap::new();
        for (name, row) in state.clusters().filter(|(_, row)| !row.removed) {
            let Some(identity) = &row.identity else { continue };
            let word = standing_word(identity);
            *counts.entry(word).or_default() += 1;
            if leads && self.has_looked && self.standings.get(name) != Some(&word) {
                let (reason, by) = (identity.reason.as_str(), identity.actor.as_str());
                match word {
                    "locked" => tracing::error!(
                        cluster = name,
                        reason,
                        "ALARM: the identity of a cluster is locked: somebody has a copy of its agent's key"
                    ),
                    "active" => tracing::info!(cluster = name, by, "the identity of a cluster is good"),
                    _ => tracing::warn!(cluster = name, reason, by, "the identity of a cluster is {word}"),
                }
            }
            standings.insert(name.to_owned(), word);
        }
        self.standings = standings;
        for (word, count) in counts {
            metrics.identities.with_label_values(&[word]).set(count);
        }
    }

    fn agent_clocks(&mut self, metrics: &Metrics, status: &CellStatus, leads: bool) {
        metrics.clock_offset_ms.reset();
        if !leads {
            self.clocks.clear();
            metrics.clock_alarms.set(0);
            return;
        }
        let mut off = BTreeSet::new();
        for session in &status.sessions {
            let Some(offset_ms) = session.clock_offset_ms.filter(|_| session.connected) else { continue };
            metrics.clock_offset_ms.with_label_values(&[&session.cluster]).set(offset_ms);
            if !clock_is_off(session, status) {
                continue;
            }
            if !self.clocks.contains(&session.cluster) {
                tracing::error!(
                    cluster = session.cluster,
                    offset_ms,
                    limit_ms = status.clock_offset_max_ms,
                    "ALARM: the clock of a cluster's agent differs from the leader's: certificates may be refused; set the clocks by NTP"
                );
            }
            off.insert(session.cluster.clone());
        }
        for cluster in self.clocks.difference(&off) {
            tracing::info!(cluster, "the clock of the cluster's agent is right again");
        }
        metrics.clock_alarms.set(i64::try_from(off.len()).unwrap_or(i64::MAX));
        self.clocks = off;
    }
}
