//! Results that executors left in an object store, since their agent could not be reached.
//!
//! What a Pod says of such an object is looked at like everything from outside: the ticket beside it is the agent's own, sealed for
//! that attempt, and names the store; the key is derived from both, so that no other attempt's object is read; the object has to be
//! of the size and the digest that were told, and to speak of this attempt and this holder.

use super::Executors;
use super::artifacts::hex_of;
use argosy_executor::artifacts::{Answer, Operation};
use argosy_executor::protocol::{
    OutcomeRequest, REQUEST_BYTES_MAX, RESULT_REFERENCE_VERSION, ResultObject, ResultReference, TaskOutcome,
};
use argosy_model::display_fence;
use argosy_proto::common::Fence;
use std::time::Duration;

/// How long a granted permit waits for a place that is to come with it. Without one the executor asks again later.
const SIGN_WAIT: Duration = Duration::from_millis(500);

/// Where an executor left its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// As it was told.
    pub reference: ResultReference,
    /// The sealed ticket of the attempt.
    pub ticket: String,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The store can't be reached, or refuses for now.
    Later(String),
    /// There will never be one: what is there is not this attempt's result.
    Never(String),
}

impl Executors {
    /// Where an attempt may leave its result; nothing where its ticket names no store, or signing takes too long.
    pub(super) async fn result_object(&self, fence: &Fence, ticket: &str) -> Option<ResultObject> {
        if ticket.is_empty() {
            return None;
        }
        let artifacts = self.shared.artifacts.get()?;
        let ticket = self.unseal(fence, ticket)?;
        let signed = artifacts.answer(fence, &ticket, Operation::ResultObject);
        let answer = match tokio::time::timeout(SIGN_WAIT, signed).await.ok()? {
            Ok(answer) => answer,
            Err((message, _)) => {
                tracing::debug!(fence = display_fence(fence), message, "no place for a step's result");
                return None;
            }
        };
        let Answer::ResultObject { object } = answer else { return None };
        object
    }

    /// Reads the outcome of an attempt that was left for it by its holder.
    ///
    /// # Errors
    /// Why it can't be read, now or ever.
    pub async fn read_left(&self, fence: &Fence, holder: &str, left: &Left) -> Result<TaskOutcome, Unread> {
        let never = |reason: &str| Err(Unread::Never(reason.to_owned()));
        let Left { reference, ticket } = left;
        let Some(ticket) = self.unseal(fence, ticket) else {
            return never("the attempt's ticket is not of this agent");
        };
        if reference.result_object != RESULT_REFERENCE_VERSION {
            return never("it was left by another version of the executor");
        }
        if reference.bytes > REQUEST_BYTES_MAX as u64 {
            return never("it is larger than a result may be");
        }
        let Some(artifacts) = self.shared.artifacts.get() else {
            return Err(Unread::Later("this agent has no way to object stores".to_owned()));
        };
        let read = artifacts.read_result(fence, &ticket, reference.bytes).await;
        let (key, bytes) =
            read.map_err(
                |(message, is_permanent)| {
                    if is_permanent { Unread::Never(message) } else { Unread::Later(message) }
                },
            )?;
        if key != reference.key {
            return never("another attempt's object is named");
        }
        if hex_of(&bytes) != reference.sha256 {
            return never("the object has another digest than the executor told: it was changed");
        }
        match serde_json::from_slice::<OutcomeRequest>(&bytes) {
            Ok(said) if said.fence == display_fence(fence) && said.holder == holder => Ok(said.outcome),
            Ok(_) => never("the object speaks of another attempt"),
            Err(error) => Err(Unread::Never(format!("the object can't be read: {error}"))),
        }
    }

    /// Deletes what an attempt left.
    ///
    /// # Errors
    /// Why it is still there, if trying again may help.
    pub async fn delete_left(&self, fence: &Fence, left: &Left) -> Result<(), String> {
        let (Some(ticket), Some(artifacts)) = (self.unseal(fence, &left.ticket), self.shared.artifacts.get())
        else {
            return Ok(());
        };
        match artifacts.delete_result(fence, &ticket).await {
            Err((message, false)) => Err(message),
            Ok(()) | Err((_, true)) => Ok(()),
        }
    }
}
