//! Frames of the control plane: welcome, lease, resync, assignments, stops, verdicts.

use super::attempts::Admission;
use super::connection::{Link, Standing};
use super::{Output, Session, Up};
use crate::{FRAME_VERSION, Millis, Times, code, is_terminal};
use argosy_model::planted::{Bug, is_planted};
use argosy_proto::agent;
use argosy_proto::agent::control_frame::Body as Down;
use argosy_proto::common::{Fence, Verdict};
use std::collections::{BTreeSet, VecDeque};

/// Longest lease believed, whatever Welcome says: 1 h.
const LEASE_MS_MAX: Millis = 3_600_000;
/// Longest silence that a drill is granted, whatever the frame says: 1 h.
const SILENCE_MS_MAX: Millis = 3_600_000;
/// Shortest time between two renewals.
const RENEW_EVERY_MS_MIN: Millis = 10;

impl Session {
    pub(super) fn on_frame(&mut self, now: Millis, frame: agent::ControlFrame) {
        if matches!(self.link, Link::Down { .. }) {
            self.counters.frames_stale += 1;
            return;
        }
        if frame.version != FRAME_VERSION {
            let (code, permanent) = (code::VERSION.to_owned(), true);
            let message = format!("frame version {} is not supported: upgrade the agent", frame.version);
            self.outputs.push(Output::Refused { code, message, permanent });
            return self.reconnect(now, true);
        }
        self.heard(now);
        let current = match &self.link {
            Link::Up(up, _) => up.epoch == frame.session_epoch,
            Link::Down { .. } | Link::Greeting { .. } => false,
        };
        match frame.body {
            // Certificates are the affair of what owns the connection.
            None | Some(Down::CertificateRenewed(_) | Down::TrustRoots(_)) => {
                self.counters.frames_unexpected += 1;
            }
            Some(Down::Welcome(welcome)) => self.on_welcome(now, frame.session_epoch, &welcome),
            Some(Down::Refused(refused)) => self.on_refused(now, frame.session_epoch, refused),
            // Reads only: good in any session.
            Some(Down::LogRequest(request)) => self.outputs.push(Output::Log(request)),
            Some(Down::PrerequisitesAsked(asked)) => self.outputs.push(Output::Prerequisites(asked.names)),
            Some(Down::WorkflowsTold(told)) => self.outputs.push(Output::Workflows(told.workflows)),
            Some(_) if !current => self.counters.frames_stale += 1,
            Some(Down::LeaseRenewed(renewed)) => self.on_renewed(now, renewed.sequence),
            Some(Down::ResyncVerdicts(page)) => self.on_verdicts(now, page),
            Some(Down::Assign(assign)) => self.on_assign(now, assign),
            Some(Down::Stop(stop)) => self.on_stop(now, stop),
            Some(Down::ReportVerdict(verdict)) => self.on_verdict(now, verdict),
            Some(Down::PermitVerdict(verdict)) => self.on_permit(verdict),
            Some(Down::ConfigMapsTaken(taken)) => self.on_config_maps_taken(now, taken),
            Some(Down::FallSilent(silent)) => {
                self.fall_silent(now, silent.drill, silent.for_ms.min(SILENCE_MS_MAX));
            }
            Some(Down::Kill(kill)) => {
                self.outputs.extend(kill.fence.map(|fence| Output::Kill { fence }));
            }
        }
    }

    fn on_welcome(&mut self, now: Millis, epoch: u64, welcome: &agent::Welcome) {
        let welcomed = (welcome.incarnation, epoch);
        if welcomed <= self.welcomed {
            self.counters.frames_stale += 1;
            return;
        }
        if welcome.incarnation != self.welcomed.0 {
            self.attempts.forget_verdicts();
        }
        self.welcomed = welcomed;
        self.failures = 0;
        self.counters.sessions += 1;
        let standing = Standing {
            epoch,
            incarnation: welcome.incarnation,
            lease_ms: welcome.lease_ms.min(LEASE_MS_MAX),
            renew_every_ms: welcome.renew_every_ms.max(RENEW_EVERY_MS_MIN),
            renew_at: now,
            renewals: VecDeque::new(),
            lease_until: 0,
            synced: false,
            awaiting: BTreeSet::new(),
            last_page: false,
            round: 0,
            listed_at: now,
        };
        self.keep_pace(standing.lease_ms);
        self.link = Link::Up(Box::new(standing), now);
        self.list(now);
        self.renew(now);
    }

