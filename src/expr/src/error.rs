//! What can go wrong.

/// Why a text could not be substituted or evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A tag that must be known now is not. The node may have to wait for it.
    #[error("failed to resolve {{{{{0}}}}}")]
    Unresolved(String),
    /// A tag names an output that its producer declares but, being skipped, never made.
    #[error("failed to resolve {{{{{0}}}}}: its producer was skipped and it has no default")]
    Absent(String),
    /// The text would grow over the limit.
    #[error("text is longer than {bytes_max} bytes after substitution; hand over less data")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The text has more tags than the limit.
    #[error("text has more than {tags_max} tags")]
    TooManyTags {
        /// The limit.
        tags_max: usize,
    },
    /// A condition that can't be read or evaluated; Argo's message.
    #[error("{0}")]
    When(String),
    /// A `depends` text that can't be read.
    #[error("{0}")]
    Depends(String),
    /// An expression that can't be read or evaluated; the language's message, with the place.
    #[error("{0}")]
    Expression(String),
}
