use argosy_engine::{State, workflow_phase};
use argosy_model::{Limits, NodePhase, NodeType, WorkflowId, WorkflowPhase, display_fence};
use argosy_proto::common::{AttemptPhase, Resources};
use argosy_proto::state as row;

use crate::checkers::{AttemptSeen, ClusterUse, Invariant, NodeSeen};
use crate::drills;
use crate::world::World;

/// How late the end of a drill's loss, or its report, may come by log time: batches are small in some runs.
const DRILL_GRACE_MS: i64 = 10_000;

pub(crate) fn node_seen(workflow: u64, number: u32, node: &row::Node) -> NodeSeen {
    let outputs = node.outputs.as_ref();
    NodeSeen {
        workflow,
        node: number,
        name: node.name.clone(),
        phase: NodePhase::from_number(node.phase).unwrap_or(NodePhase::Error),
        outputs: outputs.map(shown).unwrap_or_default(),
        result: outputs.and_then(|outputs| outputs.result.clone()),
        pod: NodeType::from_number(node.r#type) == Some(NodeType::Pod),
    }
}

pub(crate) fn attempt_seen(
    fence: argosy_model::Fence,
    attempt: &row::Attempt,
    reproduces: bool,
) -> AttemptSeen {
    AttemptSeen {
        fence,
        workflow: attempt.workflow,
        node: attempt.node,
        cluster: attempt.cluster.clone(),
        fenced: attempt.fenced,
        closed: attempt.closed,
        may_return: attempt.on_reconnect != 0,
        reproduces,
    }
}

/// Outputs that never change: where artifacts are may.
fn shown(outputs: &row::Outputs) -> String {
    let names: Vec<&str> = outputs.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    let rest = row::Outputs { artifacts: Vec::new(), ..outputs.clone() };
    format!("{rest:?} {names:?}")
}

impl World {
    /// Feeds the checkers with what a newly committed state changed.
    pub(crate) fn inspect(&mut self, before: &State, after: &State) {
        let difference = after.difference(before);
        self.name_steps(&difference.nodes);
        // What is fenced first: an original takes the place of its replacement in one step.
        for fenced in [true, false] {
            for (fence, attempt) in &difference.attempts {
                let known = attempt.filter(|attempt| attempt.workflow != 0 && attempt.fenced == fenced);
                if let Some(attempt) = known {
                    let is_removed = after.cluster(&attempt.cluster).is_some_and(|cluster| cluster.removed);
                    self.inspect_attempt(*fence, attempt, after.reproduces(fence), is_removed);
                }
            }
        }
        for ((workflow, number), node) in &difference.nodes {
            match node {
                Some(node) => {
                    let check = self.checkers.results.node(node_seen(*workflow, *number, node));
                    self.judge(Invariant::OneResult, check);
                }
                None => self.checkers.results.node_gone(*workflow, *number),
            }
        }
        self.inspect_handovers(before, after, &difference.nodes);
        let check = drills::check_reports(before, after);
        self.judge(Invariant::OneResult, check);
        let check = drills::check_time(after, DRILL_GRACE_MS);
        self.judge(Invariant::Ending, check);
        self.inspect_schedules(after);
        self.inspect_clusters(after);
        for (name, (held, limit)) in after.locks_held() {
            let check = self.checkers.bounds.lock(&name, held, limit);
            self.judge(Invariant::Bounds, check);
        }
        self.inspect_queues();
    }

    /// Tells what nodes are called, and which are tries of others.
    pub(crate) fn name_steps(&mut self, nodes: &[((u64, u32), Option<&row::Node>)]) {
        for ((workflow, number), node) in nodes {
            let Some(node) = node else { continue };
            self.checkers.exclusive.named(*workflow, *number, &node.name);
            if node.flag == i32::from(row::NodeFlag::Retried) {
                self.checkers.exclusive.try_of(*workflow, *number, node.parent);
            }
        }
    }

    fn inspect_attempt(
        &mut self,
        fence: argosy_model::Fence,
        attempt: &row::Attempt,
        reproduces: bool,
        is_removed: bool,
    ) {
        let seen = attempt_seen(fence, attempt, reproduces);
        if attempt.exclusive_lease_ms > 0 {
            self.checkers.exclusive.attempt(fence, attempt.workflow, attempt.node);
        }
        let now_ms = self.now_ms();
        let check = match self.checkers.results.attempt(now_ms, seen) {
            Ok(fenced_now) => {
                // The producer of artifacts that are lost is run again, although its result was taken: nothing of it asks any more.
                let is_over = attempt.phase == i32::from(AttemptPhase::Succeeded);
                if fenced_now && is_removed && !is_over {
                    self.witness_forgotten(&fence, &attempt.cluster);
                }
                let replaced = attempt.stop_reason == argosy_engine::REPLACED_BY_ORIGINAL;
                if fenced_now && !replaced {
                    self.line(format_args!(
                        "attempt {} is taken over from {}",
                        display_fence(&fence),
                        attempt.cluster
                    ));
                    let check = self.checkers.outage.taken_over(&display_fence(&fence), &attempt.cluster);
                    self.judge(Invariant::Outage, check);
                }
                Ok(())
            }
            Err(text) => Err(text),
        };
        self.judge(Invariant::OneResult, check);
    }

    fn inspect_clusters(&mut self, state: &State) {
        let attempts_max = Limits::default().attempts_per_cluster_max;
        let count = |name: &str| {
            let (mut counted, mut returned, mut attempts) = (Resources::default(), Resources::default(), 0);
            let add = |sum: &mut Resources, requests: &Resources| {
                sum.cpu_milli += requests.cpu_milli;
                sum.memory_bytes += requests.memory_bytes;
                sum.pods += requests.pods;
            };
            for (fence, attempt) in state.attempts_open_on(name) {
                attempts += 1;
                let Some(requests) = attempt.requests.as_ref().filter(|_| !attempt.fenced) else { continue };
                add(&mut counted, requests);
                if self.checkers.results.has_returned(&fence) {
                    add(&mut returned, requests);
                }
            }
            (counted, returned, attempts)
        };
        let seen: Vec<ClusterUse> = state
            .clusters()
            .map(|(name, cluster)| {
                let (counted, returned, attempts) = count(name);
                let mut allocatable = cluster.allocatable.clone().unwrap_or_default();
                // What came back was there before whatever was placed since: it is counted, and was not given.
                allocatable.cpu_milli += returned.cpu_milli;
                allocatable.memory_bytes += returned.memory_bytes;
                allocatable.pods += returned.pods;
                let used = cluster.used.clone().unwrap_or_default();
                ClusterUse { cluster: name.to_owned(), allocatable, used, counted, attempts }
            })
            .collect();
        for cluster in seen {
            let check = self.checkers.bounds.cluster(&cluster, attempts_max);
            self.judge(Invariant::Bounds, check);
        }
    }

    fn inspect_queues(&mut self) {
        let now_ms = self.now_ms();
        let lengths: Vec<(u64, usize, usize)> = self
            .members
            .iter()
            .filter_map(|(id, host)| {
                let now = argosy_member::Now {
                    steady_ms: host.clock.steady_ms(now_ms),
                    wall_ms: host.clock.wall_ms(now_ms),
                };
                let status = host.machine()?.status(now);
                Some((*id, status.commands_waiting, status.batches_in_flight))
            })
            .collect();
        for (id, commands, batches) in lengths {
            let config = argosy_member::Config::new("", argosy_consensus::Config::new(id, "", vec![]), 0);
            let check =
                self.checkers.bounds.queue("the queue of commands", commands, config.commands_waiting_max);
            self.judge(Invariant::Bounds, check);
            let check =
                self.checkers.bounds.queue("the pipeline of batches", batches, config.batches_in_flight_max);
            self.judge(Invariant::Bounds, check);
        }
    }

    /// All members agree, all users are content, all workflows are over and nothing is left in any cluster.
    pub(crate) fn has_ended(&self) -> bool {
        let hash = self.latest.hash();
        self.users.iter().all(crate::users::User::is_idle)
            && self.network.is_whole()
            && self
                .members
                .values()
                .all(|host| host.machine().is_some_and(|machine| machine.state().hash() == hash))
            && self.latest.workflows_active() == 0
            && self.latest.drill_under_way().is_none()
            && self
                .clusters
                .iter()
                .all(|cluster| cluster.gone || cluster.is_up() && cluster.left().is_empty())
            && self.latest.attempts().all(|(_, attempt)| self.is_over(attempt))
    }

    /// Nobody will say of a fenced attempt that nothing is left of it where the cluster does not come back.
    fn is_over(&self, attempt: &row::Attempt) -> bool {
        let is_gone = || self.clusters.iter().any(|cluster| cluster.gone && cluster.name == attempt.cluster);
        attempt.closed || attempt.fenced && is_gone()
    }

    /// The last judgement.
    pub(crate) fn conclude(&mut self) {
        if !self.checkers.violations.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        self.conclude_users();
        self.conclude_members();
        self.conclude_workflows();
        self.conclude_schedules();
        self.conclude_handovers();
        for index in 0..self.clusters.len() {
            let (name, mut left) = (self.clusters[index].name.clone(), self.clusters[index].left());
            let open = self
                .latest
                .attempts()
                .filter(|(_, attempt)| !self.is_over(attempt) && attempt.cluster == name);
            left.extend(open.map(|(fence, _)| format!("open in state {}", display_fence(fence))));
            let check = self.checkers.ending.cluster(&name, &left);
            self.judge(Invariant::Ending, check);
        }
        let hash = self.latest.hash();
        self.trace.line(now_ms, format_args!("the end: sequence {} {hash:02x?}", self.latest.sequence()));
    }

    fn conclude_users(&mut self) {
        let waiting = self.users.iter().filter_map(|user| user.doing.as_ref());
        let waiting: Vec<String> =
            waiting.map(|doing| format!("{:?} after {} tries", doing.wish, doing.tries)).collect();
        let check = if waiting.is_empty() {
            Ok(())
        } else {
            Err(format!("users still wait for {}", waiting.join(", ")))
        };
        self.judge(Invariant::Ending, check);
    }

    fn conclude_members(&mut self) {
        let read = self.checkers.durability.read_begins(self.now_ms());
        let states: Vec<(u64, Option<State>)> = self
            .members
            .iter()
            .map(|(id, host)| (*id, host.machine().map(|machine| machine.state().clone())))
            .collect();
        for (id, state) in states {
            match state {
                Some(state) if state.hash() == self.latest.hash() => self.read_ends(read, &state),
                Some(state) => {
                    let (behind, newest) = (state.sequence(), self.latest.sequence());
                    let text = format!("member {id} ended at sequence {behind}, the cell is at {newest}");
                    self.judge(Invariant::Ending, Err(text));
                }
                None => self.judge(Invariant::Ending, Err(format!("member {id} did not come back"))),
            }
        }
    }

    fn conclude_workflows(&mut self) {
        let workflows: Vec<(WorkflowId, row::Workflow)> =
            self.latest.workflows_in("").map(|(id, row)| (id, row.clone())).collect();
        for (id, workflow) in workflows {
            let phase = workflow_phase(&workflow);
            let completed = phase.is_some_and(WorkflowPhase::is_completed);
            let open = if completed { String::new() } else { self.describe_open(id) };
            let check = self.checkers.ending.workflow(&workflow.name, completed, || open);
            self.judge(Invariant::Ending, check);
            let expected = self.users.iter().find_map(|user| user.made().get(&workflow.name)?.succeeds);
            if let (Some(expected), Some(phase), 0) = (expected, phase, workflow.shutdown) {
                let (phase, message) = (phase.as_str(), workflow.message.as_str());
                let check = self.checkers.outage.ended(&workflow.name, expected, phase, message);
                self.judge(Invariant::Outage, check);
            }
        }
    }

    fn describe_open(&self, id: WorkflowId) -> String {
        let empty = State::new();
        let nodes = self.latest.difference(&empty).nodes;
        let open = nodes.iter().filter_map(|((workflow, number), node)| {
            let seen = node_seen(*workflow, *number, (*node)?);
            let waits = *workflow == id.0 && !seen.phase.is_fulfilled();
            waits.then(|| {
                format!("{} {} {:?}", seen.name, seen.phase, (*node).map(|node| node.message.as_str()))
            })
        });
        open.collect::<Vec<_>>().join(", ")
    }
}
