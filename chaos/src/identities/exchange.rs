//! What agents and the control plane say to each other about certificates, and how it gets lost.

use std::sync::Arc;

use argosy_pki::{Keeper, Way, generation};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{Resources, Runtime};
use argosy_proto::state::Standing;

use super::control::{Issued, Open};
use super::holder::Asked;
use super::{Event, World, uid};

/// An answer is waited for so long.
const ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Messages in a thousand with which their connection ends.
const LOST_PER_MILLE: u64 = 10;
/// Messages in a thousand that come late, when their connection may be gone, and how late.
const LATE_PER_MILLE: u64 = 5;
const LATE_MAX_MS: u64 = 90_000;
/// Certificates in a thousand that arrive broken.
const BROKEN_PER_MILLE: u64 = 5;
/// Processes in a thousand that die between an answer, its file and its confirmation.
const DIES_PER_MILLE: u64 = 5;
const DIES_FOR_MAX_MS: u64 = 30_000;
/// Between two tries to connect.
const BACKOFF_MAX_MS: u64 = 30_000;

/// Refusals after which a thief gives up.
const THIEF_TRIES_MAX: u64 = 500;

/// To the control plane.
pub(super) enum Up {
    Hello { instance: u64, trusts: Vec<Vec<u8>> },
    Renew { instance: u64, holds: u64, number: u64, request: Vec<u8> },
    Taken { instance: u64, holds: u64, trusts: Vec<Vec<u8>> },
}

/// To an agent.
pub(super) enum Down {
    Welcome,
    Refused,
    Renewed { number: u64, answer: Result<Issued, String> },
    Roots(Vec<Vec<u8>>),
}

impl World {
    pub(super) fn look(&mut self, holder: usize, life: u64) {
        let (now_ms, wall_ms, draw) = (self.now_ms(), self.holder_wall_ms(holder), self.random.draw());
        if self.holders[holder].life != life {
            return;
        }
        let Some(process) = self.holders[holder].process.as_mut() else { return };
        self.queue.plan_after(process.keeper.look_after_ms(draw), Event::Look { holder, life });
        let was_in_session = match process.asked {
            Some(asked) if now_ms < asked.at_ms + ANSWER_TIMEOUT_MS => return,
            Some(asked) => asked.in_session,
            None => false,
        };
        process.asked = None;
        let Some(way) = process.keeper.is_due(wall_ms) else { return };
        let over_session = process.connection.filter(|_| process.is_welcome && !was_in_session);
        match (way, over_session) {
            (Way::Session, Some(connection)) => self.ask(holder, connection, true),
            (Way::Session | Way::Anew, _) => match self.handshake(holder) {
                Ok(shown) => {
                    let connection = (self.fresh_id(), shown);
                    self.ask(holder, connection, false);
                }
                Err(reason) => self.note_refused(holder, &reason),
            },
        }
    }

    fn ask(&mut self, holder: usize, connection: (u64, u64), in_session: bool) {
        let at_ms = self.now_ms();
        let it = &mut self.holders[holder];
        let (Some(process), Some(files)) = (it.process.as_mut(), it.files.as_ref()) else { return };
        process.questions += 1;
        let number = process.questions;
        process.asked = Some(Asked { number, at_ms, in_session });
        let holds = process.keeper.identity().generation().unwrap_or(0);
        let instance = process.instance;
        match files.key.signing_request() {
            Ok(request) => self.send(holder, connection, Up::Renew { instance, holds, number, request }),
            Err(error) => self.violate(error.to_string()),
        }
    }

    /// Both sides look at each other's certificates; gives the generation of the agent's.
    fn handshake(&mut self, holder: usize) -> Result<u64, String> {
        if !self.control.is_up {
            return Err("nobody answers".to_owned());
        }
        let (wall_ms, holder_wall_ms) = (self.wall_ms(), self.holder_wall_ms(holder));
        let chain = self.control.shows(wall_ms).map_err(|error| error.to_string())?;
        let Some(process) = self.holders[holder].process.as_ref() else {
            return Err("it has ended".to_owned());
        };
        let identity = process.keeper.identity().clone();
        argosy_pki::recognize(&chain, &identity.roots, super::control::CELL, holder_wall_ms)
            .map_err(|error| format!("the agent refuses the member: {error}"))?;
        let shown = &identity.credentials.chain;
        self.control.admit(shown, wall_ms).map_err(|error| error.to_string())?;
        self.holders[holder].was_let_in = true;
        let generation =
            shown.first().map_or(Ok(0), |leaf| generation(leaf)).map_err(|error| error.to_string())?;
        self.judge_admitted(holder, generation, &identity);
        Ok(generation)
    }

