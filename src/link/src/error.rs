/// A frame that was not accepted, and why. Counted where it is handled; never ends the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The certificate names another cluster than the frame.
    #[error(
        "the certificate is of cluster {identity:?} but the agent says it is {claimed:?}: enrol the agent again"
    )]
    IdentityMismatch {
        /// From the certificate.
        identity: String,
        /// From the frame.
        claimed: String,
    },
    /// The other end speaks another version.
    #[error(
        "frame version {version} is not supported (this side speaks {supported}): upgrade the older side"
    )]
    Version {
        /// Of the frame.
        version: u32,
        /// Of this build.
        supported: u32,
    },
    /// A frame of a session that is not the cluster's current one.
    #[error("session {given} of cluster {cluster:?} is not its current one: greet again")]
    StaleSession {
        /// The cluster.
        cluster: String,
        /// Epoch in the frame.
        given: u64,
    },
    /// The agent lists more attempts than a session may hold.
    #[error("cluster {cluster:?} lists more than {held_max} attempts: raise `held_max` or release attempts")]
    TooManyHeld {
        /// The cluster.
        cluster: String,
        /// The limit.
        held_max: usize,
    },
    /// The cluster was removed.
    #[error("cluster {cluster:?} was removed: the agent lets go of what it holds; invite the cluster again")]
    Removed {
        /// The cluster.
        cluster: String,
    },
    /// More connections than are served.
    #[error("more than {connections_max} connections: try again later")]
    TooManyConnections {
        /// The limit.
        connections_max: usize,
    },
}

/// Codes of `Refused` frames.
pub mod code {
    /// Send Hello again on the same connection.
    pub const STALE_SESSION: &str = "session-stale";
    /// Certificate and Hello differ.
    pub const IDENTITY_MISMATCH: &str = "identity-mismatch";
    /// Unsupported frame version.
    pub const VERSION: &str = "version-unsupported";
    /// An operator removed the cluster: the agent ends and releases everything. The engine's word for it.
    pub const REMOVED: &str = "ARG1221";
    /// A limit was reached; try again later.
    pub const LIMIT: &str = "limit-reached";
}

impl Error {
    /// The stable code sent in a `Refused` frame.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdentityMismatch { .. } => code::IDENTITY_MISMATCH,
            Self::Version { .. } => code::VERSION,
            Self::StaleSession { .. } => code::STALE_SESSION,
            Self::Removed { .. } => code::REMOVED,
            Self::TooManyHeld { .. } | Self::TooManyConnections { .. } => code::LIMIT,
        }
    }

    /// Whether trying again is no use before an operator acts.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::IdentityMismatch { .. } | Self::Version { .. } | Self::Removed { .. } => true,
            Self::StaleSession { .. } | Self::TooManyHeld { .. } | Self::TooManyConnections { .. } => false,
        }
    }
}
