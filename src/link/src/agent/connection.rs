//! Connections of the agent: greeting, silence, waits with jitter, and the lease that outlives them.

use super::{Output, Session, Up};
use crate::Millis;
use argosy_proto::agent;
use argosy_proto::common::Fence;
use std::collections::{BTreeSet, VecDeque};

/// The lease, over all sessions.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Permits may be given before this moment.
    pub until: Millis,
    /// Of the last renewal sent.
    pub sequence: u64,
}

/// A session that was welcomed.
#[derive(Debug)]
pub(super) struct Standing {
    pub epoch: u64,
    pub incarnation: u64,
    pub lease_ms: Millis,
    pub renew_every_ms: Millis,
    pub renew_at: Millis,
    /// Renewals without an acknowledgement, with their time of sending.
    pub renewals: VecDeque<(u64, Millis)>,
    /// What acknowledged renewals are worth once the session is in step.
    pub lease_until: Millis,
    /// Every held attempt has its verdict.
    pub synced: bool,
    /// Attempts that were listed and have no verdict.
    pub awaiting: BTreeSet<Fence>,
    /// The last page of verdicts came.
    pub last_page: bool,
    pub round: u32,
    pub listed_at: Millis,
}

/// Times `silence_max_ms`: without news of a connection for this long it is asked for again.
const CONNECTS_WITHIN: Millis = 3;

/// The present connection.
#[derive(Debug)]
pub(super) enum Link {
    /// None; until when the owner was told to wait.
    Down { until: Millis },
    /// Hello was sent.
    Greeting { greet_at: Millis, heard_at: Millis },
    /// A session.
    Up(Box<Standing>, Millis),
}

impl Session {
    pub(super) fn on_connected(&mut self, now: Millis, wall_clock_ms: i64) {
        self.set_wall_clock(now, wall_clock_ms);
        self.greet(now, now);
    }

    pub(super) fn on_disconnected(&mut self, now: Millis) {
        match self.link {
            Link::Down { until } if now < until => {}
            Link::Down { .. } | Link::Greeting { .. } | Link::Up(..) => self.reconnect(now, false),
        }
    }

    /// Sends Hello and waits for Welcome.
    pub(super) fn greet(&mut self, now: Millis, heard_at: Millis) {
        let hello = agent::Hello {
            cluster: self.options.cluster.clone(),
            cluster_uid: self.options.cluster_uid.clone(),
            agent_version: self.options.agent_version.clone(),
            agent_instance: self.options.agent_instance,
            runtime: self.options.runtime.into(),
            allocatable: self.allocatable.clone(),
            labels: self.options.labels.clone(),
            enforces_exclusive: self.options.enforces_exclusive,
            wall_clock_ms: self.wall_clock_ms(now),
            credit: self.options.credit,
            ledger: self.options.ledger,
            // Who holds the certificate says it: the member at the other end, and what sends this.
            certificate: 0,
            trusts: Vec::new(),
        };
        self.send(0, Up::Hello(hello));
        let greet_at = now.saturating_add(self.options.times.agent_resend_ms);
        self.link = Link::Greeting { greet_at, heard_at };
    }

    pub(super) fn reconnect(&mut self, now: Millis, refused: bool) {
        let times = &self.options.times;
        let longest = if refused {
            times.reconnect_refused_ms
        } else {
            let doubled = times.reconnect_min_ms.saturating_mul(1_u64 << self.failures.min(20));
            doubled.min(times.reconnect_max_ms)
        };
        // Between half and all of it, so that a fleet does not come back at one moment.
        let half = longest / 2;
        let after_ms = half + self.next_random() % (longest - half + 1);
        self.failures = self.failures.saturating_add(1);
        self.counters.reconnects += 1;
        self.link = Link::Down { until: now.saturating_add(after_ms) };
        self.outputs.push(Output::Reconnect { after_ms });
    }

    /// A drill wants the agent out of the way, as if its process had died: no connection and no lease until it is over.
    pub(super) fn fall_silent(&mut self, now: Millis, drill: u64, for_ms: Millis) {
        let until = now.saturating_add(for_ms);
        self.lease.until = self.lease.until.min(now);
        self.link = Link::Down { until };
        self.outputs.push(Output::FallSilent { drill, until });
        self.outputs.push(Output::Reconnect { after_ms: for_ms });
    }

    pub(super) fn on_tick(&mut self, now: Millis, wall_clock_ms: i64) {
        self.set_wall_clock(now, wall_clock_ms);
        let times = self.options.times;
        match &self.link {
            // The owner should have connected or failed by now: its news may have come while it was to wait.
            Link::Down { until } => {
                if now >= until.saturating_add(CONNECTS_WITHIN.saturating_mul(times.silence_max_ms)) {
                    self.reconnect(now, false);
                }
            }
            Link::Greeting { heard_at, .. } | Link::Up(_, heard_at)
                if now.saturating_sub(*heard_at) >= times.silence_max_ms =>
            {
                self.reconnect(now, false);
            }
            Link::Greeting { greet_at, heard_at } => {
                if now >= *greet_at {
                    let heard_at = *heard_at;
                    self.greet(now, heard_at);
                }
            }
            Link::Up(up, _) => {
                let (renew, list) = (
                    now >= up.renew_at,
                    !up.synced && now.saturating_sub(up.listed_at) >= times.agent_resend_ms,
                );
                if renew {
                    self.renew(now);
                }
                if list {
                    self.list(now);
                }
                self.counters.reports_resent += self.attempts.retry(now, times.agent_resend_ms);
                self.send_reports(now);
                self.send_config_maps(now);
            }
        }
    }

    /// Any frame shows that the other end lives.
    pub(super) fn heard(&mut self, now: Millis) {
        match &mut self.link {
            Link::Down { .. } => {}
            Link::Greeting { heard_at, .. } | Link::Up(_, heard_at) => *heard_at = now,
        }
    }

    pub(super) fn wall_clock_ms(&self, now: Millis) -> i64 {
        i64::try_from(now).unwrap_or(i64::MAX).saturating_add(self.wall_offset_ms)
    }

    fn set_wall_clock(&mut self, now: Millis, wall_clock_ms: i64) {
        self.wall_offset_ms = wall_clock_ms.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// SplitMix64: jitter needs no more.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