    /// Whoever was let in had to be.
    fn judge_admitted(&mut self, holder: usize, generation: u64, identity: &argosy_pki::AgentIdentity) {
        let name = self.holders[holder].name();
        let over_ms = self.wall_ms() - identity.credentials.validity.not_after_s * 1_000;
        if over_ms > 7 * 86_400_000 + 1_000 {
            self.violate(format!("{name} was let in {over_ms} ms after its certificate had ended"));
        }
        let identity = self.control.state.cluster(&identity.cluster).and_then(|row| row.identity.clone());
        let ended = identity.is_none_or(|identity| {
            generation < identity.revoked_below
                || matches!(identity.standing(), Standing::Revoked | Standing::Locked)
        });
        if ended {
            self.violate(format!("{name} was let in with certificate {generation}, which was revoked"));
        }
    }

    pub(super) fn note_refused(&mut self, holder: usize, reason: &str) {
        if self.control.is_up {
            let name = self.holders[holder].name();
            self.report.refused += 1;
            self.line(format_args!("{name} is not let in: {reason}"));
            let (it, now_ms) = (&mut self.holders[holder], self.queue.now_ms());
            it.refusals += 1;
            if it.is_thief && it.refusals >= THIEF_TRIES_MAX {
                it.end(now_ms);
            }
        }
    }

    pub(super) fn connect(&mut self, holder: usize, life: u64) {
        if self.holders[holder].life != life {
            return;
        }
        let Some(process) = self.holders[holder].process.as_ref() else { return };
        if process.connection.is_some() {
            return;
        }
        // A session needs a certificate that holds; the renewal is on its way.
        let is_over = process.keeper.identity().credentials.validity.is_over(self.wall_ms());
        let shaken =
            if is_over { Err("the certificate has expired".to_owned()) } else { self.handshake(holder) };
        match shaken {
            Ok(shown) => {
                let connection = self.fresh_id();
                let it = &mut self.holders[holder];
                let Some(process) = it.process.as_mut() else { return };
                process.connection = Some((connection, shown));
                process.is_welcome = false;
                let hello =
                    Up::Hello { instance: process.instance, trusts: process.keeper.identity().trusts() };
                self.send(holder, (connection, shown), hello);
            }
            Err(reason) => {
                if !is_over {
                    self.note_refused(holder, &reason);
                }
                self.connect_later(holder);
            }
        }
    }

    fn connect_later(&mut self, holder: usize) {
        let (life, wait_ms) = (self.holders[holder].life, self.random.between(1_000, BACKOFF_MAX_MS));
        self.queue.plan_after(wait_ms, Event::Connect { holder, life });
    }

    /// The session's connection has ended, and its agent has noticed.
    pub(super) fn broken(&mut self, holder: usize, life: u64, connection: u64) {
        self.control.sessions.remove(&connection);
        if self.holders[holder].life != life {
            return;
        }
        let Some(process) = self.holders[holder].process.as_mut() else { return };
        if process.connection.is_some_and(|(own, _)| own == connection) {
            process.connection = None;
            process.is_welcome = false;
            self.connect_later(holder);
        }
    }

    /// Ends the connection of a holder.
    pub(super) fn cut(&mut self, holder: usize) {
        let it = &self.holders[holder];
        if let Some((connection, _)) = it.process.as_ref().and_then(|process| process.connection) {
            self.control.sessions.remove(&connection);
            let life = it.life;
            let noticed_ms = self.random.between(1, 20_000);
            self.queue.plan_after(noticed_ms, Event::Broken { holder, life, connection });
        }
    }

    /// How long a message takes; nothing, if it is lost with its connection.
    fn passage_ms(&mut self, holder: usize) -> Option<u64> {
        if self.options.is_calm {
            return Some(self.random.between(1, 50));
        }
        if self.random.per_mille(LOST_PER_MILLE) {
            self.holders[holder].accidents += 1;
            self.cut(holder);
            return None;
        }
        if self.random.per_mille(LATE_PER_MILLE) {
            self.holders[holder].accidents += 1;
            return Some(self.random.between(200, LATE_MAX_MS));
        }
        Some(self.random.between(1, 200))
    }

    fn send(&mut self, holder: usize, (connection, shown): (u64, u64), message: Up) {
        if let Some(wait_ms) = self.passage_ms(holder) {
            self.queue.plan_after(wait_ms, Event::Up { holder, connection, shown, message });
        }
    }

