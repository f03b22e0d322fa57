//! Agents of real clusters, and what their steps have in common.

use crate::cell::{Cell, binary};
use anyhow::Context;
use argosy_testcluster::{Cluster, EXECUTOR_IMAGE};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Instant;

/// Where executors find their agent.
pub const EXECUTOR_PORT: u16 = 2749;
/// Where an agent shows its figures.
pub const METRICS_PORT: u16 = 9091;

/// Why tests with real clusters can't run here; nothing if they can.
#[must_use]
pub fn no_clusters() -> Option<String> {
    if std::env::var("ARGOSY_REAL_KUBERNETES").as_deref() == Ok("1") {
        argosy_testcluster::unavailable()
    } else {
        Some("ARGOSY_REAL_KUBERNETES=1 is not set".to_owned())
    }
}

/// Says that a case is done, and when.
pub fn say(case: &str) {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    println!("{:>6.1} s  ok: {case}", START.get_or_init(Instant::now).elapsed().as_secs_f64());
}

/// How an agent is started.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Its access to the cluster; none: that of `deploy/agent/rbac.yaml`.
    pub kubeconfig: Option<PathBuf>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Which of several with one data directory, from 0: each has ports and a log of its own.
    pub replica: u16,
}

/// Starts an agent inside its cluster's network, again after it was killed. It is enrolled the first time.
///
/// # Errors
/// No invite, or it can't be started.
pub async fn start_agent(cell: &Cell, cluster: &Cluster, options: &AgentOptions) -> anyhow::Result<Child> {
    let mut command = cluster.command(binary("argosy-agent")?);
    command.args(agent_arguments(cell, cluster, options).await?);
    let name = match options.replica {
        0 => cluster.name.clone(),
        replica => format!("{}-{replica}", cluster.name),
    };
    cluster.spawn(&mut command, &log(cluster, &format!("agent-{name}.log"))?)
}

/// The command line of an agent inside its cluster's network.
///
/// # Errors
/// No invite, or the cluster does not give the agent its rights.
pub async fn agent_arguments(
    cell: &Cell,
    cluster: &Cluster,
    options: &AgentOptions,
) -> anyhow::Result<Vec<String>> {
    let AgentOptions { kubeconfig, arguments, replica } = options;
    let data = cluster.folder().join("agent");
    std::fs::create_dir_all(&data)?;
    let invite = invite(cell, cluster).await?;
    let kubeconfig = match kubeconfig {
        Some(file) => file.clone(),
        None => cluster.agent_kubeconfig()?,
    };
    let address = cluster.address();
    let mut all: Vec<String> = [
        "--runtime",
        "kubernetes",
        "--cluster",
        &cluster.name,
        "--executor-image",
        EXECUTOR_IMAGE,
        &format!("--kubeconfig={}", kubeconfig.display()),
        &format!("--data-dir={}", data.display()),
        &format!("--invite-file={}", invite.display()),
        &format!("--executor-listen={address}:{}", EXECUTOR_PORT + 10 * replica),
        &format!("--metrics-listen={address}:{}", METRICS_PORT + replica),
    ]
    .map(str::to_owned)
    .to_vec();
    all.extend(arguments.iter().cloned());
    Ok(all)
}

/// One invite for a cluster, made once.
async fn invite(cell: &Cell, cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let invite = cluster.folder().join("invite");
    if !invite.exists() {
        let path = format!("/api/v1/clusters/{}/invite", cluster.name);
        let answer = cell.post(&path, &json!({"ttlSeconds": 600})).await?;
        std::fs::write(&invite, answer["token"].as_str().context("an invite has a token")?)?;
    }
    Ok(invite)
}

/// Logs outlive the test where the runner asks for it.
fn log(cluster: &Cluster, name: &str) -> anyhow::Result<PathBuf> {
    let logs =
        std::env::var_os("ARGOSY_TEST_LOGS").map_or_else(|| cluster.folder().to_owned(), PathBuf::from);
    std::fs::create_dir_all(&logs)?;
    Ok(logs.join(Path::new(name)))
}

/// A figure of an agent; nothing while it does not answer.
pub async fn figure(cell: &Cell, cluster: &Cluster, name: &str) -> Option<f64> {
    let url = format!("http://{}:{}/metrics", cluster.address(), METRICS_PORT);
    let page = cell.http.get(url).send().await.ok()?.text().await.ok()?;
    let start = format!("argosy_agent_{name}{{");
    page.lines().find(|line| line.starts_with(&start))?.rsplit(' ').next()?.parse().ok()
}
