use crate::Millis;

/// Times of the link. The agent takes `lease_ms` and `renew_every_ms` from the control plane's Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long an acknowledged renewal holds, counted by the agent from its send. 15 s.
    pub lease_ms: Millis,
    /// What the leader waits beyond the lease: clock drift and delays. 5 s.
    pub margin_ms: Millis,
    /// Between two renewals. A third of the lease: 5 s.
    pub renew_every_ms: Millis,
    /// Beyond lease and margin, before running steps that are not safe to repeat are taken over. 5 min.
    pub takeover_after_unsafe_ms: Millis,
    /// How long an exclusive step that doesn't say may run after its last acknowledged renewal; its take-over waits as long
    /// beyond lease and margin. 10 min.
    pub exclusive_lease_ms: Millis,
    /// How long a cluster whose runtime does not answer keeps attempts that have not started. 60 s.
    pub degraded_after_ms: Millis,
    /// How long the storm brake holds take-overs; `None`: until an operator resumes. 10 min.
    pub storm_hold_max_ms: Option<Millis>,
    /// Before a quorum round that was not confirmed is followed by another. 500 ms.
    pub quorum_retry_ms: Millis,
    /// Before a take-over that was refused or lost is asked for again. 5 s.
    pub decision_retry_ms: Millis,
    /// Before an unanswered assignment is sent again. 5 s.
    pub assign_resend_ms: Millis,
    /// Before a stop without a terminal report is sent again. 5 s.
    pub stop_resend_ms: Millis,
    /// Before an unanswered Hello, resync or report of the agent is sent again. 5 s.
    pub agent_resend_ms: Millis,
    /// Without any frame for this long, the agent leaves the connection and tries another member. 12 s.
    pub silence_max_ms: Millis,
    /// First wait before connecting again; doubles with each failure. 200 ms.
    pub reconnect_min_ms: Millis,
    /// Longest wait before connecting again: a sixth of the lease, so that after an outage of the control plane every
    /// agent is back, past a member or two that are still down, before lease and margin have passed. 2.5 s.
    pub reconnect_max_ms: Millis,
    /// Wait after a refusal that only an operator can lift. 60 s.
    pub reconnect_refused_ms: Millis,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease_ms: 15_000,
            margin_ms: 5_000,
            renew_every_ms: 5_000,
            takeover_after_unsafe_ms: 300_000,
            exclusive_lease_ms: 600_000,
            degraded_after_ms: 60_000,
            storm_hold_max_ms: Some(600_000),
            quorum_retry_ms: 500,
            decision_retry_ms: 5_000,
            assign_resend_ms: 5_000,
            stop_resend_ms: 5_000,
            agent_resend_ms: 5_000,
            silence_max_ms: 12_000,
            reconnect_min_ms: 200,
            reconnect_max_ms: 2_500,
            reconnect_refused_ms: 60_000,
        }
    }
}

impl Times {
    /// Shorter or longer times in the same proportions: `lease_ms` as given, margin and renewal a third of it, reconnects a sixth.
    /// Unsafe, exclusive and storm times stay as they are.
    #[must_use]
    pub fn with_lease(lease_ms: Millis) -> Self {
        let third = (lease_ms / 3).max(1);
        Self {
            lease_ms,
            margin_ms: third,
            renew_every_ms: third,
            decision_retry_ms: third,
            assign_resend_ms: third,
            stop_resend_ms: third,
            agent_resend_ms: third,
            silence_max_ms: (lease_ms * 4 / 5).max(1),
            reconnect_max_ms: (lease_ms / 6).max(1),
            ..Self::default()
        }
    }

    /// From the last acknowledged receipt to the take-over of what is safe to move.
    #[must_use]
    pub fn takeover_safe_ms(&self) -> Millis {
        self.lease_ms.saturating_add(self.margin_ms)
    }
}

/// Largest sizes of everything that is kept or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that wait for their session, over all members. 10,000.
    pub connections_max: usize,
    /// Attempts of one cluster, listed or held. 20,000.
    pub held_max: usize,
    /// Attempts in one page of a resync or of its verdicts. 500.
    pub resync_page_max: usize,
    /// Unanswered assignments to one agent, whatever it offers. 1,000.
    pub credit_max: u32,
    /// Unanswered stops to one agent. 1,000.
    pub stops_in_flight_max: usize,
    /// Reports of one cluster that wait for the engine; beyond, they are dropped and the agent sends them again. 2,000.
    pub reports_waiting_max: usize,
    /// Unanswered reports of an agent. 256.
    pub reports_in_flight_max: usize,
    /// Questions for start permits of one cluster that are being decided; beyond, they are dropped and asked again. 1,000.
    pub permits_waiting_max: usize,
    /// Take-overs being decided at one time. 16.
    pub takeovers_in_flight_max: usize,
    /// Released attempts an agent remembers, so that a late copy of their assignment is dropped. 10,000.
    pub released_max: usize,
    /// Renewals sent and not acknowledged that an agent remembers. 16.
    pub renewals_in_flight_max: usize,
    /// Bytes of the ConfigMaps in one frame, of which it has at least one. 1 MiB.
    pub config_maps_frame_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            held_max: 20_000,
            resync_page_max: 500,
            credit_max: 1_000,
            stops_in_flight_max: 1_000,
            reports_waiting_max: 2_000,
            reports_in_flight_max: 256,
            permits_waiting_max: 1_000,
            takeovers_in_flight_max: 16,
            released_max: 10_000,
            renewals_in_flight_max: 16,
            config_maps_frame_bytes_max: 1 << 20,
        }
    }
}
