//! The roll of the cell's certificate authority, as a member carries it out: what it trusts and issues from follows committed
//! state, step by step; its directory says the same after a restart, before state is known.

use crate::cell::carry_out;
use crate::connect::Dialer;
use crate::core::{Published, clock};
use crate::directory::Directory;
use crate::mailbox::Mailbox;
use crate::peers::peer_authority;
use crate::pki::Signer;
use anyhow::Context;
use argosy_model::MemberId;
use argosy_pki::{Authority, AuthorityFiles, CertificateDer, Lifetimes, Loaded, fingerprint};
use argosy_proto::command::{Command, ReportAuthority, RollAction, RollAuthority, command};
use argosy_proto::state::{Authorities, RollPhase};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks at committed state.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What a member has is said again so often during a roll: who is waited for changes, too.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// For a key from another member.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps this member's authorities as state wants them.
pub struct Keeper {
    /// This member.
    pub own: MemberId,
    /// Where they are kept.
    pub files: Arc<AuthorityFiles>,
    /// For authorities of other members.
    pub lifetimes: Lifetimes,
    /// Issues.
    pub signer: Arc<Signer>,
    /// Committed state.
    pub published: watch::Receiver<Published>,
    /// Where the members are.
    pub directory: Directory,
    /// Connections to them.
    pub dialer: Dialer,
    /// The way to the member's thread.
    pub mailbox: Mailbox,
}

/// Certificates that a member trusts at this point of a roll, the one that it issues from first.
fn wanted(row: &Authorities, holds_next: bool) -> Vec<CertificateDer<'static>> {
    let of = |der: &[u8]| CertificateDer::from(der.to_vec());
    let (present, next) = (of(&row.present_der), of(&row.next_der));
    match row.phase() {
        RollPhase::Unspecified => vec![present],
        RollPhase::Issue if holds_next => vec![next, present],
        RollPhase::Trust | RollPhase::Issue => vec![present, next],
    }
}

impl Keeper {
    /// Until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut told: Option<(ReportAuthority, Instant)> = None;
        let mut last_problem = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let row = self.published.borrow().state.authorities().cloned();
            let Some(row) = row else { continue };
            if let Err(error) = self.follow(&row).await {
                let problem = format!("{error:#}");
                if problem != last_problem {
                    tracing::error!(problem, "the roll of the certificate authority does not go on here");
                    last_problem = problem;
                }
            }
            let report = self.report();
            let is_told = told.as_ref().is_some_and(|(last, at)| {
                *last == report && (row.phase() == RollPhase::Unspecified || at.elapsed() < REPORT_EVERY)
            });
            if !is_told {
                let body = command::Body::ReportAuthority(report.clone());
                let command = Command { version: 1, idempotency_key: None, body: Some(body) };
                if carry_out(&self.mailbox, command).await.is_ok() {
                    told = Some((report, Instant::now()));
                }
            }
        }
    }

    fn report(&self) -> ReportAuthority {
        let issuers = self.signer.issuers();
        let digest = |authority: &Authority| authority.fingerprint().to_vec();
        ReportAuthority {
            member: self.own,
            trusts: issuers.trusted.iter().map(|certificate| fingerprint(certificate).to_vec()).collect(),
            holds: std::iter::once(digest(&issuers.issuing))
                .chain(issuers.others.iter().map(digest))
                .collect(),
            issues: digest(&issuers.issuing),
        }
    }

    async fn follow(&self, row: &Authorities) -> anyhow::Result<()> {
        let mut holds_next = false;
        if row.phase() != RollPhase::Unspecified {
            holds_next = match self.files.find(&row.next_der)? {
                Some(_) => true,
                None => self.fetch(row).await?,
            };
        }
        let wanted = wanted(row, holds_next);
        let issuers = self.signer.issuers();
        let held = issuers.others.iter().any(|other| other.fingerprint().to_vec() == row.next);
        let is_held = held || issuers.issuing.fingerprint().to_vec() == row.next;
        if issuers.trusted == wanted && (is_held || !holds_next) {
            return Ok(());
        }
        self.files.trust(&wanted)?;
        let loaded = self.files.load()?.context("the authorities are gone from their directory")?;
        let Loaded { issuing, others, trusted } = loaded;
        tracing::warn!(
            trusted = trusted.len(),
            issuing = hex(&issuing.fingerprint()),
            "this member follows the roll of the certificate authority"
        );
        self.signer.set_issuers(issuing, others, trusted);
        Ok(())
    }

    /// Asks the other members for the key of the next authority.
    async fn fetch(&self, row: &Authorities) -> anyhow::Result<bool> {
        for (member, addresses) in self.directory.staying() {
            if member == self.own {
                continue;
            }
            let asked = async {
                let channel = self.dialer.peer(member, &addresses.peer).await.ok()?;
                peer_authority(channel, row.next.clone()).await.ok()
            };
            let Ok(Some(key)) = tokio::time::timeout(FETCH_TIMEOUT, asked).await else { continue };
            let authority = Authority::from_parts(&row.next_der, &key, self.lifetimes)?;
            self.files.keep_key(&authority)?;
            tracing::info!(member, "took the key of the next certificate authority from a member");
            return Ok(true);
        }
        // Told by `argosy ca roll --check`; tried again.
        Ok(false)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The command that begins a roll: the new authority's key is in this member's directory before anybody hears of it.
///
/// # Errors
/// The authority can't be made or kept.
pub fn begin(
    files: &AuthorityFiles,
    signer: &Signer,
    lifetimes: Lifetimes,
    members: Vec<MemberId>,
    actor: String,
) -> anyhow::Result<RollAuthority> {
    let present = Arc::clone(&signer.issuers().issuing);
    let next = Authority::create(present.trust_domain(), clock().wall_ms, lifetimes)?;
    files.keep_key(&next)?;
    Ok(RollAuthority {
        action: RollAction::Begin.into(),
        certificate_der: next.certificate().to_vec(),
        present_der: present.certificate().to_vec(),
        members,
        force: false,
        actor,
        certificate: next.fingerprint().to_vec(),
        present: present.fingerprint().to_vec(),
    })
}
