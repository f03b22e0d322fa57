use crate::{AgentIdentity, AgentKey, CertificateDer, Error};

/// Between two looks at the certificate's age, at most: shorter lives are looked at more often.
const LOOK_MAX_MS: i64 = 10_000;
const LOOK_MIN_MS: i64 = 100;
/// Looks in the life of a certificate.
const LOOKS_PER_LIFE: i64 = 60;
/// Between two tries to renew an identity that the control plane does not accept any more.
const REFUSED_RETRY_MS: i64 = 60_000;

/// How to ask for the next certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the session; if there is none or it does not answer, over a connection of its own.
    Session,
    /// Over a connection of its own: a certificate that has run out is not proved by a stream that began while it was good.
    Anew,
}

/// Decides for an agent when to ask for its next certificate, and what is good enough to take the place of what it has. Time
/// and chance are given: the agent's process and the simulator drive the same decisions.
#[derive(Clone, Debug)]
pub struct Keeper {
    identity: AgentIdentity,
    renew_at_ms: i64,
}

impl Keeper {
    /// Keeps this identity. `draw` is any number: agents that got theirs at one time renew at different times.
    #[must_use]
    pub fn new(identity: AgentIdentity, draw: u64) -> Self {
        let renew_at_ms = identity.credentials.validity.renew_at_jittered_ms(draw);
        Self { identity, renew_at_ms }
    }

    /// What is used now.
    #[must_use]
    pub fn identity(&self) -> &AgentIdentity {
        &self.identity
    }

    /// Milliseconds until the next look, three to five quarters of a part of the certificate's life. The wall clock may jump:
    /// it is looked at often instead of slept on once.
    #[must_use]
    pub fn look_after_ms(&self, draw: u64) -> u64 {
        let validity = self.identity.credentials.validity;
        let life_ms = validity.not_after_s.saturating_sub(validity.not_before_s).saturating_mul(1_000);
        let look_ms = (life_ms / LOOKS_PER_LIFE).clamp(LOOK_MIN_MS, LOOK_MAX_MS).unsigned_abs();
        look_ms * 3 / 4 + draw % (look_ms / 2).max(1)
    }

    /// Whether it is time for the next certificate, and how to ask.
    #[must_use]
    pub fn is_due(&self, now_ms: i64) -> Option<Way> {
        let is_over = self.identity.credentials.validity.is_over(now_ms);
        (now_ms >= self.renew_at_ms).then_some(if is_over { Way::Anew } else { Way::Session })
    }

    /// The control plane does not accept this identity any more: it is asked again, but not all the time.
    pub fn refused(&mut self, now_ms: i64) {
        self.renew_at_ms = now_ms.saturating_add(REFUSED_RETRY_MS);
    }

    /// What the answer to a signing request makes of an agent of `cluster`, if it is any good.
    ///
    /// # Errors
    /// The chain is of another key or cluster, or does not hold now by the roots that came with it.
    pub fn check(
        key: &AgentKey,
        chain: Vec<Vec<u8>>,
        roots: Vec<Vec<u8>>,
        cluster: &str,
        now_ms: i64,
    ) -> Result<AgentIdentity, Error> {
        let identity = AgentIdentity::new(key, chain, roots)?;
        if identity.cluster != cluster {
            let reason = format!("it is for cluster {}, not for {cluster}", identity.cluster);
            return Err(Error::BadCertificate { reason });
        }
        identity.verify(now_ms)?;
        Ok(identity)
    }

    /// Keeps a checked identity in the place of what it had.
    pub fn take(&mut self, identity: AgentIdentity, draw: u64) {
        *self = Self::new(identity, draw);
    }

    /// The same certificate with the authorities that the control plane tells; nothing if they are those that it has.
    ///
    /// # Errors
    /// They don't vouch for the present certificate: they are no authorities of ours.
    pub fn with_roots(&self, roots: Vec<Vec<u8>>, now_ms: i64) -> Result<Option<AgentIdentity>, Error> {
        let roots = roots.into_iter().map(CertificateDer::from).collect();
        let identity = AgentIdentity { roots, ..self.identity.clone() };
        if identity.trusts() == self.identity.trusts() {
            return Ok(None);
        }
        identity.verify(now_ms)?;
        Ok(Some(identity))
    }

    /// Trusts what [`Self::with_roots`] gave. When to renew stays as it was.
    pub fn trust(&mut self, identity: AgentIdentity) {
        self.identity = identity;
    }
}
