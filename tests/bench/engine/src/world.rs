//! The engine as a leader has it, without a log.

use anyhow::{Context, bail};
use argosy_engine::{Command, DesiredAttempt, Draft, Leader, Position, Reply, State};
use argosy_model::{Fence, Limits, LogTime};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Runtime};
use argosy_proto::fact::Batch;
use serde_json::{Value, json};

/// A leader without a log.
pub struct World {
    pub state: State,
    pub leader: Leader,
    index: u64,
}

/// What a batch came to.
pub struct Made {
    pub batch: Batch,
    pub position: Position,
    pub changes: argosy_engine::Changes,
    pub work: u32,
}

impl World {
    pub fn new() -> anyhow::Result<Self> {
        let limits = Limits {
            manifest_bytes_max: 64 << 20,
            nodes_per_workflow_max: 10_000_000,
            template_depth_max: 100_000,
            ..Limits::default()
        };
        let mut world = Self { state: State::new(), leader: Leader::new(limits), index: 0 };
        world.batch(|draft, _| {
            draft.create_cell("bench", 1);
            Ok(())
        })?;
        Ok(world)
    }

    fn batch(
        &mut self,
        make: impl FnOnce(&mut Draft, &mut Leader) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Made>> {
        let position = Position { incarnation: 1, index: self.index + 1 };
        let mut draft = Draft::new(&self.state, position, LogTime(1_800_000_000_000), self.index);
        make(&mut draft, &mut self.leader)?;
        if draft.is_empty() {
            return Ok(None);
        }
        self.index += 1;
        let work = draft.work();
        let (batch, state, changes) = draft.finish();
        self.state = state;
        Ok(Some(Made { batch, position, changes, work }))
    }

    /// A command and what follows from it within one batch, as a member makes it.
    pub fn command(&mut self, body: Body) -> anyhow::Result<Option<Made>> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        self.batch(|draft, leader| {
            ask_for(draft, leader, &command)?;
            draft.advance(leader);
            Ok(())
        })
    }

    pub fn settle(&mut self) -> anyhow::Result<Vec<Made>> {
        let mut made = Vec::new();
        while self.state.has_work() {
            let batch = self.batch(|draft, leader| {
                draft.advance(leader);
                Ok(())
            })?;
            made.push(batch.context("work that waits makes facts")?);
        }
        Ok(made)
    }

    pub fn join(&mut self, cluster: &str, cpu_milli: i64) -> anyhow::Result<()> {
        let token_hash = cluster.bytes().cycle().take(32).collect::<Vec<u8>>();
        let invite =
            ask::CreateInvite { cluster: cluster.into(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
        self.command(Body::CreateInvite(invite))?;
        let redeem = ask::RedeemInvite {
            cluster: cluster.into(),
            cluster_uid: cluster.into(),
            token_hash,
            ..Default::default()
        };
        self.command(Body::RedeemInvite(redeem))?;
        let allocatable =
            Resources { cpu_milli, memory_bytes: 1 << 50, pods: 1_000_000, ..Resources::default() };
        let open = ask::OpenSession {
            cluster: cluster.into(),
            cluster_uid: cluster.into(),
            agent_instance: 1,
            runtime: Runtime::Simulated.into(),
            allocatable: Some(allocatable),
            ..ask::OpenSession::default()
        };
        self.command(Body::OpenSession(open)).map(drop)
    }

    /// What a cluster's agent says of an attempt.
    pub fn report(&mut self, cluster: &str, report: AttemptReport) -> anyhow::Result<Option<Made>> {
        let session_epoch = self.state.cluster(cluster).context("a cluster")?.session_epoch;
        let report = ask::ReportAttempt { cluster: cluster.into(), session_epoch, report: Some(report) };
        self.command(Body::ReportAttempt(report))
    }

    /// Submits a manifest.
    pub fn submit(&mut self, manifest: &Value) -> anyhow::Result<Option<Made>> {
        let manifest = manifest.to_string();
        let (namespace, name, uid, creator) = ("default".into(), "wide".into(), "uid".into(), "bench".into());
        self.command(Body::SubmitWorkflow(ask::SubmitWorkflow {
            cron: String::new(),
            namespace,
            name,
            uid,
            manifest_json: manifest,
            creator,
        }))
    }

    /// Attempts that are to run.
    pub fn all_to_run(&self, cluster: &str, count: usize) -> Vec<Fence> {
        let wanted = self.state.attempts_on(cluster).filter(|(_, desired)| *desired == DesiredAttempt::Run);
        wanted.map(|(fence, _)| fence).take(count).collect()
    }

    pub fn to_run(&self, cluster: &str) -> Option<Fence> {
        self.state
            .attempts_on(cluster)
            .find(|(_, desired)| *desired == DesiredAttempt::Run)
            .map(|(fence, _)| fence)
    }
}

fn ask_for(draft: &mut Draft, leader: &mut Leader, command: &Command) -> anyhow::Result<Reply> {
    match draft.command(command, leader) {
        Ok(reply) => Ok(reply),
        Err(refusal) => bail!("refused: {}: {}", refusal.code, refusal.message),
    }
}

/// One template, so many times at once.
pub fn fan_out(width: usize) -> Value {
    let resources = json!({"requests": {"cpu": "1m"}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "wide", "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "a", "template": "leaf", "withSequence": {"count": width.to_string()}}]]},
            {"name": "leaf", "container": {"image": "i", "command": ["true"], "resources": resources}},
        ]},
    })
}

/// The report of a step that ended well.
pub fn ended(fence: Fence) -> AttemptReport {
    AttemptReport { exit_code: Some(0), ..report(fence, AttemptPhase::Succeeded) }
}

/// The first report of a step that may run.
pub fn report(fence: Fence, phase: AttemptPhase) -> AttemptReport {
    let (fence, phase) = (Some(fence), phase.into());
    AttemptReport { fence, revision: 1, phase, permitted: true, ..AttemptReport::default() }
}
