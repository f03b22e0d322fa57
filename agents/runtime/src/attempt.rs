//! One held attempt: its report, what binds it, and what is wanted of it.

use crate::ledger::PermitRecord;
use crate::runtime::{AttemptObservation, is_over};
use argosy_executor::protocol::{
    ContainerOutcome, EXIT_EXECUTOR_ERROR, REASON_DEADLINE, TaskOutcome, Verdict,
};
use argosy_link::Millis;
use argosy_proto::common::{
    Assignment, AttemptPhase, AttemptReport, ContainerState, Fence, OutputArtifact, OutputParameter,
};

/// The container whose outputs are the step's.
const MAIN: &str = "main";

/// A stop that was asked for.
#[derive(Clone, Debug)]
pub struct StopAsked {
    pub grace_ms: i64,
    /// When it was last passed to the runtime.
    pub passed_on: Millis,
}

/// What the reconciler knows of one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub report: AttemptReport,
    /// Unknown for an attempt adopted from an earlier life of the agent.
    pub assignment: Option<Assignment>,
    /// The control plane is known to want it: it was assigned in this life of the agent, was there before the first
    /// resync, or a report of it was accepted. Something made late for an attempt that is gone gets no permit.
    pub confirmed: bool,
    /// Who has the start permit.
    pub holder: Option<String>,
    pub stop: Option<StopAsked>,
    /// The control plane wants nothing of it: ended, it is released without a verdict.
    pub unwanted: bool,
    /// How long it may run after its last acknowledged renewal; 0: it is not exclusive.
    pub exclusive_lease_ms: i64,
    /// When its executor's last renewal was acknowledged, as far as this life of the agent knows.
    pub renewed_at: Millis,
    /// An end that nobody saw happen, told once its exclusive lease has run out.
    pub withheld: Option<Box<AttemptObservation>>,
    /// Times the runtime was asked to make it.
    pub ensured: u32,
    /// When it was last asked for.
    pub ensured_at: Millis,
}

impl Attempt {
    pub fn new(fence: Fence, phase: AttemptPhase) -> Self {
        let mut report = AttemptReport { fence: Some(fence), ..Default::default() };
        report.set_phase(phase);
        Self {
            report,
            assignment: None,
            confirmed: false,
            holder: None,
            stop: None,
            unwanted: false,
            exclusive_lease_ms: 0,
            renewed_at: 0,
            withheld: None,
            ensured: 0,
            ensured_at: 0,
        }
    }

    /// What the ledger keeps of its start permit.
    pub fn permit_record(&self, fence: Fence, holder: &str) -> PermitRecord {
        PermitRecord {
            fence,
            holder: holder.to_owned(),
            exclusive_lease_ms: self.exclusive_lease_ms,
            exclusive_workflow_uid: self.report.exclusive_workflow_uid.clone(),
        }
    }

    pub fn is_over(&self) -> bool {
        is_over(&self.report)
    }

    /// Nothing was made for it yet, as far as is known: it may have been refused for now, as by a quota.
    pub fn is_unmade(&self) -> bool {
        !self.report.permitted && self.report.handle.is_empty()
    }

    /// An exclusive step may be running, as far as its lease goes: where its end was not seen, it may not have ended.
    pub fn may_run_until(&self) -> Option<Millis> {
        let is_exclusive = self.exclusive_lease_ms > 0 && self.report.permitted;
        is_exclusive.then(|| self.renewed_at.saturating_add(self.exclusive_lease_ms.unsigned_abs()))
    }

    /// Takes what the runtime sees; the phase apart.
    pub fn take_details(&mut self, seen: AttemptObservation) {
        let AttemptObservation {
            fence: _,
            phase: _,
            holder: _,
            exit_code,
            message,
            result,
            parameters,
            artifacts,
            started_at_ms,
            finished_at_ms,
            host,
            handle,
            progress,
            containers,
            pod_ip,
            ready,
            refused,
            missing_artifacts,
            unreached_artifacts,
        } = seen;
        let report = &mut self.report;
        report.message = message;
        report.exit_code = exit_code.or(report.exit_code);
        report.result = result.or_else(|| report.result.take());
        if !parameters.is_empty() {
            report.parameters = parameters;
        }
        if !containers.is_empty() {
            report.containers = containers;
        }
        report.ready = ready;
        report.refused |= refused;
        if !missing_artifacts.is_empty() {
            report.missing_artifacts = missing_artifacts;
        }
        if !unreached_artifacts.is_empty() {
            report.unreached_artifacts = unreached_artifacts;
        }
        if !artifacts.is_empty() {
            report.artifacts = artifacts;
        }
        set_if_known(&mut report.started_at_ms, started_at_ms);
        set_if_known(&mut report.finished_at_ms, finished_at_ms);
        for (ours, theirs) in [
            (&mut report.host, host),
            (&mut report.handle, handle),
            (&mut report.progress, progress),
            (&mut report.pod_ip, pod_ip),
        ] {
            if !theirs.is_empty() {
                *ours = theirs;
            }
        }
    }
}

