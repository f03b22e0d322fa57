//! The control plane as agents' certificates see it: the engine's state, the authorities, and the sessions that are open.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argosy_engine::{Command, Draft, Leader, Position, Refusal, Reply, State};
use argosy_model::{Limits, LogTime};
use argosy_pki::{Authority, CertificateDer, ClientRole, Credentials, Error, Lifetimes, Revocations};
use argosy_proto::command::{self as ask, RollAction, command::Body};
use argosy_proto::state::{RollPhase, Standing};

/// The cell.
pub(super) const CELL: &str = "simulated";
/// Members, which follow a roll at once: how they hand on keys is a matter of real processes.
const MEMBERS: [u64; 3] = [1, 2, 3];

/// A certificate and whom to trust: what an agent gets.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub chain: Vec<Vec<u8>>,
    pub roots: Vec<Vec<u8>>,
}

/// What committed state says of certificates.
struct Revoked(State);

impl fmt::Debug for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Revoked")
    }
}

impl Revocations for Revoked {
    fn is_revoked(&self, cluster: &str, generation: u64) -> bool {
        self.0.identity_refusal(cluster, generation).is_some()
    }
}

/// An open session.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub holder: usize,
    pub cluster: String,
    /// The certificate of its handshake.
    pub shown: u64,
}

pub(super) struct Control {
    pub state: State,
    leader: Leader,
    index: u64,
    pub is_up: bool,
    pub sessions: BTreeMap<u64, Open>,
    issuing: Authority,
    next: Option<Authority>,
    trusted: Vec<CertificateDer<'static>>,
    own: Credentials,
    lifetimes: Lifetimes,
    renewal_grace: Duration,
    ignores_revocations: bool,
}

impl Control {
    pub fn new(options: &super::Options, now_ms: i64) -> Result<Self, Error> {
        let lifetimes = Lifetimes::default();
        let issuing = Authority::create(CELL, now_ms, lifetimes)?;
        let own = issuing.issue_member(1, &[], now_ms)?;
        let mut control = Self {
            state: State::new(),
            leader: Leader::new(Limits::default()),
            index: 0,
            is_up: true,
            sessions: BTreeMap::new(),
            trusted: issuing.roots(),
            issuing,
            next: None,
            own,
            lifetimes,
            renewal_grace: Duration::from_millis(options.renewal_grace_ms),
            ignores_revocations: options.ignores_revocations,
        };
        control.batch(now_ms, |draft, _| draft.create_cell(CELL, 1));
        Ok(control)
    }

    fn batch<T>(&mut self, now_ms: i64, make: impl FnOnce(&mut Draft, &mut Leader) -> T) -> T {
        let position = Position { incarnation: 1, index: self.index + 1 };
        let mut draft = Draft::new(&self.state, position, LogTime(now_ms), self.index + 1);
        let made = make(&mut draft, &mut self.leader);
        if !draft.is_empty() {
            self.index += 1;
            self.state = draft.finish().1;
        }
        made
    }

