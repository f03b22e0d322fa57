//! A cell of one: drafts, batches, and a follower that evolves each batch and must agree.
#![allow(dead_code, reason = "each test binary uses a part")]

use argosy_engine::{Command, DesiredAttempt, Draft, Leader, Position, Refusal, Reply, State, evolve};
use argosy_model::{Fence, Limits, LogTime, WorkflowId, WorkflowKey};
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Runtime, Verdict};
use argosy_proto::state::LossReason;
use serde_json::{Value, json};

/// A workflow of these templates.
pub fn manifest(name: &str, templates: &[Value]) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "argo"},
        "spec": {"entrypoint": "main", "templates": templates},
    })
}

/// Two clusters with room.
pub fn two_clusters() -> World {
    let mut world = World::new(Limits::default());
    world.join("east", 1000);
    world.join("west", 1000);
    world
}

pub struct World {
    pub state: State,
    pub follower: State,
    pub leader: Leader,
    pub index: u64,
    pub now: i64,
    /// Most work of one batch so far.
    pub work_max: u32,
    pub batches: Vec<argosy_engine::Batch>,
    pub keep_batches: bool,
    /// A follower evolves every batch, too, and must agree.
    pub follows: bool,
}

impl World {
    pub fn new(limits: Limits) -> Self {
        let mut world = Self {
            state: State::new(),
            follower: State::new(),
            leader: Leader::new(limits),
            index: 0,
            now: 1_700_000_000_000,
            work_max: 0,
            batches: Vec::new(),
            keep_batches: false,
            follows: true,
        };
        world.batch(|draft, _| draft.create_cell("test", 1));
        world
    }

    /// Makes a batch, and lets the follower agree.
    pub fn batch<T>(&mut self, make: impl FnOnce(&mut Draft, &mut Leader) -> T) -> T {
        self.index += 1;
        let position = Position { incarnation: self.state.incarnation().max(1), index: self.index };
        let mut draft = Draft::new(&self.state, position, LogTime(self.now), self.index);
        let made = make(&mut draft, &mut self.leader);
        self.work_max = self.work_max.max(draft.work());
        if draft.is_empty() {
            self.index -= 1;
            return made;
        }
        let (batch, state, changes) = draft.finish();
        if self.follows {
            let evolved =
                evolve(&mut self.follower, position, &batch).expect("facts fit").expect("the batch follows");
            assert_eq!(evolved, changes);
            assert_eq!(self.follower.hash(), state.hash());
        }
        self.state = state;
        if self.keep_batches {
            self.batches.push(batch);
        }
        made
    }

