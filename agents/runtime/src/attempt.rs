//! One held attempt: its report, what binds it, and what is wanted of it.

use crate::runtime::{AttemptObservation, is_over};
use argosy_executor::protocol::TaskOutcome;
use argosy_link::Millis;
use argosy_proto::common::{Assignment, AttemptPhase, AttemptReport, Fence, OutputParameter};

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
            ensured: 0,
            ensured_at: 0,
        }
    }

    pub fn is_over(&self) -> bool {
        is_over(&self.report)
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
            started_at_ms,
            finished_at_ms,
            host,
            handle,
            progress,
        } = seen;
        let report = &mut self.report;
        report.message = message;
        report.exit_code = exit_code.or(report.exit_code);
        report.result = result.or_else(|| report.result.take());
        if !parameters.is_empty() {
            report.parameters = parameters;
        }
        set_if_known(&mut report.started_at_ms, started_at_ms);
        set_if_known(&mut report.finished_at_ms, finished_at_ms);
        for (ours, theirs) in
            [(&mut report.host, host), (&mut report.handle, handle), (&mut report.progress, progress)]
        {
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

/// What an executor's outcome means for the attempt, in Argo's words: the main container's failure wins over a failure to
/// read outputs.
#[must_use]
pub fn observe_outcome(fence: Fence, holder: &str, outcome: TaskOutcome) -> AttemptObservation {
    let TaskOutcome { exit_code, message, output_error, result, parameters, started_at_ms, finished_at_ms } =
        outcome;
    let (phase, message) = match (exit_code, output_error.as_str(), message.as_str()) {
        (0, "", _) => (AttemptPhase::Succeeded, String::new()),
        (0, problem, _) => (AttemptPhase::Error, format!("wait: Error (exit code 64): {problem}")),
        (code, _, "") => (AttemptPhase::Failed, format!("main: Error (exit code {code})")),
        (code, _, message) => (AttemptPhase::Failed, format!("main: Error (exit code {code}): {message}")),
    };
    let parameters = parameters.into_iter().map(|one| OutputParameter { name: one.name, value: one.value });
    AttemptObservation {
        holder: Some(holder.to_owned()),
        exit_code: Some(exit_code),
        result,
        parameters: parameters.collect(),
        started_at_ms,
        finished_at_ms,
        ..AttemptObservation::new(fence, phase, message)
    }
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
}
