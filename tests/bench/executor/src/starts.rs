//! From the start of the executor to the start of its command.

use crate::agent::Agent;
use crate::figures::{Measured, print_table};
use argosy_proto::common::{Assignment, Fence};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One command that tells when it was started, alone and under an executor, in turns.
pub async fn run(executor: &Path, times: usize) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let own = own.to_string_lossy();
    let mut agent = Agent::start(executor, None).await?;
    let (mut alone, mut under, mut whole, mut memory) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for number in 1..=times {
        let started = crate::stamp();
        let output = Command::new(&*own).arg("stamp").output()?;
        alone.push(between(started, &String::from_utf8_lossy(&output.stdout))?);
        let fence = Fence { incarnation: 1, index: number as u64, ordinal: 0 };
        let assignment =
            Assignment { fence: Some(fence), template_json: "{}".to_owned(), ..Assignment::default() };
        let run = agent.run(&assignment, &[&own, "stamp"]).await?;
        under.push(between(run.started, &run.output)?);
        whole.push(run.time);
        memory = memory.max(run.resident_bytes_max);
    }
    let bytes = std::fs::metadata(executor)?.len();
    println!("{times} times; the binary has {:.1} MB", bytes as f64 / 1e6);
    let added = under.iter().zip(&alone).map(|(under, alone)| under.saturating_sub(*alone)).collect();
    let row = |what: &str, latencies: Vec<Duration>| {
        let [_, half, most] = Measured::new(latencies, Duration::from_secs(1)).cells();
        vec![what.to_owned(), half, most]
    };
    let rows = [
        row("from its start to that of its command, permit over TLS included", added),
        row("from its start to its outcome at the agent", whole),
        row("the same command alone, until it runs", alone),
    ];
    print_table("Start of the executor", &["", "p50", "p99"], &rows);
    println!("peak of its resident memory: {:.1} MB", memory as f64 / 1e6);
    Ok(())
}

fn between(started: i128, told: &str) -> anyhow::Result<Duration> {
    let told: i128 = told.trim().parse()?;
    Ok(Duration::from_nanos(u64::try_from(told - started).unwrap_or(0)))
}
