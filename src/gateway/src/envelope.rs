use argosy_proto::command::Refusal;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::{CommandError, ReadError};

/// The gRPC codes that Argo's clients see in envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "gRPC's own words")]
pub(crate) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// The status that Argo's gateway gives it.
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// An answer that is not the thing asked for, in Argo's shape: `{"code":5,"message":"..."}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: u32,
    pub message: String,
    /// Our stable code (`ARG0042`), told in a header since the envelope is Argo's.
    pub stable: String,
    /// The request reached a service (Argo marks such answers with a header).
    pub served: bool,
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            code: code as u32,
            message: message.into(),
            stable: String::new(),
            served: true,
        }
    }

    /// The body could not be read into a request.
    pub fn undecodable(message: impl Into<String>) -> Self {
        Self { served: false, ..Self::new(Code::InvalidArgument, message) }
    }

    pub fn workflow_not_found(name: &str) -> Self {
        Self::new(Code::NotFound, format!("workflows.argoproj.io {name:?} not found"))
    }

    pub fn not_implemented() -> Self {
        Self { served: false, ..Self::new(Code::Unimplemented, "Not Implemented") }
    }

    pub fn too_large(bytes_max: usize) -> Self {
        let message =
            format!("the request is larger than {bytes_max} bytes: make the manifest smaller, or split it");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::new(Code::ResourceExhausted, message) }
    }

    pub fn stable(mut self, code: impl Into<String>) -> Self {
        self.stable = code.into();
        self
    }

    /// The envelope of a stream's error.
    pub fn stream_envelope(&self) -> Value {
        json!({"error": {
            "grpc_code": self.code,
            "http_code": self.status.as_u16(),
            "message": self.message,
            "http_status": self.status.canonical_reason().unwrap_or_default(),
        }})
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status =
            u16::try_from(refusal.http_status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        Self {
            status: status.filter(|status| !status.is_success()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: refusal.grpc_code,
            message: refusal.message,
            stable: refusal.code,
            served: true,
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::NotLeader => Self::new(Code::Unavailable, message),
            CommandError::Unknown => Self::new(Code::DeadlineExceeded, message),
            CommandError::Overloaded => Self::new(Code::ResourceExhausted, message),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader => Self::new(Code::Unavailable, error.to_string()),
            ReadError::Overloaded => Self::new(Code::ResourceExhausted, error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"code": self.code, "message": self.message});
        let mut response = (self.status, Json(body)).into_response();
        mark(&mut response, self.served);
        if let Ok(value) = HeaderValue::from_str(&self.stable)
            && !self.stable.is_empty()
        {
            response.headers_mut().insert("argosy-error", value);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn mark(response: &mut Response, served: bool) {
    if served {
        let value = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("grpc-metadata-content-type", value);
    }
}

/// A thing asked for.
pub(crate) struct Answer(pub Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Json(self.0).into_response();
        mark(&mut response, true);
        response
    }
}

pub(crate) type ApiResult = Result<Answer, ApiError>;

/// Warnings of one answer; those beyond are left out.
const WARNINGS_MAX: usize = 32;
/// Letters of a warning.
const WARNING_LENGTH_MAX: usize = 512;

/// A thing asked for, and what there is to say about it, in headers as Kubernetes has them.
pub(crate) struct Advised {
    pub answer: Answer,
    pub warnings: Vec<String>,
}

impl IntoResponse for Advised {
    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        for warning in self.warnings.iter().take(WARNINGS_MAX) {
            let letter = |letter: char| if letter.is_ascii_graphic() { letter } else { ' ' };
            let text: String = warning.chars().map(letter).take(WARNING_LENGTH_MAX).collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }
}

pub(crate) type AdvisedResult = Result<Advised, ApiError>;
