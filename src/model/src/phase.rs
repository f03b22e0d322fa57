use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A word that is not one of the kind's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} {word:?}")]
pub struct UnknownWord {
    /// The kind of word.
    pub kind: &'static str,
    /// What was read.
    pub word: String,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant = $number),+ }

        impl $name {
            /// Argo's spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
            /// The number that facts and rows hold; never reused.
            #[must_use]
            pub fn number(self) -> i32 { self as i32 }
            /// The word of a number that [`Self::number`] gave.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> { match number { $($number => Some(Self::$variant),)+ _ => None } }
        }
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result { formatter.write_str(self.as_str()) }
        }
        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word { $($text => Ok(Self::$variant),)+ _ => Err(UnknownWord { kind: $kind, word: word.to_owned() }) }
            }
        }
    };
}

words!(
    /// A node's phase (Argo reference 4).
    NodePhase, "node phase",
    /// Made, not running.
    Pending = 1 "Pending",
    /// Running, or (for groups) not all children done.
    Running = 2 "Running",
    /// Done well.
    Succeeded = 3 "Succeeded",
    /// Its `when` was false, or it had nothing to do.
    Skipped = 4 "Skipped",
    /// The user's part failed.
    Failed = 5 "Failed",
    /// Something around the user's part failed.
    Error = 6 "Error",
    /// Its `depends` was not met.
    Omitted = 7 "Omitted",
);

impl NodePhase {
    /// Nothing more will happen to the node. Daemons aside (Argo reference 4).
    #[must_use]
    pub fn is_fulfilled(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Skipped | Self::Failed | Self::Error | Self::Omitted => true,
        }
    }

    /// `Failed` or `Error`.
    #[must_use]
    pub fn is_failed_or_error(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }
}

words!(
    /// A workflow's phase. A workflow that has not been looked at has none.
    WorkflowPhase, "workflow phase",
    /// Waiting for a lock or for room.
    Pending = 1 "Pending",
    /// Under way.
    Running = 2 "Running",
    /// Done well.
    Succeeded = 3 "Succeeded",
    /// A step failed.
    Failed = 4 "Failed",
    /// Something around the steps failed.
    Error = 5 "Error",
);

impl WorkflowPhase {
    /// The workflow is over.
    #[must_use]
    pub fn is_completed(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Error => true,
        }
    }
}

words!(
    /// A node's type (Argo reference 4).
    NodeType, "node type",
    /// Runs as a Pod.
    Pod = 1 "Pod",
    /// A container of a container set.
    Container = 2 "Container",
    /// A `steps` template.
    Steps = 3 "Steps",
    /// One group of parallel steps.
    StepGroup = 4 "StepGroup",
    /// A `dag` template.
    Dag = 5 "DAG",
    /// The expanded tasks of a DAG loop.
    TaskGroup = 6 "TaskGroup",
    /// The wrapper around a node's tries.
    Retry = 7 "Retry",
    /// Not run.
    Skipped = 8 "Skipped",
    /// Waits for time or for somebody.
    Suspend = 9 "Suspend",
    /// An HTTP request.
    Http = 10 "HTTP",
    /// An executor plugin.
    Plugin = 11 "Plugin",
);