    fn reply(&mut self, holder: usize, connection: u64, message: Down) {
        let life = self.holders[holder].life;
        if let Some(wait_ms) = self.passage_ms(holder) {
            self.queue.plan_after(wait_ms, Event::Down { holder, life, connection, message });
        }
    }

    pub(super) fn arrive(&mut self, holder: usize, (connection, shown): (u64, u64), message: Up) {
        if !self.control.is_up {
            return;
        }
        let cluster = self.holders[holder].cluster.clone();
        match message {
            Up::Hello { instance, trusts } => {
                self.hello(holder, (connection, shown), cluster, instance, trusts);
            }
            Up::Renew { instance, holds, number, request } => {
                let answer = self.renew(holder, shown, (instance, holds), &request);
                self.reply(holder, connection, Down::Renewed { number, answer });
            }
            Up::Taken { instance, holds, trusts } => {
                let see =
                    ask::SeeIdentity { cluster, generation: shown, holds, agent_instance: instance, trusts };
                if let Err(refusal) = self.control.command(self.wall_ms(), Body::SeeIdentity(see)) {
                    self.line(format_args!(
                        "what holder {holder} keeps is not taken note of: {}",
                        refusal.code
                    ));
                }
                self.after_command();
            }
        }
    }

    fn hello(
        &mut self,
        holder: usize,
        (connection, shown): (u64, u64),
        cluster: String,
        instance: u64,
        trusts: Vec<Vec<u8>>,
    ) {
        let open = ask::OpenSession {
            cluster: cluster.clone(),
            cluster_uid: uid(&cluster),
            agent_instance: instance,
            runtime: Runtime::Simulated.into(),
            allocatable: Some(Resources { cpu_milli: 1_000, pods: 10, ..Resources::default() }),
            certificate: shown,
            trusts: trusts.clone(),
            ..ask::OpenSession::default()
        };
        let refused = match self.control.command(self.wall_ms(), Body::OpenSession(open)) {
            Ok(reply) => match reply.body {
                Some(reply::Body::IdentityRefused(refused)) => Some(refused.code),
                _ => None,
            },
            Err(refusal) => Some(refusal.code),
        };
        if let Some(code) = refused {
            let name = self.holders[holder].name();
            self.line(format_args!("{name} gets no session: {code}"));
            self.reply(holder, connection, Down::Refused);
        } else {
            let name = self.holders[holder].name();
            self.line(format_args!("{name} has a session with certificate {shown}"));
            // A cluster has one session.
            self.control.sessions.retain(|_, open| open.cluster != cluster);
            self.control.sessions.insert(connection, Open { holder, cluster, shown });
            self.reply(holder, connection, Down::Welcome);
            if trusts != self.control.trusts() {
                let roots = self.control.roots();
                self.reply(holder, connection, Down::Roots(roots));
            }
        }
        self.after_command();
    }

    fn renew(
        &mut self,
        holder: usize,
        shown: u64,
        (instance, holds): (u64, u64),
        request: &[u8],
    ) -> Result<Issued, String> {
        let (now_ms, cluster) = (self.wall_ms(), self.holders[holder].cluster.clone());
        let renew = ask::RenewIdentity {
            cluster: cluster.clone(),
            generation: shown,
            holds,
            agent_instance: instance,
            key: self.control.check(request, &cluster).map_err(|error| error.to_string())?,
            authority: self.control.authority(),
        };
        let reply = self.control.command(now_ms, Body::RenewIdentity(renew));
        let answer = match reply.map(|reply| reply.body) {
            Ok(Some(reply::Body::IdentityRenewed(renewed))) => {
                let (name, generation) = (self.holders[holder].name(), renewed.generation);
                self.line(format_args!("{name} shows {shown}, holds {holds}, gets certificate {generation}"));
                self.count_renewal(holder);
                let issued = self.control.sign(request, &cluster, renewed.generation, now_ms);
                issued.map_err(|error| error.to_string())
            }
            Ok(Some(reply::Body::IdentityRefused(refused))) => Err(refused.code),
            Ok(other) => Err(format!("{other:?}")),
            Err(refusal) => Err(refusal.code),
        };
        self.after_command();
        let mut issued = answer?;
        if !self.options.is_calm && self.random.per_mille(BROKEN_PER_MILLE) {
            let at = self.random.below(200) as usize;
            self.holders[holder].accidents += 1;
            // Cut short: what a changed byte does would depend on keys, which are not of the seed.
            if let Some(leaf) = issued.chain.first_mut() {
                leaf.truncate(at);
            }
        }
        Ok(issued)
    }

