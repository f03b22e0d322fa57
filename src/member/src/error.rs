/// Why a member can't be opened or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store failed: {0}; check the disk, then start the member again")]
    Store(String),
    /// Consensus can't go on.
    #[error("consensus can't go on: {0}")]
    Consensus(#[source] argosy_consensus::Error),
    /// A committed batch can't be decoded.
    #[error(
        "the committed batch at index {index} can't be read: {reason}; the log is damaged or of another format: replace this member"
    )]
    UnreadableBatch {
        /// Log index.
        index: u64,
        /// What the decoder says.
        reason: String,
    },
    /// A committed batch holds what this version doesn't know. It is never skipped.
    #[error(
        "the committed batch at index {index} can't be applied by this version: {reason}; upgrade this member"
    )]
    UnknownFact {
        /// Log index.
        index: u64,
        /// What is not known.
        reason: String,
    },
    /// Rows of state can't be read.
    #[error("state can't be loaded: {reason}; replace this member")]
    UnreadableState {
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    pub(crate) fn store(error: argosy_store::Error) -> Self {
        Self::Store(error.to_string())
    }

    pub(crate) fn consensus(error: argosy_consensus::Error) -> Self {
        Self::Consensus(error)
    }
}
