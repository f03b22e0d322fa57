use std::collections::{BTreeMap, BTreeSet};

use argosy_model::{NodePhase, display_fence};
use argosy_proto::common::Fence;

use super::Check;

/// A node in a committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Number of its workflow.
    pub workflow: u64,
    /// Number in its workflow.
    pub node: u32,
    /// Argo's name.
    pub name: String,
    /// Its phase.
    pub phase: NodePhase,
    /// Its outputs, in any fixed form.
    pub outputs: String,
    /// `outputs.result`. Steps of the simulated runtime print the fence they ran under.
    pub result: Option<String>,
    /// It runs as a pod.
    pub pod: bool,
}

/// An attempt in a committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptSeen {
    /// Its fence.
    pub fence: Fence,
    /// Number of its workflow.
    pub workflow: u64,
    /// Number of its node.
    pub node: u32,
    /// Where it was put.
    pub cluster: String,
    /// Its result no longer counts.
    pub fenced: bool,
    /// It is over, as far as state knows.
    pub closed: bool,
    /// Fenced, and by its step's word it may count again if its cluster comes back with it.
    pub may_return: bool,
    /// It runs for the artifacts of a step that has ended: its result is not the node's.
    pub reproduces: bool,
}

#[derive(Debug)]
struct Known {
    seen: AttemptSeen,
    fenced_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Execution {
    holder: String,
    cluster: String,
    completed: bool,
}

/// Invariant 1: a node gets one result, from the attempt that has its fence, and keeps it. Start permits are judged too:
/// one holder per attempt, and none after the attempt was taken over.
#[derive(Debug, Default)]
pub struct Results {
    nodes: BTreeMap<(u64, u32), NodeSeen>,
    attempts: BTreeMap<Fence, Known>,
    /// Attempts of each node, oldest first.
    of_node: BTreeMap<(u64, u32), Vec<Fence>>,
    executions: BTreeMap<Fence, Execution>,
    judged: u64,
    overlaps: u64,
    returned: BTreeSet<Fence>,
    /// Attempts of lost parts of history; whether they had been taken over.
    lost: BTreeMap<Fence, bool>,
}

impl Results {
    /// Results, permits and executions judged.
    #[must_use]
    pub fn exercised(&self) -> u64 {
        self.judged
    }

    /// Take-overs seen.
    #[must_use]
    pub fn taken_over(&self) -> u64 {
        let lost = self.lost.values().filter(|fenced| **fenced).count();
        (self.attempts.values().filter(|known| known.fenced_at_ms.is_some()).count() + lost) as u64
    }

    /// Attempts that were taken over and counted again.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.len() as u64
    }

    /// Whether it was taken over and counted again: it has been on its cluster all the time, whatever was placed there since.
    #[must_use]
    pub fn has_returned(&self, fence: &Fence) -> bool {
        self.returned.contains(fence)
    }

