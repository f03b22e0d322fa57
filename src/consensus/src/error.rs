/// What ends a member's consensus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] argosy_store::Error),
    /// The configuration cannot work.
    #[error("the configuration of consensus cannot work: {message}")]
    Config {
        /// What is wrong.
        message: String,
    },
    /// The store holds what cannot be.
    #[error(
        "the log of this member is damaged: {message}; remove its data directory and add the member anew"
    )]
    Damaged {
        /// What was found.
        message: String,
    },
    /// The Raft library refused to go on.
    #[error("consensus cannot go on: {message}; start the member again")]
    Library {
        /// What the library said.
        message: String,
    },
    /// The state machine could not read its rows.
    #[error("the state could not be loaded: {message}")]
    Machine {
        /// What the state machine said.
        message: String,
    },
    /// An earlier call failed.
    #[error("consensus stopped at an earlier error: open the store again")]
    Stopped,
}

/// Why a proposal was not taken. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another member leads, or none.
    #[error("this member does not lead (leader: {leader:?}): ask the leader")]
    NotLeader {
        /// The leader, if it is known.
        leader: Option<crate::MemberId>,
    },
    /// This member leads, but has not applied an entry of its own term yet.
    #[error("this member has just been elected and is not ready: try again")]
    NotReady,
    /// Too much is waiting to be committed, or leadership is being handed over.
    #[error("too much waits to be committed: try again later")]
    Busy,
    /// The proposal is empty or exceeds the limit.
    #[error("a proposal has 1 to {max} bytes, not {bytes}")]
    Size {
        /// Size of the proposal in bytes.
        bytes: usize,
        /// [`crate::Limits::proposal_bytes_max`].
        max: usize,
    },
    /// A change of membership is not applied yet.
    #[error("a change of membership is under way: try again when it is done")]
    ChangePending,
    /// The change of membership makes no sense.
    #[error("the change of membership is refused: {reason}")]
    Change {
        /// Why.
        reason: &'static str,
    },
    /// An earlier call failed.
    #[error("consensus stopped at an earlier error")]
    Stopped,
}

/// Why a message of a peer was dropped. It had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Larger than [`crate::Limits::message_bytes_max`].
    #[error("the message is too large")]
    TooLarge,
    /// Cannot be decoded.
    #[error("the message cannot be decoded")]
    Malformed,
    /// Of a version this program does not know.
    #[error("the message has an unknown version")]
    Version,
    /// Of another cell.
    #[error("the message is of another cell")]
    Cell,
    /// Its sender is not the authenticated peer.
    #[error("the message names another sender than the peer that sent it")]
    Sender,
    /// For another member.
    #[error("the message is for another member")]
    Recipient,
    /// The peer is not a member.
    #[error("the sender is not a member of the cell")]
    NotMember,
    /// Of a kind that peers do not send.
    #[error("the message is of a kind that peers do not send")]
    Kind,
    /// Says something that cannot be.
    #[error("the message contradicts itself or this member's log")]
    Impossible,
    /// Overtaken by newer ones.
    #[error("the message is out of date")]
    Stale,
    /// A checksum does not fit.
    #[error("the message is damaged")]
    Checksum,
    /// Too much is waiting.
    #[error("too much is waiting")]
    Busy,
    /// The member serves nothing now.
    #[error("this member has stopped or is installing a snapshot")]
    NotServing,
}

impl Refused {
    /// A name for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refused::TooLarge => "too_large",
            Refused::Malformed => "malformed",
            Refused::Version => "version",
            Refused::Cell => "cell",
            Refused::Sender => "sender",
            Refused::Recipient => "recipient",
            Refused::NotMember => "not_member",
            Refused::Kind => "kind",
            Refused::Impossible => "impossible",
            Refused::Stale => "stale",
            Refused::Checksum => "checksum",
            Refused::Busy => "busy",
            Refused::NotServing => "not_serving",
        }
    }
}