    /// Pauses that go with a lease are no longer than this one allows: with those of a longer lease an agent would come back
    /// too late after an outage of the control plane, and lose its steps.
    fn keep_pace(&mut self, lease_ms: Millis) {
        let pace = Times::with_lease(lease_ms);
        let times = &mut self.options.times;
        times.reconnect_max_ms = times.reconnect_max_ms.min(pace.reconnect_max_ms);
        times.silence_max_ms = times.silence_max_ms.min(pace.silence_max_ms);
        times.agent_resend_ms = times.agent_resend_ms.min(pace.agent_resend_ms);
    }

    /// Lists every held attempt, in pages.
    pub(super) fn list(&mut self, now: Millis) {
        let Link::Up(up, _) = &mut self.link else { return };
        up.round += 1;
        up.listed_at = now;
        up.awaiting = self.attempts.fences();
        up.last_page = false;
        let (epoch, round) = (up.epoch, up.round);
        let held = self.attempts.listing();
        let size = self.options.limits.resync_page_max.max(1);
        let pages = held.len().div_ceil(size).max(1);
        for page in 0..pages {
            let end = held.len().min((page + 1) * size);
            let resync = agent::Resync {
                held: held[page * size..end].to_vec(),
                last: page + 1 == pages,
                round,
                page: u32::try_from(page).unwrap_or(u32::MAX),
            };
            self.send(epoch, Up::Resync(resync));
        }
    }

    pub(super) fn renew(&mut self, now: Millis) {
        let wall_clock_ms = self.wall_clock_ms(now);
        let Link::Up(up, _) = &mut self.link else { return };
        self.lease.sequence += 1;
        let sequence = self.lease.sequence;
        up.renew_at = now.saturating_add(up.renew_every_ms);
        up.renewals.push_back((sequence, now));
        if up.renewals.len() > self.options.limits.renewals_in_flight_max {
            up.renewals.pop_front();
        }
        let epoch = up.epoch;
        let renew = agent::RenewLease {
            sequence,
            wall_clock_ms,
            allocatable: self.allocatable.clone(),
            runtime_healthy: self.runtime_healthy,
        };
        self.counters.renewals_sent += 1;
        self.send(epoch, Up::RenewLease(renew));
    }

    fn on_renewed(&mut self, now: Millis, sequence: u64) {
        let Link::Up(up, _) = &mut self.link else { return };
        let Some(position) = up.renewals.iter().position(|(sent, _)| *sent == sequence) else {
            self.counters.frames_unexpected += 1;
            return;
        };
        let sent_at = if is_planted(Bug::LeaseFromReceipt) { now } else { up.renewals[position].1 };
        up.renewals.drain(..=position);
        up.lease_until = up.lease_until.max(sent_at.saturating_add(up.lease_ms));
        self.counters.renewals_acknowledged += 1;
        self.extend_lease();
    }

    /// A lease counts once the session is in step: before, attempts may be held that were taken over.
    fn extend_lease(&mut self) {
        let Link::Up(up, _) = &self.link else { return };
        let counts = up.synced || is_planted(Bug::LeaseBeforeResync);
        if counts && up.lease_until > self.lease.until {
            self.lease.until = up.lease_until;
            self.outputs.push(Output::Lease { live_until: self.lease.until });
        }
    }

    fn on_verdicts(&mut self, now: Millis, page: agent::ResyncVerdicts) {
        let Link::Up(up, _) = &mut self.link else { return };
        up.last_page |= page.last;
        for agent::AttemptVerdict { fence, keep } in page.verdicts {
            let Some(fence) = fence else { continue };
            let listed = up.awaiting.remove(&fence);
            // A result that came meanwhile is judged as a report: it may be the one that counts.
            let unwanted = listed && !keep && !self.attempts.has_news_of_its_end(&fence);
            if unwanted && self.attempts.discard(&fence) {
                self.outputs.push(Output::Discard { fence });
            }
        }
        self.settle(now);
    }

    /// In step once every listed attempt that is still held has its verdict, wherever pages were lost.
    pub(super) fn settle(&mut self, now: Millis) {
        let Link::Up(up, _) = &mut self.link else { return };
        let attempts = &mut self.attempts;
        up.awaiting.retain(|fence| attempts.get_mut(fence).is_some());
        if up.synced || !up.last_page || !up.awaiting.is_empty() {
            return;
        }
        up.synced = true;
        let synced = Output::Synced { session_epoch: up.epoch, incarnation: up.incarnation };
        self.attempts.report_all();
        self.config_maps.tell_all();
        self.outputs.push(synced);
        self.extend_lease();
        self.send_reports(now);
        self.send_config_maps(now);
    }

