//! The agent's one task around the reconciler.

use crate::Config;
use crate::connection::{Connector, Event, FRAMES_OUT_MAX};
use crate::identity::{self, SharedTrusts, Wish, wall_clock_ms};
use crate::logs::LogReaders;
use crate::page::{self, SharedFigures};
use crate::policy;
use crate::replica::{self, Right};
use crate::runtimes::{self, Prepared, Running};
use anyhow::Context;
use argosy_agent_runtime::ledger::{self, FileLedger};
use argosy_agent_runtime::{Figure, Input, Limits, Output, Reconciler, RuntimeEvent};
use argosy_link::{Millis, agent as session};
use argosy_proto::agent::{AgentFrame, CertificateRenewed, LogChunk, TrustRoots, agent_frame, control_frame};
use argosy_proto::common::{AttemptPhase, ConfigMapNotice};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Events of the runtime and of executors that wait; beyond, those who send wait.
const EVENTS_WAITING_MAX: usize = 4_096;
/// Words between the task that keeps the identity and that of the connection.
const IDENTITY_QUEUE_MAX: usize = 16;
/// Inputs taken before the ledger is synced for all of them.
const BATCH_MAX: usize = 512;
const TICK: Duration = Duration::from_millis(100);
/// How long the agent waits for another one on its data directory to end.
const LEDGER_WAIT_MS: Millis = 5_000;
/// How long the agent goes on while its ledger cannot be written; longer than a lease.
const LEDGER_FAILS_MAX_MS: Millis = 60_000;
/// Room that logs leave in the connection's queue for everything else.
const FRAMES_OUT_RESERVED: usize = FRAMES_OUT_MAX / 2;
const FIGURES_EVERY_TICKS: u32 = 10;

/// Runs the agent until SIGTERM or SIGINT. Steps go on after it.
///
/// # Errors
/// When it cannot be set up: configuration, data directory, invite, addresses. When it had the Lease and lost it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    act_when_it_is_time(config, end).await
}

/// Waits for its turn and acts until the end is asked for or the turn is over.
async fn act_when_it_is_time(config: Config, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut end = std::pin::pin!(end);
    let policy = config.policy.as_deref().map(policy::load).transpose()?;
    // Keys, results and logs of steps: for this user only.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
    let figures = SharedFigures::default();
    let mut page = JoinSet::new();
    let waited = async {
        // Locks the directory before anything else in it is touched.
        let alone = if config.lease_name.is_none() { Some(open_ledger(&config).await?) } else { None };
        let prepared = Prepared::new(&config).await?;
        page::serve(config.metrics_listen, Arc::clone(&figures), &mut page).await?;
        let held = replica::wait(&config, prepared.kubernetes.clone()).await?;
        let ledger = match alone {
            Some(ledger) => ledger,
            None => FileLedger::open_term(&config.data_dir, held.term)?,
        };
        Ok::<_, anyhow::Error>((prepared, held, ledger))
    };
    let (prepared, held, ledger) = tokio::select! {
        waited = waited => waited?,
        () = &mut end => return Ok(()),
    };
    let acting = async {
        let mut agent =
            Agent::start(config, policy, prepared, ledger, Arc::clone(&figures), held.right.clone()).await?;
        agent.run().await
    };
    let result = tokio::select! {
        result = acting => result,
        lost = held.lost() => Err(lost),
        () = end => Ok(()),
    };
    figures.lock().unwrap_or_else(PoisonError::into_inner).is_active = false;
    // The agent's tasks ended with it: what they had under way is fenced, and the next replica may begin.
    held.give_up().await;
    result
}

struct Agent {
    reconciler: Reconciler<FileLedger>,
    running: Running,
    events: mpsc::Receiver<RuntimeEvent>,
    connector: Connector,
    connection_events: mpsc::Receiver<(u64, Event)>,
    outbound: Option<mpsc::Sender<AgentFrame>>,
    members: Vec<String>,
    next_member: usize,
    readers: LogReaders,
    log_pieces: mpsc::Receiver<LogChunk>,
    figures: SharedFigures,
    ticks: u32,
    last_problem: String,
    ledger_fails_since: Option<Millis>,
    /// Of the task that keeps the identity.
    wishes: mpsc::Receiver<Wish>,
    roots: mpsc::Sender<TrustRoots>,
    /// The question for a certificate that waits for its answer.
    renewal: Option<(u64, oneshot::Sender<CertificateRenewed>)>,
    trusts: SharedTrusts,
    right: Right,
    _tasks: JoinSet<()>,
}

