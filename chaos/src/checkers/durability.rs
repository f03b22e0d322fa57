use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::operators::Standing;

/// A kind of operation on a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Submitted.
    Submit,
    /// Stopped.
    Stop,
    /// Deleted.
    Delete,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    begun_ms: Option<u64>,
    acknowledged_ms: Option<u64>,
}

impl Times {
    fn acknowledged_before(&self, at_ms: u64) -> bool {
        self.acknowledged_ms.is_some_and(|acknowledged_ms| acknowledged_ms <= at_ms)
    }

    fn begun_before(&self, at_ms: u64) -> bool {
        self.begun_ms.is_some_and(|begun_ms| begun_ms <= at_ms)
    }
}

/// A read that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    begun_ms: u64,
    floor_sequence: u64,
}

/// What a state says of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// It ended, or was asked to stop.
    pub stopped_or_over: bool,
}

/// Invariant 2: acknowledged operations are in every state that is read afterwards, and reads never go back.
#[derive(Debug, Default)]
pub struct Durability {
    workflows: BTreeMap<String, BTreeMap<Operation, Times>>,
    /// How each cluster has to stand, and since when; none while an order for it is under way.
    clusters: BTreeMap<String, (u64, Standing)>,
    /// Workflows that are not in the backup that was restored.
    forgotten: BTreeSet<String>,
    floor_sequence: u64,
    judged: u64,
}

