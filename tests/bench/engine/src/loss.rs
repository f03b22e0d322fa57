//! A cluster with many running steps dies: how soon they are fenced and placed on another, the engine alone.

use crate::figures::{print_table, thousands};
use crate::world::{World, fan_out, report};
use anyhow::{Context, ensure};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::AttemptPhase;
use std::time::Instant;

/// Clusters that are left, each with room for all.
const LEFT: usize = 3;

/// Runs so many steps on one cluster, loses it, and prints what became of them and how fast.
pub fn run(steps: usize) -> anyhow::Result<()> {
    let mut world = World::new()?;
    world.leader.limits.attempts_per_cluster_max = world.leader.limits.attempts_per_cluster_max.max(steps);
    world.join("east", i64::MAX / 4)?;
    world.submit(&fan_out(steps))?;
    world.settle()?;
    for fence in world.all_to_run("east", steps) {
        world.report("east", report(fence, AttemptPhase::Running))?;
    }
    for number in 0..LEFT {
        world.join(&format!("west-{number}"), i64::MAX / 4)?;
    }
    let session_epoch = world.state.cluster("east").context("a cluster")?.session_epoch;
    let scope = ask::TakeOverScope::All.into();
    let lost = ask::TakeOver { cluster: "east".into(), session_epoch, scope, beyond_ms: 0 };
    let begun = Instant::now();
    let mut made = Vec::from_iter(world.command(Body::TakeOver(lost))?);
    made.extend(world.settle()?);
    let took = begun.elapsed().as_secs_f64();
    let placed: usize =
        (0..LEFT).map(|number| world.all_to_run(&format!("west-{number}"), steps).len()).sum();
    ensure!(placed == steps, "{placed} of {steps} steps are placed again");
    let row = vec![
        thousands(steps as f64),
        format!("{took:.2} s"),
        thousands(steps as f64 / took),
        made.len().to_string(),
    ];
    let head = ["running steps", "fenced and placed again in", "steps/s", "batches"];
    print_table("A cluster dies, the engine alone", &head, &[row]);
    Ok(())
}
