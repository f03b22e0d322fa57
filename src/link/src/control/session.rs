//! Greetings, resync and reports.

use super::cluster::{Greeting, Kind, Listing, ReportSlot, Session};
use super::{Answer, ConnectionRef, DecisionId, Output, Sessions};
use crate::{Error, FRAME_VERSION, Millis, is_terminal};
use argosy_proto::agent;
use argosy_proto::agent::agent_frame::Body;
use argosy_proto::agent::control_frame::Body as Down;
use argosy_proto::command::{self, command::Body as Ask, reply::Body as Reply};
use argosy_proto::common::{self, AttemptReport, Fence};

/// Reports refused in a row before the agent is asked to greet again.
const REFUSED_IN_A_ROW_MAX: u32 = 3;

impl Sessions {
    pub(super) fn on_frame(
        &mut self,
        now: Millis,
        connection: ConnectionRef,
        cluster: String,
        frame: agent::AgentFrame,
    ) {
        if frame.version != FRAME_VERSION {
            let error = Error::Version { version: frame.version, supported: FRAME_VERSION };
            return self.refuse_connection(connection, &error);
        }
        let epoch = frame.session_epoch;
        match frame.body {
            Some(Body::Hello(hello)) => {
                self.on_hello(Greeting { connection, hello, received_at: now }, cluster)
            }
            Some(Body::RenewLease(renew)) if self.is_current(&cluster, connection, epoch) => {
                self.on_renew(now, &cluster, renew);
            }
            Some(Body::Resync(page)) if self.is_current(&cluster, connection, epoch) => {
                self.on_page(&cluster, page)
            }
            Some(Body::Report(report)) if self.is_current(&cluster, connection, epoch) => {
                self.on_report(now, &cluster, report);
            }
            Some(Body::AskPermit(ask)) if self.is_current(&cluster, connection, epoch) => {
                self.on_ask_permit(&cluster, ask);
            }
            Some(Body::Credit(credit)) if self.is_current(&cluster, connection, epoch) => {
                self.on_credit(now, &cluster, credit.more);
            }
            Some(Body::RenewLease(_) | Body::Resync(_)) => {
                self.counters.frames_stale += 1;
                // One refusal for each renewal or page paces itself; an opening on its way makes it needless.
                if self.clusters.get(&cluster).is_none_or(|known| known.opening != Some(connection)) {
                    self.refuse(connection, epoch, &Error::StaleSession { cluster, given: epoch });
                }
            }
            Some(Body::PrerequisitesFound(found)) if self.is_current(&cluster, connection, epoch) => {
                let command = command::FindPrerequisites { cluster: cluster.clone(), found: found.found };
                self.decide(&cluster, Kind::Found, Ask::FindPrerequisites(command));
            }
            Some(Body::ConfigMapsReported(report)) if self.is_current(&cluster, connection, epoch) => {
                self.on_config_maps(&cluster, report);
            }
            Some(
                Body::Report(_)
                | Body::Credit(_)
                | Body::AskPermit(_)
                | Body::PrerequisitesFound(_)
                | Body::ConfigMapsReported(_),
            ) => {
                self.counters.frames_stale += 1;
            }
            // Chunks and certificates are the affair of the member that holds the connection; the member answers what is
            // asked of workflows.
            Some(
                Body::LogChunk(_)
                | Body::WorkflowsAsked(_)
                | Body::RenewCertificate(_)
                | Body::CertificateTaken(_),
            )
            | None => self.counters.frames_unexpected += 1,
        }
    }

    fn is_current(&self, cluster: &str, connection: ConnectionRef, epoch: u64) -> bool {
        self.clusters
            .get(cluster)
            .and_then(|known| known.session.as_ref())
            .is_some_and(|session| session.connection == connection && session.epoch == epoch)
    }

    fn refuse_connection(&mut self, connection: ConnectionRef, error: &Error) {
        self.counters.sessions_refused += 1;
        self.refuse(connection, 0, error);
        self.outputs.push(Output::Close { connection });
    }

    fn on_hello(&mut self, greeting: Greeting, cluster: String) {
        let connection = greeting.connection;
        if greeting.hello.cluster != cluster {
            let error = Error::IdentityMismatch { identity: cluster, claimed: greeting.hello.cluster };
            return self.refuse_connection(connection, &error);
        }
        let connections_max = self.limits.connections_max;
        if self.connections.len() >= connections_max {
            self.forget_connections();
        }
        if !self.connections.contains_key(&connection) && self.connections.len() >= connections_max {
            return self.refuse_connection(connection, &Error::TooManyConnections { connections_max });
        }
        self.connections.insert(connection, cluster.clone());
        let known = self.clusters.entry(cluster.clone()).or_default();
        match known.opening {
            Some(opening) if opening == connection => {} // a repeated greeting
            Some(_) => known.next_greeting = Some(greeting),
            None => self.open(&cluster, greeting),
        }
    }

