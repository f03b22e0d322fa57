//! The engine alone: what one event costs in small and huge workflows, and a wide fan-out from submission until
//! everything is assigned. No disk, no network, one thread.

use crate::figures::{print_table, thousands};
use crate::world::{World, ended, fan_out};
use anyhow::{Context, ensure};
use argosy_engine::{State, evolve};
use argosy_proto::fact::Batch;
use nix::time::{ClockId, clock_gettime};
use prost::Message;
use std::time::{Duration, Instant};

/// Runs the suite.
pub fn run(sizes: &[usize], events_max: usize) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for nodes in sizes {
        let costs = events(*nodes, events_max)?;
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
    let title =
        "One event (a step's end, which assigns the next one), each in a batch of its own: processor time";
    print_table(
        title,
        &["nodes", "units of work", "leader decides", "rows", "follower evolves, rows", "bytes of facts"],
        &rows,
    );
    Ok(())
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

/// Ends of steps before those that are timed, as a part of the workflow and at most: what its making left to the allocator
/// is cleared away in them.
const WARM_UP_PART: usize = 10;
const WARM_UP_MAX: usize = 2_000;

/// Processor time of this thread: what else the machine does is left out of it, but for cold caches.
fn processor() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Times so many ends of steps in workflows of this size, of which two steps run at a time: in the smallest ones as well
/// nearly each end assigns another step.
fn events(nodes: usize, count: usize) -> anyhow::Result<Costs> {
    let mut costs = Costs::default();
    while costs.events < count {
        let mut world = World::new()?;
        world.join("east", 2)?;
        world.submit(&fan_out(nodes))?;
        world.settle()?;
        let mut follower = world.state.clone();
        let warm_up = (nodes / WARM_UP_PART).min(WARM_UP_MAX);
        let mut cold = Costs::default();
        for _ in 0..warm_up {
            event(&mut world, &mut follower, &mut cold)?;
        }
        for _ in 0..(nodes - warm_up).min(count - costs.events) {
            event(&mut world, &mut follower, &mut costs)?;
        }
        ensure!(follower.hash() == world.state.hash(), "leader and follower differ");
    }
    Ok(costs)
}

/// The end of a step, and what follows from it.
fn event(world: &mut World, follower: &mut State, costs: &mut Costs) -> anyhow::Result<()> {
    let fence = world.to_run("east").context("a step runs")?;
    let begun = processor()?;
    let mut made = Vec::from_iter(world.report("east", ended(fence))?);
    made.extend(world.settle()?);
    let bytes: Vec<Vec<u8>> = made.iter().map(|made| made.batch.encode_to_vec()).collect();
    costs.decide += processor()?.saturating_sub(begun);
    for (made, bytes) in made.iter().zip(&bytes) {
        let begun = processor()?;
        let rows = made.changes.rows(&world.state);
        costs.rows += processor()?.saturating_sub(begun);
        drop(rows);
        let begun = processor()?;
        let batch = Batch::decode(bytes.as_slice())?;
        let changes = evolve(follower, made.position, &batch)?.context("the batch follows")?;
        drop(changes.rows(follower));
        costs.follow += processor()?.saturating_sub(begun);
        costs.work += made.work;
        costs.bytes += bytes.len();
    }
    costs.events += 1;
    Ok(())
}

/// A fan-out from its submission until every step is assigned.
pub fn fan_out_assigned(width: usize) -> anyhow::Result<()> {
    let mut world = World::new()?;
    let clusters = width.div_ceil(world.leader.limits.attempts_per_cluster_max) + 1;
    for number in 0..clusters {
        world.join(&format!("c{number}"), i64::MAX / 4)?;
    }
    let begun = Instant::now();
    let mut made = Vec::from_iter(world.submit(&fan_out(width))?);
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
