//! Measurements of a cell of three processes, not tests: what it costs at rest, how long a commit takes, how long after the
//! loss of its leader it commits again, and how long after a cluster is cut off its step is fenced and sent elsewhere. For
//! the last two every member and agent is in a network namespace of its own.
//! `cargo test -p argosy-tests --test failover -- --ignored --nocapture`

use anyhow::{Context, bail, ensure};
use argosy_server::config::FailoverConfig;
use argosy_tests::cell::{Cell, Options, TOKEN};
use argosy_tests::networks::{self, Network};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KILLS: usize = 100;
const CUTS: usize = 50;
/// With the default lease each takes three times as long.
const DEFAULT_CUTS: usize = 8;
const CLUSTERS: [&str; 4] = ["east", "west", "north", "south"];
const WAIT: Duration = Duration::from_secs(60);
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

/// As many as `ARGOSY_BENCH_ROUNDS` says.
fn rounds(otherwise: usize) -> usize {
    number("ARGOSY_BENCH_ROUNDS").and_then(|rounds| rounds.try_into().ok()).unwrap_or(otherwise)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a measurement in a network of its own, where such can be made.
fn in_network<F: Future<Output = anyhow::Result<()>>>(
    clusters: &[&str],
    measure: impl FnOnce(Arc<Network>) -> F + Send,
) -> anyhow::Result<()> {
    if let Some(reason) = networks::unavailable() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let network = Arc::new(Network::start(3, clusters)?);
    network.block_on(|| measure(Arc::clone(&network)))
}

/// Asks the running members in turn until one acknowledges, without a pause in between that would be measured too.
async fn acknowledged(cell: &Cell, workflow: &Value) -> anyhow::Result<()> {
    let body = json!({"workflow": workflow});
    let key = format!("{:032x}", rand::random::<u128>());
    let deadline = Instant::now() + WAIT;
    for member in cell.members.keys().cycle() {
        let url = format!("{}/api/v1/workflows/default", cell.api(*member));
        let request = cell.http.post(url).bearer_auth(TOKEN).header("Idempotency-Key", &key).json(&body);
        let answer = request.timeout(Duration::from_secs(1)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no member acknowledges");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("no member runs")
}

/// Names of the workflows that the cell has, all pages of the list.
async fn names(cell: &Cell) -> anyhow::Result<BTreeSet<String>> {
    let list = cell.get("/api/v1/workflows/default?listOptions.limit=500").await?;
    let items = list["items"].as_array().context("a list has items")?;
    let all = items.iter().filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned()));
    Ok(all.collect())
}

#[test]
#[ignore = "a measurement"]
fn leader_kills() -> anyhow::Result<()> {
    in_network(&[], async |network| {
        let kills = rounds(KILLS);
        let mut options = Options { network: Some(network), ..Options::default() };
        if let Some(timeout_ms) = number("ARGOSY_BENCH_ELECTION_TIMEOUT_MS") {
            options.consensus.election_timeout_ms = timeout_ms;
            options.consensus.heartbeat_ms = (timeout_ms / 8).max(1);
        }
        let consensus = options.consensus.clone();
        let mut cell = Cell::start(&options).await?;
        let (mut times, mut last) = (Vec::new(), None);
        let mut accepted = BTreeSet::new();
        for round in 0..kills {
            let leader = settled(&cell, last.as_deref()).await?;
            let (before, after) = (format!("before-{round}"), format!("after-{round}"));
            acknowledged(&cell, &resting(&before)).await?;
            let began = Instant::now();
            cell.kill_member(leader);
            acknowledged(&cell, &resting(&after)).await?;
            times.push(began.elapsed());
            last = Some(after.clone());
            accepted.extend([before, after]);
            cell.start_member(leader)?;
        }
        settled(&cell, last.as_deref()).await?;
        let lost = accepted.difference(&names(&cell).await?).count();
        println!(
            "heartbeat {} ms, election timeout {} ms",
            consensus.heartbeat_ms, consensus.election_timeout_ms
        );
        println!("{kills} kills of the leader, to the next acknowledged submission: {}", quantiles(times));
        println!("acknowledged operations: {}, lost: {lost}", accepted.len());
        ensure!(lost == 0, "{lost} acknowledged operations are lost");
        Ok(())
    })
}

/// The leader, once every member has applied what was acknowledged last.
async fn settled(cell: &Cell, last: Option<&str>) -> anyhow::Result<u64> {
    for member in 1..=3 {
        let Some(name) = last else { break };
        let url = format!("{}/api/v1/workflows/default/{name}?consistency=stale", cell.api(member));
        soon("a member to catch up", async || {
            let answer = cell.http.get(&url).bearer_auth(TOKEN).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await?;
    }
    cell.leader().await
}

/// A step that tells its fence in a file whenever it begins, waits for another and tells its fence again.
fn waiting(name: &str, directory: &Path) -> Value {
    let path = directory.join(name);
    let path = path.display();
    let script = format!(
        "echo $ARGOSY_FENCE >> {path}.began; until test -e {path}.go; do sleep 0.1; done; echo $ARGOSY_FENCE"
    );
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [{
            "name": "main", "metadata": {"annotations": {"argosy.dev/idempotent": "true"}},
            "container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]},
        }]},
    })
}