    /// Attempts seen.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        (self.attempts.len() + self.lost.len()) as u64
    }

    /// User commands started for a node that had an earlier attempt started: allowed while that one is fenced.
    #[must_use]
    pub fn repeated_executions(&self) -> u64 {
        self.overlaps
    }

    /// An attempt in a newly committed state. Returns whether it was fenced just now.
    ///
    /// # Errors
    /// It moved, came back from the dead without its step's word, or runs beside another unfenced attempt of its node.
    pub fn attempt(&mut self, at_ms: u64, seen: AttemptSeen) -> Result<bool, String> {
        let fence = seen.fence;
        let text = display_fence(&fence);
        let key = (seen.workflow, seen.node);
        if !seen.fenced && !seen.closed {
            let other = self
                .of_node(key)
                .find(|known| known.seen.fence != fence && !known.seen.fenced && !known.seen.closed);
            if let Some(other) = other {
                return Err(format!(
                    "attempts {} and {text} both count for one node",
                    display_fence(&other.seen.fence)
                ));
            }
        }
        if self.lost.contains_key(&fence) {
            return Err(format!("fence {text} was given before, in a part of history that is lost"));
        }
        let Some(known) = self.attempts.get_mut(&fence) else {
            let fenced_at_ms = seen.fenced.then_some(at_ms);
            self.of_node.entry(key).or_default().push(fence);
            self.attempts.insert(fence, Known { seen, fenced_at_ms });
            return Ok(fenced_at_ms.is_some());
        };
        if known.seen.cluster != seen.cluster {
            return Err(format!("attempt {text} moved from {} to {}", known.seen.cluster, seen.cluster));
        }
        let returns = known.seen.fenced && !seen.fenced;
        if (returns && !known.seen.may_return) || (known.seen.closed && !seen.closed) {
            return Err(format!("attempt {text} came back: {:?} became {seen:?}", known.seen));
        }
        if returns {
            self.returned.insert(fence);
            known.fenced_at_ms = None;
        }
        let now_fenced = seen.fenced && !known.seen.fenced;
        if now_fenced {
            known.fenced_at_ms = Some(at_ms);
        }
        // A deleted workflow's attempts forget whose they were.
        let (workflow, node) = (known.seen.workflow, known.seen.node);
        // Nor does one that runs again become another when it is over.
        let reproduces = seen.reproduces || known.seen.reproduces;
        known.seen = AttemptSeen { workflow, node, reproduces, ..seen };
        Ok(now_fenced)
    }

    /// A backup was restored, of a log up to that index, with these nodes and attempts: what was committed after it is forgotten.
    /// What commands did is not: a fence of the lost part is never given again.
    pub fn restored(&mut self, at_ms: u64, applied: u64, nodes: Vec<NodeSeen>, attempts: Vec<AttemptSeen>) {
        let is_lost = |fence: &Fence| fence.index > applied;
        for (fence, known) in self.attempts.extract_if(.., |fence, _| is_lost(fence)) {
            self.lost.insert(fence, known.fenced_at_ms.is_some());
        }
        self.of_node.values_mut().for_each(|fences| fences.retain(|fence| !is_lost(fence)));
        self.of_node.retain(|_, fences| !fences.is_empty());
        self.nodes = nodes.into_iter().map(|node| ((node.workflow, node.node), node)).collect();
        for seen in attempts {
            let Some(known) = self.attempts.get_mut(&seen.fence) else { continue };
            known.fenced_at_ms = seen.fenced.then(|| known.fenced_at_ms.unwrap_or(at_ms));
            let (workflow, node) = (known.seen.workflow, known.seen.node);
            known.seen = AttemptSeen { workflow, node, ..seen };
        }
    }

    fn of_node(&self, node: (u64, u32)) -> impl Iterator<Item = &Known> {
        self.of_node.get(&node).into_iter().flatten().filter_map(|fence| self.attempts.get(fence))
    }

    /// A node in a newly committed state.
    ///
    /// # Errors
    /// Its result changed, its phase went back, or the result is of an attempt without the right to it.
    pub fn node(&mut self, seen: NodeSeen) -> Check {
        let before = self.nodes.get(&(seen.workflow, seen.node));
        let was_fulfilled = before.is_some_and(|before| before.phase.is_fulfilled());
        if let Some(before) = before {
            if was_fulfilled && (before.phase != seen.phase || before.outputs != seen.outputs) {
                return Err(format!(
                    "node {} had result {} {:?} and now has {} {:?}",
                    seen.name, before.phase, before.outputs, seen.phase, seen.outputs
                ));
            }
            let back = before.phase == NodePhase::Running && seen.phase == NodePhase::Pending && !seen.pod;
            if back {
                return Err(format!("node {} went back from Running to Pending", seen.name));
            }
        }
        if !was_fulfilled && seen.phase.is_fulfilled() {
            self.judged += 1;
            if seen.pod && seen.phase == NodePhase::Succeeded {
                self.owner(&seen)?;
            }
        }
        self.nodes.insert((seen.workflow, seen.node), seen);
        Ok(())
    }

    /// The committed result is of the node's newest attempt that is not fenced, and which ran to its end.
    fn owner(&self, seen: &NodeSeen) -> Check {
        let name = &seen.name;
        let own = self.of_node((seen.workflow, seen.node)).filter(|known| !known.seen.reproduces);
        let Some(newest) = own.max_by_key(|known| (!known.seen.fenced, known.seen.fence)) else {
            return Err(format!("node {name} has a result and never had an attempt"));
        };
        let fence = newest.seen.fence;
        let text = display_fence(&fence);
        if newest.seen.fenced {
            return Err(format!("node {name} took the result of attempt {text}, which is fenced"));
        }
        if seen.result.as_ref().is_some_and(|result| *result != text) {
            return Err(format!("node {name} has fence {text} and took the result of {:?}", seen.result));
        }
        match self.executions.get(&fence) {
            Some(execution) if execution.completed => Ok(()),
            Some(_) => Err(format!("node {name} has a result of attempt {text}, which is still running")),
            None => Err(format!("node {name} has a result of attempt {text}, which never ran")),
        }
    }

    /// A node is gone with its workflow.
    pub fn node_gone(&mut self, workflow: u64, node: u32) {
        self.nodes.remove(&(workflow, node));
    }

    /// A start permit left an agent.
    ///
    /// # Errors
    /// The attempt had been taken over before, or another holder has the permit.
    pub fn permit(&mut self, at_ms: u64, cluster: &str, fence: &Fence, holder: &str) -> Check {
        self.judged += 1;
        let text = display_fence(fence);
        let fenced = self.attempts.get(fence).and_then(|known| known.fenced_at_ms);
        if let Some(fenced_at_ms) = fenced
            && fenced_at_ms < at_ms
            && !self.executions.contains_key(fence)
        {
            return Err(format!(
                "attempt {text} got its permit after it was taken over at {fenced_at_ms} ms"
            ));
        }
        match self.executions.get(fence) {
            Some(execution) if execution.holder != holder => {
                Err(format!("attempt {text} has a permit for {} and one for {holder}", execution.holder))
            }
            Some(execution) if execution.cluster != cluster => {
                Err(format!("attempt {text} has permits on {} and {cluster}", execution.cluster))
            }
            Some(_) => Ok(()),
            None => {
                let (holder, cluster) = (holder.to_owned(), cluster.to_owned());
                self.overlaps += u64::from(self.node_ran_before(fence));
                self.executions.insert(*fence, Execution { holder, cluster, completed: false });
                Ok(())
            }
        }
    }

    fn node_ran_before(&self, fence: &Fence) -> bool {
        let Some(known) = self.attempts.get(fence) else { return false };
        let node = (known.seen.workflow, known.seen.node);
        self.of_node(node).any(|other| self.executions.contains_key(&other.seen.fence))
    }

    /// A user command ran to its end.
    ///
    /// # Errors
    /// It had no permit.
    pub fn completed(&mut self, fence: &Fence, holder: &str) -> Check {
        self.judged += 1;
        match self.executions.get_mut(fence) {
            Some(execution) if execution.holder == holder => {
                execution.completed = true;
                Ok(())
            }
            _ => Err(format!("attempt {} of holder {holder} ran without a permit", display_fence(fence))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(index: u64) -> Fence {
        Fence { incarnation: 1, index, ordinal: 0 }
    }

    fn attempt(index: u64) -> AttemptSeen {
        AttemptSeen {
            fence: fence(index),
            workflow: 1,
            node: 2,
            cluster: "a".to_owned(),
            fenced: false,
            closed: false,
            may_return: false,
            reproduces: false,
        }
    }

    fn node(phase: NodePhase, result: Option<&str>) -> NodeSeen {
        let result = result.map(str::to_owned);
        let outputs = format!("{result:?}");
        NodeSeen { workflow: 1, node: 2, name: "w.step".to_owned(), phase, outputs, result, pod: true }
    }

    fn ran(index: u64) -> Results {
        let mut results = Results::default();
        results.attempt(0, attempt(index)).unwrap();
        results.permit(1, "a", &fence(index), "pod").unwrap();
        results.completed(&fence(index), "pod").unwrap();
        results
    }

    #[test]
    fn a_good_history_passes() {
        let mut results = ran(5);
        assert!(results.node(node(NodePhase::Running, None)).is_ok());
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_ok());
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_ok());
        assert_eq!(results.exercised(), 3);
    }

    #[test]
    fn a_result_of_what_runs_again_for_artifacts_is_seen() {
        let mut results = ran(5);
        results.attempt(1, AttemptSeen { closed: true, ..attempt(5) }).unwrap();
        results.attempt(2, AttemptSeen { reproduces: true, ..attempt(6) }).unwrap();
        results.permit(3, "a", &fence(6), "pod").unwrap();
        results.completed(&fence(6), "pod").unwrap();
        assert!(results.node(node(NodePhase::Succeeded, Some("1.6.0"))).is_err());
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_ok());
        assert!(results.node(node(NodePhase::Succeeded, Some("1.6.0"))).is_err());
    }

    #[test]
    fn a_second_result_is_seen() {
        let mut results = ran(5);
        results.node(node(NodePhase::Succeeded, Some("1.5.0"))).unwrap();
        assert!(results.node(node(NodePhase::Failed, Some("1.5.0"))).is_err());
        assert!(results.node(node(NodePhase::Succeeded, Some("1.6.0"))).is_err());
    }

    #[test]
    fn the_result_of_a_fenced_or_older_attempt_is_seen() {
        let mut results = ran(5);
        results.attempt(9, AttemptSeen { fenced: true, ..attempt(5) }).unwrap();
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_err());
        results.attempt(10, attempt(9)).unwrap();
        results.permit(11, "a", &fence(9), "pod").unwrap();
        assert!(results.node(node(NodePhase::Succeeded, Some("1.9.0"))).is_err(), "still running");
        results.completed(&fence(9), "pod").unwrap();
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_err(), "of the older attempt");
        assert!(results.node(node(NodePhase::Succeeded, Some("1.9.0"))).is_ok());
        assert_eq!((results.taken_over(), results.repeated_executions()), (1, 1));
    }

    #[test]
    fn who_comes_back_needs_its_steps_word() {
        let taken_over = |may_return: bool| {
            let mut results = ran(5);
            results.attempt(9, AttemptSeen { fenced: true, may_return, ..attempt(5) }).unwrap();
            results.attempt(10, attempt(9)).unwrap();
            results.attempt(20, AttemptSeen { fenced: true, ..attempt(9) }).unwrap();
            results
        };
        assert!(taken_over(false).attempt(20, attempt(5)).is_err());
        let mut results = taken_over(true);
        results.attempt(20, attempt(5)).unwrap();
        assert_eq!(results.returned(), 1);
        assert!(results.node(node(NodePhase::Succeeded, Some("1.9.0"))).is_err(), "of its replacement");
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_ok());
    }

    #[test]
    fn a_restore_forgets_results_and_no_fences() {
        let mut results = ran(5);
        results.attempt(9, AttemptSeen { fenced: true, ..attempt(5) }).unwrap();
        results.attempt(10, attempt(9)).unwrap();
        results.permit(11, "a", &fence(9), "pod").unwrap();
        results.completed(&fence(9), "pod").unwrap();
        results.node(node(NodePhase::Succeeded, Some("1.9.0"))).unwrap();
        results.restored(20, 8, vec![node(NodePhase::Running, None)], vec![attempt(5)]);
        assert!(results.attempt(21, attempt(9)).is_err(), "its fence is given again");
        let risen = Fence { incarnation: 2, ..fence(9) };
        assert!(results.attempt(21, AttemptSeen { fence: risen, ..attempt(9) }).is_err(), "two that count");
        assert!(results.node(node(NodePhase::Succeeded, Some("1.9.0"))).is_err(), "of the lost part");
        assert!(results.node(node(NodePhase::Succeeded, Some("1.5.0"))).is_ok(), "it was never taken over");
        assert_eq!((results.attempts(), results.taken_over()), (2, 0));
    }

    #[test]
    fn a_result_from_nowhere_is_seen() {
        let mut results = Results::default();
        assert!(results.node(node(NodePhase::Succeeded, None)).is_err());
        assert!(results.completed(&fence(1), "pod").is_err());
    }

    #[test]
    fn a_permit_after_the_take_over_or_for_a_second_holder_is_seen() {
        let mut results = Results::default();
        results.attempt(0, attempt(5)).unwrap();
        results.attempt(10, AttemptSeen { fenced: true, ..attempt(5) }).unwrap();
        assert!(results.permit(11, "a", &fence(5), "pod").is_err());
        let mut results = ran(5);
        assert!(results.permit(12, "a", &fence(5), "pod").is_ok());
        assert!(results.permit(12, "a", &fence(5), "other").is_err());
        assert!(results.permit(12, "b", &fence(5), "pod").is_err());
    }

    #[test]
    fn two_attempts_that_count_and_one_that_comes_back_are_seen() {
        let mut results = Results::default();
        results.attempt(0, attempt(5)).unwrap();
        assert!(results.attempt(1, attempt(6)).is_err());
        results.attempt(2, AttemptSeen { fenced: true, ..attempt(5) }).unwrap();
        assert!(results.attempt(3, attempt(6)).is_ok());
        assert!(results.attempt(4, attempt(5)).is_err());
        assert!(results.attempt(4, AttemptSeen { cluster: "b".to_owned(), ..attempt(6) }).is_err());
    }
}