    fn on_assign(&mut self, now: Millis, assign: agent::Assign) {
        let Some((assignment, fence)) =
            assign.assignment.and_then(|assignment| assignment.fence.map(|fence| (assignment, fence)))
        else {
            self.counters.frames_unexpected += 1;
            return;
        };
        match self.attempts.admit(fence) {
            Admission::New => self.outputs.push(Output::Assign(assignment)),
            Admission::Held => {
                self.counters.assigns_repeated += 1;
                self.attempts.report_again(fence);
                self.send_reports(now);
            }
            Admission::Released => self.counters.assigns_repeated += 1,
            Admission::Full => self.counters.assigns_dropped += 1,
        }
    }

    fn on_stop(&mut self, now: Millis, stop: agent::Stop) {
        let Some(fence) = stop.fence else {
            self.counters.frames_unexpected += 1;
            return;
        };
        match self.attempts.get_mut(&fence) {
            Some(attempt) if is_terminal(attempt.report.phase()) => {
                self.attempts.report_again(fence);
                self.send_reports(now);
            }
            Some(attempt) if attempt.discarded => {}
            Some(_) | None => {
                let agent::Stop { reason, grace_ms, only_if_unstarted, .. } = stop;
                self.outputs.push(Output::Stop { fence, reason, grace_ms, only_if_unstarted });
            }
        }
    }

    fn on_verdict(&mut self, now: Millis, frame: agent::ReportVerdict) {
        let verdict = frame.verdict();
        let Some(fence) = frame.fence else {
            self.counters.frames_unexpected += 1;
            return;
        };
        self.judge(fence, frame.revision, verdict);
        self.send_reports(now);
    }

    fn judge(&mut self, fence: Fence, revision: u64, verdict: Verdict) {
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        let newest = attempt.report.revision;
        if attempt.discarded || revision > newest || attempt.acknowledged >= Some(revision) {
            return;
        }
        match verdict {
            Verdict::Unspecified => self.counters.frames_unexpected += 1,
            Verdict::Accepted => {
                attempt.acknowledged = Some(revision);
                if revision == newest {
                    let terminal = is_terminal(attempt.report.phase());
                    self.attempts.settled(&fence);
                    self.outputs.push(Output::Verdict { fence, revision, verdict, terminal });
                }
            }
            Verdict::Superseded | Verdict::Unknown => {
                attempt.acknowledged = Some(revision);
                let terminal = is_terminal(attempt.report.phase());
                self.attempts.discard(&fence);
                self.outputs.push(Output::Verdict { fence, revision, verdict, terminal });
            }
        }
    }

    pub(super) fn send_reports(&mut self, now: Millis) {
        let Link::Up(up, _) = &self.link else { return };
        if !up.synced {
            return;
        }
        let epoch = up.epoch;
        while let Some(report) = self.attempts.next_report(now) {
            self.counters.reports_sent += 1;
            self.send(epoch, Up::Report(agent::Report { attempt: Some(report) }));
        }
    }

    fn on_permit(&mut self, verdict: agent::PermitVerdict) {
        let agent::PermitVerdict { fence: Some(fence), holder, granted, reason, exclusive_lease_ms } =
            verdict
        else {
            self.counters.frames_unexpected += 1;
            return;
        };
        self.outputs.push(Output::Permit {
            fence,
            holder,
            refused: (!granted).then_some(reason),
            exclusive_lease_ms,
        });
    }

    fn on_refused(&mut self, now: Millis, epoch: u64, refused: agent::Refused) {
        let standing = match &self.link {
            Link::Up(up, _) => Some(up.epoch),
            Link::Down { .. } | Link::Greeting { .. } => None,
        };
        if refused.code == code::STALE_SESSION {
            // Of the present session, or it is an old refusal. The lease in hand stays: the clock of the control plane
            // that goes with it has not run out, or it has run out here as well.
            if standing == Some(epoch) {
                self.greet(now, now);
            }
            return;
        }
        let agent::Refused { code, message, permanent } = refused;
        self.outputs.push(Output::Refused { code, message, permanent });
        self.reconnect(now, permanent);
    }
}
