//! Which of several replicas of this agent acts: the shell around the election.

use crate::Config;
use crate::config::RuntimeKind;
use crate::service::now;
use anyhow::{Context, ensure};
use argosy_agent_runtime::election::{Election, Input, Output, Write};
use argosy_agent_runtime::ledger;
use argosy_kubernetes::Client;
use argosy_kubernetes::lease::NamedLease;
use argosy_link::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const TICK: Duration = Duration::from_millis(100);
/// Answers that wait; one question is asked at a time.
const ANSWERS_MAX: usize = 4;
/// How long the last write, which gives the Lease up, may take.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// This replica's right to act. Without a Lease there is one replica, which always may.
#[derive(Clone, Debug)]
pub struct Right {
    until: Option<Arc<AtomicU64>>,
}

impl Right {
    /// Of the only replica.
    pub fn always() -> Self {
        Self { until: None }
    }

    /// End of the right, by the clock of [`now`].
    pub fn until(&self) -> Millis {
        self.until.as_ref().map_or(Millis::MAX, |until| until.load(Ordering::Acquire))
    }

    /// Whether this replica may act. Asked before whatever can't be caught by a fence, by the clock and not by what the
    /// election's task has found out: that may have stood still as well.
    pub fn is_held(&self) -> bool {
        now() < self.until()
    }
}

/// The Lease, held.
pub struct Held {
    pub right: Right,
    /// Higher than that of every replica that acted before; 0: there is no Lease.
    pub term: u64,
    lost: watch::Receiver<bool>,
    give_up: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Held {
    /// Of the only replica.
    fn alone() -> Self {
        Self { right: Right::always(), term: 0, lost: watch::channel(false).1, give_up: None }
    }

    /// Ends when the right is lost; never for the only replica.
    pub async fn lost(&self) -> anyhow::Error {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() && self.give_up.is_none() {
            std::future::pending::<()>().await;
        }
        error_lost()
    }

    /// Lets the next replica begin at once. Call it when nothing acts any more.
    pub async fn give_up(self) {
        if let Some((ask, task)) = self.give_up
            && ask.send(()).is_ok()
        {
            // Without it the other replica waits for as long as the Lease lasts.
            let _ = tokio::time::timeout(GIVE_UP_TIMEOUT, task).await;
        }
    }
}

/// The reason why a replica ends.
pub fn error_lost() -> anyhow::Error {
    anyhow::anyhow!(
        "ARG1233: the Lease could not be renewed in time, or another replica has it: this one ends, to be started again and wait"
    )
}

/// Waits for the Lease, if there is one to be had.
///
/// # Errors
/// Settings that can't work, or a data directory that can't be read.
pub async fn wait(config: &Config, client: Option<Client>) -> anyhow::Result<Held> {
    let Some(name) = &config.lease_name else { return Ok(Held::alone()) };
    ensure!(
        config.runtime == RuntimeKind::Kubernetes,
        "ARG1232: a Lease lies in a Kubernetes cluster: --lease-name goes with --runtime kubernetes only"
    );
    let client = client.context("the Kubernetes runtime has a client")?;
    let own = argosy_kubernetes::own_namespace();
    let namespace = config.lease_namespace.clone().unwrap_or(own);
    ensure!(
        !namespace.is_empty(),
        "ARG1232: outside a cluster the Lease needs a namespace: give it with --lease-namespace"
    );
    let lease = NamedLease::new(client, &namespace, name);
    let life = uuid::Uuid::new_v4();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // Of this life of the process: one that comes back is another candidate.
    let identity = format!("{}_{life}", host.trim());
    let floor = ledger::last_term(&config.data_dir)?;
    let election = Election::new(identity, config.lease_times(), floor, life.as_u64_pair().1)?;
    tracing::info!(lease = name, namespace, "waiting for the Lease");
    let until = Arc::new(AtomicU64::new(0));
    let (leading, led) = oneshot::channel();
    let (lost_sender, lost) = watch::channel(false);
    let (ask, asked) = oneshot::channel();
    let keeper =
        Keeper { election, lease, until: Arc::clone(&until), leading: Some(leading), lost: lost_sender };
    let task = tokio::spawn(keeper.keep(asked));
    let term = led.await.context("the election ended")?;
    tracing::info!(lease = name, term, "this replica has the Lease: it acts from here on");
    Ok(Held { right: Right { until: Some(until) }, term, lost, give_up: Some((ask, task)) })
}

struct Keeper {
    election: Election,
    lease: NamedLease,
    until: Arc<AtomicU64>,
    leading: Option<oneshot::Sender<u64>>,
    lost: watch::Sender<bool>,
}

impl Keeper {
    async fn keep(mut self, mut give_up: oneshot::Receiver<()>) {
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                _ = tick.tick() => Input::Tick,
                Some(input) = answered.recv() => input,
                asked = &mut give_up => {
                    // Dropped without a word: the process ends badly, and may not have stopped acting.
                    if asked.is_ok() {
                        self.end().await;
                    }
                    return;
                }
            };
            let outputs = self.election.step(now(), input);
            self.until.store(self.election.leading_until(), Ordering::Release);
            for output in outputs {
                match output {
                    Output::Read { request } => {
                        let (lease, answers) = (self.lease.clone(), answers.clone());
                        tokio::spawn(async move {
                            let answer = lease.read().await.map_err(|error| told(&error, "read"));
                            let _ = answers.send(Input::Read { request, answer }).await;
                        });
                    }
                    Output::Write { request, write } => {
                        let (lease, answers) = (self.lease.clone(), answers.clone());
                        tokio::spawn(async move {
                            let answer = lease.write(&write).await.map_err(|error| told(&error, "write"));
                            let _ = answers.send(Input::Written { request, answer }).await;
                        });
                    }
                    Output::Leading { term } => {
                        if let Some(leading) = self.leading.take() {
                            let _ = leading.send(term);
                        }
                    }
                    Output::Lost => {
                        self.lost.send_replace(true);
                        return;
                    }
                }
            }
        }
    }

    async fn end(mut self) {
        let write: Option<Write> = self.election.give_up();
        self.until.store(0, Ordering::Release);
        if let Some(write) = write
            && let Err(error) = self.lease.write(&write).await
        {
            told(&error, "give up");
        }
    }
}

fn told(error: &str, action: &str) {
    tracing::warn!(error, action, "the Lease");
}
