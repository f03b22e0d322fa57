//! Submissions of a one-step workflow over the REST API: TLS, token, parsing, validation, decision, commit.

use crate::cell::{Cell, TOKEN};
use crate::figures::{Measured, print_table};
use anyhow::ensure;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections that the clients share.
const CONNECTIONS_MAX: usize = 16;

/// Options of the suite.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Numbers of clients
    #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
    clients: Vec<usize>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most submissions of each measurement: without a cluster they stay, and a cell holds 10,000 active workflows
    #[arg(long, default_value_t = 9_000)]
    submissions_max: usize,
}

/// Runs the suite.
pub async fn run(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for clients in &arguments.clients {
        let mut cell = Cell::start(directory).await?;
        let leader = cell.leader().await?;
        let url = format!("https://{}/api/v1/workflows/default", cell.addresses[&leader].api);
        let measured = submit(&cell, &url, *clients, arguments).await?;
        rows.push([vec![clients.to_string()], measured.cells().to_vec()].concat());
    }
    print_table(
        "Submissions over REST with TLS, three members, fsync on",
        &["clients", "workflows/s", "p50", "p99"],
        &rows,
    );
    Ok(())
}

async fn submit(cell: &Cell, url: &str, clients: usize, arguments: &Arguments) -> anyhow::Result<Measured> {
    let connections =
        (0..clients.min(CONNECTIONS_MAX)).map(|_| cell.http()).collect::<anyhow::Result<Vec<_>>>()?;
    let left = Arc::new(AtomicUsize::new(arguments.submissions_max));
    let begun = Instant::now();
    let over = begun + Duration::from_secs(arguments.seconds);
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let (http, url, left) =
                (connections[number % connections.len()].clone(), url.to_owned(), left.clone());
            tokio::spawn(async move { submit_in_turn(&http, &url, number, &left, over).await })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Measured::new(latencies, begun.elapsed()))
}

async fn submit_in_turn(
    http: &reqwest::Client,
    url: &str,
    number: usize,
    left: &AtomicUsize,
    over: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    while Instant::now() < over
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    {
        let name = format!("one-step-{number}-{}", latencies.len());
        let workflow = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
            "spec": {"entrypoint": "main", "templates": [
                {"name": "main", "container": {"image": "busybox", "command": ["true"]}},
            ]},
        });
        let begun = Instant::now();
        let answer = http.post(url).bearer_auth(TOKEN).json(&json!({"workflow": workflow})).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{status}: {text}");
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