    /// Connections of members that died are never closed: those without a session or greeting are forgotten.
    fn forget_connections(&mut self) {
        let clusters = &self.clusters;
        self.connections.retain(|connection, name| {
            clusters.get(name).is_some_and(|cluster| {
                let in_session =
                    cluster.session.as_ref().is_some_and(|session| session.connection == *connection);
                let waits =
                    cluster.next_greeting.as_ref().is_some_and(|greeting| greeting.connection == *connection);
                in_session || waits || cluster.opening == Some(*connection)
            })
        });
    }

    fn open(&mut self, name: &str, greeting: Greeting) {
        let Greeting { connection, hello, received_at } = greeting;
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.opening = Some(connection);
        let open = command::OpenSession {
            cluster: name.to_owned(),
            cluster_uid: hello.cluster_uid,
            agent_instance: hello.agent_instance,
            agent_version: hello.agent_version,
            runtime: hello.runtime,
            allocatable: hello.allocatable,
            labels: hello.labels,
            enforces_exclusive: hello.enforces_exclusive,
            member: connection.member,
            ledger: hello.ledger,
            certificate: hello.certificate,
            trusts: hello.trusts,
        };
        let credit = hello.credit.min(self.limits.credit_max);
        self.decide(name, Kind::Open { connection, received_at, credit }, Ask::OpenSession(open));
    }

    pub(super) fn on_removed(&mut self, name: &str) {
        let Some(cluster) = self.clusters.remove(name) else { return };
        if let Some(session) = cluster.session {
            self.connections.remove(&session.connection);
            self.refuse(session.connection, session.epoch, &Error::Removed { cluster: name.to_owned() });
            self.outputs.push(Output::Close { connection: session.connection });
        }
    }

