//! Measurements of a cell of three processes, not tests: what it costs at rest, how long a commit takes, and how long
//! after the loss of its leader it commits again. `cargo test -p argosy-tests --test failover -- --ignored --nocapture`

use anyhow::Context;
use argosy_tests::cell::{Cell, Options, TOKEN};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const KILLS: usize = 20;
const COMMITS: usize = 300;
const CLIENTS: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

/// No cluster is there to run it: what is measured is its commit.
fn resting(name: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "container": {"image": "busybox", "command": ["true"]}},
        ]},
    })
}

/// `p50 / p99 / max` in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| {
        let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1;
        times[index].as_secs_f64() * 1_000.0
    };
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), at(1.0))
}

/// Processor time of a process so far, in clock ticks of 10 ms.
fn processor_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cost_at_rest() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pids: Vec<(String, u32)> = cell
        .members
        .iter()
        .map(|(member, process)| (format!("member {member}"), process.pid()))
        .chain(cell.agents.iter().map(|(name, process)| (format!("agent {name}"), process.pid())))
        .collect();
    let before = pids.iter().map(|(_, pid)| processor_ticks(*pid)).collect::<anyhow::Result<Vec<_>>>()?;
    tokio::time::sleep(IDLE).await;
    for ((name, pid), before) in pids.iter().zip(before) {
        let ticks = processor_ticks(*pid)? - before;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        println!(
            "{name}: {:.1} % of a core at rest, {memory}",
            ticks as f64 * 1_000.0 / IDLE.as_millis() as f64
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn time_of_a_commit() -> anyhow::Result<()> {
    let cell = Cell::start(&Options::default()).await?;
    let leader = cell.leader().await?;
    let follower = (1..=3).find(|member| *member != leader).context("a follower")?;
    for (member, what) in [(leader, "the leader"), (follower, "a follower")] {
        let url = format!("{}/api/v1/workflows/default", cell.api(member));
        let mut times = Vec::new();
        for number in 0..COMMITS {
            let body = json!({"workflow": resting(&format!("one-{member}-{number}"))});
            let began = Instant::now();
            cell.http.post(&url).bearer_auth(TOKEN).json(&body).send().await?.error_for_status()?;
            times.push(began.elapsed());
        }
        println!("one client at {what}: {}", quantiles(times));
    }
    let began = Instant::now();
    let client = async |client: usize| {
        let mut times = Vec::new();
        for number in 0..COMMITS / 6 {
            let began = Instant::now();
            cell.submit(&resting(&format!("many-{client}-{number}"))).await?;
            times.push(began.elapsed());
        }
        anyhow::Ok(times)
    };
    let all = futures::future::join_all((0..CLIENTS).map(client)).await;
    let times: Vec<Duration> =
        all.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!("{CLIENTS} clients: {rate:.0} submissions/s, {}", quantiles(times));
    let page = cell.metrics(leader).await?;
    let latency = |name: &str| {
        let line =
            page.lines().find(|line| line.starts_with(&format!("argosy_commit_latency_seconds_{name} ")));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).unwrap_or_default()
    };
    println!(
        "mean of propose to commit on the leader: {:.2} ms",
        latency("sum") / latency("count") * 1_000.0
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn time_from_the_loss_of_the_leader_to_the_next_commit() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let mut times = Vec::new();
    for round in 0..KILLS {
        let leader = cell.leader().await?;
        cell.submit(&resting(&format!("before-{round}"))).await?;
        cell.kill_member(leader);
        let began = Instant::now();
        cell.submit(&resting(&format!("after-{round}"))).await?;
        times.push(began.elapsed());
        cell.start_member(leader)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{KILLS} kills of the leader, to the next acknowledged submission: {}", quantiles(times));
    Ok(())
}