    pub fn command(&mut self, now_ms: i64, body: Body) -> Result<Reply, Refusal> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        self.batch(now_ms, |draft, leader| draft.command(&command, leader))
    }

    pub fn standing(&self, cluster: &str) -> Standing {
        self.state
            .cluster(cluster)
            .and_then(|row| row.identity.as_ref())
            .map_or(Standing::Unspecified, argosy_proto::state::ClusterIdentity::standing)
    }

    /// SHA-256 of the authority that issues.
    pub fn authority(&self) -> Vec<u8> {
        self.issuing.fingerprint().to_vec()
    }

    pub fn roots(&self) -> Vec<Vec<u8>> {
        self.trusted.iter().map(|root| root.to_vec()).collect()
    }

    pub fn trusts(&self) -> Vec<Vec<u8>> {
        self.trusted.iter().map(|root| argosy_pki::fingerprint(root).to_vec()).collect()
    }

    /// The chain that this member shows: its own certificate is renewed half-way, without asking anybody.
    pub fn shows(&mut self, now_ms: i64) -> Result<Vec<CertificateDer<'static>>, Error> {
        let is_of_issuing = self.own.chain.get(1) == Some(self.issuing.certificate());
        if now_ms >= self.own.validity.renew_at_ms() || !is_of_issuing {
            self.own = self.issuing.issue_member(1, &[], now_ms)?;
        }
        Ok(self.own.chain.clone())
    }

    /// The handshake of a client with this chain.
    pub fn admit(&self, chain: &[CertificateDer<'static>], now_ms: i64) -> Result<(), Error> {
        let revocations: Arc<dyn Revocations> = if self.ignores_revocations {
            Arc::new(argosy_pki::NoneRevoked)
        } else {
            Arc::new(Revoked(self.state.clone()))
        };
        let clients = ClientRole::AgentsEnrolling { renewal_grace: self.renewal_grace, revocations };
        argosy_pki::admit(chain, &self.trusted, CELL, clients, now_ms)
    }

    pub fn check(&self, request: &[u8], cluster: &str) -> Result<Vec<u8>, Error> {
        Ok(self.issuing.check_request(request, cluster)?.to_vec())
    }

    pub fn sign(&self, request: &[u8], cluster: &str, generation: u64, now_ms: i64) -> Result<Issued, Error> {
        let life_ms = self.lifetimes.leaf_ms;
        let signed = self.issuing.sign_agent(request, cluster, generation, now_ms, life_ms)?;
        Ok(Issued { chain: signed.chain.iter().map(|one| one.to_vec()).collect(), roots: self.roots() })
    }

    pub fn begin_roll(&mut self, now_ms: i64) -> Result<(), String> {
        let next = Authority::create(CELL, now_ms, self.lifetimes).map_err(|error| error.to_string())?;
        let roll = ask::RollAuthority {
            action: RollAction::Begin.into(),
            certificate_der: next.certificate().to_vec(),
            present_der: self.issuing.certificate().to_vec(),
            members: MEMBERS.to_vec(),
            force: false,
            actor: "operator".to_owned(),
            certificate: next.fingerprint().to_vec(),
            present: self.issuing.fingerprint().to_vec(),
        };
        self.command(now_ms, Body::RollAuthority(roll)).map_err(|refusal| refusal.message)?;
        self.next = Some(next);
        Ok(())
    }

    pub fn finish_roll(&mut self, now_ms: i64) -> Result<(), String> {
        let roll = ask::RollAuthority {
            action: RollAction::Finish.into(),
            actor: "operator".to_owned(),
            ..ask::RollAuthority::default()
        };
        self.command(now_ms, Body::RollAuthority(roll)).map(drop).map_err(|refusal| refusal.message)
    }

    /// Members follow what state says of the authorities, and report it; true: agents have to be told.
    pub fn follow_roll(&mut self, now_ms: i64) -> bool {
        let phase = self.state.authorities().map_or(RollPhase::Unspecified, |row| row.phase());
        let before = self.trusted.clone();
        match (phase, self.next.take()) {
            (RollPhase::Trust, Some(next)) => {
                self.trusted = vec![self.issuing.certificate().clone(), next.certificate().clone()];
                self.next = Some(next);
            }
            (RollPhase::Issue, Some(next)) => {
                self.trusted = vec![next.certificate().clone(), self.issuing.certificate().clone()];
                self.issuing = next;
            }
            (RollPhase::Unspecified, _) => self.trusted = self.issuing.roots(),
            (RollPhase::Trust | RollPhase::Issue, None) => {}
        }
        if self.trusted == before {
            return false;
        }
        for member in MEMBERS {
            let trusts = self.trusts();
            let report =
                ask::ReportAuthority { member, holds: trusts.clone(), trusts, issues: self.authority() };
            if let Err(refusal) = self.command(now_ms, Body::ReportAuthority(report)) {
                debug_assert!(false, "a member's report was refused: {}", refusal.message);
            }
        }
        true
    }
}
