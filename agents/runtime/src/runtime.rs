use argosy_executor::protocol::TaskOutcome;
use argosy_proto::agent::{WorkflowName, WorkflowTold};
use argosy_proto::common::{
    Assignment, AttemptPhase, AttemptReport, ContainerState, Fence, OutputArtifact, OutputParameter,
    ReportedConfigMap, Resources,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What the reconciler wants of a runtime. Every action is idempotent and may be repeated: the reconciler repeats
/// what has shown no effect, so a runtime may drop one that its bounded queue has no room for.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "moved a few times and never kept in numbers")]
pub enum RuntimeAction {
    /// Make the Pod or process of this attempt, unless it was made before (by this or an earlier run of the agent).
    /// What cannot be made is an `Observed` with phase `Error` and a message.
    Ensure(Assignment),
    /// Bind the attempt to this holder, by compare-and-swap on what the runtime made, then tell the executor that it
    /// may run the user's command. A binding to another holder found there is answered with a refusal instead.
    GrantPermit {
        /// The attempt.
        fence: Fence,
        /// Who asked: a Pod's uid, or a process's token.
        holder: String,
    },
    /// End the attempt: ask its processes to end, after `grace_ms` end them. Its end is an `Observed` or an
    /// `Outcome`, or `Gone` when there was nothing.
    Stop {
        /// The attempt.
        fence: Fence,
        /// Milliseconds between asking and ending.
        grace_ms: i64,
    },
    /// End what runs of the attempt at once, as if its machine had died: no grace, and no word about it but what the runtime
    /// itself sees.
    Kill(Fence),
    /// How it stands with the workflows that [`RuntimeEvent::WorkflowsAsked`] named. A runtime that never asks is never told.
    WorkflowsTold(Vec<WorkflowTold>),
    /// Tell by [`RuntimeEvent::PrerequisitesFound`] whether these exist, now and whenever that changes.
    CheckPrerequisites(Vec<String>),
    /// The attempt's end is in the ledger, not committed yet: should what keeps it to be seen stand in somebody's way, that may
    /// go. It is told again after a restart.
    Recorded(Fence),
    /// The attempt's result is committed or unwanted: end what may still run, drop the finalizer. Nothing of the attempt
    /// is reported or listed any more; its log may stay readable for a while.
    Release(Fence),
}

/// Whether an attempt may store under a key that its successor would store under as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreVerdict {
    /// Now: its result may still count.
    Granted,
    /// The lease is not live: ask again.
    AskAgain,
    /// Never: why.
    Refused(String),
}

/// What the reconciler answers an executor, through the executor server (or a simulated executor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutorAnswer {
    /// Permit or renewal is refused for good: the executor exits without running anything, or ends what runs.
    Refused {
        /// The attempt.
        fence: Fence,
        /// Who asked.
        holder: String,
        /// Why, for the log of the step.
        reason: String,
    },
    /// The exclusive step may go on: its lease counts from the moment this was asked.
    Renewed {
        /// The attempt.
        fence: Fence,
        /// Who asked.
        holder: String,
    },
    /// Neither permit nor renewal now, since the lease is not live: ask again.
    AskAgain {
        /// The attempt.
        fence: Fence,
        /// Who asked.
        holder: String,
    },
    /// On what is to be stored under a key that is not the attempt's own.
    Store {
        /// The attempt.
        fence: Fence,
        /// Who asked.
        holder: String,
        /// Whether it may be.
        verdict: StoreVerdict,
    },
    /// The outcome is in the ledger: the executor may end.
    OutcomeRecorded {
        /// The attempt.
        fence: Fence,
        /// Who sent it.
        holder: String,
    },
}

