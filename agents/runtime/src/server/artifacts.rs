//! Executors' questions about artifacts, and the tickets that say what each may ask.
//!
//! A ticket is the agent's own words, sealed with its key and bound to the fence: the executor hands it back, so an agent that
//! was started anew needs no memory of the attempt. Nothing is signed without a live lease: what a cut-off cluster stores
//! late, it stores with requests that run out.

use super::{Body, Executors, OUT_OF_TOUCH, Question, boot_time, from_hex, hex, response};
use crate::RuntimeEvent;
use argosy_executor::artifacts::{Answer, Operation, Request, Ticket, of_template};
use argosy_executor::protocol::{REQUEST_BYTES_MAX, Task};
use argosy_link::Millis;
use argosy_model::{display_fence, parse_fence};
use argosy_proto::common::{Assignment, Fence};
use async_trait::async_trait;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Response, StatusCode};
use ring::{digest, hmac};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The path of these questions.
pub(super) const PATH: &str = "/v1/artifacts";
/// How long one may take: stores join the parts of large objects slowly.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(85);

/// The path of archives.
pub(super) const ARCHIVE_PATH: &str = "/v1/artifacts/archive";
/// What is read at once of an archive.
const PIECE_BYTES: usize = 64 * 1024;

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

    /// Reads an input of a ticket of the agent's own that is one file, unpacked.
    async fn read_file(&self, ticket: &Ticket, name: &str, bytes_max: u64)
    -> Result<Vec<u8>, (String, bool)>;

    /// Packs an input that the agent has for an attempt whose ticket was checked, as a gzipped tar: a file at its
    /// beginning, and its bytes.
    async fn archive(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        name: &str,
    ) -> Result<(std::fs::File, u64), (String, bool)>;

    /// Reads the object that an attempt may have left its result in: its key and its bytes. An object of another size is not read.
    async fn read_result(
        &self,
        fence: &Fence,
        ticket: &Ticket,
        bytes: u64,
    ) -> Result<(String, Vec<u8>), (String, bool)>;

    /// Deletes that object; one that is not there is deleted.
    async fn delete_result(&self, fence: &Fence, ticket: &Ticket) -> Result<(), (String, bool)>;
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
            self.give_ticket(assignment, task);
        }
        Ok(())
    }

    /// Gives a task the sealed ticket of its assignment, unless its template can't be read or has nothing to do with stores.
    pub fn give_ticket(&self, assignment: &Assignment, task: &mut Task) {
        if let Some(ticket) = ticket_of(assignment) {
            task.ticket = self.seal(&assignment.fence.unwrap_or_default(), &ticket);
            task.parts_at_once = self.shared.artifact_parts_at_once;
        }
    }

    /// Reads an input artifact of a step that the agent carries out itself: one file of at most so many bytes.
    ///
    /// # Errors
    /// A message, and whether asking again is of no use.
    pub async fn read_input(
        &self,
        assignment: &Assignment,
        name: &str,
        bytes_max: u64,
    ) -> Result<Vec<u8>, (String, bool)> {
        let Some(artifacts) = self.shared.artifacts.get() else {
            return Err(("this cluster's agent has no way to object stores".to_owned(), true));
        };
        let ticket = ticket_of(assignment).unwrap_or_default();
        artifacts.read_file(&ticket, name, bytes_max).await
    }

    fn seal(&self, fence: &Fence, ticket: &Ticket) -> String {
        let json = serde_json::to_string(ticket).unwrap_or_default();
        let tag = hmac::sign(&self.shared.token_key, sealed_bytes(fence, &json).as_bytes());
        format!("{json}.{}", hex(tag.as_ref()))
    }

    pub(super) fn unseal(&self, fence: &Fence, sealed: &str) -> Option<Ticket> {
        let (json, tag) = sealed.rsplit_once('.')?;
        let bytes = sealed_bytes(fence, json);
        hmac::verify(&self.shared.token_key, bytes.as_bytes(), &from_hex(tag)?).ok()?;
        serde_json::from_str(json).ok()
    }

    /// Reads a question, and checks that it may be asked now.
    async fn admit(
        &self,
        request: hyper::Request<Incoming>,
    ) -> Result<(Fence, Ticket, Operation, Arc<dyn Artifacts>), (StatusCode, String)> {
        let token = request.headers().get(hyper::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let body = match Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err((StatusCode::BAD_REQUEST, format!("cannot read the request: {error}"))),
        };
        let request: Request = match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(error) => return Err((StatusCode::BAD_REQUEST, error.to_string())),
        };
        let Some(fence) = parse_fence(&request.fence).filter(|_| self.is_token_of(&token, &request.fence))
        else {
            return Err((StatusCode::UNAUTHORIZED, "the token is not this attempt's".to_owned()));
        };
        let Some(ticket) = self.unseal(&fence, &request.ticket) else {
            return Err((StatusCode::FORBIDDEN, "the artifact ticket is not this attempt's".to_owned()));
        };
        if boot_time() >= self.shared.lease_until.load(Ordering::Relaxed) {
            return Err((StatusCode::SERVICE_UNAVAILABLE, OUT_OF_TOUCH.to_owned()));
        }
        let Some(artifacts) = self.shared.artifacts.get() else {
            let reason = "this cluster's agent has no way to object stores";
            return Err((StatusCode::FORBIDDEN, reason.to_owned()));
        };
        if is_shared(&ticket, &request.operation) {
            let event = RuntimeEvent::StoreAsked { fence, holder: request.holder.clone() };
            let asked = self.ask(Question::Store, fence, request.holder, event).await;
            if asked.0 != StatusCode::OK {
                return Err(asked);
            }
        }
        Ok((fence, ticket, request.operation, Arc::clone(artifacts)))
    }

    pub(super) async fn answer_artifacts(&self, request: hyper::Request<Incoming>) -> (StatusCode, String) {
        let (fence, ticket, operation, artifacts) = match self.admit(request).await {
            Ok(admitted) => admitted,
            Err(refusal) => return refusal,
        };
        match artifacts.answer(&fence, &ticket, operation).await {
            Ok(answer) => (StatusCode::OK, serde_json::to_string(&answer).unwrap_or_default()),
            Err(failure) => failed(&fence, failure),
        }
    }

    pub(super) async fn answer_archive(&self, request: hyper::Request<Incoming>) -> Response<Body> {
        let (fence, ticket, operation, artifacts) = match self.admit(request).await {
            Ok(admitted) => admitted,
            Err(refusal) => return response(refusal),
        };
        let Operation::Archive { name } = operation else {
            return response((StatusCode::BAD_REQUEST, "only archives are here".to_owned()));
        };
        match artifacts.archive(&fence, &ticket, &name).await {
            Ok((file, bytes)) => {
                let mut response = Response::new(pieces(file));
                response.headers_mut().insert(hyper::header::CONTENT_LENGTH, bytes.into());
                response
            }
            Err(failure) => response(failed(&fence, failure)),
        }
    }
}

