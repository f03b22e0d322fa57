//! No-op steps end to end: submission, decision, commit, placement, assignment over the agent link, permit, report,
//! verdict. Three members as processes; the clusters are simulated, their steps take no time.

use crate::agents::{self, Seen};
use crate::cell::Cell;
use crate::figures::{Measured, print_table, thousands};
use anyhow::ensure;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Steps of the chain that is run alone
    #[arg(long, default_value_t = 500)]
    chain: usize,
    /// Clusters of the measurement of throughput
    #[arg(long, default_value_t = 8)]
    clusters: usize,
    /// Workflows of it
    #[arg(long, default_value_t = 20)]
    workflows: usize,
    /// Steps of each of them
    #[arg(long, default_value_t = 1_000)]
    width: usize,
    /// Seconds after which what was done counts
    #[arg(long, default_value_t = 120)]
    seconds_max: u64,
}

/// Runs the suite.
pub async fn run(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut cell = Cell::start(directory).await?;
    let seen = Arc::new(Seen::default());
    let leader = cell.leader().await?;
    agents::start(&cell, "c0", leader, &seen).await?;
    cell.wait_for_clusters(1).await?;
    overhead(&cell, &seen, arguments).await?;
    let others: Vec<u64> = cell.addresses.keys().copied().collect();
    for number in 1..arguments.clusters {
        agents::start(&cell, &format!("c{number}"), others[number % others.len()], &seen).await?;
    }
    cell.wait_for_clusters(arguments.clusters).await?;
    throughput(&cell, leader, &seen, arguments).await
}

fn leaf() -> Value {
    json!({"name": "leaf", "container": {"image": "none", "command": ["true"]}})
}

/// A chain of steps alone in the cell: what the control plane adds to each.
async fn overhead(cell: &Cell, seen: &Seen, arguments: &Arguments) -> anyhow::Result<()> {
    let groups: Vec<Value> = (0..arguments.chain)
        .map(|number| json!([{"name": format!("s{number}"), "template": "leaf"}]))
        .collect();
    let workflow = json!({"metadata": {"name": "chain"}, "spec": {
        "entrypoint": "main", "templates": [{"name": "main", "steps": groups}, leaf()],
    }});
    let before = seen.ended.load(Ordering::Relaxed);
    drop(seen.take_overheads());
    let begun = Instant::now();
    cell.submit(&workflow).await?;
    wait_for(seen, before + arguments.chain as u64, arguments).await?;
    let took = begun.elapsed();
    let measured = Measured::new(seen.take_overheads(), took);
    let row = vec![
        arguments.chain.to_string(),
        format!("{:.1} ms", measured.per_mille_ms(500)),
        format!("{:.1} ms", measured.per_mille_ms(990)),
        format!("{:.1} ms", took.as_secs_f64() * 1_000.0 / arguments.chain as f64),
    ];
    let title = "Overhead of a step at low load: from a step's final report to the next step's assignment, both seen by the agent";
    print_table(title, &["steps of the chain", "p50", "p99", "whole step"], &[row]);
    Ok(())
}

/// Waits until so many attempts have ended; false when the time is over.
async fn wait_for(seen: &Seen, target: u64, arguments: &Arguments) -> anyhow::Result<bool> {
    let deadline = Instant::now() + Duration::from_secs(arguments.seconds_max);
    let begun = seen.ended.load(Ordering::Relaxed);
    while seen.ended.load(Ordering::Relaxed) < target {
        if Instant::now() > deadline {
            ensure!(
                seen.ended.load(Ordering::Relaxed) > begun,
                "no step ended in {} s",
                arguments.seconds_max
            );
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(true)
}

async fn throughput(cell: &Cell, leader: u64, seen: &Seen, arguments: &Arguments) -> anyhow::Result<()> {
    let before = seen.ended.load(Ordering::Relaxed);
    let used = cell.processor_seconds();
    let begun = Instant::now();
    for number in 0..arguments.workflows {
        let workflow = json!({"metadata": {"name": format!("wide-{number}")}, "spec": {
            "entrypoint": "main", "templates": [
                {"name": "main", "steps": [[
                    {"name": "a", "template": "leaf", "withSequence": {"count": arguments.width.to_string()}},
                ]]},
                leaf(),
            ],
        }});
        cell.submit(&workflow).await?;
    }
    let total = (arguments.workflows * arguments.width) as u64;
    let all = wait_for(seen, before + total, arguments).await?;
    let took = begun.elapsed().as_secs_f64();
    let ended = (seen.ended.load(Ordering::Relaxed) - before) as f64;
    if all {
        succeeded(cell, arguments.workflows).await?;
    }
    let spent = cell.processor_seconds();
    let processor = |member: u64| format!("{:.2} ms", (spent[&member] - used[&member]) * 1_000.0 / ended);
    let follower = spent.keys().copied().find(|member| *member != leader).unwrap_or(leader);
    let row = vec![
        arguments.workflows.to_string(),
        arguments.width.to_string(),
        arguments.clusters.to_string(),
        thousands(ended / took),
        format!("{took:.1} s{}", if all { "" } else { " (not all)" }),
        processor(leader),
        processor(follower),
    ];
    let head = [
        "workflows",
        "steps each",
        "clusters",
        "steps/s",
        "time",
        "leader's processor per step",
        "a follower's",
    ];
    print_table("No-op steps end to end, three members and simulated clusters on one machine", &head, &[row]);
    Ok(())
}

/// Nothing counts unless every workflow has succeeded.
async fn succeeded(cell: &Cell, workflows: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 0..workflows {
        let path = format!("/api/v1/workflows/default/wide-{number}?fields=status.phase");
        loop {
            let workflow = cell.client.get(&path).await?;
            if workflow["status"]["phase"] == "Succeeded" {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "all steps ended, but workflow wide-{number} did not: {workflow}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}