    pub fn command(&mut self, body: Body) -> Result<Reply, Refusal> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        self.batch(|draft, leader| draft.command(&command, leader))
    }

    /// Advances until nothing waits; gives the number of batches.
    pub fn settle(&mut self) -> usize {
        for round in 0..100_000 {
            let more = self.batch(|draft, leader| draft.advance(leader));
            if !more && !self.state.has_work() {
                return round + 1;
            }
        }
        panic!("the engine does not come to rest");
    }

    pub fn join(&mut self, cluster: &str, cpu_milli: i64) -> u64 {
        let token_hash = vec![cluster.len() as u8; 32]
            .into_iter()
            .zip(cluster.bytes().cycle())
            .map(|(a, b)| a ^ b)
            .collect::<Vec<_>>();
        let invite =
            ask::CreateInvite { cluster: cluster.into(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
        self.command(Body::CreateInvite(invite)).expect("an invite");
        let redeem = ask::RedeemInvite {
            cluster: cluster.into(),
            cluster_uid: format!("uid-{cluster}"),
            token_hash,
            ..Default::default()
        };
        self.command(Body::RedeemInvite(redeem)).expect("redeemed");
        self.open(cluster, cpu_milli)
    }

    pub fn open(&mut self, cluster: &str, cpu_milli: i64) -> u64 {
        let allocatable =
            Resources { cpu_milli, memory_bytes: 1 << 40, pods: 1_000_000, ..Resources::default() };
        let open = ask::OpenSession {
            cluster: cluster.into(),
            cluster_uid: format!("uid-{cluster}"),
            agent_instance: 1,
            runtime: Runtime::Simulated.into(),
            allocatable: Some(allocatable),
            ledger: 1,
            enforces_exclusive: true,
            ..ask::OpenSession::default()
        };
        self.open_with(open)
    }

    pub fn open_with(&mut self, open: ask::OpenSession) -> u64 {
        match self.command(Body::OpenSession(open)).expect("a session").body {
            Some(reply::Body::SessionOpened(opened)) => opened.session_epoch,
            other => panic!("{other:?}"),
        }
    }

    pub fn submit(&mut self, name: &str, manifest: &serde_json::Value) -> Result<Reply, Refusal> {
        let submit = ask::SubmitWorkflow {
            cron: String::new(),
            namespace: "argo".into(),
            name: name.into(),
            uid: "6b1c9a52-9d0e-4f0c-8a63-0d5b8f2a7c11".into(),
            manifest_json: manifest.to_string(),
            creator: "tester".into(),
        };
        self.command(Body::SubmitWorkflow(submit))
    }

    pub fn id(&self, name: &str) -> Option<WorkflowId> {
        self.state.workflow_id(&WorkflowKey { namespace: "argo".into(), name: name.into() })
    }

    pub fn json(&self, name: &str) -> serde_json::Value {
        argosy_engine::view::workflow_json(&self.state, self.id(name).expect("known")).expect("shown")
    }

    pub fn phase(&self, name: &str) -> String {
        self.json(name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// How many of a workflow's steps ended since a cluster was lost, by reason.
    pub fn lost(&self, name: &str) -> Vec<(LossReason, u32)> {
        let row = self.state.workflow(self.id(name).expect("known")).expect("it is there");
        let reason = |number: &u32| LossReason::try_from(i32::try_from(*number).unwrap()).unwrap();
        row.lost.iter().map(|(number, count)| (reason(number), *count)).collect()
    }

    pub fn wanted(&self, cluster: &str) -> Vec<(Fence, DesiredAttempt)> {
        self.state.attempts_on(cluster).collect()
    }

    /// Fences to run, with the node's name.
    pub fn to_run(&self) -> Vec<(String, Fence, String)> {
        let clusters: Vec<String> = self.state.clusters().map(|(name, _)| name.to_owned()).collect();
        let mut found = Vec::new();
        for cluster in clusters {
            for (fence, desired) in self.wanted(&cluster) {
                if desired == DesiredAttempt::Run {
                    let assignment = self.state.assignment(&fence).expect("what runs has an assignment");
                    found.push((cluster.clone(), fence, assignment.node_name));
                }
            }
        }
        found
    }

    pub fn report(&mut self, cluster: &str, report: AttemptReport) -> Verdict {
        let epoch = self.state.cluster(cluster).map_or(0, |row| row.session_epoch);
        let report =
            ask::ReportAttempt { cluster: cluster.into(), session_epoch: epoch, report: Some(report) };
        match self.command(Body::ReportAttempt(report)).expect("a verdict").body {
            Some(reply::Body::AttemptReported(reported)) => reported.verdict(),
            other => panic!("{other:?}"),
        }
    }

    pub fn end(&mut self, cluster: &str, fence: Fence, phase: AttemptPhase) -> Verdict {
        self.report(cluster, ended(fence, phase))
    }

    pub fn running(&mut self, cluster: &str, fence: Fence) -> Verdict {
        let report = AttemptReport {
            fence: Some(fence),
            revision: 1,
            phase: AttemptPhase::Running.into(),
            permitted: true,
            ..AttemptReport::default()
        };
        self.report(cluster, report)
    }

    pub fn take_over(&mut self, cluster: &str, all: bool) {
        let session_epoch = self.state.cluster(cluster).expect("known").session_epoch;
        let scope = if all { ask::TakeOverScope::All } else { ask::TakeOverScope::Safe };
        let take =
            ask::TakeOver { cluster: cluster.into(), session_epoch, scope: scope.into(), beyond_ms: 0 };
        self.command(Body::TakeOver(take)).expect("taken over");
    }

    /// As the sessions ask when a cluster has been silent for so long beyond lease and margin.
    pub fn take_over_beyond(&mut self, cluster: &str, beyond_ms: u64) {
        let session_epoch = self.state.cluster(cluster).expect("known").session_epoch;
        let scope = if beyond_ms > 0 { ask::TakeOverScope::All } else { ask::TakeOverScope::Safe };
        let take = ask::TakeOver { cluster: cluster.into(), session_epoch, scope: scope.into(), beyond_ms };
        self.command(Body::TakeOver(take)).expect("taken over");
    }
}

pub fn ended(fence: Fence, phase: AttemptPhase) -> AttemptReport {
    let failed = phase == AttemptPhase::Failed;
    AttemptReport {
        fence: Some(fence),
        revision: 9,
        phase: phase.into(),
        permitted: true,
        exit_code: Some(i32::from(failed)),
        message: if failed { "main: Error (exit code 1)".into() } else { String::new() },
        ..AttemptReport::default()
    }
}
