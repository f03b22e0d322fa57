//! The log of a Pod's container as a stream of bytes.

use crate::names;
use argosy_agent_runtime::{Error, LogOptions, LogStream};
use bytes::Bytes;
use futures::{AsyncReadExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use std::time::{Duration, Instant};

const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// How often a container that has not started is asked for again while somebody follows.
const START_POLL: Duration = Duration::from_millis(500);
/// How long a container that has started, and of which the kubelet does not know yet, is asked for again.
const STARTED_WAIT: Duration = Duration::from_secs(5);
const BAD_REQUEST: u16 = 400;

/// Opens the log. A container that has not started has an empty one; with `follow` it is waited for. One that `has_started`
/// may be unknown to its kubelet, which looks once a second.
pub async fn open(
    pods: Api<Pod>,
    name: String,
    fence: String,
    has_started: bool,
    options: LogOptions,
) -> Result<LogStream, Error> {
    let asked = Instant::now();
    let parameters = LogParams {
        container: Some(if options.container.is_empty() {
            names::MAIN.to_owned()
        } else {
            options.container
        }),
        follow: options.follow,
        tail_lines: (options.tail_lines != 0).then_some(options.tail_lines.max(0)),
        since_time: (options.since_ms > 0)
            .then(|| jiff::Timestamp::from_millisecond(options.since_ms).ok())
            .flatten(),
        previous: options.previous,
        timestamps: options.timestamps,
        ..LogParams::default()
    };
    loop {
        let failure = match pods.log_stream(&name, &parameters).await {
            Ok(reader) => return Ok(chunks(Box::pin(reader), fence)),
            Err(failure) => failure,
        };
        let is_bad_request = matches!(&failure, kube::Error::Api(status) if status.code == BAD_REQUEST);
        let is_late = has_started && asked.elapsed() < STARTED_WAIT && !options.previous;
        if options.previous || !is_bad_request || !(is_late || may_start(&pods, &name).await) {
            return Err(Error::Logs { fence, reason: failure.to_string() });
        }
        if !options.follow && !is_late {
            return Ok(stream::empty().boxed());
        }
        tokio::time::sleep(START_POLL).await;
    }
}

/// The Pod is there and has not ended: its container may still come.
async fn may_start(pods: &Api<Pod>, name: &str) -> bool {
    let Ok(Some(pod)) = pods.get_opt(name).await else { return false };
    crate::observe::Seen::new(&pod).is_some_and(|seen| !seen.is_over())
}

fn chunks(reader: impl futures::AsyncRead + Send + Unpin + 'static, fence: String) -> LogStream {
    stream::try_unfold((reader, fence), |(mut reader, fence)| async move {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        match reader.read(&mut buffer).await {
            Ok(0) => Ok(None),
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some((Bytes::from(buffer), (reader, fence))))
            }
            Err(error) => Err(Error::Logs { fence, reason: error.to_string() }),
        }
    })
    .boxed()
}
