//! A simulated cluster dies while it runs many steps: how fast all of them are fenced, committed and sent to other clusters, by
//! three members as processes.

use crate::agents::{self, Seen};
use crate::cell::Cell;
use crate::figures::{print_table, thousands};
use anyhow::ensure;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one part may take.
const PART_MAX: Duration = Duration::from_secs(120);
/// Clusters that take the steps over.
const OTHERS: usize = 3;
/// Steps of one workflow.
const WIDTH: u32 = 1_000;

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Steps that run on the cluster
    #[arg(long, default_value_t = 10_000)]
    steps: u32,
}

/// Runs the suite.
pub async fn run(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut cell = Cell::start(directory).await?;
    let seen = Arc::new(Seen::default());
    let leader = cell.leader().await?;
    let lost = agents::start(&cell, "lost", leader, arguments.steps, &seen).await?;
    cell.wait_for_clusters(1).await?;
    let workflows = arguments.steps.div_ceil(WIDTH);
    let steps = u64::from(workflows * WIDTH);
    for number in 0..workflows {
        // Safe to run again, and still running when all of this is over.
        let leaf = json!({"name": "leaf", "metadata": {"annotations": {"argosy.dev/idempotent": "true"}},
            "container": {"image": "none", "command": ["sleep"], "args": ["duration-ms=3600000"]}});
        cell.submit(&json!({"metadata": {"name": format!("wide-{number}")}, "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "a", "template": "leaf", "withSequence": {"count": WIDTH.to_string()}}]]},
            leaf,
        ]}}))
        .await?;
    }
    reaches(&seen.permitted, steps, "steps to run").await?;
    for number in 0..OTHERS {
        agents::start(&cell, &format!("other-{number}"), leader, arguments.steps, &seen).await?;
    }
    cell.wait_for_clusters(1 + OTHERS).await?;
    let before = seen.assigned.load(Ordering::Relaxed);
    lost.abort();
    let died = Instant::now();
    reaches(&seen.assigned, before + 1, "the first step to move").await?;
    let first = died.elapsed();
    reaches(&seen.assigned, before + steps, "all steps to move").await?;
    let last = died.elapsed();
    reaches(&seen.permitted, 2 * steps, "all steps to run elsewhere").await?;
    let running = died.elapsed();
    let row = vec![
        steps.to_string(),
        format!("{:.1} s", first.as_secs_f64()),
        format!("{:.2} s", (last - first).as_secs_f64()),
        thousands(steps as f64 / (last - first).as_secs_f64()),
        format!("{:.2} s", (running - first).as_secs_f64()),
    ];
    let head = [
        "running steps",
        "until the first is elsewhere (lease and margin)",
        "from then until all are",
        "steps/s",
        "until all may run",
    ];
    print_table("A cluster dies: its steps are fenced and sent to three others", &head, &[row]);
    Ok(())
}

async fn reaches(count: &AtomicU64, target: u64, what: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PART_MAX;
    while count.load(Ordering::Relaxed) < target {
        let now = count.load(Ordering::Relaxed);
        ensure!(Instant::now() < deadline, "waited {PART_MAX:?} for {what}: {now} of {target}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