/// What a runtime, or the executor server, tells the reconciler.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeEvent {
    /// Everything that exists, once, before any other event: adoption after a restart. The agent connects after it.
    Listed(Vec<AttemptObservation>),
    /// The newest known state of one attempt.
    Observed(AttemptObservation),
    /// An executor asks for the start permit of its attempt.
    PermitAsked {
        /// The attempt.
        fence: Fence,
        /// Who asks: a Pod's uid, or a process's token.
        holder: String,
    },
    /// The executor of an exclusive step renews its lease.
    RenewAsked {
        /// The attempt.
        fence: Fence,
        /// The executor's holder.
        holder: String,
    },
    /// An executor wants to store under a key that is not the attempt's own.
    StoreAsked {
        /// The attempt.
        fence: Fence,
        /// The executor's holder.
        holder: String,
    },
    /// What an executor found when the user's command ended; also read from a Pod's termination message.
    Outcome {
        /// The attempt.
        fence: Fence,
        /// The executor's holder.
        holder: String,
        /// How it ended, and the outputs.
        outcome: TaskOutcome,
    },
    /// An executor tells how far the user's command is.
    Progress {
        /// The attempt.
        fence: Fence,
        /// The executor's holder.
        holder: String,
        /// Argo's `N/M`.
        progress: String,
    },
    /// The Pod or process does not exist, and the reconciler did not release it.
    Gone(Fence),
    /// Something is kept for these workflows: are they over?
    WorkflowsAsked(Vec<WorkflowName>),
    /// What exists of the things that were asked for, by name.
    PrerequisitesFound(BTreeMap<String, bool>),
    /// All ConfigMaps that workflows may read, whenever one changed.
    ConfigMaps(Vec<ReportedConfigMap>),
    /// What the cluster has for steps.
    Capacity {
        /// Allocatable amounts.
        allocatable: Resources,
        /// The runtime reaches what it needs to start steps (an API server).
        healthy: bool,
    },
}

impl RuntimeEvent {
    /// An executor asks or tells, and repeats it until it is answered.
    #[must_use]
    pub fn is_of_executor(&self) -> bool {
        match self {
            Self::PermitAsked { .. }
            | Self::RenewAsked { .. }
            | Self::StoreAsked { .. }
            | Self::Outcome { .. }
            | Self::Progress { .. } => true,
            Self::Listed(_)
            | Self::Observed(_)
            | Self::Gone(_)
            | Self::WorkflowsAsked(_)
            | Self::PrerequisitesFound(_)
            | Self::ConfigMaps(_)
            | Self::Capacity { .. } => false,
        }
    }
}