fn set_if_known(ours: &mut i64, theirs: i64) {
    if theirs != 0 {
        *ours = theirs;
    }
}

/// The message of a step that stopped itself.
pub const LEASE_LOST: &str = "the step stopped itself: its exclusive lease ran out without a renewal";

/// What an executor's outcome means for the attempt, in Argo's words: a main container's failure wins over a failure to
/// read outputs, and that over a sidecar's.
#[must_use]
pub fn observe_outcome(fence: Fence, holder: &str, outcome: TaskOutcome) -> AttemptObservation {
    if !outcome.input_error.is_empty() {
        // Nothing was run: the node has no exit code.
        let message = format!("init: Error (exit code 64): {}", outcome.input_error);
        let seen = AttemptObservation::new(fence, AttemptPhase::Error, message);
        return AttemptObservation {
            holder: Some(holder.to_owned()),
            missing_artifacts: outcome.missing_inputs,
            unreached_artifacts: outcome.unreached_inputs,
            ..seen
        };
    }
    let artifacts = outcome.artifacts.clone().into_iter().map(|one| OutputArtifact {
        name: one.name,
        digest: one.digest,
        size: one.size,
        directory: one.directory,
    });
    let alone = ContainerOutcome {
        name: MAIN.to_owned(),
        sidecar: false,
        exit_code: outcome.exit_code,
        reason: outcome.reason.clone(),
        message: outcome.message.clone(),
        started_at_ms: outcome.started_at_ms,
        finished_at_ms: outcome.finished_at_ms,
    };
    let containers =
        if outcome.containers.is_empty() { std::slice::from_ref(&alone) } else { &outcome.containers };
    let main = containers.iter().find(|one| one.name == MAIN && !one.sidecar);
    let failed = |sidecar: bool| {
        containers.iter().find(|one| one.sidecar == sidecar && one.exit_code != 0 && !was_ended(one))
    };
    let (phase, message) = match (failed(false), outcome.output_error.as_str(), failed(true)) {
        _ if outcome.lease_lost => (AttemptPhase::Error, LEASE_LOST.to_owned()),
        (Some(container), _, _) | (None, "", Some(container)) => {
            (AttemptPhase::Failed, container_message(container))
        }
        (None, "", None) => (AttemptPhase::Succeeded, String::new()),
        (None, problem, _) => (AttemptPhase::Error, format!("wait: Error (exit code 64): {problem}")),
    };
    let exit_code = main.map(|main| main.exit_code);
    let (phase, message, exit_code) = match &outcome.verdict {
        Some(verdict) if outcome.exit_code == 0 => (verdict_phase(verdict), verdict.message.clone(), None),
        Some(_) | None => (phase, message, exit_code),
    };
    let states = outcome.containers.iter().filter(|one| !one.sidecar).map(container_state).collect();
    let TaskOutcome { result, parameters, started_at_ms, finished_at_ms, progress, .. } = outcome;
    let parameters = parameters.into_iter().map(|one| OutputParameter { name: one.name, value: one.value });
    AttemptObservation {
        holder: Some(holder.to_owned()),
        exit_code,
        result,
        parameters: parameters.collect(),
        artifacts: artifacts.collect(),
        started_at_ms,
        finished_at_ms,
        progress,
        containers: states,
        ..AttemptObservation::new(fence, phase, message)
    }
}

/// The phase of a step without a command.
fn verdict_phase(verdict: &Verdict) -> AttemptPhase {
    match (verdict.failed, verdict.error) {
        (false, _) => AttemptPhase::Succeeded,
        (true, false) => AttemptPhase::Failed,
        (true, true) => AttemptPhase::Error,
    }
}