/// Whether it stores under a key that is not the attempt's own: what a driver keeps, and what goes to a URL as its user wrote it.
/// Whoever was taken over would write over what the successor has stored, so it has to be wanted still, and not only its agent in touch.
fn is_shared(ticket: &Ticket, operation: &Operation) -> bool {
    let Operation::Put { name, .. } = operation else { return matches!(operation, Operation::Save { .. }) };
    let is_url = |field: &str| {
        let output = ticket.outputs.iter().find(|output| output["name"] == name.as_str());
        output.is_some_and(|output| output.get(field).is_some())
            || ticket.archive_location.contains_key(field)
    };
    is_url("http") || is_url("artifactory")
}

/// What an assignment may do in stores; nothing where its template can't be read or has nothing to do with them.
fn ticket_of(assignment: &Assignment) -> Option<Ticket> {
    let template = serde_json::from_str(&assignment.template_json).unwrap_or_default();
    let (.., Some(ticket)) = of_template(&template) else { return None };
    let (namespace, prefix) = (assignment.namespace.clone(), assignment.artifact_prefix.clone());
    Some(Ticket { namespace, prefix, ..ticket })
}

/// A failure as an answer: whether asking again is of no use.
fn failed(fence: &Fence, (message, is_permanent): (String, bool)) -> (StatusCode, String) {
    if is_permanent {
        return (StatusCode::FORBIDDEN, message);
    }
    tracing::debug!(fence = display_fence(fence), message, "an artifact's store failed");
    (StatusCode::FAILED_DEPENDENCY, message)
}

/// A file as a body, piece by piece.
fn pieces(file: std::fs::File) -> Body {
    let stream = futures::stream::try_unfold(tokio::fs::File::from_std(file), async |mut file| {
        let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Frame::data(piece.freeze()), file)))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// SHA-256 in lower-case hex.
pub(super) fn hex_of(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn sealed_bytes(fence: &Fence, json: &str) -> String {
    format!("ticket {}\n{json}", display_fence(fence))
}