    /// The take-over clock goes on: what runs there is moved as from any cluster that is silent.
    pub(super) fn on_identity_refused(&mut self, name: &str, code: String, message: String) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.next_greeting = None;
        let Some(session) = cluster.session.take() else { return };
        self.connections.remove(&session.connection);
        self.refuse_for_good(session.connection, session.epoch, code, message);
    }

    fn refuse_for_good(&mut self, connection: ConnectionRef, epoch: u64, code: String, message: String) {
        self.counters.sessions_refused += 1;
        self.send(connection, epoch, Down::Refused(agent::Refused { code, message, permanent: true }));
        self.outputs.push(Output::Close { connection });
    }

    pub(super) fn on_closed(&mut self, connection: ConnectionRef) {
        let Some(name) = self.connections.remove(&connection) else { return };
        let Some(cluster) = self.clusters.get_mut(&name) else { return };
        if cluster.session.as_ref().is_some_and(|session| session.connection == connection) {
            // The take-over clock goes on: a closed connection is silence, no more.
            cluster.session = None;
        }
        if cluster.next_greeting.as_ref().is_some_and(|greeting| greeting.connection == connection) {
            cluster.next_greeting = None;
        }
    }

    pub(super) fn on_decided(&mut self, now: Millis, decision: DecisionId, answer: Answer) {
        let Some((name, kind)) = self.decisions.answered(decision) else {
            self.counters.frames_unexpected += 1;
            return;
        };
        match kind {
            Kind::Open { connection, received_at, credit } => {
                self.on_opened(&name, connection, received_at, credit, answer);
            }
            Kind::Resync { epoch } => self.on_resynced(now, &name, epoch, answer),
            Kind::Report { epoch, fence } => self.on_reported(now, &name, epoch, fence, answer),
            Kind::Permit { epoch, fence, holder } => {
                self.on_permit_decided(&name, epoch, fence, holder, answer)
            }
            Kind::TakeOver { epoch, beyond_ms } => self.on_taken_over(now, &name, epoch, beyond_ms, &answer),
            Kind::Update => self.on_updated(&name, &answer),
            // What is still unknown is asked again.
            Kind::Found => {}
            Kind::ConfigMaps { epoch, revision } => {
                self.on_config_maps_decided(&name, epoch, revision, answer);
            }
        }
    }

    fn on_opened(
        &mut self,
        name: &str,
        connection: ConnectionRef,
        received_at: Millis,
        credit: u32,
        answer: Answer,
    ) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.opening = None;
        let next = cluster.next_greeting.take();
        match answer {
            Answer::Reply(command::Reply { body: Some(Reply::SessionOpened(opened)) }) => {
                self.welcome(name, connection, received_at, credit, opened.session_epoch);
            }
            // It was locked by this very question.
            Answer::Reply(command::Reply { body: Some(Reply::IdentityRefused(refused)) }) => {
                self.refuse_for_good(connection, 0, refused.code, refused.message);
            }
            Answer::Refused(refusal) => {
                self.counters.sessions_refused += 1;
                let permanent = (400..500).contains(&refusal.http_status);
                let refused = agent::Refused { code: refusal.code, message: refusal.message, permanent };
                self.send(connection, 0, Down::Refused(refused));
                self.outputs.push(Output::Close { connection });
            }
            // The agent greets again.
            Answer::Reply(_) | Answer::Lost => {}
        }
        if let Some(greeting) = next {
            self.open(name, greeting);
        }
    }

    fn welcome(
        &mut self,
        name: &str,
        connection: ConnectionRef,
        received_at: Millis,
        credit: u32,
        epoch: u64,
    ) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.epoch = cluster.epoch.max(epoch);
        // The commit is a quorum round that began after the greeting.
        cluster.heard = cluster.heard.max(Some(received_at));
        cluster.taken_over = None;
        cluster.takeover_retry_at = 0;
        cluster.told = None;
        self.counters.sessions_opened += 1;
        let old = cluster.session.take();
        if self.connections.get(&connection).is_some_and(|owner| owner == name) {
            cluster.session = Some(Session::new(connection, epoch, credit));
            let welcome = agent::Welcome {
                cell: self.cell.clone(),
                incarnation: self.incarnation,
                lease_ms: self.times.lease_ms,
                renew_every_ms: self.times.renew_every_ms,
            };
            self.send(connection, epoch, Down::Welcome(welcome));
        }
        if let Some(old) = old.filter(|old| old.connection != connection) {
            self.connections.remove(&old.connection);
            self.outputs.push(Output::Close { connection: old.connection });
        }
    }

    fn on_page(&mut self, name: &str, page: agent::Resync) {
        let held_max = self.limits.held_max;
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        if session.reported || page.round <= session.listed_round {
            self.counters.frames_unexpected += 1;
            return;
        }
        if page.round > session.listing.round {
            session.listing = Listing { round: page.round, ..Listing::default() };
        }
        let listing = &mut session.listing;
        let beyond = listing.last.is_some_and(|last| page.page > last);
        if page.round < listing.round || beyond || listing.pages.contains_key(&page.page) {
            self.counters.frames_unexpected += 1;
            return;
        }
        if page.last {
            listing.last = Some(page.page);
        }
        listing.pages.insert(page.page, page.held);
        let (connection, epoch) = (session.connection, session.epoch);
        if listing.held() > held_max || listing.pages.len() > held_max {
            let error = Error::TooManyHeld { cluster: name.to_owned(), held_max };
            self.clusters.get_mut(name).expect("found above").session = None;
            return self.refuse_connection(connection, &error);
        }
        if listing.is_complete() {
            session.listed_round = page.round;
            let held = std::mem::take(&mut session.listing.pages).into_values().flatten().collect();
            let resync = command::ResyncAttempts { cluster: name.to_owned(), session_epoch: epoch, held };
            self.decide(name, Kind::Resync { epoch }, Ask::ResyncAttempts(resync));
        }
    }

    fn on_resynced(&mut self, now: Millis, name: &str, epoch: u64, answer: Answer) {
        let page_max = self.limits.resync_page_max.max(1);
        let Some(session) = self.current(name, epoch) else { return };
        let connection = session.connection;
        match answer {
            Answer::Reply(command::Reply { body: Some(Reply::AttemptsResynced(resynced)) }) => {
                session.live = true;
                session.held = resynced.keep.iter().copied().collect();
                let judged =
                    |keep: bool| move |fence: Fence| agent::AttemptVerdict { fence: Some(fence), keep };
                let verdicts: Vec<_> = resynced
                    .keep
                    .into_iter()
                    .map(judged(true))
                    .chain(resynced.stop.into_iter().map(judged(false)))
                    .collect();
                let pages = verdicts.len().div_ceil(page_max).max(1);
                for page in 0..pages {
                    let end = verdicts.len().min((page + 1) * page_max);
                    let verdicts = verdicts[page * page_max..end].to_vec();
                    let body = agent::ResyncVerdicts { verdicts, last: page + 1 == pages };
                    self.send(connection, epoch, Down::ResyncVerdicts(body));
                }
                self.plan(name);
                self.dispatch(now, name);
            }
            Answer::Refused(_) => {
                self.refuse(
                    connection,
                    epoch,
                    &Error::StaleSession { cluster: name.to_owned(), given: epoch },
                );
            }
            // The agent lists again.
            Answer::Reply(_) | Answer::Lost => {}
        }
    }

    pub(super) fn current(&mut self, name: &str, epoch: u64) -> Option<&mut Session> {
        let session = self.clusters.get_mut(name)?.session.as_mut()?;
        (session.epoch == epoch).then_some(session)
    }

    fn on_report(&mut self, now: Millis, name: &str, report: agent::Report) {
        self.counters.reports_received += 1;
        let Some((report, fence)) =
            report.attempt.and_then(|report| report.fence.map(|fence| (report, fence)))
        else {
            self.counters.frames_unexpected += 1;
            return;
        };
        let waiting_max = self.limits.reports_waiting_max;
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let Some(session) = cluster.session.as_mut() else { return };
        if !session.live {
            // Reports follow the resync.
            self.counters.frames_unexpected += 1;
            return;
        }
        session.reported = true;
        session.in_flight.remove(&fence);
        session.waiting.remove(&fence);
        if cluster.desired.contains_key(&fence) {
            session.held.insert(fence);
        }
        if is_terminal(report.phase()) {
            session.stops_in_flight.remove(&fence);
            session.stops_waiting.remove(&fence);
        }
        let full = session.reports.len() >= waiting_max;
        match session.reports.get_mut(&fence) {
            Some(slot) => {
                self.counters.reports_coalesced += u64::from(slot.next.is_some());
                let newest = slot.next.as_ref().map_or(slot.revision, |next| next.revision);
                if report.revision > newest {
                    slot.next = Some(report);
                }
            }
            None if full => self.counters.reports_dropped += 1,
            None => self.ask_report(name, fence, report),
        }
        self.dispatch(now, name);
    }

    fn ask_report(&mut self, name: &str, fence: Fence, report: AttemptReport) {
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        let epoch = session.epoch;
        session.reports.insert(fence, ReportSlot { revision: report.revision, next: None });
        let ask =
            command::ReportAttempt { cluster: name.to_owned(), session_epoch: epoch, report: Some(report) };
        self.decide(name, Kind::Report { epoch, fence }, Ask::ReportAttempt(ask));
    }

    fn on_reported(&mut self, now: Millis, name: &str, epoch: u64, fence: Fence, answer: Answer) {
        // A verdict for an ended session is not needed: the agent reports again in the next.
        let Some(session) = self.current(name, epoch) else { return };
        let next = session.reports.remove(&fence).and_then(|slot| slot.next);
        let connection = session.connection;
        match answer {
            Answer::Reply(command::Reply { body: Some(Reply::AttemptReported(reported)) }) => {
                session.refused_in_a_row = 0;
                let verdict = reported.verdict();
                match verdict {
                    common::Verdict::Accepted | common::Verdict::Unspecified => {}
                    common::Verdict::Superseded => self.counters.verdicts_superseded += 1,
                    common::Verdict::Unknown => self.counters.verdicts_unknown += 1,
                }
                let body = agent::ReportVerdict {
                    fence: Some(fence),
                    revision: reported.revision,
                    verdict: verdict.into(),
                };
                self.send(connection, epoch, Down::ReportVerdict(body));
            }
            Answer::Refused(_) => {
                session.refused_in_a_row += 1;
                let greet_again = session.refused_in_a_row == REFUSED_IN_A_ROW_MAX;
                self.counters.reports_refused += 1;
                if greet_again {
                    self.refuse(
                        connection,
                        epoch,
                        &Error::StaleSession { cluster: name.to_owned(), given: epoch },
                    );
                }
            }
            // The agent reports again.
            Answer::Reply(_) | Answer::Lost => {}
        }
        if let Some(report) = next {
            self.ask_report(name, fence, report);
        }
        self.dispatch(now, name);
    }

    fn on_credit(&mut self, now: Millis, name: &str, more: u32) {
        let credit_max = self.limits.credit_max;
        let Some(session) = self.clusters.get_mut(name).and_then(|cluster| cluster.session.as_mut()) else {
            return;
        };
        session.credit = session.credit.saturating_add(more).min(credit_max);
        self.dispatch(now, name);
    }
}
