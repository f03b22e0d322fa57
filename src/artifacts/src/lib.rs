//! Object stores: what agents do in them, and the requests that they sign for steps.
//!
//! A [`Stores`] opens the store of an Argo location with the Secrets that the location names; a [`Store`] reads, copies,
//! deletes and lists, and signs requests that anyone may send for a while. [`answer`] serves the questions of executors
//! ([`argosy_executor::artifacts`]), [`read_result`] fetches what one left that could not reach its agent, [`archive`] packs a repository for them, [`operate`] those of the control plane ([`Operation`]).
//!
//! It keeps no credentials: they are read for every store that is opened, cached for [`Limits::secrets_kept_ms`], and
//! neither logged nor sent to anyone. It does not know Pods, leases or Raft, and decides nothing.
//!
//! Invariants: an executor can be given requests only for the keys that its ticket names, below its attempt's own prefix
//! where it writes; copies and deletions may be repeated without harm; no object passes through memory whole.
//!
//! Failure model: a store may be away, slow or full: every call has a time limit and returns an [`Error`] that says
//! whether trying again may help. Bytes from stores and Secrets are outside bytes.

mod clone;
mod executor;
mod limits;
mod location;
mod operation;
mod result;
mod roles;
mod s3;
mod secrets;
mod small;
mod store;

pub use clone::archive;
pub use executor::{Refusal, answer};
pub use limits::Limits;
pub use operation::{Entry, Operation, Outcome, operate};
pub use result::{delete_result, read_result};
pub use secrets::{DirectorySecrets, NoSecrets, Secrets};
pub use small::read_file;
pub use store::{Found, KNOWN_HOSTS_FILE, Store, Stores};

/// Why something could not be done in a store. Never holds a credential or a signed URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The location can't be used.
    #[error("{0}")]
    Location(String),
    /// A Secret or a key of it is not there.
    #[error(
        "secret {namespace}/{name} has no key {key} on this cluster; create it, or name another in the artifact's location"
    )]
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The store refused, or could not be reached.
    #[error("{0}")]
    Store(String),
    /// Nothing is there.
    #[error("The specified key does not exist.")]
    NotFound,
    /// A limit is exceeded.
    #[error("{what} is {found}, the limit is {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        max: u64,
    },
}

impl Error {
    /// Trying again is of no use before somebody changes something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Location(_) | Self::NotFound | Self::Limit { .. } => true,
            // A Secret may be about to be made.
            Self::Secret { .. } | Self::Store(_) => false,
        }
    }
}
