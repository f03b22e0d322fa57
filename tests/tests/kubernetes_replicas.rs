//! Two replicas of an agent with a Lease on a real cluster: the one that acts is killed, and stopped past its Lease and
//! resumed. Runs where ARGOSY_REAL_KUBERNETES=1 is set and clusters can be started; otherwise says why not.
//!
//! The replicas share a data directory, as Pods share a volume. What a Service is to executors (whoever is ready gets the
//! connection) is played by a small forwarder, since the test clusters have no kube-proxy.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use anyhow::Context;
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::{Cell, Options};
use argosy_tests::pods::{AgentOptions, EXECUTOR_PORT, METRICS_PORT, no_clusters, say, start_agent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const WAIT: Duration = Duration::from_secs(120);
/// Where the Service is.
const SERVICE_PORT: u16 = 2800;
const PROBE_WAIT: Duration = Duration::from_millis(250);
const REPLICAS: [u16; 2] = [0, 1];
/// Steps that run while the replicas change.
const STEPS: usize = 3;

#[test]
fn two_replicas_take_over_from_each_other() {
    if let Some(reason) = no_clusters() {
        return println!("SKIPPED: {reason}");
    }
    let federation = Federation::start().unwrap();
    let cluster = federation.start_cluster("east", 1).unwrap();
    say("a cluster");
    let (end, ended) = oneshot::channel();
    let done = std::thread::scope(|scope| {
        scope.spawn(|| cluster.block_on(|| service(&cluster, ended)).unwrap().unwrap());
        let done = federation.block_on(|| all_cases(&federation, &cluster));
        drop(end);
        done
    });
    done.unwrap().unwrap();
}

/// Passes connections on to the replica that is ready, as a Service does.
async fn service(cluster: &Cluster, end: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let address = cluster.address();
    let listener = tokio::net::TcpListener::bind((address, SERVICE_PORT)).await?;
    let ready = AtomicU16::new(0);
    let probe = async {
        loop {
            for replica in REPLICAS {
                let asked =
                    tokio::time::timeout(PROBE_WAIT, is_ready((address, METRICS_PORT + replica).into()));
                if asked.await.is_ok_and(|answer| answer.unwrap_or(false)) {
                    ready.store(EXECUTOR_PORT + 10 * replica, Ordering::Relaxed);
                }
            }
            tokio::time::sleep(PROBE_WAIT).await;
        }
    };
    let forward = async {
        loop {
            let Ok((mut from, _)) = listener.accept().await else { continue };
            let port = ready.load(Ordering::Relaxed);
            tokio::spawn(async move {
                if let Ok(mut to) = tokio::net::TcpStream::connect((address, port)).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    };
    tokio::select! {
        () = probe => {}
        () = forward => {}
        _ = end => {}
    }
    Ok(())
}

/// A readiness probe, as a kubelet makes it.
async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(b"GET /activez HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// The two processes.
struct Replicas<'a> {
    cell: &'a Cell,
    cluster: &'a Cluster,
    running: [Option<Child>; 2],
}

impl Replicas<'_> {
    async fn start(&mut self, replica: u16) -> anyhow::Result<()> {
        let service = format!("--executor-address={}:{SERVICE_PORT}", self.cluster.address());
        let times = ["--lease-duration-ms=4000", "--lease-renew-deadline-ms=2500", "--lease-retry-ms=500"];
        let lease = ["--lease-name=argosy-agent", "--lease-namespace=argosy"];
        let arguments = lease.iter().chain(&times).map(|&argument| argument.to_owned()).chain([service]);
        let options = AgentOptions { arguments: arguments.collect(), replica, ..AgentOptions::default() };
        let process = start_agent(self.cell, self.cluster, &options).await?;
        self.running[usize::from(replica)] = Some(process);
        Ok(())
    }

    /// What the replica shows as `argosy_agent_leader`; nothing while it does not answer.
    async fn shows(&self, replica: u16) -> Option<bool> {
        let url = format!("http://{}:{}/metrics", self.cluster.address(), METRICS_PORT + replica);
        let asked = self.cell.http.get(url).timeout(Duration::from_secs(1)).send().await.ok()?;
        let page = asked.text().await.ok()?;
        let line = page.lines().find(|line| line.starts_with("argosy_agent_leader{"))?;
        Some(line.ends_with(" 1"))
    }

    async fn until(&self, replica: u16, acts: bool) -> anyhow::Result<()> {
        let what = format!("replica {replica} to {}", if acts { "act" } else { "wait" });
        self.cell.until(WAIT, &what, async || (self.shows(replica).await? == acts).then_some(())).await
    }

    fn signal(&self, replica: u16, signal: Signal) -> anyhow::Result<()> {
        let process = self.running[usize::from(replica)].as_ref().context("it runs")?;
        Ok(kill(Pid::from_raw(i32::try_from(process.id())?), signal)?)
    }

    /// Waits for its end by itself; whether that was a good one.
    async fn ends(&mut self, replica: u16) -> anyhow::Result<bool> {
        let mut process = self.running[usize::from(replica)].take().context("it runs")?;
        for _ in 0..WAIT.as_millis() / 100 {
            if let Some(status) = process.try_wait()? {
                return Ok(status.success());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("replica {replica} did not end within {WAIT:?}")
    }

    fn holder(&self) -> anyhow::Result<String> {
        self.cluster.kubectl(&[
            "-n",
            "argosy",
            "get",
            "lease",
            "argosy-agent",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])
    }
}

/// Steps that wait for a file in their Pod, and one after them all.
fn workflow(name: &str) -> Value {
    let image = json!({"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"]});
    let container = |script: &str| {
        let mut container = image.clone();
        container["args"] = json!([script]);
        container
    };
    // A result that the termination message does not hold: it has to come over the wire.
    let wait = "echo begun; while [ ! -e /tmp/go ]; do sleep 0.2; done; head -c 6000 /dev/zero | tr '\\0' x >/tmp/word";
    let items: Vec<usize> = (0..STEPS).collect();
    json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name, "namespace": "default"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "wait", "template": "wait", "withItems": items}],
                [{"name": "after", "template": "after"}]]},
            {"name": "wait", "container": container(wait), "outputs": {"parameters": [{"name": "word", "valueFrom": {"path": "/tmp/word"}}]}},
            {"name": "after", "container": container("echo after")}]}})
}