/// How a container of a set ended: Argo's phases, and its message, which ends in a colon if there is nothing to say.
fn container_state(container: &ContainerOutcome) -> ContainerState {
    let mut state = ContainerState {
        name: container.name.clone(),
        started_at_ms: container.started_at_ms,
        finished_at_ms: container.finished_at_ms,
        ..ContainerState::default()
    };
    state.set_phase(container_phase(container.exit_code));
    if container.exit_code != 0 {
        let reason = if container.reason.is_empty() { "Error" } else { &container.reason };
        state.message = format!(
            "{}: {reason} (exit code {}): {}",
            container.name, container.exit_code, container.message
        );
    }
    state
}

/// Argo's phase of a set's container: 64 is what the executor itself ends with.
#[must_use]
pub fn container_phase(exit_code: i32) -> AttemptPhase {
    match exit_code {
        0 => AttemptPhase::Succeeded,
        EXIT_EXECUTOR_ERROR => AttemptPhase::Error,
        _ => AttemptPhase::Failed,
    }
}

/// A sidecar that ended by the signals that follow the main containers' end.
fn was_ended(container: &ContainerOutcome) -> bool {
    container.sidecar && [137, 143].contains(&container.exit_code)
}

/// Argo's message for a container that failed: `main: Error (exit code 3): why`.
fn container_message(container: &ContainerOutcome) -> String {
    if container.reason == REASON_DEADLINE {
        return "Pod was active on the node longer than the specified deadline".to_owned();
    }
    let reason = if container.reason.is_empty() { "Error" } else { &container.reason };
    let head = format!("{}: {reason} (exit code {})", container.name, container.exit_code);
    if container.message.is_empty() { head } else { format!("{head}: {}", container.message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_read_as_argos_messages() {
        let see = |exit_code, message: &str, output_error: &str| {
            let outcome = TaskOutcome {
                exit_code,
                message: message.to_owned(),
                output_error: output_error.to_owned(),
                ..Default::default()
            };
            let seen = observe_outcome(Fence::default(), "h", outcome);
            (seen.phase, seen.message)
        };
        assert_eq!(see(0, "", ""), (AttemptPhase::Succeeded, String::new()));
        assert_eq!(see(3, "", "open x"), (AttemptPhase::Failed, "main: Error (exit code 3)".to_owned()));
        assert_eq!(
            see(0, "", "open x"),
            (AttemptPhase::Error, "wait: Error (exit code 64): open x".to_owned())
        );
        assert_eq!(see(64, "no", ""), (AttemptPhase::Failed, "main: Error (exit code 64): no".to_owned()));
    }

    #[test]
    fn of_several_containers_the_main_ones_count_first() {
        let container = |name: &str, sidecar, exit_code, message: &str| ContainerOutcome {
            name: name.to_owned(),
            sidecar,
            exit_code,
            message: message.to_owned(),
            ..ContainerOutcome::default()
        };
        let see = |containers: Vec<ContainerOutcome>, output_error: &str| {
            let outcome =
                TaskOutcome { containers, output_error: output_error.to_owned(), ..TaskOutcome::default() };
            let seen = observe_outcome(Fence::default(), "h", outcome);
            (seen.phase, seen.message, seen.exit_code)
        };
        let main = container("main", false, 0, "");
        let set = vec![container("a", false, 3, ""), container("b", false, 64, "dependency")];
        assert_eq!(see(set, "open x"), (AttemptPhase::Failed, "a: Error (exit code 3)".to_owned(), None));
        let states = observe_outcome(
            Fence::default(),
            "h",
            TaskOutcome {
                containers: vec![
                    container("a", false, 3, ""),
                    container("b", false, 64, "why"),
                    container("s", true, 1, ""),
                ],
                ..TaskOutcome::default()
            },
        )
        .containers;
        let shown: Vec<_> = states.iter().map(|one| (one.phase(), one.message.as_str())).collect();
        let expected = [
            (AttemptPhase::Failed, "a: Error (exit code 3): "),
            (AttemptPhase::Error, "b: Error (exit code 64): why"),
        ];
        assert_eq!(shown, expected);
        let stopped = vec![main.clone(), container("side", true, 143, "")];
        assert_eq!(see(stopped, ""), (AttemptPhase::Succeeded, String::new(), Some(0)));
        let broken = vec![main, container("side", true, 2, "")];
        assert_eq!(see(broken.clone(), "").1, "side: Error (exit code 2)");
        assert_eq!(see(broken, "open x").1, "wait: Error (exit code 64): open x");
        let out_of_memory =
            ContainerOutcome { reason: "OOMKilled".to_owned(), ..container("main", false, 137, "") };
        assert_eq!(see(vec![out_of_memory], "").1, "main: OOMKilled (exit code 137)");
    }
}