impl Durability {
    /// Reads and acknowledgements judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    fn times(&mut self, workflow: &str, operation: Operation) -> &mut Times {
        let operations = self.workflows.entry(workflow.to_owned()).or_default();
        operations.entry(operation).or_default()
    }

    /// A user asks for the first time.
    pub fn begun(&mut self, at_ms: u64, workflow: &str, operation: Operation) {
        self.times(workflow, operation).begun_ms.get_or_insert(at_ms);
    }

    /// A user was told that it is done.
    pub fn acknowledged(&mut self, at_ms: u64, workflow: &str, operation: Operation) {
        self.times(workflow, operation).acknowledged_ms.get_or_insert(at_ms);
    }

    /// A user was told that it will not be done.
    ///
    /// # Errors
    /// It could be done: what was asked was valid, and each was asked under a key of its own. Stopping what has ended
    /// or is being deleted is rightly refused.
    pub fn refused(&mut self, workflow: &str, operation: Operation, ended: bool, message: &str) -> Check {
        self.judged += 1;
        let deleting = self.times(workflow, Operation::Delete).begun_ms.is_some();
        if operation == Operation::Stop && (ended || deleting) {
            return Ok(());
        }
        if operation != Operation::Submit && self.forgotten.contains(workflow) {
            return Ok(());
        }
        Err(format!("{operation:?} of workflow {workflow} was refused: {message}"))
    }

    /// A linearizable read begins.
    #[must_use]
    pub fn read_begins(&self, at_ms: u64) -> Read {
        Read { begun_ms: at_ms, floor_sequence: self.floor_sequence }
    }

    /// A linearizable read gave this state.
    ///
    /// # Errors
    /// Something acknowledged before the read began is missing, or an earlier read saw more.
    pub fn read_ends(
        &mut self,
        read: Read,
        at_ms: u64,
        sequence: u64,
        find: impl Fn(&str) -> Option<Found>,
    ) -> Check {
        self.judged += 1;
        if sequence < read.floor_sequence {
            let floor = read.floor_sequence;
            return Err(format!("a read saw sequence {sequence} after another one had seen {floor}"));
        }
        self.floor_sequence = self.floor_sequence.max(sequence);
        for (name, operations) in &self.workflows {
            let times = |operation| operations.get(&operation).copied().unwrap_or_default();
            let submitted = times(Operation::Submit);
            let deleted = times(Operation::Delete);
            let found = find(name);
            if found.is_some() && !submitted.begun_before(at_ms) {
                return Err(format!("workflow {name} is there and nobody submitted it"));
            }
            if found.is_some() && deleted.acknowledged_before(read.begun_ms) {
                return Err(format!("workflow {name} is there after its deletion was acknowledged"));
            }
            let kept = submitted.acknowledged_before(read.begun_ms) && !deleted.begun_before(at_ms);
            match found {
                None if kept => return Err(format!("workflow {name} was acknowledged and is not there")),
                Some(found)
                    if !found.stopped_or_over
                        && times(Operation::Stop).acknowledged_before(read.begun_ms) =>
                {
                    return Err(format!("workflow {name} was stopped and goes on"));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// A backup was restored, whose state shows this: what was acknowledged after it was made may be forgotten, and nothing else.
    /// That the state has all that was acknowledged before, was judged when it was made, as of any other read.
    pub fn restored(&mut self, sequence: u64, find: impl Fn(&str) -> Option<Found>) {
        self.floor_sequence = sequence;
        self.forgotten.clear();
        for (name, operations) in &mut self.workflows {
            let Some(found) = find(name) else {
                if let Some(submitted) = operations.get_mut(&Operation::Submit) {
                    submitted.acknowledged_ms = None;
                }
                self.forgotten.insert(name.clone());
                continue;
            };
            if operations.get(&Operation::Delete).is_some_and(|deleted| deleted.acknowledged_ms.is_some()) {
                operations.remove(&Operation::Delete);
            }
            if !found.stopped_or_over
                && let Some(stopped) = operations.get_mut(&Operation::Stop)
            {
                stopped.acknowledged_ms = None;
            }
        }
    }

    /// A cluster stands so by the backup that was restored, unless an order for it is under way.
    pub fn order_restored(&mut self, at_ms: u64, cluster: &str, standing: Standing) {
        if let Some(known) = self.clusters.get_mut(cluster) {
            *known = (at_ms, standing);
        }
    }

    /// An operator asks something of a cluster: until that is settled, it may stand either way.
    pub fn order_begun(&mut self, cluster: &str) {
        self.clusters.remove(cluster);
    }

    /// The outcome was told: the cluster stands so until the next order.
    pub fn order_settled(&mut self, at_ms: u64, cluster: &str, standing: Standing) {
        self.clusters.insert(cluster.to_owned(), (at_ms, standing));
    }

    /// A linearizable read shows how clusters stand.
    ///
    /// # Errors
    /// Otherwise than an operator was told before it began.
    pub fn orders_read(&mut self, read: Read, find: impl Fn(&str) -> Option<Standing>) -> Check {
        for (name, (settled_ms, standing)) in &self.clusters {
            if *settled_ms <= read.begun_ms {
                self.judged += 1;
                let found = find(name);
                if found != Some(*standing) {
                    return Err(format!(
                        "cluster {name} was made {standing:?}, and a later read shows {found:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// An agent was told that a final report is recorded. `recorded`: committed state has it, or no longer has the
    /// attempt because its workflow was deleted.
    ///
    /// # Errors
    /// Committed state doesn't have it.
    pub fn result_acknowledged(&mut self, attempt: &str, recorded: bool) -> Check {
        self.judged += 1;
        if recorded {
            Ok(())
        } else {
            Err(format!("the result of attempt {attempt} was acknowledged and is not committed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOES_ON: Option<Found> = Some(Found { stopped_or_over: false });
    const OVER: Option<Found> = Some(Found { stopped_or_over: true });

    fn submitted() -> Durability {
        let mut durability = Durability::default();
        durability.begun(10, "w", Operation::Submit);
        durability.acknowledged(20, "w", Operation::Submit);
        durability
    }

    #[test]
    fn a_lost_order_is_seen() {
        let mut durability = Durability::default();
        let cordoned = Standing { cordoned: true, removed: false };
        let early = durability.read_begins(5);
        durability.order_begun("a");
        durability.order_settled(10, "a", cordoned);
        let late = durability.read_begins(10);
        assert!(durability.orders_read(early, |_| Some(Standing::default())).is_ok());
        assert!(durability.orders_read(late, |_| Some(cordoned)).is_ok());
        assert!(durability.orders_read(late, |_| Some(Standing::default())).is_err());
        durability.order_begun("a");
        assert!(durability.orders_read(late, |_| Some(Standing::default())).is_ok());
    }

    #[test]
    fn a_lost_submission_is_seen() {
        let mut durability = submitted();
        let early = durability.read_begins(15);
        let late = durability.read_begins(20);
        assert!(durability.read_ends(early, 30, 1, |_| None).is_ok());
        assert!(durability.read_ends(late, 30, 1, |_| GOES_ON).is_ok());
        assert!(durability.read_ends(late, 30, 1, |_| None).is_err());
    }

    #[test]
    fn a_restore_forgets_what_came_after_its_backup_and_nothing_else() {
        let mut durability = submitted();
        durability.begun(30, "later", Operation::Submit);
        durability.acknowledged(40, "later", Operation::Submit);
        for operation in [Operation::Stop, Operation::Delete] {
            durability.begun(50, "w", operation);
            durability.acknowledged(60, "w", operation);
        }
        let find = |name: &str| if name == "w" { GOES_ON } else { None };
        let read = durability.read_begins(100);
        assert!(durability.read_ends(read, 110, 9, find).is_err());
        durability.restored(3, find);
        let read = durability.read_begins(120);
        assert!(durability.read_ends(read, 130, 3, find).is_ok(), "later is forgotten, w goes on");
        assert!(durability.read_ends(read, 130, 2, find).is_err(), "before the backup");
        assert!(durability.read_ends(read, 130, 3, |_| None).is_err(), "w was in the backup");
        assert!(durability.refused("later", Operation::Delete, true, "missing").is_ok());
        assert!(durability.refused("later", Operation::Submit, true, "?").is_err());
    }

    #[test]
    fn a_deleted_workflow_may_be_there_until_its_deletion_is_acknowledged() {
        let mut durability = submitted();
        durability.begun(30, "w", Operation::Delete);
        let read = durability.read_begins(35);
        assert!(durability.read_ends(read, 40, 1, |_| None).is_ok());
        assert!(durability.read_ends(read, 40, 1, |_| GOES_ON).is_ok());
        durability.acknowledged(50, "w", Operation::Delete);
        let read = durability.read_begins(51);
        assert!(durability.read_ends(read, 55, 1, |_| GOES_ON).is_err());
    }

    #[test]
    fn a_stop_that_was_forgotten_is_seen() {
        let mut durability = submitted();
        durability.begun(30, "w", Operation::Stop);
        durability.acknowledged(40, "w", Operation::Stop);
        let read = durability.read_begins(41);
        assert!(durability.read_ends(read, 45, 1, |_| OVER).is_ok());
        assert!(durability.read_ends(read, 45, 1, |_| GOES_ON).is_err());
    }

    #[test]
    fn a_read_that_goes_back_is_seen() {
        let mut durability = submitted();
        let first = durability.read_begins(20);
        assert!(durability.read_ends(first, 30, 9, |_| GOES_ON).is_ok());
        assert!(
            durability.read_ends(first, 31, 8, |_| GOES_ON).is_ok(),
            "it began before the first one ended"
        );
        let second = durability.read_begins(32);
        assert!(durability.read_ends(second, 40, 8, |_| GOES_ON).is_err());
    }

    #[test]
    fn refusals_and_unrecorded_results_are_seen() {
        let mut durability = submitted();
        assert!(durability.refused("w", Operation::Submit, false, "exists").is_err());
        assert!(durability.refused("w", Operation::Stop, true, "over").is_ok());
        assert!(durability.refused("w", Operation::Stop, false, "?").is_err());
        assert!(durability.result_acknowledged("1.2.3", true).is_ok());
        assert!(durability.result_acknowledged("1.2.3", false).is_err());
    }
}
