//! What goes into the reconciler and comes out of it.

use crate::runtime::{ExecutorAnswer, RuntimeAction, RuntimeEvent};
use argosy_link::Millis;
use argosy_proto::agent::{AgentFrame, ControlFrame, LogChunk, LogRequest};
use argosy_proto::common::ConfigMapNotice;

/// Named maxima and times of the reconciler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An action that shows no effect is repeated after this time.
    pub repeat_after_ms: Millis,
    /// Times an attempt without a permit is made again when what was made disappears.
    pub ensure_max: u32,
    /// Between asking and ending the processes of an attempt that the control plane has given up.
    pub unwanted_grace_ms: i64,
    /// The ledger is rewritten when it has this many records and four times those that are needed.
    pub ledger_compact_min: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { repeat_after_ms: 10_000, ensure_max: 5, unwanted_grace_ms: 5_000, ledger_compact_min: 4_096 }
    }
}

/// What happens to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Time has passed. At least every 100 ms.
    Tick {
        /// Wall clock, milliseconds since 1970.
        wall_clock_ms: i64,
    },
    /// A connection to some member stands.
    Connected {
        /// Wall clock, milliseconds since 1970.
        wall_clock_ms: i64,
    },
    /// The connection is gone, or could not be made.
    Disconnected,
    /// A frame of the control plane, on the present connection.
    Frame(ControlFrame),
    /// From the runtime, or from an executor.
    Runtime(RuntimeEvent),
    /// A piece of an answer to [`Output::Log`].
    LogChunk(LogChunk),
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send on the present connection; dropped if there is none.
    Send(AgentFrame),
    /// For the runtime.
    Runtime(RuntimeAction),
    /// For an executor.
    Executor(ExecutorAnswer),
    /// Drop the connection if there is one and, after the wait, connect to another member than the last.
    Connect {
        /// Milliseconds to wait.
        after_ms: Millis,
    },
    /// A drill has the agent serve nobody for a time; for the log.
    Silent {
        /// Its number.
        drill: u64,
        /// Milliseconds.
        for_ms: Millis,
    },
    /// Serve a log request, aside.
    Log(LogRequest),
    /// What is wrong with ConfigMaps that were told; for the log.
    ConfigMapNotices(Vec<ConfigMapNotice>),
    /// The session stands and every held attempt has its verdict; for the log.
    Synced {
        /// Of the session.
        session_epoch: u64,
        /// Number of the cell's history.
        incarnation: u64,
    },
    /// The control plane refused this agent; for the log and the operator.
    Refused {
        /// Stable code.
        code: String,
        /// For people.
        message: String,
        /// An operator has to act.
        permanent: bool,
    },
}

/// Totals of the process, and what is held now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Start permits given, repeats included.
    pub permits_granted: u64,
    /// Start permits refused for good.
    pub permits_refused: u64,
    /// Questions for a permit put off, since the lease was not live.
    pub permits_put_off: u64,
    /// Renewals of exclusive steps put off, since the lease was not live.
    pub renewals_put_off: u64,
    /// Events of another holder than the bound one.
    pub foreign_holder_events: u64,
    /// Actions repeated for want of an effect.
    pub actions_repeated: u64,
    /// Attempts ended because the control plane gave them up.
    pub attempts_discarded: u64,
}