/// The workflow's Pods by name, and whether they run.
fn pods(cluster: &Cluster, workflow: &str) -> Vec<(String, bool)> {
    let selector = format!("workflows.argoproj.io/workflow={workflow}");
    let listed = cluster.kubectl(&["-n", "default", "get", "pods", "-l", &selector, "-o", "json"]).unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let read = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        (name.to_owned(), pod["status"]["phase"] == "Running")
    };
    listed["items"].as_array().unwrap().iter().map(read).collect()
}

async fn all_run(cell: &Cell, cluster: &Cluster, workflow: &str) -> anyhow::Result<Vec<String>> {
    let told = format!("{STEPS} Pods that have begun");
    cell.until(WAIT, &told, async || {
        let running: Vec<_> =
            pods(cluster, workflow).into_iter().filter(|pod| pod.1).map(|pod| pod.0).collect();
        // A container that runs is not a command that runs: it asks for its permit first.
        let begun = running.iter().all(|pod| {
            let log = cluster.kubectl(&["-n", "default", "logs", pod, "-c", "main"]);
            log.is_ok_and(|log| log.contains("begun"))
        });
        (running.len() == STEPS && begun).then_some(running)
    })
    .await
}

fn let_go(cluster: &Cluster, pod: &str) -> anyhow::Result<()> {
    cluster.kubectl(&["-n", "default", "exec", pod, "-c", "main", "--", "touch", "/tmp/go"]).map(drop)
}

/// Every node has its one result, and no step had a second Pod.
async fn ended_well(cell: &Cell, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let ended = cell.finished(name, WAIT).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let nodes = ended["status"]["nodes"].as_object().unwrap();
    let results: Vec<_> = nodes.values().filter(|node| node["type"] == "Pod").collect();
    assert_eq!(results.len(), STEPS + 1, "{}", ended["status"]);
    assert!(results.iter().all(|node| node["phase"] == "Succeeded"), "{}", ended["status"]);
    for node in results.iter().filter(|node| node["templateName"] == "wait") {
        assert_eq!(node["outputs"]["parameters"][0]["value"].as_str().map(str::len), Some(6_000), "{node}");
    }
    assert_eq!(pods(cluster, name).len(), STEPS + 1, "{:?}", pods(cluster, name));
    Ok(())
}

async fn all_cases(federation: &Federation, cluster: &Cluster) -> anyhow::Result<()> {
    let options =
        Options { members: 1, address: federation.hub_address(), lease_ms: 20_000, ..Options::default() };
    let cell = Cell::start(&options).await?;
    cluster.agent_kubeconfig()?;
    cluster.let_agent_hold_its_lease()?;
    let mut replicas = Replicas { cell: &cell, cluster, running: [None, None] };
    replicas.start(0).await?;
    replicas.until(0, true).await?;
    replicas.start(1).await?;
    replicas.until(1, false).await?;
    cell.wait_for_clusters(1).await?;
    say("one replica acts, one waits");

    cell.submit(&workflow("killed")).await?;
    let running = all_run(&cell, cluster, "killed").await?;
    replicas.signal(0, Signal::SIGKILL)?;
    replicas.ends(0).await?;
    // A result that comes while nobody acts: the executor asks until somebody does.
    let_go(cluster, &running[0])?;
    replicas.until(1, true).await?;
    for pod in &running[1..] {
        let_go(cluster, pod)?;
    }
    ended_well(&cell, cluster, "killed").await?;
    say("kill -9 of the one that acted: its steps were adopted and went on");

    replicas.start(0).await?;
    replicas.until(0, false).await?;
    cell.submit(&workflow("stopped")).await?;
    let running = all_run(&cell, cluster, "stopped").await?;
    replicas.signal(1, Signal::SIGSTOP)?;
    let_go(cluster, &running[0])?;
    replicas.until(0, true).await?;
    let_go(cluster, &running[1])?;
    replicas.signal(1, Signal::SIGCONT)?;
    assert!(!replicas.ends(1).await?, "a replica that lost its Lease ends, and not well");
    let_go(cluster, &running[2])?;
    ended_well(&cell, cluster, "stopped").await?;
    let clusters = cell.get("/api/v1/clusters").await?.to_string();
    assert!(!clusters.contains("Locked"), "the key was not taken for a stolen one: {clusters}");
    say("stopped past its Lease and resumed: it ended, the other one had taken over");

    replicas.start(1).await?;
    replicas.until(1, false).await?;
    let before = replicas.holder()?;
    replicas.signal(0, Signal::SIGTERM)?;
    assert!(replicas.ends(0).await?);
    assert_ne!(replicas.holder()?, before, "who ends in good order gives the Lease up");
    replicas.until(1, true).await?;
    replicas.signal(1, Signal::SIGTERM)?;
    assert!(replicas.ends(1).await?);
    assert_eq!(replicas.holder()?, "");
    say("ends in good order");
    Ok(())
}
