//! Between the client and the network: an answer begins within a time and goes on within a time, so that nothing waits for a
//! server that went away without a word; and an answer that says "too many requests" carries the time to wait, whoever gave it.
//!
//! Nothing is sent again here: who asked knows whether it is still wanted.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame};
use serde_json::{Value, json};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tower::{BoxError, Layer, Service};

/// How long the head of an answer may take. The server itself gives up after a minute.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a body may pause. Watches end earlier by themselves; logs may pause for ever.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Bytes read of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Where a refusal does not say how long to wait.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Puts [`Bounded`] around a client's service.
#[derive(Clone, Copy, Debug)]
pub struct BoundedLayer;

impl<S> Layer<S> for BoundedLayer {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Bounded<S> {
    inner: S,
}

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

impl<S, R, B> Service<Request<R>> for Bounded<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let may_pause = request.uri().path().ends_with("/log");
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(answer) = tokio::time::timeout(ANSWER_MAX, answer).await else {
                return Err(late(format!("no answer of the cluster's API within {ANSWER_MAX:?}")));
            };
            let (mut head, body) = answer?.into_parts();
            if head.status == StatusCode::TOO_MANY_REQUESTS {
                let seconds = retry_after(&head.headers);
                let said = Limited::new(body, REFUSAL_BYTES_MAX).collect();
                let said = tokio::time::timeout(ANSWER_MAX, said).await;
                let said = said.ok().and_then(Result::ok).map(|said| said.to_bytes()).unwrap_or_default();
                head.headers.remove(header::CONTENT_LENGTH);
                let told = Full::new(Bytes::from(too_many(&said, seconds).to_string()));
                return Ok(Response::from_parts(head, told.map_err(|never| match never {}).boxed_unsync()));
            }
            let body =
                if may_pause { body.boxed_unsync() } else { Patient::new(body, PAUSE_MAX).boxed_unsync() };
            Ok(Response::from_parts(head, body))
        })
    }
}

fn late(what: String) -> BoxError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}

fn retry_after(headers: &http::HeaderMap) -> Option<u32> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The refusal as a Status that names the seconds to wait: priority and fairness answers in plain text, with a header.
fn too_many(said: &[u8], seconds: Option<u32>) -> Value {
    let mut status = serde_json::from_slice::<Value>(said).ok().filter(Value::is_object);
    let status = status.get_or_insert_with(|| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests",
            "message": String::from_utf8_lossy(said).trim()})
    });
    status["code"] = StatusCode::TOO_MANY_REQUESTS.as_u16().into();
    if !status["details"].is_object() {
        status["details"] = json!({});
    }
    let named = status["details"]["retryAfterSeconds"].as_u64().and_then(|named| u32::try_from(named).ok());
    status["details"]["retryAfterSeconds"] = named.or(seconds).unwrap_or(RETRY_AFTER_SECONDS).into();
    status.take()
}

/// A body whose pauses have an end.
struct Patient<B> {
    body: B,
    pause_max: Duration,
    ends: Pin<Box<Sleep>>,
}

impl<B> Patient<B> {
    fn new(body: B, pause_max: Duration) -> Self {
        Self { body, pause_max, ends: Box::pin(tokio::time::sleep(pause_max)) }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Patient<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let until = Instant::now() + this.pause_max;
            this.ends.as_mut().reset(until);
            return Poll::Ready(frame);
        }
        let paused = this.pause_max;
        this.ends
            .as_mut()
            .poll(context)
            .map(|()| Some(Err(late(format!("the cluster's API sent nothing for {paused:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::StreamBody;

    #[test]
    fn a_refusal_in_plain_text_names_the_seconds_to_wait() {
        let plain = too_many(b"Too many requests, please try again later.\n", Some(7));
        assert_eq!(plain["details"]["retryAfterSeconds"], 7);
        assert_eq!(plain["message"], "Too many requests, please try again later.");
        assert_eq!((&plain["code"], &plain["status"]), (&json!(429), &json!("Failure")));
        let own = br#"{"kind":"Status","code":429,"message":"budget","details":{"retryAfterSeconds":10}}"#;
        assert_eq!(too_many(own, Some(1))["details"]["retryAfterSeconds"], 10);
        assert_eq!(too_many(b"", None)["details"]["retryAfterSeconds"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_ends_as_an_error() {
        let silent = tower::service_fn(|_: Request<()>| {
            futures::future::pending::<Result<Response<AnyBody>, BoxError>>()
        });
        let mut bounded = BoundedLayer.layer(silent);
        let error = bounded.call(Request::new(())).await.unwrap_err();
        assert!(error.to_string().contains("no answer of the cluster's API"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_in_the_middle_ends_as_an_error_and_a_log_may_wait() {
        let stalls = tower::service_fn(|_: Request<()>| async {
            let first = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"{")))]);
            let body = StreamBody::new(Box::pin(futures::StreamExt::chain(first, stream::pending())));
            Ok::<_, BoxError>(Response::new(body))
        });
        let mut bounded = BoundedLayer.layer(stalls);
        let mut request = Request::new(());
        *request.uri_mut() = "/api/v1/pods".parse().unwrap();
        let answer = bounded.call(request.clone()).await.unwrap();
        assert!(answer.into_body().collect().await.unwrap_err().to_string().contains("sent nothing"));
        *request.uri_mut() = "/api/v1/namespaces/n/pods/p/log?follow=true".parse().unwrap();
        let answer = bounded.call(request).await.unwrap();
        let waited = tokio::time::timeout(PAUSE_MAX * 10, answer.into_body().collect()).await;
        assert!(waited.is_err(), "a container may be silent for long");
    }
}
