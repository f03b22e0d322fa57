use std::collections::{BTreeMap, BTreeSet};

use argosy_model::display_fence;
use argosy_proto::common::Fence;
use argosy_simulated::{Execution, ExecutionKind};

use super::Check;

/// What must not overlap, by name: the tries of a node count as one step, and so does what ran of it in a lost part of history.
type StepKey = String;

/// Invariant 3: exclusive steps never overlap. Judged on what commands did, not on what anybody believed: while one attempt
/// of a step runs, no other one of it does. A frozen command does nothing.
#[derive(Debug, Default)]
pub struct Exclusive {
    /// Tries of nodes, and the Retry node they belong to.
    retries: BTreeMap<(u64, u32), u32>,
    names: BTreeMap<(u64, u32), String>,
    attempts: BTreeMap<Fence, StepKey>,
    running: BTreeMap<StepKey, BTreeSet<Fence>>,
    judged: u64,
    /// Attempts that ran although an earlier one of the step had.
    again: u64,
    ran: BTreeMap<StepKey, Fence>,
}

impl Exclusive {
    /// Starts judged that came after another attempt of the step had started: the others cannot go wrong.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.again
    }

    /// Starts judged.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// Another history begins: what nodes are called has to be told again.
    pub fn restored(&mut self) {
        self.retries.clear();
        self.names.clear();
    }

    /// A node in a committed state is called so.
    pub fn named(&mut self, workflow: u64, node: u32, name: &str) {
        if self.names.get(&(workflow, node)).is_none_or(|known| known != name) {
            self.names.insert((workflow, node), name.to_owned());
        }
    }

    /// A node in a committed state is a try of another.
    pub fn try_of(&mut self, workflow: u64, node: u32, retry: u32) {
        self.retries.insert((workflow, node), retry);
    }

    /// An attempt of an exclusive node in a committed state.
    pub fn attempt(&mut self, fence: Fence, workflow: u64, node: u32) {
        let step = self.retries.get(&(workflow, node)).copied().unwrap_or(node);
        let name = self.names.get(&(workflow, step)).cloned();
        self.attempts.entry(fence).or_insert_with(|| name.unwrap_or_else(|| format!("{workflow}/{step}")));
    }

    /// A command did something.
    ///
    /// # Errors
    /// It runs while another attempt of its step does.
    pub fn execution(&mut self, at_ms: u64, execution: &Execution) -> Check {
        let Some(step) = self.attempts.get(&execution.fence).cloned() else { return Ok(()) };
        let running = self.running.entry(step.clone()).or_default();
        match execution.kind {
            ExecutionKind::Started | ExecutionKind::Thawed => {
                self.judged += 1;
                let before = self.ran.insert(step, execution.fence);
                self.again += u64::from(before.is_some_and(|before| before != execution.fence));
                if let Some(other) = running.iter().find(|other| **other != execution.fence) {
                    return Err(format!(
                        "at {at_ms} ms attempt {} runs while attempt {} of the same step does",
                        display_fence(&execution.fence),
                        display_fence(other)
                    ));
                }
                running.insert(execution.fence);
            }
            ExecutionKind::Completed | ExecutionKind::Killed | ExecutionKind::Frozen => {
                running.remove(&execution.fence);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(index: u64) -> Fence {
        Fence { incarnation: 1, index, ordinal: 0 }
    }

    fn does(exclusive: &mut Exclusive, index: u64, kind: ExecutionKind) -> Check {
        exclusive.execution(1, &Execution { at: 1, fence: fence(index), holder: "pod".to_owned(), kind })
    }

    #[test]
    fn two_attempts_that_run_at_once_are_seen_and_one_after_the_other_is_not() {
        let mut exclusive = Exclusive::default();
        exclusive.attempt(fence(1), 7, 2);
        exclusive.attempt(fence(2), 7, 2);
        assert!(does(&mut exclusive, 1, ExecutionKind::Started).is_ok());
        assert!(does(&mut exclusive, 2, ExecutionKind::Started).is_err());
        let mut exclusive = Exclusive::default();
        exclusive.attempt(fence(1), 7, 2);
        exclusive.attempt(fence(2), 7, 2);
        assert!(does(&mut exclusive, 1, ExecutionKind::Started).is_ok());
        assert!(does(&mut exclusive, 1, ExecutionKind::Frozen).is_ok());
        assert!(does(&mut exclusive, 2, ExecutionKind::Started).is_ok());
        assert!(does(&mut exclusive, 1, ExecutionKind::Thawed).is_err());
        assert_eq!((exclusive.exercised(), exclusive.judged()), (2, 3));
    }

    #[test]
    fn what_runs_on_from_a_lost_part_of_history_must_not_overlap_either() {
        let mut exclusive = Exclusive::default();
        exclusive.named(7, 2, "w.step");
        exclusive.attempt(fence(1), 7, 2);
        assert!(does(&mut exclusive, 1, ExecutionKind::Started).is_ok());
        exclusive.restored();
        exclusive.named(7, 9, "w.step");
        exclusive.named(7, 2, "w.other");
        exclusive.attempt(fence(2), 7, 2);
        exclusive.attempt(fence(3), 7, 9);
        assert!(does(&mut exclusive, 2, ExecutionKind::Started).is_ok());
        assert!(does(&mut exclusive, 3, ExecutionKind::Started).is_err());
    }

    #[test]
    fn tries_of_one_step_must_not_overlap_either() {
        let mut exclusive = Exclusive::default();
        exclusive.try_of(7, 3, 2);
        exclusive.try_of(7, 4, 2);
        exclusive.attempt(fence(1), 7, 3);
        exclusive.attempt(fence(2), 7, 4);
        exclusive.attempt(fence(3), 7, 9);
        assert!(does(&mut exclusive, 1, ExecutionKind::Started).is_ok());
        assert!(does(&mut exclusive, 3, ExecutionKind::Started).is_ok(), "another step");
        assert!(does(&mut exclusive, 2, ExecutionKind::Started).is_err());
    }
}
