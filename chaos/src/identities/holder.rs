//! Whoever has an agent's key: the agent of a cluster, or a thief with a copy of its files.

use std::sync::Arc;

use argosy_pki::{AgentIdentity, AgentKey, Keeper};

/// What outlives the process.
#[derive(Clone)]
pub(super) struct Files {
    pub key: Arc<AgentKey>,
    pub identity: AgentIdentity,
}

/// A question that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub number: u64,
    pub at_ms: u64,
    pub in_session: bool,
}

pub(super) struct Process {
    pub instance: u64,
    pub keeper: Keeper,
    /// The way to the control plane, and the certificate that it began with.
    pub connection: Option<(u64, u64)>,
    /// The session is open.
    pub is_welcome: bool,
    pub asked: Option<Asked>,
    pub questions: u64,
}

pub(super) struct Holder {
    pub cluster: String,
    pub is_thief: bool,
    pub files: Option<Files>,
    pub process: Option<Process>,
    /// Number of the process: what was planned for an earlier one is void.
    pub life: u64,
    /// Its wall clock beside the true time.
    pub offset_ms: i64,
    /// It was away for longer than the grace, was revoked or robbed: it needs an invite.
    pub needs_invite: bool,
    /// When its process ended last, for those who are away.
    pub away_since_ms: u64,
    /// Milliseconds that its process ran.
    pub ran_ms: u64,
    pub started_ms: u64,
    pub renewals: u64,
    /// Accidents after which a certificate may be asked for again.
    pub accidents: u64,
    /// Handshakes that were refused.
    pub refusals: u64,
    /// A handshake of it ended well.
    pub was_let_in: bool,
}

impl Holder {
    pub fn new(cluster: String, is_thief: bool, offset_ms: i64) -> Self {
        Self {
            cluster,
            is_thief,
            files: None,
            process: None,
            life: 0,
            offset_ms,
            needs_invite: false,
            away_since_ms: 0,
            ran_ms: 0,
            started_ms: 0,
            renewals: 0,
            accidents: 0,
            was_let_in: false,
            refusals: 0,
        }
    }

    pub fn name(&self) -> String {
        format!("{} {}", if self.is_thief { "thief of" } else { "agent of" }, self.cluster)
    }

    pub fn end(&mut self, now_ms: u64) {
        if self.process.take().is_some() {
            self.ran_ms += now_ms - self.started_ms;
            self.away_since_ms = now_ms;
            self.life += 1;
        }
    }
}
