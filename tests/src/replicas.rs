//! An agent in two replicas with a Lease, on a real cluster. They share a data directory, as Pods share a volume. What a
//! Service is to executors (whoever is ready gets the connection) is played by a small forwarder, since the test clusters have
//! no kube-proxy.

use crate::cell::Cell;
use crate::pods::{AgentOptions, EXECUTOR_PORT, METRICS_PORT, start_agent};
use anyhow::Context;
use argosy_testcluster::Cluster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

const WAIT: Duration = Duration::from_secs(120);
/// Where the Service is.
const SERVICE_PORT: u16 = 2800;
const PROBE_WAIT: Duration = Duration::from_millis(250);
const REPLICAS: [u16; 2] = [0, 1];

/// The Service of an agent's replicas; it ends when it is dropped.
pub struct Service {
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    /// Starts it in the cluster's network.
    #[must_use]
    pub fn start(cluster: Arc<Cluster>) -> Self {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let done = cluster.block_on(|| service(&cluster, ended));
            if let Err(error) = done.and_then(|done| done) {
                eprintln!("the Service of the replicas: {error:#}");
            }
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
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
pub struct Replicas<'a> {
    cell: &'a Cell,
    cluster: &'a Cluster,
    running: [Option<Child>; 2],
}

impl<'a> Replicas<'a> {
    /// None of them runs yet.
    ///
    /// # Errors
    /// The cluster does not give an agent its rights.
    pub fn new(cell: &'a Cell, cluster: &'a Cluster) -> anyhow::Result<Self> {
        cluster.agent_kubeconfig()?;
        cluster.let_agent_hold_its_lease()?;
        Ok(Self { cell, cluster, running: [None, None] })
    }

    /// Starts a replica, again after it ended.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn start(&mut self, replica: u16) -> anyhow::Result<()> {
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

    /// Waits until a replica acts, or waits for its turn.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn until(&self, replica: u16, acts: bool) -> anyhow::Result<()> {
        let what = format!("replica {replica} to {}", if acts { "act" } else { "wait" });
        self.cell.until(WAIT, &what, async || (self.shows(replica).await? == acts).then_some(())).await
    }

    /// A signal to a replica.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, replica: u16, signal: Signal) -> anyhow::Result<()> {
        let process = self.running[usize::from(replica)].as_ref().context("it runs")?;
        Ok(kill(Pid::from_raw(i32::try_from(process.id())?), signal)?)
    }

    /// Waits for its end by itself; whether that was a good one.
    ///
    /// # Errors
    /// It does not end, in time.
    pub async fn ends(&mut self, replica: u16) -> anyhow::Result<bool> {
        let mut process = self.running[usize::from(replica)].take().context("it runs")?;
        for _ in 0..WAIT.as_millis() / 100 {
            if let Some(status) = process.try_wait()? {
                return Ok(status.success());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("replica {replica} did not end within {WAIT:?}")
    }

    /// Who holds the Lease; empty if nobody does.
    ///
    /// # Errors
    /// kubectl's own words.
    pub fn holder(&self) -> anyhow::Result<String> {
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