/// What a runtime sees of one attempt. Times are the cluster's wall clock in milliseconds since 1970, 0 = not yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttemptObservation {
    /// The attempt.
    pub fence: Fence,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Error`; the reconciler makes `Stopped` of an end that was
    /// asked for. A terminal phase is final: the first one seen counts.
    pub phase: AttemptPhase,
    /// The holder that the runtime's own record binds the attempt to. Something bound has its start permit.
    pub holder: Option<String>,
    /// Of the main container.
    pub exit_code: Option<i32>,
    /// Argo's node message for this state.
    pub message: String,
    /// `outputs.result`.
    pub result: Option<String>,
    /// Output parameters.
    pub parameters: Vec<OutputParameter>,
    /// Artifacts that were saved.
    pub artifacts: Vec<OutputArtifact>,
    /// When the user's command started.
    pub started_at_ms: i64,
    /// When it ended.
    pub finished_at_ms: i64,
    /// Kubernetes Node or host name.
    pub host: String,
    /// `namespace/pod`, or a process id.
    pub handle: String,
    /// Argo's `N/M`.
    pub progress: String,
    /// The containers of the user's, where there may be several; sidecars apart.
    pub containers: Vec<ContainerState>,
    /// Where others reach it.
    pub pod_ip: String,
    /// It runs, and all its containers are ready.
    pub ready: bool,
    /// The policy of the cluster's owner is against it, and nothing was made of it.
    pub refused: bool,
    /// Inputs that their stores do not have: nothing ran.
    pub missing_artifacts: Vec<String>,
    /// Inputs whose store did not answer: nothing ran.
    pub unreached_artifacts: Vec<String>,
}

impl AttemptObservation {
    /// An observation with a phase and a message, all else unknown.
    #[must_use]
    pub fn new(fence: Fence, phase: AttemptPhase, message: impl Into<String>) -> Self {
        Self { fence, phase, message: message.into(), ..Self::default() }
    }

    /// The end of an attempt that the policy of the cluster's owner is against.
    #[must_use]
    pub fn refused(fence: Fence, refusal: &crate::policy::Refusal) -> Self {
        Self { refused: true, ..Self::new(fence, AttemptPhase::Error, refusal.to_string()) }
    }
}

/// Nothing more will happen to an attempt of this phase.
#[must_use]
pub fn is_terminal(phase: AttemptPhase) -> bool {
    match phase {
        AttemptPhase::Unspecified
        | AttemptPhase::Received
        | AttemptPhase::Pending
        | AttemptPhase::Running => false,
        AttemptPhase::Succeeded | AttemptPhase::Failed | AttemptPhase::Error | AttemptPhase::Stopped => true,
    }
}

/// The phase of a report is terminal.
#[must_use]
pub fn is_over(report: &AttemptReport) -> bool {
    is_terminal(report.phase())
}

/// What part of a log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the step ends.
    pub follow: bool,
    /// Only the last lines; 0 = all, less = none of what is there.
    pub tail_lines: i64,
    /// Container; empty = `main`.
    pub container: String,
    /// Only what was written since then, in milliseconds since 1970; 0 = all.
    pub since_ms: i64,
    /// The container's run before this one.
    pub previous: bool,
    /// Each line begins with the time at which it was written, where the runtime knows it.
    pub timestamps: bool,
}

/// Bytes of a log in order. A log read ends when the step's output ended (or what there is, without `follow`).
pub type LogStream = BoxStream<'static, Result<Bytes, Error>>;

/// Where steps run. Construction takes a bounded channel for [`RuntimeEvent`]s, on which `Listed` comes first.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Queues an action; must neither block nor fail. See [`RuntimeAction`] on dropping.
    fn act(&self, action: RuntimeAction);

    /// The log of a held attempt.
    ///
    /// # Errors
    /// [`Error::UnknownAttempt`] when the runtime has nothing of it; [`Error::Logs`] when it cannot be read.
    async fn logs(&self, fence: Fence, options: LogOptions) -> Result<LogStream, Error>;

    /// Deletes an artifact that a driver keeps: `location` is Argo's `plugin` location. May be repeated.
    ///
    /// # Errors
    /// [`Error::Driver`]: why it could not be done.
    async fn delete_artifact(&self, _namespace: &str, _location: &Map<String, Value>) -> Result<(), Error> {
        Err(Error::Driver("ARG1271: artifact drivers run in Pods only, and this cluster has none".to_owned()))
    }

    /// Processes of a step end with their holder's lease, whatever happens to the agent.
    fn enforces_exclusive(&self) -> bool {
        false
    }

    /// Its own figures, for the agent's metrics page.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }
}

/// One figure of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Without prefix.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// It may fall.
    pub is_gauge: bool,
    /// Now.
    pub value: u64,
}

impl Figure {
    /// One that only rises.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_gauge: false, value }
    }

    /// One that may fall.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_gauge: true, value }
    }
}

/// What a runtime cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing is there for this fence.
    #[error("attempt {0} is not held on this cluster; it ended and was released, or never started here")]
    UnknownAttempt(String),
    /// A driver's container could not do what was asked.
    #[error("{0}")]
    Driver(String),
    /// The log is there but cannot be read.
    #[error("cannot read the log of attempt {fence}: {reason}")]
    Logs {
        /// The attempt, displayed.
        fence: String,
        /// What failed.
        reason: String,
    },
    /// The runtime cannot be set up.
    #[error("cannot start the runtime: {0}")]
    Setup(String),
}
