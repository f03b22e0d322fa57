//! The engine alone: what one event costs in small and huge workflows, and a wide fan-out from submission until
//! everything is assigned. No disk, no network, one thread.

use crate::figures::{print_table, thousands};
use anyhow::{Context, bail, ensure};
use argosy_engine::{Command, DesiredAttempt, Draft, Leader, Position, Reply, State, evolve};
use argosy_model::{Fence, Limits, LogTime};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, Resources, Runtime};
use argosy_proto::fact::Batch;
use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Nodes of the workflows
    #[arg(long, value_delimiter = ',', default_value = "10,10000,100000")]
    nodes: Vec<usize>,
    /// Events that are timed for each size
    #[arg(long, default_value_t = 5_000)]
    events: usize,
    /// Width of the fan-out that is assigned whole
    #[arg(long, default_value_t = 100_000)]
    width: usize,
}

/// Runs the suite.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for nodes in &arguments.nodes {
        let costs = events(*nodes, arguments.events)?;
        let each = |span: Duration| format!("{:.1} us", span.as_secs_f64() * 1e6 / costs.events as f64);
        rows.push(vec![
            thousands(*nodes as f64),
            format!("{:.1}", f64::from(costs.work) / costs.events as f64),
            each(costs.decide),
            each(costs.rows),
            each(costs.follow),
            format!("{}", costs.bytes / costs.events),
        ]);
    }
    let title = "One event (a step's end, which assigns the next one), each in a batch of its own";
    print_table(
        title,
        &["nodes", "units of work", "leader decides", "rows", "follower evolves, rows", "bytes of facts"],
        &rows,
    );
    fan_out_assigned(arguments.width)
}

struct World {
    state: State,
    leader: Leader,
    index: u64,
}

/// What a batch came to.
struct Made {
    batch: Batch,
    position: Position,
    changes: argosy_engine::Changes,
    work: u32,
}

impl World {
    fn new() -> anyhow::Result<Self> {
        let limits = Limits { manifest_bytes_max: 64 << 20, ..Limits::default() };
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
    fn command(&mut self, body: Body) -> anyhow::Result<Option<Made>> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        self.batch(|draft, leader| {
            ask_for(draft, leader, &command)?;
            draft.advance(leader);
            Ok(())
        })
    }

    fn settle(&mut self) -> anyhow::Result<Vec<Made>> {
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

    fn join(&mut self, cluster: &str, cpu_milli: i64) -> anyhow::Result<()> {
        let token_hash = cluster.bytes().cycle().take(32).collect::<Vec<u8>>();
        let invite =
            ask::CreateInvite { cluster: cluster.into(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
        self.command(Body::CreateInvite(invite))?;
        let redeem = ask::RedeemInvite { cluster: cluster.into(), cluster_uid: cluster.into(), token_hash };
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

    fn submit(&mut self, width: usize) -> anyhow::Result<Option<Made>> {
        let manifest = fan_out(width).to_string();
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

    fn to_run(&self, cluster: &str) -> Option<Fence> {
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

fn fan_out(width: usize) -> Value {
    let resources = json!({"requests": {"cpu": "1m"}});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "wide", "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "a", "template": "leaf", "withSequence": {"count": width.to_string()}}]]},
            {"name": "leaf", "container": {"image": "i", "command": ["true"], "resources": resources}},
        ]},
    })
}

fn ended(fence: Fence) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: AttemptPhase::Succeeded.into(),
        permitted: true,
        exit_code: Some(0),
        ..AttemptReport::default()
    }
}

#[derive(Default)]
struct Costs {
    events: usize,
    work: u32,
    bytes: usize,
    decide: Duration,
    rows: Duration,
    follow: Duration,
}

/// Times so many ends of steps in workflows of this size, of which ten steps run at a time.
fn events(nodes: usize, count: usize) -> anyhow::Result<Costs> {
    let mut costs = Costs::default();
    while costs.events < count {
        let mut world = World::new()?;
        world.join("east", 10)?;
        world.submit(nodes)?;
        world.settle()?;
        let mut follower = world.state.clone();
        for _ in 0..nodes.min(count - costs.events) {
            let fence = world.to_run("east").context("a step runs")?;
            let epoch = world.state.cluster("east").context("a cluster")?.session_epoch;
            let report = ask::ReportAttempt {
                cluster: "east".into(),
                session_epoch: epoch,
                report: Some(ended(fence)),
            };
            let begun = Instant::now();
            let mut made = Vec::from_iter(world.command(Body::ReportAttempt(report))?);
            made.extend(world.settle()?);
            let bytes: Vec<Vec<u8>> = made.iter().map(|made| made.batch.encode_to_vec()).collect();
            costs.decide += begun.elapsed();
            for (made, bytes) in made.iter().zip(&bytes) {
                let begun = Instant::now();
                let rows = made.changes.rows(&world.state);
                costs.rows += begun.elapsed();
                drop(rows);
                let begun = Instant::now();
                let batch = Batch::decode(bytes.as_slice())?;
                let changes = evolve(&mut follower, made.position, &batch)?.context("the batch follows")?;
                drop(changes.rows(&follower));
                costs.follow += begun.elapsed();
                costs.work += made.work;
                costs.bytes += bytes.len();
            }
            costs.events += 1;
        }
        ensure!(follower.hash() == world.state.hash(), "leader and follower differ");
    }
    Ok(costs)
}

/// A fan-out from its submission until every step is assigned.
fn fan_out_assigned(width: usize) -> anyhow::Result<()> {
    let mut world = World::new()?;
    let clusters = width.div_ceil(world.leader.limits.attempts_per_cluster_max) + 1;
    for number in 0..clusters {
        world.join(&format!("c{number}"), i64::MAX / 4)?;
    }
    let begun = Instant::now();
    let mut made = Vec::from_iter(world.submit(width)?);
    made.extend(world.settle()?);
    let took = begun.elapsed();
    let assigned: usize = world.state.clusters().map(|(_, row)| row.attempts_open as usize).sum();
    ensure!(assigned == width, "{assigned} of {width} steps are assigned");
    let bytes: usize = made.iter().map(|made| made.batch.encoded_len()).sum();
    let largest = made.iter().map(|made| made.batch.encoded_len()).max().unwrap_or(0);
    let row = vec![
        thousands(width as f64),
        format!("{:.2} s", took.as_secs_f64()),
        thousands(width as f64 / took.as_secs_f64()),
        made.len().to_string(),
        format!("{} KiB", largest >> 10),
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    ];
    let head = ["steps", "time", "steps/s", "batches", "largest batch", "facts"];
    print_table("A fan-out from submission until every step is assigned, the engine alone", &head, &[row]);
    Ok(())
}