    pub(super) fn answered(&mut self, holder: usize, connection: u64, message: Down) {
        let it = &mut self.holders[holder];
        let Some(process) = it.process.as_mut() else { return };
        let is_session = process.connection.is_some_and(|(own, _)| own == connection);
        match message {
            Down::Welcome => process.is_welcome |= is_session,
            Down::Refused => {
                let life = it.life;
                self.broken(holder, life, connection);
            }
            Down::Roots(roots) if is_session => self.told_roots(holder, roots),
            Down::Roots(_) => {}
            Down::Renewed { number, answer } => {
                if process.asked.is_some_and(|asked| asked.number == number) {
                    process.asked = None;
                    self.renewed(holder, answer);
                }
            }
        }
    }

    fn renewed(&mut self, holder: usize, answer: Result<Issued, String>) {
        let (wall_ms, draw) = (self.holder_wall_ms(holder), self.random.draw());
        let name = self.holders[holder].name();
        let cluster = self.holders[holder].cluster.clone();
        let it = &mut self.holders[holder];
        let (Some(process), Some(files)) = (it.process.as_mut(), it.files.as_mut()) else { return };
        let issued = match answer {
            Ok(issued) => issued,
            Err(code) => {
                process.keeper.refused(wall_ms);
                let may_be = it.needs_invite;
                self.line(format_args!("{name} gets no certificate: {code}"));
                if !may_be {
                    self.violate(format!("{name} gets no certificate any more: {code}"));
                }
                return;
            }
        };
        let key = Arc::clone(&files.key);
        match Keeper::check(&key, issued.chain, issued.roots, &cluster, wall_ms) {
            Ok(identity) => {
                if self.dies(holder) {
                    return;
                }
                let it = &mut self.holders[holder];
                let (Some(process), Some(files)) = (it.process.as_mut(), it.files.as_mut()) else { return };
                files.identity = identity.clone();
                process.keeper.take(identity, draw);
                if !self.dies(holder) {
                    self.tell(holder);
                }
            }
            Err(_) => self.line(format_args!("{name} keeps what it has")),
        }
    }

    /// The process dies here, now and then.
    fn dies(&mut self, holder: usize) -> bool {
        if self.options.is_calm || !self.random.per_mille(DIES_PER_MILLE) {
            return false;
        }
        let now_ms = self.now_ms();
        self.cut(holder);
        self.holders[holder].accidents += 1;
        self.holders[holder].end(now_ms);
        let for_ms = self.random.between(1, DIES_FOR_MAX_MS);
        self.queue.plan_after(for_ms, Event::Start { holder });
        true
    }

    fn told_roots(&mut self, holder: usize, roots: Vec<Vec<u8>>) {
        let wall_ms = self.holder_wall_ms(holder);
        let it = &mut self.holders[holder];
        let (Some(process), Some(files)) = (it.process.as_mut(), it.files.as_mut()) else { return };
        match process.keeper.with_roots(roots, wall_ms) {
            Ok(Some(identity)) => {
                files.identity = identity.clone();
                process.keeper.trust(identity);
            }
            Ok(None) => {}
            Err(error) => {
                let name = it.name();
                self.line(format_args!("{name} does not take the authorities: {error}"));
                return;
            }
        }
        self.tell(holder);
    }

    /// Says which certificate and which authorities are kept.
    fn tell(&mut self, holder: usize) {
        let Some(process) = self.holders[holder].process.as_ref() else { return };
        let (Some(connection), true) = (process.connection, process.is_welcome) else { return };
        let identity = process.keeper.identity();
        let taken = Up::Taken {
            instance: process.instance,
            holds: identity.generation().unwrap_or(0),
            trusts: identity.trusts(),
        };
        self.send(holder, connection, taken);
    }

    pub(super) fn tell_everybody(&mut self) {
        let sessions: Vec<(u64, usize)> =
            self.control.sessions.iter().map(|(connection, open)| (*connection, open.holder)).collect();
        for (connection, holder) in sessions {
            let roots = self.control.roots();
            self.reply(holder, connection, Down::Roots(roots));
        }
    }

    /// Streams of certificates that don't count any more end.
    pub(super) fn end_refused(&mut self) {
        let refused: Vec<(u64, usize)> = self
            .control
            .sessions
            .iter()
            .filter(|(_, open)| self.control.state.identity_refusal(&open.cluster, open.shown).is_some())
            .map(|(connection, open)| (*connection, open.holder))
            .collect();
        for (connection, holder) in refused {
            self.control.sessions.remove(&connection);
            let life = self.holders[holder].life;
            self.queue.plan_after(1, Event::Broken { holder, life, connection });
        }
    }
}
