//! Executors' questions about artifacts, and the tickets that say what each may ask.
//!
//! A ticket is the agent's own words, sealed with its key and bound to the fence: the executor hands it back, so an agent that
//! was started anew needs no memory of the attempt. Nothing is signed without a live lease: what a cut-off cluster stores
//! late, it stores with requests that run out.

use super::{Executors, boot_time, from_hex, hex};
use argosy_executor::artifacts::{Answer, Operation, Request, Ticket, of_template};
use argosy_executor::protocol::{REQUEST_BYTES_MAX, Task};
use argosy_link::Millis;
use argosy_model::{display_fence, parse_fence};
use argosy_proto::common::{Assignment, Fence};
use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use ring::hmac;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The path of these questions.
pub(super) const PATH: &str = "/v1/artifacts";
/// How long one may take: stores join the parts of large objects slowly.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(85);

/// Answers questions about artifacts: the agent's way to object stores.
#[async_trait]
pub trait Artifacts: Send + Sync + 'static {
    /// Answers for an attempt whose ticket was checked. An error is a message, and whether asking again is of no use.
    async fn answer(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        operation: Operation,
    ) -> Result<Answer, (String, bool)>;
}

impl Executors {
    /// Executors may ask about artifacts from now on.
    pub fn set_artifacts(&self, artifacts: Arc<dyn Artifacts>) {
        // Only the first counts: there is one agent per process.
        let _ = self.shared.artifacts.set(artifacts);
    }

    /// The lease under which requests are signed (CLOCK_BOOTTIME).
    pub fn lease_until(&self, until: Millis) {
        self.shared.lease_until.store(until, Ordering::Relaxed);
    }

    /// Gives a task the artifacts of its assignment, and the ticket for them.
    ///
    /// # Errors
    /// When the template can't be read.
    pub fn furnish(&self, assignment: &Assignment, task: &mut Task) -> Result<(), String> {
        let template: serde_json::Value = serde_json::from_str(&assignment.template_json)
            .map_err(|error| format!("the template is not valid: {error}"))?;
        let (inputs, outputs, archive_logs, ticket) = of_template(&template);
        (task.input_files, task.output_files, task.archive_logs) = (inputs, outputs, archive_logs);
        if ticket.is_some() {
            task.ticket = self.ticket(assignment);
        }
        Ok(())
    }

    /// The sealed ticket of an assignment; empty where its template can't be read or has nothing to do with stores.
    #[must_use]
    pub fn ticket(&self, assignment: &Assignment) -> String {
        let template = serde_json::from_str(&assignment.template_json).unwrap_or_default();
        let (.., Some(mut ticket)) = of_template(&template) else { return String::new() };
        ticket.namespace.clone_from(&assignment.namespace);
        ticket.prefix.clone_from(&assignment.artifact_prefix);
        self.seal(&assignment.fence.unwrap_or_default(), &ticket)
    }

    fn seal(&self, fence: &Fence, ticket: &Ticket) -> String {
        let json = serde_json::to_string(ticket).unwrap_or_default();
        let tag = hmac::sign(&self.shared.token_key, sealed_bytes(fence, &json).as_bytes());
        format!("{json}.{}", hex(tag.as_ref()))
    }

    fn unseal(&self, fence: &Fence, sealed: &str) -> Option<Ticket> {
        let (json, tag) = sealed.rsplit_once('.')?;
        let bytes = sealed_bytes(fence, json);
        hmac::verify(&self.shared.token_key, bytes.as_bytes(), &from_hex(tag)?).ok()?;
        serde_json::from_str(json).ok()
    }

    pub(super) async fn answer_artifacts(&self, request: hyper::Request<Incoming>) -> (StatusCode, String) {
        let token = request.headers().get(hyper::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let body = match Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return (StatusCode::BAD_REQUEST, format!("cannot read the request: {error}")),
        };
        let request: Request = match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
        };
        let Some(fence) = parse_fence(&request.fence).filter(|_| self.is_token_of(&token, &request.fence))
        else {
            return (StatusCode::UNAUTHORIZED, "the token is not this attempt's".to_owned());
        };
        let Some(ticket) = self.unseal(&fence, &request.ticket) else {
            return (StatusCode::FORBIDDEN, "the artifact ticket is not this attempt's".to_owned());
        };
        if boot_time() >= self.shared.lease_until.load(Ordering::Relaxed) {
            let reason = "the agent is out of touch with the control plane: no live lease";
            return (StatusCode::SERVICE_UNAVAILABLE, reason.to_owned());
        }
        let Some(artifacts) = self.shared.artifacts.get() else {
            return (StatusCode::FORBIDDEN, "this cluster's agent has no way to object stores".to_owned());
        };
        match artifacts.answer(&fence, &ticket, request.operation).await {
            Ok(answer) => (StatusCode::OK, serde_json::to_string(&answer).unwrap_or_default()),
            Err((message, true)) => (StatusCode::FORBIDDEN, message),
            Err((message, false)) => {
                tracing::debug!(fence = display_fence(&fence), message, "an artifact's store failed");
                (StatusCode::FAILED_DEPENDENCY, message)
            }
        }
    }
}

fn sealed_bytes(fence: &Fence, json: &str) -> String {
    format!("ticket {}\n{json}", display_fence(fence))
}
