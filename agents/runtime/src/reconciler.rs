use crate::attempt::{Attempt, StopAsked, observe_outcome};
use crate::io::{Counters, Input, Limits, Output};
use crate::ledger::{self, Ledger, LedgerEntry, LedgerRecord, PermitRecord};
use crate::policy::Policy;
use crate::runtime::{
    AttemptObservation, ExecutorAnswer, RuntimeAction, RuntimeEvent, StoreVerdict, is_terminal,
};
use argosy_executor::protocol::{EXIT_REFUSED, TaskOutcome};
use argosy_link::{Millis, agent as session};
use argosy_model::planted::{Bug, is_planted};
use argosy_proto::common::{Assignment, AttemptPhase, AttemptReport, Fence, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The agent's machine. Outputs leave it only after the ledger has what they rest on.
pub struct Reconciler<L> {
    session: session::Session,
    ledger: L,
    limits: Limits,
    attempts: BTreeMap<Fence, Attempt>,
    outputs: Vec<Output>,
    counters: Counters,
    /// Number of this life of the agent: the upper half of every revision, so that revisions rise over restarts.
    starts: u64,
    /// The ledger's name.
    name: u64,
    enforces_exclusive: bool,
    wall_clock_ms: i64,
    next_sweep: Millis,
    is_listed: bool,
    /// Until then a drill wants it to serve nobody.
    silent_until: Millis,
    /// What the cluster's owner allows; nothing: everything.
    policy: Option<Arc<Policy>>,
}

impl<L: Ledger> Reconciler<L> {
    /// A new life of the agent over what its ledger kept. Does nothing before the runtime's `Listed`.
    ///
    /// # Errors
    /// When the ledger cannot be read, or the new life not be written.
    pub fn new(mut options: session::Options, limits: Limits, mut ledger: L) -> Result<Self, ledger::Error> {
        let mut attempts = BTreeMap::new();
        let mut starts = 0;
        let mut name = 0;
        for record in ledger.load()? {
            match record.entry {
                Some(LedgerEntry::Started(number)) => starts = number,
                Some(LedgerEntry::Named(named)) => name = named,
                Some(LedgerEntry::Permitted(record)) => {
                    let PermitRecord { fence, holder, exclusive_lease_ms, exclusive_workflow_uid } = record;
                    let attempt =
                        attempts.entry(fence).or_insert_with(|| Attempt::new(fence, AttemptPhase::Running));
                    attempt.report.permitted = true;
                    attempt.holder = Some(holder);
                    attempt.exclusive_lease_ms = exclusive_lease_ms;
                    attempt.report.exclusive_workflow_uid = exclusive_workflow_uid;
                }
                Some(LedgerEntry::Ended(report)) => {
                    let fence = report.fence.unwrap_or_default();
                    let attempt =
                        attempts.entry(fence).or_insert_with(|| Attempt::new(fence, AttemptPhase::Running));
                    attempt.report = report;
                }
                Some(LedgerEntry::Forgotten(fence)) => drop(attempts.remove(&fence)),
                None => {}
            }
        }
        starts += 1;
        if name == 0 {
            // Drawn anew for each process, so that a ledger has a name that no other had.
            name = options.agent_instance.max(1);
        }
        options.ledger = name;
        let enforces_exclusive = options.enforces_exclusive;
        let mut reconciler = Self {
            session: session::Session::new(options),
            ledger,
            limits,
            attempts,
            outputs: Vec::new(),
            counters: Counters::default(),
            starts,
            name,
            enforces_exclusive,
            wall_clock_ms: 0,
            next_sweep: 0,
            is_listed: false,
            silent_until: 0,
            policy: None,
        };
        reconciler.compact()?;
        Ok(reconciler)
    }

    /// Makes nothing of new assignments that the cluster's owner does not allow.
    #[must_use]
    pub fn with_policy(mut self, policy: Option<Arc<Policy>>) -> Self {
        self.policy = policy;
        self
    }

    /// Takes one input at `now` (a clock that never goes back) and gives what is to be done.
    ///
    /// # Errors
    /// As [`Self::outputs`].
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Vec<Output>, ledger::Error> {
        self.feed(now, input);
        self.outputs()
    }

    /// Takes one input; several may be taken before [`Self::outputs`], which then syncs the ledger once for all.
    pub fn feed(&mut self, now: Millis, input: Input) {
        match input {
            Input::Tick { wall_clock_ms } => {
                self.wall_clock_ms = wall_clock_ms;
                if !self.is_listed {
                    // A session now would say that nothing is held, and all that exists would be given up.
                    return;
                }
                self.session_input(now, session::Input::Tick { wall_clock_ms });
                if now >= self.silent_until {
                    self.tell_withheld(now);
                    self.sweep(now);
                }
            }
            Input::Connected { wall_clock_ms } => {
                self.wall_clock_ms = wall_clock_ms;
                self.session_input(now, session::Input::Connected { wall_clock_ms });
            }
            Input::Disconnected => self.session_input(now, session::Input::Disconnected),
            Input::Frame(frame) => self.session_input(now, session::Input::Frame(frame)),
            Input::LogChunk(chunk) => self.session_input(now, session::Input::LogChunk(chunk)),
            Input::Runtime(event) => self.runtime_event(now, event),
        }
    }

    /// What is to be done, after the ledger holds what it rests on.
    ///
    /// # Errors
    /// When the ledger cannot be written: the outputs are kept for the next call, and nothing may be done before.
    pub fn outputs(&mut self) -> Result<Vec<Output>, ledger::Error> {
        let live = 2 * self.attempts.len() + 1;
        if self.ledger.length() > self.limits.ledger_compact_min.max(4 * live) {
            self.compact()?;
        }
        self.ledger.sync()?;
        Ok(std::mem::take(&mut self.outputs))
    }

    /// Totals of the process.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The session, for its counters and its lease.
    #[must_use]
    pub fn session(&self) -> &session::Session {
        &self.session
    }

    /// The newest reports of all held attempts.
    pub fn reports(&self) -> impl Iterator<Item = &AttemptReport> {
        self.attempts.values().map(|attempt| &attempt.report)
    }

    /// Ends this life and gives the ledger back (simulation of restarts).
    #[must_use]
    pub fn into_ledger(self) -> L {
        self.ledger
    }

    fn session_input(&mut self, now: Millis, input: session::Input) {
        for output in self.session.step(now, input) {
            self.session_output(now, output);
        }
    }

    fn session_output(&mut self, now: Millis, output: session::Output) {
        match output {
            session::Output::Send(frame) => self.outputs.push(Output::Send(frame)),
            session::Output::Assign(assignment) => self.assign(now, assignment),
            session::Output::Stop { fence, reason: _, grace_ms, only_if_unstarted } => {
                let runs = self.attempts.get(&fence).is_some_and(|attempt| attempt.report.permitted);
                if only_if_unstarted && runs {
                    self.changed(now, fence);
                } else {
                    self.stop(now, fence, grace_ms);
                }
            }
            session::Output::Discard { fence } => self.discard(now, fence),
            session::Output::Verdict { fence, revision, verdict, terminal } => {
                self.verdict(now, fence, revision, verdict, terminal);
            }
            session::Output::Permit { fence, holder, refused, exclusive_lease_ms } => {
                self.permit_decided(now, fence, holder, refused, exclusive_lease_ms);
            }
            session::Output::Log(request) => self.outputs.push(Output::Log(request)),
            session::Output::Prerequisites(names) => {
                self.outputs.push(Output::Runtime(RuntimeAction::CheckPrerequisites(names)));
            }
            session::Output::Workflows(told) => {
                self.outputs.push(Output::Runtime(RuntimeAction::WorkflowsTold(told)));
            }
            session::Output::ConfigMapNotices(notices) => {
                self.outputs.push(Output::ConfigMapNotices(notices));
            }
            session::Output::Lease { live_until: _ } => {}
            session::Output::Synced { session_epoch, incarnation } => {
                self.outputs.push(Output::Synced { session_epoch, incarnation });
            }
            session::Output::Refused { code, message, permanent } => {
                if code == argosy_link::code::REMOVED {
                    // The cluster was given up by an operator: nothing of it is waited for, so nothing may be left.
                    let held: Vec<Fence> = self.attempts.keys().copied().collect();
                    held.into_iter().for_each(|fence| self.discard(now, fence));
                }
                self.outputs.push(Output::Refused { code, message, permanent });
            }
            session::Output::FallSilent { drill, until } => {
                self.silent_until = until;
                self.outputs.push(Output::Silent { drill, for_ms: until.saturating_sub(now) });
            }
            session::Output::Kill { fence } => {
                let runs = |attempt: &&Attempt| attempt.report.permitted && !attempt.is_over();
                if self.attempts.get(&fence).filter(runs).is_some_and(|attempt| attempt.stop.is_none()) {
                    self.outputs.push(Output::Runtime(RuntimeAction::Kill(fence)));
                }
            }
            session::Output::Reconnect { after_ms } => self.outputs.push(Output::Connect { after_ms }),
        }
    }

    fn assign(&mut self, now: Millis, mut assignment: Assignment) {
        let Some(fence) = assignment.fence else { return };
        let attempt =
            self.attempts.entry(fence).or_insert_with(|| Attempt::new(fence, AttemptPhase::Received));
        let is_new = attempt.report.phase() == AttemptPhase::Received && attempt.ensured == 0;
        let is_exclusive = assignment.exclusive;
        let judged = self.policy.as_ref().map_or(Ok(()), |policy| policy.admit(&mut assignment));
        attempt.exclusive_lease_ms = assignment.exclusive_lease_ms;
        attempt.assignment = Some(assignment);
        attempt.confirmed = true;
        if let (true, Err(refusal)) = (is_new, judged) {
            return self.end(now, AttemptObservation::refused(fence, &refusal));
        }
        if is_new && is_exclusive && !self.enforces_exclusive {
            // Its process would have to end with its own lease, whatever happens to the agent.
            let message = "this cluster's agent cannot run exclusive steps";
            return self.end(now, AttemptObservation::new(fence, AttemptPhase::Error, message));
        }
        if is_new {
            self.ensure(now, fence);
        }
        self.changed(now, fence);
    }

    fn ensure(&mut self, now: Millis, fence: Fence) {
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        let Some(assignment) = attempt.assignment.clone() else { return };
        attempt.ensured += 1;
        attempt.ensured_at = now;
        self.outputs.push(Output::Runtime(RuntimeAction::Ensure(assignment)));
    }

    fn stop(&mut self, now: Millis, fence: Fence, grace_ms: i64) {
        let attempt = self.attempts.entry(fence).or_insert_with(|| {
            let mut attempt = Attempt::new(fence, AttemptPhase::Stopped);
            attempt.report.message = "it was not held when it was to be stopped".to_owned();
            attempt
        });
        if attempt.is_over() {
            return self.changed(now, fence);
        }
        attempt.stop = Some(StopAsked { grace_ms, passed_on: now });
        self.outputs.push(Output::Runtime(RuntimeAction::Stop { fence, grace_ms }));
        // Without a permit nothing of the user's ran, and from now on no permit is given.
        if !attempt.report.permitted {
            self.end(now, AttemptObservation::new(fence, AttemptPhase::Stopped, ""));
        }
    }

    /// Ends and releases without a report.
    fn discard(&mut self, now: Millis, fence: Fence) {
        let grace_ms = self.limits.unwanted_grace_ms;
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return self.session_input(now, session::Input::Released(fence));
        };
        if !attempt.unwanted {
            self.counters.attempts_discarded += 1;
        }
        attempt.unwanted = true;
        if attempt.is_over() {
            return self.forget(now, fence);
        }
        if attempt.stop.is_none() {
            attempt.stop = Some(StopAsked { grace_ms, passed_on: now });
            self.outputs.push(Output::Runtime(RuntimeAction::Stop { fence, grace_ms }));
        }
        if !attempt.report.permitted {
            self.forget(now, fence);
        }
    }

    fn verdict(&mut self, now: Millis, fence: Fence, revision: u64, verdict: Verdict, terminal: bool) {
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return self.session_input(now, session::Input::Released(fence));
        };
        attempt.confirmed |= verdict == Verdict::Accepted;
        match verdict {
            Verdict::Accepted if terminal && attempt.is_over() && attempt.report.revision == revision => {
                self.forget(now, fence);
            }
            Verdict::Superseded | Verdict::Unknown => self.discard(now, fence),
            Verdict::Accepted | Verdict::Unspecified => {}
        }
    }

    /// The end of an attempt's life here: the runtime releases what it holds.
    fn forget(&mut self, now: Millis, fence: Fence) {
        let Some(attempt) = self.attempts.remove(&fence) else { return };
        if attempt.report.permitted || attempt.is_over() {
            self.ledger.append(&LedgerRecord::new(LedgerEntry::Forgotten(fence)));
        }
        self.outputs.push(Output::Runtime(RuntimeAction::Release(fence)));
        self.session_input(now, session::Input::Released(fence));
    }

    fn runtime_event(&mut self, now: Millis, event: RuntimeEvent) {
        if now < self.silent_until && event.is_of_executor() {
            // It asks again, as of an agent that is not there.
            return;
        }
        match event {
            RuntimeEvent::Listed(seen) => self.listed(now, seen),
            RuntimeEvent::Observed(seen) => self.observed(now, seen),
            RuntimeEvent::PermitAsked { fence, holder } => self.permit_asked(now, fence, holder),
            RuntimeEvent::RenewAsked { fence, holder } => self.renew_asked(now, fence, holder),
            RuntimeEvent::StoreAsked { fence, holder } => self.store_asked(now, fence, holder),
            RuntimeEvent::Outcome { fence, holder, outcome } => self.outcome(now, fence, holder, outcome),
            RuntimeEvent::Progress { fence, holder, progress } => {
                self.progress(now, fence, &holder, progress)
            }
            RuntimeEvent::Gone(fence) => self.gone(now, fence),
            RuntimeEvent::PrerequisitesFound(found) => {
                self.session_input(now, session::Input::Prerequisites(found));
            }
            RuntimeEvent::ConfigMaps(all) => self.session_input(now, session::Input::ConfigMaps(all)),
            RuntimeEvent::WorkflowsAsked(names) => self.session_input(now, session::Input::Workflows(names)),
            RuntimeEvent::Capacity { allocatable, healthy } => {
                let input = session::Input::Capacity { allocatable, runtime_healthy: healthy };
                self.session_input(now, input);
            }
        }
    }

    /// Adoption: what exists is held; what was permitted and neither exists nor ended is lost.
    fn listed(&mut self, now: Millis, seen: Vec<AttemptObservation>) {
        if !self.is_listed {
            // An earlier life of the agent may have acknowledged a renewal a moment before it ended.
            self.attempts.values_mut().for_each(|attempt| attempt.renewed_at = now);
        }
        let before: Vec<Fence> = self.attempts.keys().copied().collect();
        let existing: std::collections::BTreeSet<Fence> = seen.iter().map(|one| one.fence).collect();
        seen.into_iter().for_each(|one| self.observed(now, one));
        for fence in before {
            if self.attempts.get(&fence).is_some_and(Attempt::is_over) {
                self.outputs.push(Output::Runtime(RuntimeAction::Recorded(fence)));
                self.changed(now, fence);
            } else if !existing.contains(&fence) {
                self.gone(now, fence);
            }
        }
        if !self.is_listed {
            self.is_listed = true;
            // Their verdicts come with the resync, and no lease is live before it.
            self.attempts.values_mut().for_each(|attempt| attempt.confirmed = true);
            self.outputs.push(Output::Connect { after_ms: 0 });
        }
    }

    fn observed(&mut self, now: Millis, seen: AttemptObservation) {
        let fence = seen.fence;
        // Something unknown is reported like the rest: the control plane's verdict says whether it may stay.
        let attempt =
            self.attempts.entry(fence).or_insert_with(|| Attempt::new(fence, AttemptPhase::Pending));
        if attempt.is_over() {
            return;
        }
        if let Some(holder) = &seen.holder
            && !self.bind(fence, holder)
        {
            self.counters.foreign_holder_events += 1;
            return;
        }
        if is_terminal(seen.phase) {
            return if seen.exit_code.is_some() { self.end(now, seen) } else { self.end_unseen(now, seen) };
        }
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        attempt.take_details(seen);
        // What was never made can't get lost: said to be pending, it would be taken for deleted when this agent is gone.
        let phase = match (attempt.report.permitted, attempt.is_unmade()) {
            (true, _) => AttemptPhase::Running,
            (false, false) => AttemptPhase::Pending,
            (false, true) => AttemptPhase::Received,
        };
        attempt.report.set_phase(phase);
        self.changed(now, fence);
    }

    /// Compare-and-swap: the attempt's holder from now on, or the one it has already.
    fn bind(&mut self, fence: Fence, holder: &str) -> bool {
        let Some(attempt) = self.attempts.get_mut(&fence) else { return false };
        if let Some(bound) = &attempt.holder {
            return bound == holder || is_planted(Bug::PermitTwice);
        }
        attempt.holder = Some(holder.to_owned());
        attempt.report.permitted = true;
        if let Some(assignment) = attempt.assignment.as_ref().filter(|_| attempt.exclusive_lease_ms > 0) {
            attempt.report.exclusive_workflow_uid.clone_from(&assignment.workflow_uid);
        }
        let record = attempt.permit_record(fence, holder);
        self.ledger.append(&LedgerRecord::new(LedgerEntry::Permitted(record)));
        true
    }

    fn permit_asked(&mut self, now: Millis, fence: Fence, holder: String) {
        if !self.is_listed {
            return self.not_yet(fence, holder);
        }
        if let Some(reason) = self.why_not(fence, &holder) {
            return self.refuse(fence, holder, reason);
        }
        let Some(attempt) = self.attempts.get(&fence) else { return };
        let is_live = self.session.lease_live(now) || is_planted(Bug::PermitWithoutLease);
        if !attempt.confirmed || !is_live {
            self.counters.permits_put_off += 1;
            return self.outputs.push(Output::Executor(ExecutorAnswer::AskAgain { fence, holder }));
        }
        // What is adopted without its assignment may be exclusive: the log knows.
        let is_the_logs = attempt.exclusive_lease_ms > 0 || attempt.assignment.is_none();
        if is_the_logs && attempt.holder.is_none() {
            return self.session_input(now, session::Input::AskPermit { fence, holder });
        }
        self.grant(now, fence, holder);
    }

    /// Before everything that exists is known, nobody is told that it is not wanted: it asks again.
    fn not_yet(&mut self, fence: Fence, holder: String) {
        self.counters.permits_put_off += 1;
        self.outputs.push(Output::Executor(ExecutorAnswer::AskAgain { fence, holder }));
    }

    /// Why a process gets neither permit nor renewal, for good.
    fn why_not(&self, fence: Fence, holder: &str) -> Option<&'static str> {
        let is_stopped = self.attempts.get(&fence).is_some_and(|attempt| attempt.stop.is_some());
        let stopped = || is_stopped.then_some("the attempt is being stopped");
        self.why_uncounted(fence, holder).or_else(stopped)
    }

    /// Why what a process does is not the attempt's, or does not count, for good. What is being stopped may still count.
    fn why_uncounted(&self, fence: Fence, holder: &str) -> Option<&'static str> {
        match self.attempts.get(&fence) {
            None => Some("the attempt is not held on this cluster any more"),
            Some(attempt) if attempt.is_over() => Some("the attempt is over"),
            Some(attempt) if attempt.unwanted => Some("the attempt is being stopped"),
            Some(attempt)
                if attempt.holder.as_ref().is_some_and(|bound| bound != holder)
                    && !is_planted(Bug::PermitTwice) =>
            {
                Some("the attempt's start permit belongs to another process")
            }
            Some(_) => None,
        }
    }

    fn refuse(&mut self, fence: Fence, holder: String, reason: &str) {
        self.counters.permits_refused += 1;
        let answer = ExecutorAnswer::Refused { fence, holder, reason: reason.to_owned() };
        self.outputs.push(Output::Executor(answer));
    }

    /// The log's word came. It may be late: the lease is what counts when a permit leaves.
    fn permit_decided(
        &mut self,
        now: Millis,
        fence: Fence,
        holder: String,
        refused: Option<String>,
        exclusive_lease_ms: i64,
    ) {
        if let Some(reason) = refused {
            return self.refuse(fence, holder, &reason);
        }
        if self.why_not(fence, &holder).is_some() || !self.session.lease_live(now) {
            // It asks again, and is told then.
            return;
        }
        if let Some(attempt) = self.attempts.get_mut(&fence) {
            attempt.exclusive_lease_ms = exclusive_lease_ms;
            attempt.renewed_at = now;
        }
        self.grant(now, fence, holder);
    }

    fn grant(&mut self, now: Millis, fence: Fence, holder: String) {
        let is_bound = self.bind(fence, &holder);
        debug_assert!(is_bound, "another holder was refused above");
        self.counters.permits_granted += 1;
        self.outputs.push(Output::Runtime(RuntimeAction::GrantPermit { fence, holder }));
        if let Some(attempt) = self.attempts.get_mut(&fence)
            && attempt.report.phase() != AttemptPhase::Running
        {
            attempt.report.set_phase(AttemptPhase::Running);
            attempt.report.message.clear();
            attempt.report.started_at_ms = self.wall_clock_ms;
            self.changed(now, fence);
        }
    }

    /// The executor of an exclusive step wants to go on. Acknowledged only under a live lease: the control plane waits for
    /// the step's own lease after the cluster's has ended.
    fn renew_asked(&mut self, now: Millis, fence: Fence, holder: String) {
        if !self.is_listed {
            return self.not_yet(fence, holder);
        }
        if let Some(reason) = self.why_not(fence, &holder) {
            return self.refuse(fence, holder, reason);
        }
        let is_live = self.session.lease_live(now) || is_planted(Bug::RenewalWithoutLease);
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        if !attempt.confirmed || !is_live || attempt.holder.is_none() {
            self.counters.renewals_put_off += 1;
            return self.outputs.push(Output::Executor(ExecutorAnswer::AskAgain { fence, holder }));
        }
        attempt.renewed_at = now;
        self.outputs.push(Output::Executor(ExecutorAnswer::Renewed { fence, holder }));
    }

    /// An executor wants to store where its successor would store, too. A live lease is not enough: between a resync and its Pod's end it
    /// would write over what the successor has stored. One that its user stops stores what it has, as in Argo.
    fn store_asked(&mut self, now: Millis, fence: Fence, holder: String) {
        let is_known = self.attempts.get(&fence).is_some_and(|attempt| attempt.confirmed);
        let verdict = match self.why_uncounted(fence, &holder).filter(|_| self.is_listed) {
            Some(reason) => StoreVerdict::Refused(reason.to_owned()),
            None if is_known && self.session.lease_live(now) => StoreVerdict::Granted,
            None => StoreVerdict::AskAgain,
        };
        self.outputs.push(Output::Executor(ExecutorAnswer::Store { fence, holder, verdict }));
    }

    fn outcome(&mut self, now: Millis, fence: Fence, holder: String, outcome: TaskOutcome) {
        if !self.is_listed && !self.attempts.contains_key(&fence) {
            // Whose it is will be known then. Without an answer it is offered again.
            return;
        }
        if !self.attempts.contains_key(&fence) || self.bind(fence, &holder) {
            let attempt = self.attempts.get(&fence).filter(|attempt| !attempt.is_over());
            // Nobody here asked for it: the end of what the runtime made says why.
            let is_unexplained =
                outcome.told_to_stop && attempt.is_some_and(|attempt| attempt.stop.is_none());
            if attempt.is_some() && !is_unexplained {
                self.end(now, observe_outcome(fence, &holder, outcome));
            }
            return self.outputs.push(Output::Executor(ExecutorAnswer::OutcomeRecorded { fence, holder }));
        }
        self.counters.foreign_holder_events += 1;
        let reason = "the attempt's start permit belongs to another process".to_owned();
        self.outputs.push(Output::Executor(ExecutorAnswer::Refused { fence, holder, reason }));
    }

    fn progress(&mut self, now: Millis, fence: Fence, holder: &str, progress: String) {
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        let is_news = attempt.report.progress != progress && !attempt.is_over();
        if attempt.holder.as_deref() == Some(holder) && is_news {
            attempt.report.progress = progress;
            self.changed(now, fence);
        }
    }

    fn gone(&mut self, now: Millis, fence: Fence) {
        let Some(attempt) = self.attempts.get(&fence).filter(|attempt| !attempt.is_over()) else { return };
        let can_make_again =
            !attempt.report.permitted && attempt.stop.is_none() && attempt.assignment.is_some();
        if can_make_again && attempt.ensured < self.limits.ensure_max {
            return self.ensure(now, fence);
        }
        let message = if attempt.stop.is_some() { "" } else { "pod deleted" };
        self.end_unseen(now, AttemptObservation::new(fence, AttemptPhase::Error, message));
    }

    /// An end that nobody saw: the record of an exclusive step's process is gone, and the process may not be. It is told
    /// once the step's lease has run out, since a new attempt may start then. Until then it is held like one that runs:
    /// what a resync does not list is taken over at once.
    fn end_unseen(&mut self, now: Millis, seen: AttemptObservation) {
        let fence = seen.fence;
        match self.attempts.get_mut(&fence) {
            Some(attempt) if attempt.may_run_until().is_some_and(|until| now < until) => {
                let is_new = attempt.withheld.replace(Box::new(seen)).is_none();
                if is_new && !is_planted(Bug::WithheldUnlisted) {
                    self.changed(now, fence);
                }
            }
            Some(_) | None => self.end(now, seen),
        }
    }

    fn tell_withheld(&mut self, now: Millis) {
        let due = |attempt: &Attempt| {
            attempt.withheld.is_some() && attempt.may_run_until().is_none_or(|until| now >= until)
        };
        let due: Vec<Fence> =
            self.attempts.iter().filter(|(_, attempt)| due(attempt)).map(|(fence, _)| *fence).collect();
        for fence in due {
            if let Some(seen) = self.attempts.get_mut(&fence).and_then(|attempt| attempt.withheld.take()) {
                self.end(now, *seen);
            }
        }
    }

    /// The one place where an attempt becomes terminal. The first end counts.
    fn end(&mut self, now: Millis, mut seen: AttemptObservation) {
        let fence = seen.fence;
        let revision = self.starts << 32;
        let Some(attempt) = self.attempts.get_mut(&fence).filter(|attempt| !attempt.is_over()) else {
            return;
        };
        if attempt.unwanted {
            return self.forget(now, fence);
        }
        let mut phase = seen.phase;
        if attempt.stop.is_some() {
            phase = AttemptPhase::Stopped;
        } else if seen.exit_code == Some(EXIT_REFUSED) && attempt.holder.is_none() {
            phase = AttemptPhase::Error;
            "the step's executor was refused its start permit".clone_into(&mut seen.message);
        }
        if seen.finished_at_ms == 0 {
            seen.finished_at_ms = self.wall_clock_ms;
        }
        attempt.take_details(seen);
        attempt.report.set_phase(phase);
        attempt.report.revision = (attempt.report.revision + 1).max(revision + 1);
        self.ledger.append(&LedgerRecord::new(LedgerEntry::Ended(attempt.report.clone())));
        self.outputs.push(Output::Runtime(RuntimeAction::Recorded(fence)));
        let report = attempt.report.clone();
        self.session_input(now, session::Input::Attempt(report));
        if is_planted(Bug::ReleasedBeforeCommit) {
            self.forget(now, fence);
        }
    }

    /// Hands the newest record to the session; its revision rises unless it is final.
    fn changed(&mut self, now: Millis, fence: Fence) {
        let revision = self.starts << 32;
        let Some(attempt) = self.attempts.get_mut(&fence) else { return };
        if !attempt.is_over() || attempt.report.revision == 0 {
            attempt.report.revision = (attempt.report.revision + 1).max(revision + 1);
        }
        // The session has let go of what is unwanted.
        if !attempt.unwanted {
            let report = attempt.report.clone();
            self.session_input(now, session::Input::Attempt(report));
        }
    }

    /// Repeats what showed no effect: a runtime may drop actions.
    fn sweep(&mut self, now: Millis) {
        if now < self.next_sweep {
            return;
        }
        let repeat_after_ms = self.limits.repeat_after_ms;
        self.next_sweep = now + repeat_after_ms;
        let mut again = Vec::new();
        for (fence, attempt) in &mut self.attempts {
            if attempt.is_over() {
                continue;
            }
            if let Some(stop) = &mut attempt.stop {
                let grace_ms = u64::try_from(stop.grace_ms).unwrap_or_default();
                if now >= stop.passed_on + grace_ms + repeat_after_ms {
                    stop.passed_on = now;
                    let action = RuntimeAction::Stop { fence: *fence, grace_ms: 0 };
                    self.outputs.push(Output::Runtime(action));
                    self.counters.actions_repeated += 1;
                }
            } else if attempt.is_unmade() && now >= attempt.ensured_at + repeat_after_ms {
                again.push(*fence);
            }
        }
        for fence in again {
            self.counters.actions_repeated += 1;
            self.ensure(now, fence);
        }
    }

    /// Rewrites the ledger with what is still needed.
    fn compact(&mut self) -> Result<(), ledger::Error> {
        let named = LedgerRecord::new(LedgerEntry::Named(self.name));
        let mut live = vec![named, LedgerRecord::new(LedgerEntry::Started(self.starts))];
        for (fence, attempt) in &self.attempts {
            if let Some(holder) = &attempt.holder {
                let record = attempt.permit_record(*fence, holder);
                live.push(LedgerRecord::new(LedgerEntry::Permitted(record)));
            }
            if attempt.is_over() {
                live.push(LedgerRecord::new(LedgerEntry::Ended(attempt.report.clone())));
            }
        }
        self.ledger.compact(&live)
    }
}
