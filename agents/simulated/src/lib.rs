//! A cluster that exists in virtual time only: for the simulated federation and for load tests.
//!
//! Pods start, their executors ask for permits, run, end, fail and crash at times drawn from a seed; no clock, no thread,
//! no input or output. The owner passes actions and answers in and takes events out with [`Simulated::advance`].
//!
//! A container may say what it does by arguments: `duration-ms=N`, `exit-code=N`. Without a duration one is drawn. Every
//! step prints its fence as its result. The cluster has an object store of its own: what a step's template says that it puts
//! out is there under its fence once it has ended well, and a step whose inputs are not there does not run.
//!
//! Invariants: the same seed and the same calls give the same events; a pod runs its command at most once, after a grant
//! to its own holder; every start and end of a user's command is recorded ([`Execution`]) for checkers.
//!
//! Failure model: pods outlive their agent ([`Simulated::agent_restarted`]), vanish with their cluster
//! ([`Simulated::lose_pods`]) or by themselves (`Options::crash_per_mille`); or their records vanish with their hosts
//! while what they run goes on ([`Simulated::lose_hosts`]). Questions and outcomes are repeated until
//! answered, so events may be dropped while the agent is down.

mod faults;
mod pod;

use crate::pod::{Lease, Pod, Stage, argument, inputs, names, observe};
use argosy_agent_runtime::{AttemptObservation, ExecutorAnswer, RuntimeAction, RuntimeEvent};
use argosy_executor::artifacts::SavedArtifact;
use argosy_executor::protocol::{EXIT_EXECUTOR_ERROR, EXIT_REFUSED, TaskOutcome};
use argosy_model::display_fence;
use argosy_proto::common::{Assignment, AttemptPhase, Fence, Resources};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds of the owner's virtual time.
pub type Millis = u64;

/// How the cluster behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Of everything drawn.
    pub seed: u64,
    /// Shortest and longest time from the assignment to the executor's question.
    pub start_ms: (Millis, Millis),
    /// Of 1000 pods, so many take up to `slow_start_max_ms` instead.
    pub slow_start_per_mille: u64,
    /// See there.
    pub slow_start_max_ms: Millis,
    /// Shortest and longest run of a step that does not say.
    pub duration_ms: (Millis, Millis),
    /// Of 1000 steps that do not say, so many fail with exit code 1.
    pub failure_per_mille: u64,
    /// Of 1000 pods, so many vanish while they run.
    pub crash_per_mille: u64,
    /// A question or an outcome without an answer is repeated after this time.
    pub ask_again_ms: Millis,
    /// What the cluster has.
    pub allocatable: Resources,
    /// Pods at one time; beyond, an attempt is an error.
    pub pods_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            start_ms: (5, 200),
            slow_start_per_mille: 0,
            slow_start_max_ms: 0,
            duration_ms: (10, 5_000),
            failure_per_mille: 0,
            crash_per_mille: 0,
            ask_again_ms: 500,
            allocatable: Resources {
                cpu_milli: 64_000,
                memory_bytes: 256 << 30,
                pods: 1_000,
                ..Default::default()
            },
            pods_max: 100_000,
        }
    }
}

/// Something that a user's command did, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// When.
    pub at: Millis,
    /// Which attempt.
    pub fence: Fence,
    /// The pod's holder.
    pub holder: String,
    /// What.
    pub kind: ExecutionKind,
}

/// What a user's command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionKind {
    /// Its first instruction.
    Started,
    /// It ran to its own end.
    Completed,
    /// It was ended from outside: stopped, released, crashed, lost, or out of its exclusive lease.
    Killed,
    /// The pod was frozen: it does nothing until it is thawed.
    Frozen,
    /// It goes on.
    Thawed,
}

/// A step that did not run, since the cluster's store did not have its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The attempt.
    pub fence: Fence,
    /// Its inputs that were not there.
    pub inputs: Vec<String>,
}

/// What the holder of a process that was started a second time ends with.
const SECOND: &str = "-again";

/// Renewals in a lease.
const RENEWALS_PER_LEASE: Millis = 5;