fn begun(name: &str, directory: &Path) -> usize {
    std::fs::read_to_string(directory.join(format!("{name}.began"))).unwrap_or_default().lines().count()
}

/// What became of the node of such a workflow, attempt by attempt: cluster and phase.
async fn attempts(cell: &Cell, name: &str) -> Option<Vec<(String, String)>> {
    let workflow = cell.get(&format!("/api/v1/workflows/default/{name}")).await.ok()?;
    let attempts = workflow["status"]["nodes"][name]["attempts"].as_array()?;
    let text = |attempt: &Value, field: &str| attempt[field].as_str().unwrap_or_default().to_owned();
    Some(attempts.iter().map(|attempt| (text(attempt, "cluster"), text(attempt, "phase"))).collect())
}

/// Looks every 20 ms.
async fn soon<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Cuts the link of the cluster that has a step; the times until the attempt elsewhere is committed and until it runs.
async fn cut(cell: &Cell, network: &Network, name: &str, directory: &Path) -> anyhow::Result<[Duration; 2]> {
    cell.submit(&waiting(name, directory)).await?;
    soon("the step to begin", async || (begun(name, directory) == 1).then_some(())).await?;
    let first = soon("the step to be known as running", async || {
        let running = |(_, phase): &(String, String)| phase == "Running";
        attempts(cell, name).await?.into_iter().find(running).map(|(cluster, _)| cluster)
    })
    .await?;
    let began = Instant::now();
    network.cut(&first)?;
    let again = async {
        soon("the step to be fenced and sent elsewhere", async || {
            let attempts = attempts(cell, name).await?;
            let fenced = attempts.iter().any(|(cluster, phase)| *cluster == first && phase == "Fenced");
            (fenced && attempts.iter().any(|(cluster, _)| *cluster != first)).then(|| began.elapsed())
        })
        .await
    };
    let runs = async {
        soon("the step to begin elsewhere", async || (begun(name, directory) == 2).then(|| began.elapsed()))
            .await
    };
    let (again, runs) = match tokio::try_join!(again, runs) {
        Ok(times) => times,
        Err(error) => bail!(
            "{error}; cut was {first}; {}; {}",
            cell.get(&format!("/api/v1/workflows/default/{name}")).await?["status"],
            cell.argosy(&["cluster", "list"])?
        ),
    };
    // The first one ends as well, behind the cut: two results, of which one may count.
    std::fs::write(directory.join(format!("{name}.go")), "")?;
    cell.finished(name, WAIT).await?;
    network.join(&first)?;
    Ok([again, runs])
}

async fn cuts_of(network: Arc<Network>, mut options: Options, cuts: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    options.network = Some(Arc::clone(&network));
    let mut cell = Cell::start(&options).await?;
    for cluster in CLUSTERS {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(CLUSTERS.len()).await?;
    let (mut again, mut runs, mut twice) = (Vec::new(), Vec::new(), 0);
    for round in 0..cuts {
        let name = format!("cut-{round}");
        let times = cut(&cell, &network, &name, directory.path()).await?;
        again.push(times[0]);
        runs.push(times[1]);
        // One cluster at a time: the brake that holds take-overs is not what is measured.
        cell.wait_for_clusters(CLUSTERS.len()).await?;
    }
    for round in 0..cuts {
        let attempts = attempts(&cell, &format!("cut-{round}")).await.context("the workflow")?;
        twice += usize::from(attempts.iter().filter(|(_, phase)| phase == "Succeeded").count() != 1);
    }
    let [lease_ms, margin_ms] = [options.lease_ms, options.margin_ms.unwrap_or(options.lease_ms / 3)];
    println!("{cuts} cuts of a cluster's link, lease {lease_ms} ms, margin {margin_ms} ms");
    println!("to fenced and sent elsewhere: {}", quantiles(again));
    println!("to running elsewhere: {}", quantiles(runs));
    println!("results committed twice, or not at all: {twice}");
    let leader = cell.leader().await?;
    let superseded = cell.count(leader, "argosy_reports_total{verdict=\"superseded\"}").await?;
    println!("late reports refused by the leader: {superseded}");
    ensure!(twice == 0, "{twice} results were not committed once");
    Ok(())
}

#[test]
#[ignore = "a measurement"]
fn cuts() -> anyhow::Result<()> {
    in_network(&CLUSTERS, |network| {
        let options = Options { lease_ms: 5_000, margin_ms: Some(2_000), ..Options::default() };
        cuts_of(network, options, rounds(CUTS))
    })
}

#[test]
#[ignore = "a measurement"]
fn default_cuts() -> anyhow::Result<()> {
    in_network(&CLUSTERS, |network| {
        let times = FailoverConfig::default();
        let (lease_ms, margin_ms) = (times.lease_ms, Some(times.margin_ms));
        cuts_of(network, Options { lease_ms, margin_ms, ..Options::default() }, rounds(DEFAULT_CUTS))
    })
}
