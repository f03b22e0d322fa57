//! The roll of the cell's certificate authority. First everybody learns to trust the next one, then it issues, then the old
//! one is dropped. No step is taken before members and agents say that they are ready for it, unless an operator forces it.

use argosy_proto::command::{Refusal, Reply, ReportAuthority, RollAction, RollAuthority};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state::{Authorities, MemberAuthorities, RollPhase};

use crate::Code;
use crate::commands::done;
use crate::draft::Draft;
use crate::identity::behind;

/// Bytes of an authority's certificate: one of ours has about 500.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
const DIGEST_LENGTH: usize = 32;
/// Members of a cell, those that came and went among them.
const MEMBERS_MAX: usize = 64;
/// Authorities that a member may say it has.
const AUTHORITIES_MAX: usize = 8;
/// Names in a refusal; `--check` has all.
const NAMED_MAX: usize = 5;

fn set(draft: &mut Draft, row: Authorities) {
    draft.emit(Body::AuthoritiesSet(fact::AuthoritiesSet { row: Some(row) }));
}

pub(crate) fn roll(draft: &mut Draft, command: &RollAuthority) -> Result<Reply, Refusal> {
    match command.action() {
        RollAction::Begin => begin(draft, command),
        RollAction::Finish => finish(draft, command),
        RollAction::Unspecified => Err(Code::InvalidArgument.refuse("the step of the roll is missing")),
    }
}

fn begin(draft: &mut Draft, command: &RollAuthority) -> Result<Reply, Refusal> {
    let known = draft.state.authorities.as_deref();
    if known.is_some_and(|row| row.phase() != RollPhase::Unspecified) {
        let message =
            "a roll of the certificate authority is under way: `argosy ca roll --check` says how far it is";
        return Err(Code::RollRefused.refuse(message));
    }
    let certificates = [&command.certificate_der, &command.present_der];
    let digests = [&command.certificate, &command.present];
    if certificates.iter().any(|der| der.is_empty() || der.len() > CERTIFICATE_BYTES_MAX)
        || digests.iter().any(|digest| digest.len() != DIGEST_LENGTH)
        || command.members.is_empty()
        || command.members.len() > MEMBERS_MAX
    {
        return Err(
            Code::InvalidArgument.refuse("the roll needs both authorities' certificates and the members")
        );
    }
    if command.certificate == command.present {
        return Err(Code::RollRefused.refuse("the new certificate authority is the present one"));
    }
    let member = |member: &u64| MemberAuthorities { member: *member, ..MemberAuthorities::default() };
    let row = Authorities {
        version: 0,
        present_der: command.present_der.clone(),
        next_der: command.certificate_der.clone(),
        phase: RollPhase::Trust.into(),
        since_ms: draft.now().0,
        actor: command.actor.clone(),
        members: command.members.iter().map(member).collect(),
        removed: known.map(|row| row.removed.clone()).unwrap_or_default(),
        present: command.present.clone(),
        next: command.certificate.clone(),
    };
    set(draft, row);
    Ok(done())
}

fn finish(draft: &mut Draft, command: &RollAuthority) -> Result<Reply, Refusal> {
    let row = draft.state.authorities.as_deref().filter(|row| row.phase() != RollPhase::Unspecified);
    let Some(row) = row else {
        return Err(Code::RollRefused
            .refuse("no roll of the certificate authority is under way: begin one with `argosy ca roll`"));
    };
    let mut row = row.clone();
    let behind = behind(&draft.state, &row);
    if !command.force && (row.phase() == RollPhase::Trust || !behind.is_empty()) {
        let named: Vec<String> =
            behind.iter().take(NAMED_MAX).map(|(name, why)| format!("{name} {why}")).collect();
        return Err(Code::RollRefused.refuse(format!(
            "{} are not ready for the end of the roll: {}. `argosy ca roll --check` names all; --force goes on without them, and they have to be enrolled again",
            behind.len(),
            named.join("; ")
        )));
    }
    match row.phase() {
        RollPhase::Trust => row.set_phase(RollPhase::Issue),
        RollPhase::Issue => {
            row.removed = std::mem::take(&mut row.present);
            row.present = std::mem::take(&mut row.next);
            row.present_der = std::mem::take(&mut row.next_der);
            row.set_phase(RollPhase::Unspecified);
        }
        RollPhase::Unspecified => {}
    }
    row.since_ms = draft.now().0;
    row.actor.clone_from(&command.actor);
    set(draft, row);
    Ok(done())
}

/// What a member has of the authorities: of interest during a roll.
pub(crate) fn report(draft: &mut Draft, command: &ReportAuthority) -> Result<Reply, Refusal> {
    let ReportAuthority { member, trusts, holds, issues } = command;
    let Some(row) = draft.state.authorities.as_deref() else { return Ok(done()) };
    if trusts.len() > AUTHORITIES_MAX || holds.len() > AUTHORITIES_MAX {
        return Err(
            Code::InvalidArgument.refuse(format!("a member has at most {AUTHORITIES_MAX} authorities"))
        );
    }
    let reported = MemberAuthorities {
        member: *member,
        trusts: trusts.clone(),
        holds: holds.clone(),
        issues: issues.clone(),
    };
    let known = row.members.iter().find(|known| known.member == *member);
    if known != Some(&reported) && (known.is_some() || row.members.len() < MEMBERS_MAX) {
        let mut row = row.clone();
        row.members.retain(|known| known.member != *member);
        row.members.push(reported);
        row.members.sort_by_key(|known| known.member);
        set(draft, row);
    }
    advance(draft);
    Ok(done())
}

/// Once everybody trusts the next authority, it issues.
pub(crate) fn advance(draft: &mut Draft) {
    let Some(row) = draft.state.authorities.as_deref() else { return };
    if row.phase() != RollPhase::Trust || !behind(&draft.state, row).is_empty() {
        return;
    }
    let mut row = row.clone();
    row.set_phase(RollPhase::Issue);
    row.since_ms = draft.now().0;
    set(draft, row);
}