/// The cluster.
#[derive(Debug)]
pub struct Simulated {
    options: Options,
    random: u64,
    pods: BTreeMap<Fence, Pod>,
    /// Commands that go on although nothing of the cluster knows of them: when and how they end.
    unseen: BTreeMap<(Millis, Fence), (String, ExecutionKind)>,
    /// What happens next, in the order of time and of planning.
    plan: BTreeMap<(Millis, u64), Fence>,
    planned: u64,
    events: Vec<RuntimeEvent>,
    executions: Vec<Execution>,
    made: u64,
    /// How much faster than the owner's time the pods' clocks run, in millionths.
    drift_ppm: i64,
    /// It makes pods.
    healthy: bool,
    /// Until then no image is there: pods start at some time up to it.
    starts_held_until: Millis,
    /// Attempts whose artifacts are in the cluster's store: it outlives pods and agents.
    stored: BTreeSet<Fence>,
    missed: Vec<Missed>,
}

impl Simulated {
    /// An empty cluster; call [`Self::agent_restarted`] to have it listed.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            random: options.seed,
            options,
            pods: BTreeMap::new(),
            unseen: BTreeMap::new(),
            plan: BTreeMap::new(),
            planned: 0,
            events: Vec::new(),
            executions: Vec::new(),
            made: 0,
            drift_ppm: 0,
            healthy: true,
            starts_held_until: 0,
            stored: BTreeSet::new(),
            missed: Vec::new(),
        }
    }

    /// The cluster's store has what the attempt put out.
    #[must_use]
    pub fn has_stored(&self, fence: &Fence) -> bool {
        self.stored.contains(fence)
    }

    /// Steps that did not find their inputs since the last call.
    #[must_use]
    pub fn take_missed(&mut self) -> Vec<Missed> {
        std::mem::take(&mut self.missed)
    }

    /// Its API server answers.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// A span of the pods' clocks in the owner's time.
    fn real_ms(&self, span: Millis) -> Millis {
        let rate = u128::from((1_000_000 + self.drift_ppm).unsigned_abs().max(1));
        Millis::try_from(u128::from(span) * 1_000_000 / rate).unwrap_or(Millis::MAX)
    }

    /// An agent begins its life here: events for an earlier one are dropped; what exists is listed.
    pub fn agent_restarted(&mut self, now: Millis) {
        self.events.clear();
        let listed = self.pods.iter().map(|(fence, pod)| observe(*fence, pod)).collect();
        self.events.push(RuntimeEvent::Listed(listed));
        let allocatable = self.options.allocatable.clone();
        self.events.push(RuntimeEvent::Capacity { allocatable, healthy: self.healthy });
        let fences: Vec<Fence> = self.pods.keys().copied().collect();
        for pod in self.pods.values_mut() {
            pod.speaks_at = pod.speaks_at.min(now);
        }
        fences.into_iter().for_each(|fence| self.plan_at(now, fence));
    }

    /// Takes an action of the reconciler.
    pub fn act(&mut self, now: Millis, action: RuntimeAction) {
        match action {
            RuntimeAction::Ensure(assignment) => self.ensure(now, &assignment),
            RuntimeAction::GrantPermit { fence, holder } => self.grant(now, fence, holder),
            RuntimeAction::Stop { fence, grace_ms } => self.stop(now, fence, grace_ms),
            RuntimeAction::Kill(fence) => {
                self.kill(now, fence);
                if self.pods.remove(&fence).is_some() {
                    self.events.push(RuntimeEvent::Gone(fence));
                }
            }
            RuntimeAction::Release(fence) => {
                self.kill(now, fence);
                self.pods.remove(&fence);
            }
            RuntimeAction::Recorded(_)
            | RuntimeAction::WorkflowsTold(_)
            | RuntimeAction::CheckPrerequisites(_) => {}
        }
    }

    /// Takes an answer for an executor.
    pub fn answer(&mut self, now: Millis, answer: &ExecutorAnswer) {
        let (ExecutorAnswer::Refused { fence, holder, .. }
        | ExecutorAnswer::Renewed { fence, holder }
        | ExecutorAnswer::AskAgain { fence, holder }
        | ExecutorAnswer::Store { fence, holder, .. }
        | ExecutorAnswer::OutcomeRecorded { fence, holder }) = answer;
        let lease_ms =
            self.pods.get(fence).and_then(|pod| pod.lease.as_ref()).map_or(0, |lease| lease.length_ms);
        let length_ms = self.real_ms(lease_ms);
        let Some(pod) = self.pods.get_mut(fence).filter(|pod| pod.holder == *holder) else { return };
        match (answer, &pod.stage) {
            (ExecutorAnswer::Renewed { .. }, Stage::Running) => {
                if let Some(lease) = &mut pod.lease {
                    lease.ends_at = lease.ends_at.max(lease.asked_at + length_ms);
                    let due = lease.ends_at;
                    let fence = *fence;
                    self.plan_at(due, fence);
                }
            }
            // Taken away: it ends as if it had been stopped.
            (ExecutorAnswer::Refused { .. }, Stage::Running) if pod.lease.is_some() => {
                pod.stop_at = Some(pod.stop_at.map_or(now, |at| at.min(now)));
                let fence = *fence;
                self.plan_at(now, fence);
            }
            (ExecutorAnswer::Refused { .. }, Stage::Asking) => {
                pod.stage = Stage::Over(None);
                let message = format!("main: Error (exit code {EXIT_REFUSED})");
                let mut seen = AttemptObservation::new(*fence, AttemptPhase::Failed, message);
                seen.exit_code = Some(EXIT_REFUSED);
                self.events.push(RuntimeEvent::Observed(seen));
            }
            (
                ExecutorAnswer::Refused { .. } | ExecutorAnswer::OutcomeRecorded { .. },
                Stage::HandingOver(outcome),
            ) => {
                pod.stage = Stage::Over(Some(outcome.clone()));
            }
            // The next question is planned already, by the last one.
            (
                ExecutorAnswer::Refused { .. }
                | ExecutorAnswer::Renewed { .. }
                | ExecutorAnswer::AskAgain { .. }
                | ExecutorAnswer::Store { .. }
                | ExecutorAnswer::OutcomeRecorded { .. },
                _,
            ) => {}
        }
    }

    /// Lets time pass; gives what happened since the last call. While the agent is down the owner drops the events.
    #[must_use]
    pub fn advance(&mut self, now: Millis) -> Vec<RuntimeEvent> {
        while let Some(entry) = self.plan.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                break;
            }
            let fence = entry.remove();
            self.happen(at, fence);
        }
        while let Some(entry) = self.unseen.first_entry() {
            let (at, fence) = *entry.key();
            if at > now {
                break;
            }
            let (holder, kind) = entry.remove();
            self.executions.push(Execution { at, fence, holder, kind });
        }
        std::mem::take(&mut self.events)
    }

    /// When [`Self::advance`] has something to do; `None`: not before the next action.
    #[must_use]
    pub fn next_wake(&self) -> Option<Millis> {
        if !self.events.is_empty() {
            return Some(0);
        }
        let planned = self.plan.first_key_value().map(|((at, _), _)| *at);
        let unseen = self.unseen.first_key_value().map(|((at, _), _)| *at);
        planned.into_iter().chain(unseen).min()
    }

    /// What users' commands did since the last call, in order.
    #[must_use]
    pub fn take_executions(&mut self) -> Vec<Execution> {
        std::mem::take(&mut self.executions)
    }

    /// Attempts that have a pod, whatever its state.
    pub fn pods(&self) -> impl Iterator<Item = Fence> + '_ {
        self.pods.keys().copied()
    }

    /// Attempts whose command runs now.
    pub fn running(&self) -> impl Iterator<Item = Fence> + '_ {
        self.pods.iter().filter(|(_, pod)| pod.stage == Stage::Running).map(|(fence, _)| *fence)
    }

    pub(crate) fn plan_at(&mut self, at: Millis, fence: Fence) {
        self.planned += 1;
        self.plan.insert((at, self.planned), fence);
    }

    /// splitmix64
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn between(&mut self, (least, most): (Millis, Millis)) -> Millis {
        least + self.draw() % (most.saturating_sub(least) + 1)
    }

    fn ensure(&mut self, now: Millis, assignment: &Assignment) {
        let fence = assignment.fence.unwrap_or_default();
        if let Some(pod) = self.pods.get(&fence) {
            return self.events.push(RuntimeEvent::Observed(observe(fence, pod)));
        }
        if !self.healthy {
            return;
        }
        if self.pods.len() >= self.options.pods_max {
            let seen = AttemptObservation::new(fence, AttemptPhase::Error, "the simulated cluster is full");
            return self.events.push(RuntimeEvent::Observed(seen));
        }
        let template: Value = serde_json::from_str(&assignment.template_json).unwrap_or_default();
        // Always drawn, so that a script does not shift what others draw.
        let (drawn_ms, fails, crashes, start_ms) = (
            self.between(self.options.duration_ms),
            self.draw() % 1000 < self.options.failure_per_mille,
            self.draw() % 1000 < self.options.crash_per_mille,
            self.between(self.options.start_ms),
        );
        let (is_slow, slow_ms) = (
            self.draw() % 1000 < self.options.slow_start_per_mille,
            self.between((0, self.options.slow_start_max_ms)),
        );
        let start_ms = if is_slow { start_ms.max(slow_ms) } else { start_ms };
        let held_ms = self.starts_held_until.saturating_sub(now);
        let start_ms = if held_ms > 0 { start_ms.max(self.draw() % held_ms) } else { start_ms };
        self.made += 1;
        let said = argument(&template, "exit-code=").and_then(|code| i32::try_from(code).ok());
        let pod = Pod {
            holder: format!("pod-{}-{}", display_fence(&fence), self.made),
            stage: Stage::Starting,
            bound: None,
            duration_ms: argument(&template, "duration-ms=").unwrap_or(drawn_ms),
            exit_code: said.unwrap_or(i32::from(fails)),
            crashes,
            started_at: 0,
            speaks_at: now + start_ms,
            stop_at: None,
            lease: assignment.exclusive.then(|| Lease {
                length_ms: assignment.exclusive_lease_ms.unsigned_abs(),
                asked_at: 0,
                ends_at: 0,
            }),
            frozen_until: None,
            inputs: inputs(&template),
            outputs: names(&template, "/outputs/artifacts"),
        };
        self.events.push(RuntimeEvent::Observed(observe(fence, &pod)));
        self.pods.insert(fence, pod);
        self.plan_at(now + start_ms, fence);
    }

    fn grant(&mut self, now: Millis, fence: Fence, holder: String) {
        let lease_ms =
            self.pods.get(&fence).and_then(|pod| pod.lease.as_ref()).map_or(0, |lease| lease.length_ms);
        let (length_ms, renew_ms) = (self.real_ms(lease_ms), self.real_ms(lease_ms / RENEWALS_PER_LEASE));
        let Some(pod) = self.pods.get_mut(&fence) else { return };
        if holder.strip_suffix(SECOND) == Some(&pod.holder) {
            return self.executions.push(Execution { at: now, fence, holder, kind: ExecutionKind::Started });
        }
        if pod.holder != holder || pod.bound.as_ref().is_some_and(|bound| *bound != holder) {
            return;
        }
        pod.bound = Some(holder.clone());
        // A grant may come twice: the command starts once. A pod being stopped does not start it any more.
        // A frozen one asks again.
        if pod.stage != Stage::Asking
            || pod.stop_at.is_some()
            || pod.frozen_until.is_some_and(|until| now < until)
        {
            return;
        }
        let lacks =
            |(name, made_by): &(String, Fence)| (!self.stored.contains(made_by)).then(|| name.clone());
        let missing: Vec<String> = pod.inputs.iter().filter_map(lacks).collect();
        if let Some(first) = missing.first() {
            self.missed.push(Missed { fence, inputs: missing.clone() });
            pod.stage = Stage::HandingOver(TaskOutcome {
                exit_code: EXIT_EXECUTOR_ERROR,
                input_error: format!("artifact {first} failed to load: The specified key does not exist."),
                missing_inputs: missing,
                ..TaskOutcome::default()
            });
            pod.speaks_at = now;
            return self.plan_at(now, fence);
        }
        if let Some(lease) = &mut pod.lease {
            lease.ends_at = lease.asked_at + length_ms;
            if now >= lease.ends_at {
                // The answer came too late: it asks again.
                return;
            }
            pod.speaks_at = now + renew_ms;
        }
        pod.stage = Stage::Running;
        pod.started_at = now;
        let ends_after = if pod.crashes { pod.duration_ms / 2 } else { pod.duration_ms };
        let lease = pod.lease.clone();
        self.executions.push(Execution { at: now, fence, holder, kind: ExecutionKind::Started });
        self.plan_at(now + ends_after, fence);
        if let Some(lease) = lease {
            self.plan_at(now + renew_ms, fence);
            self.plan_at(lease.ends_at, fence);
        }
    }

    fn stop(&mut self, now: Millis, fence: Fence, grace_ms: i64) {
        let reaction = self.between((0, u64::try_from(grace_ms).unwrap_or_default().min(2_000)));
        match self.pods.get_mut(&fence) {
            None => self.events.push(RuntimeEvent::Gone(fence)),
            Some(pod) => {
                let at = (now + reaction).min(pod.stop_at.unwrap_or(Millis::MAX));
                pod.stop_at = Some(at);
                self.plan_at(at, fence);
            }
        }
    }

    /// Ends what runs, without telling the agent.
    fn kill(&mut self, now: Millis, fence: Fence) {
        if let Some(pod) = self.pods.get_mut(&fence)
            && pod.stage == Stage::Running
        {
            pod.stage = Stage::Over(None);
            let holder = pod.holder.clone();
            self.executions.push(Execution { at: now, fence, holder, kind: ExecutionKind::Killed });
        }
    }

    /// A planned moment of a pod; plans are hints, the pod's stage decides.
    fn happen(&mut self, now: Millis, fence: Fence) {
        let Some(pod) = self.pods.get_mut(&fence) else { return };
        if let Some(until) = pod.frozen_until {
            if now < until {
                return self.plan_at(until, fence);
            }
            self.thaw(now, fence);
        }
        let renew_ms = self.renew_ms(&fence);
        let Some(pod) = self.pods.get_mut(&fence) else { return };
        let is_stopped = pod.stop_at.is_some_and(|at| at <= now);
        match &pod.stage {
            // What has ended and was told of is deleted when that is asked for: an agent that lost its ledger asks.
            Stage::Starting | Stage::Asking | Stage::Over(_) | Stage::Killed if is_stopped => {
                self.pods.remove(&fence);
                self.events.push(RuntimeEvent::Gone(fence));
            }
            Stage::Starting | Stage::Asking if now >= pod.speaks_at => {
                pod.stage = Stage::Asking;
                pod.speaks_at = now + self.options.ask_again_ms;
                if let Some(lease) = &mut pod.lease {
                    lease.asked_at = now;
                }
                let holder = pod.holder.clone();
                self.events.push(RuntimeEvent::PermitAsked { fence, holder });
                self.plan_at(now + self.options.ask_again_ms, fence);
            }
            Stage::Running if pod.lease.as_ref().is_some_and(|lease| now >= lease.ends_at) => {
                self.command_ended(now, fence, 137, ExecutionKind::Killed, true);
            }
            Stage::Running if is_stopped => self.command_ended(now, fence, 143, ExecutionKind::Killed, false),
            Stage::Running if pod.crashes && now >= pod.started_at + pod.duration_ms / 2 => {
                self.kill(now, fence);
                self.pods.remove(&fence);
                self.events.push(RuntimeEvent::Gone(fence));
            }
            Stage::Running if now >= pod.started_at + pod.duration_ms => {
                let exit_code = pod.exit_code;
                self.command_ended(now, fence, exit_code, ExecutionKind::Completed, false);
            }
            Stage::Running if pod.lease.is_some() && now >= pod.speaks_at => {
                pod.speaks_at = now + renew_ms.max(1);
                if let Some(lease) = &mut pod.lease {
                    lease.asked_at = now;
                }
                let holder = pod.holder.clone();
                self.events.push(RuntimeEvent::RenewAsked { fence, holder });
                self.plan_at(now + renew_ms.max(1), fence);
            }
            Stage::HandingOver(outcome) if now >= pod.speaks_at => {
                pod.speaks_at = now + self.options.ask_again_ms;
                let (holder, outcome) = (pod.holder.clone(), outcome.clone());
                self.events.push(RuntimeEvent::Outcome { fence, holder, outcome });
                self.plan_at(now + self.options.ask_again_ms, fence);
            }
            Stage::Starting
            | Stage::Asking
            | Stage::HandingOver(_)
            | Stage::Running
            | Stage::Over(_)
            | Stage::Killed => {}
        }
    }

    fn renew_ms(&self, fence: &Fence) -> Millis {
        let lease = self.pods.get(fence).and_then(|pod| pod.lease.as_ref());
        lease.map_or(0, |lease| self.real_ms(lease.length_ms / RENEWALS_PER_LEASE))
    }

    fn command_ended(
        &mut self,
        now: Millis,
        fence: Fence,
        exit_code: i32,
        kind: ExecutionKind,
        lease_lost: bool,
    ) {
        let Some(pod) = self.pods.get_mut(&fence) else { return };
        let saves = exit_code == 0 && !pod.outputs.is_empty();
        let saved = |name: &String| SavedArtifact {
            name: name.clone(),
            digest: display_fence(&fence),
            size: 1,
            directory: false,
        };
        let artifacts = pod.outputs.iter().filter(|_| saves).map(saved).collect();
        if saves {
            self.stored.insert(fence);
        }
        let outcome = TaskOutcome {
            exit_code,
            artifacts,
            result: Some(display_fence(&fence)),
            started_at_ms: i64::try_from(pod.started_at).unwrap_or_default(),
            finished_at_ms: i64::try_from(now).unwrap_or_default(),
            lease_lost,
            ..TaskOutcome::default()
        };
        pod.stage = Stage::HandingOver(outcome);
        pod.speaks_at = now;
        self.executions.push(Execution { at: now, fence, holder: pod.holder.clone(), kind });
        self.plan_at(now, fence);
    }
}

#[cfg(test)]
mod tests;
