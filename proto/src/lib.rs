//! Generated types of everything that is sent or persisted.
//!
//! The schemas under `proto/argosy/` are the contract: fields are never reused or renumbered, a retired field is
//! reserved, and each message that is persisted or sent has a golden-bytes test beside its user.
//! With the feature `grpc` the crate also holds the gRPC services; without it, it depends on neither tonic nor tokio,
//! so that the pure crates can use the messages.
#![allow(missing_docs, reason = "the schemas hold the documentation")]
#![allow(clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/schemas.rs"));
}

/// Member to control plane and back: the agent link.
pub use generated::argosy::agent::v1 as agent;
/// Commands and their answers.
pub use generated::argosy::command::v1 as command;
/// Types shared by the other schemas.
pub use generated::argosy::common::v1 as common;
/// Facts and batches: the log.
pub use generated::argosy::fact::v1 as fact;
/// Member to member.
pub use generated::argosy::peer::v1 as peer;
/// Rows of the `state` family.
pub use generated::argosy::state::v1 as state;
/// Argo's artifact drivers: the one schema that is not ours (`proto/argo/`).
pub use generated::artifact;

static NOTHING_RARE: std::sync::LazyLock<state::NodeRare> = std::sync::LazyLock::new(Default::default);

impl state::Node {
    /// What few nodes have: nothing, as a rule.
    #[must_use]
    pub fn rare(&self) -> &state::NodeRare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    /// Changes what few nodes have. A node that has nothing of it is left without it: there is one way to write a row.
    pub fn change_rare(&mut self, change: impl FnOnce(&mut state::NodeRare)) {
        let mut rare = self.rare.take().unwrap_or_default();
        change(&mut rare);
        self.rare = (*rare != *NOTHING_RARE).then_some(rare);
    }
}
