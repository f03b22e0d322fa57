//! Streams as Argo's server writes them: one JSON object per line, or server-sent events if asked for.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

use crate::envelope::{ApiError, Code};
use crate::{App, Cell};

/// How items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Lines,
    Events,
}

impl Framing {
    pub fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let events = accepts
            .flat_map(|value| value.split(','))
            .any(|kind| kind.trim().starts_with("text/event-stream"));
        if events { Self::Events } else { Self::Lines }
    }

    fn write(self, item: &Value) -> Bytes {
        match self {
            Self::Lines => format!("{item}\n"),
            Self::Events => format!("data: {item}\n\n"),
        }
        .into()
    }

    fn head(self, status: axum::http::StatusCode, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let kind = match self {
            Self::Lines => "application/json",
            Self::Events => "text/event-stream",
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("grpc-metadata-content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    /// The answer when the stream can't begin.
    pub fn refuse(self, error: &ApiError) -> Response {
        self.head(error.status, Body::from(self.write(&error.stream_envelope())))
    }
}

/// A place among the streams that may be open at once, given back when the client goes.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    gauge: argosy_telemetry::prometheus::IntGauge,
}

impl Place {
    pub fn take<C: Cell>(app: &App<C>, kind: &str) -> Result<Self, ApiError> {
        let permit = app.streams.clone().try_acquire_owned().map_err(|_| {
            app.metrics.http_refused.with_label_values(&["too_many_streams"]).inc();
            let message =
                format!("{} watches and log streams are open: try again later", app.limits.streams_max);
            ApiError::new(Code::ResourceExhausted, message)
        })?;
        let gauge = app.metrics.http_streams.with_label_values(&[kind]);
        gauge.inc();
        Ok(Self { _permit: permit, gauge })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

type Items = Pin<Box<dyn Stream<Item = Result<Value, ApiError>> + Send>>;

struct Writing {
    framing: Framing,
    items: Items,
    keep_alive: Duration,
    ended: bool,
    _place: Place,
}

/// The answer that carries the items; an error is the last of them.
pub(crate) fn respond(framing: Framing, place: Place, keep_alive: Duration, items: Items) -> Response {
    let writing = Writing { framing, items, keep_alive, ended: false, _place: place };
    let chunks = futures::stream::unfold(writing, |mut writing| async move {
        let chunk = next_chunk(&mut writing).await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), writing))
    });
    framing.head(axum::http::StatusCode::OK, Body::from_stream(chunks))
}

async fn next_chunk(writing: &mut Writing) -> Option<Bytes> {
    if writing.ended {
        return None;
    }
    loop {
        let quiet = tokio::time::sleep(writing.keep_alive);
        tokio::select! {
            item = writing.items.next() => return match item? {
                Ok(item) => Some(writing.framing.write(&json!({"result": item}))),
                Err(error) => {
                    writing.ended = true;
                    Some(writing.framing.write(&error.stream_envelope()))
                }
            },
            () = quiet => match writing.framing {
                Framing::Events => return Some(Bytes::from_static(b":\n\n")),
                Framing::Lines => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_for_those_who_ask() {
        let mut headers = HeaderMap::new();
        assert_eq!(Framing::of(&headers), Framing::Lines);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/html, text/event-stream"));
        assert_eq!(Framing::of(&headers), Framing::Events);
        assert_eq!(&Framing::Events.write(&json!({}))[..], b"data: {}\n\n");
        assert_eq!(&Framing::Lines.write(&json!({}))[..], b"{}\n");
    }
}