/// A clock that never goes back and goes on during suspension.
pub fn now() -> Millis {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    u64::try_from(seconds).unwrap_or(0) * 1000 + u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000
}

/// An agent that was killed a moment ago may still be holding the lock.
async fn open_ledger(config: &Config) -> anyhow::Result<FileLedger> {
    let begin = now();
    loop {
        match FileLedger::open_term(&config.data_dir, 0) {
            Err(ledger::Error::InUse { .. }) if now() < begin + LEDGER_WAIT_MS => {
                tokio::time::sleep(TICK).await
            }
            opened => return Ok(opened?),
        }
    }
}

/// Those of the configuration, and which policy there is.
fn labels(config: &Config, policy: Option<&policy::Loaded>) -> BTreeMap<String, String> {
    let own = policy.map(|loaded| (policy::LABEL.to_owned(), loaded.digest.clone()));
    config.labels.iter().cloned().chain(own).collect()
}

impl Agent {
    async fn start(
        config: Config,
        policy: Option<policy::Loaded>,
        prepared: Prepared,
        ledger: FileLedger,
        figures: SharedFigures,
        right: Right,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let cluster_uid = prepared.cluster_uid.clone();
        let enrolled = identity::establish(&config, &cluster_uid).await?;
        figures.lock().unwrap_or_else(PoisonError::into_inner).cluster.clone_from(&enrolled.cluster);
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let names = (enrolled.cell.as_str(), enrolled.cluster.as_str());
        let rules = policy.as_ref().map(|loaded| Arc::clone(&loaded.policy));
        let running = prepared.start(&config, rules.clone(), names, sender, &mut tasks).await?;
        figures.lock().unwrap_or_else(PoisonError::into_inner).is_active = true;
        let instance = uuid::Uuid::new_v4().as_u64_pair();
        let options = session::Options {
            cluster: enrolled.cluster.clone(),
            cluster_uid,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_instance: instance.0,
            // The reconciler knows it from the ledger.
            ledger: 0,
            runtime: runtimes::kind(&config),
            labels: labels(&config, policy.as_ref()),
            enforces_exclusive: running.runtime.enforces_exclusive(),
            credit: config.credit,
            times: argosy_link::Times::default(),
            limits: argosy_link::Limits::default(),
            seed: instance.1,
        };
        let reconciler = Reconciler::new(options, Limits::default(), ledger)?.with_policy(rules.clone());
        let (connector, connection_events) = Connector::new(Arc::clone(&enrolled.tls));
        let (readers, log_pieces) =
            LogReaders::new(Arc::clone(&running.runtime), Arc::clone(&running.stores), rules);
        let members = enrolled.members.clone();
        tracing::info!(cluster = enrolled.cluster, cell = enrolled.cell, ?members, "the agent is up");
        let (wish_sender, wishes) = mpsc::channel(IDENTITY_QUEUE_MAX);
        let (roots_sender, roots) = mpsc::channel(IDENTITY_QUEUE_MAX);
        let trusts = Arc::clone(&enrolled.trusts);
        let session = identity::Session {
            wishes: wish_sender,
            roots,
            agent_instance: instance.0,
            right: right.clone(),
        };
        tasks.spawn(enrolled.keep(config.clone(), session));
        Ok(Self {
            reconciler,
            running,
            events,
            connector,
            connection_events,
            outbound: None,
            // Agents of many clusters spread over the members.
            next_member: usize::try_from(instance.0 % members.len() as u64).unwrap_or(0),
            members,
            readers,
            log_pieces,
            figures,
            ticks: 0,
            last_problem: String::new(),
            ledger_fails_since: None,
            wishes,
            roots: roots_sender,
            renewal: None,
            trusts,
            right,
            _tasks: tasks,
        })
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let has_room =
                self.outbound.as_ref().is_none_or(|outbound| outbound.capacity() > FRAMES_OUT_RESERVED);
            tokio::select! {
                _ = tick.tick() => self.tick(),
                event = self.events.recv() => {
                    let event = event.context("the runtime ended")?;
                    self.reconciler.feed(now(), Input::Runtime(event));
                }
                Some((generation, event)) = self.connection_events.recv() => self.connection(generation, event),
                Some(wish) = self.wishes.recv() => self.wish(wish),
                Some(piece) = self.log_pieces.recv(), if has_room => {
                    self.reconciler.feed(now(), Input::LogChunk(piece));
                }
            }
            self.take_what_waits();
            self.act()?;
        }
    }

    /// More inputs under the same sync of the ledger.
    fn take_what_waits(&mut self) {
        for _ in 0..BATCH_MAX {
            let mut found = false;
            if let Ok(event) = self.events.try_recv() {
                self.reconciler.feed(now(), Input::Runtime(event));
                found = true;
            }
            if let Ok((generation, event)) = self.connection_events.try_recv() {
                self.connection(generation, event);
                found = true;
            }
            if !found {
                return;
            }
        }
    }

    fn tick(&mut self) {
        self.reconciler.feed(now(), Input::Tick { wall_clock_ms: wall_clock_ms() });
        self.ticks += 1;
        if self.ticks.is_multiple_of(FIGURES_EVERY_TICKS) {
            self.show_figures();
        }
    }

    fn connection(&mut self, generation: u64, event: Event) {
        if !self.connector.is_present(generation) {
            return;
        }
        match event {
            Event::Opened(sender) => {
                self.outbound = Some(sender);
                self.last_problem.clear();
                self.reconciler.feed(now(), Input::Connected { wall_clock_ms: wall_clock_ms() });
            }
            Event::Frame(mut frame) => match &mut frame.body {
                Some(control_frame::Body::CertificateRenewed(renewed)) => {
                    // An answer to an earlier question is nobody's: its certificate is not kept.
                    if let Some((_, answer)) = self.renewal.take_if(|(number, _)| *number == renewed.request)
                    {
                        let _ = answer.send(std::mem::take(renewed));
                    }
                }
                Some(control_frame::Body::TrustRoots(roots)) => {
                    // Told again until it is confirmed.
                    let _ = self.roots.try_send(std::mem::take(roots));
                }
                _ => self.reconciler.feed(now(), Input::Frame(frame)),
            },
            Event::Closed(why) => {
                if why != self.last_problem {
                    tracing::warn!(why, "not connected");
                    self.last_problem = why;
                }
                self.disconnected();
            }
        }
    }

    /// What the identity's task wants of the connection.
    fn wish(&mut self, wish: Wish) {
        let frame =
            |body| AgentFrame { version: argosy_link::FRAME_VERSION, session_epoch: 0, body: Some(body) };
        match wish {
            Wish::Renew(request, answer) if self.outbound.is_some() => {
                self.renewal = Some((request.request, answer));
                self.send(frame(agent_frame::Body::RenewCertificate(request)));
            }
            // Without a session the question is dropped with its answer.
            Wish::Renew(..) => {}
            Wish::Taken(taken) => self.send(frame(agent_frame::Body::CertificateTaken(taken))),
            Wish::Reconnect => {
                self.disconnected();
                self.connect(0);
            }
        }
    }

    fn disconnected(&mut self) {
        self.connector.close();
        self.outbound = None;
        self.renewal = None;
        self.readers.clear();
        self.reconciler.feed(now(), Input::Disconnected);
    }

    fn act(&mut self) -> anyhow::Result<()> {
        if !self.right.is_held() {
            return Err(replica::error_lost());
        }
        let outputs = match self.reconciler.outputs() {
            Ok(outputs) => outputs,
            Err(error) => {
                if self.ledger_fails_since.is_none() {
                    tracing::error!(%error, "nothing is granted or reported meanwhile");
                }
                let since = *self.ledger_fails_since.get_or_insert_with(now);
                if now().saturating_sub(since) < LEDGER_FAILS_MAX_MS {
                    return Ok(());
                }
                // What is to be done piles up, and the lease has run out: a fresh start loses nothing.
                return Err(error).context("the ledger could not be written for a minute");
            }
        };
        self.ledger_fails_since = None;
        // What was made durable in time is what the next replica finds; what is said later than that it may not know of.
        if !self.right.is_held() {
            return Err(replica::error_lost());
        }
        // Outputs may have waited for the ledger: what counts for permits is the lease as it is now.
        let lease_until = self.reconciler.session().lease_until().min(self.right.until());
        self.running.lease_until(lease_until);
        for output in outputs {
            match output {
                Output::Send(frame) => self.send(frame),
                Output::Runtime(action) => self.running.act(action, lease_until),
                Output::Executor(answer) => self.running.answer(answer),
                Output::Connect { after_ms } => self.connect(after_ms),
                Output::Log(request) => self.readers.request(request),
                Output::Synced { session_epoch, incarnation } => {
                    tracing::info!(session_epoch, incarnation, "in step with the control plane");
                }
                Output::Silent { drill, for_ms } => {
                    tracing::warn!(drill, for_ms, "a drill: this agent serves nobody until it is over");
                }
                Output::ConfigMapNotices(notices) => {
                    for ConfigMapNotice { refused, code, message, .. } in notices {
                        tracing::warn!(code, message, refused, "a ConfigMap of this cluster");
                    }
                }
                Output::Refused { code, message, permanent } => {
                    tracing::error!(code, message, permanent, "the control plane refused the session");
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, mut frame: AgentFrame) {
        if let Some(agent_frame::Body::Hello(hello)) = &mut frame.body {
            hello.trusts = self.trusts.load().to_vec();
        }
        let Some(outbound) = &self.outbound else { return };
        if outbound.try_send(frame).is_err() {
            tracing::warn!("the connection takes no more frames; opening another");
            self.disconnected();
        }
    }

    fn connect(&mut self, after_ms: Millis) {
        self.outbound = None;
        self.readers.clear();
        let address = self.members[self.next_member % self.members.len()].clone();
        self.next_member = (self.next_member + 1) % self.members.len();
        self.connector.open(Duration::from_millis(after_ms), address);
    }

    fn show_figures(&self) {
        let mut attempts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for phase in [AttemptPhase::Received, AttemptPhase::Pending, AttemptPhase::Running] {
            attempts.insert(phase_name(phase), 0);
        }
        for report in self.reconciler.reports() {
            *attempts.entry(phase_name(report.phase())).or_default() += 1;
        }
        let (own, link) = (self.reconciler.counters(), self.reconciler.session().counters());
        let counters = [
            ("permits_granted_total", "Start permits given, repeats included.", own.permits_granted),
            ("permits_refused_total", "Start permits refused for good.", own.permits_refused),
            ("permits_put_off_total", "Questions for a permit without a live lease.", own.permits_put_off),
            (
                "exclusive_renewals_put_off_total",
                "Renewals of exclusive steps without a live lease.",
                own.renewals_put_off,
            ),
            (
                "foreign_holder_events_total",
                "Events of processes that do not hold the permit.",
                own.foreign_holder_events,
            ),
            ("actions_repeated_total", "Actions repeated for want of an effect.", own.actions_repeated),
            (
                "attempts_discarded_total",
                "Attempts ended because the control plane gave them up.",
                own.attempts_discarded,
            ),
            ("sessions_total", "Sessions begun.", link.sessions),
            ("reconnects_total", "Connections asked for after the first.", link.reconnects),
            ("renewals_sent_total", "Lease renewals sent.", link.renewals_sent),
            ("renewals_acknowledged_total", "Lease renewals acknowledged.", link.renewals_acknowledged),
            ("reports_sent_total", "Reports sent, repeats included.", link.reports_sent),
            ("reports_resent_total", "Reports sent again.", link.reports_resent),
            ("frames_stale_total", "Frames of another session, dropped.", link.frames_stale),
        ];
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.is_synced = self.reconciler.session().is_synced();
        figures.lease_remaining_ms = self.reconciler.session().lease_until().saturating_sub(now());
        figures.attempts = attempts;
        figures.others =
            counters.map(|(name, help, value)| Figure::counter(name, help, value)).into_iter().collect();
        figures.others.extend(self.running.runtime.figures());
    }
}

fn phase_name(phase: AttemptPhase) -> &'static str {
    match phase {
        AttemptPhase::Unspecified => "Unspecified",
        AttemptPhase::Received => "Received",
        AttemptPhase::Pending => "Pending",
        AttemptPhase::Running => "Running",
        AttemptPhase::Succeeded => "Succeeded",
        AttemptPhase::Failed => "Failed",
        AttemptPhase::Error => "Error",
        AttemptPhase::Stopped => "Stopped",
    }
}
