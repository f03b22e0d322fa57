//! The output of steps.

use argosy_model::{Fence, WorkflowKey};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt;
use futures::stream::BoxStream;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;

use crate::artifact;
use crate::envelope::{ApiError, Code};
use crate::http::Params;
use crate::list::resolve;
use crate::selector::LabelSelector;
use crate::stream::{Framing, Place, respond};
use crate::{App, Cell, Consistency, LogError, LogQuery, LogSource, View};

const GREP_LENGTH_MAX: usize = 1_000;
/// Memory of one compiled pattern.
const GREP_BYTES_MAX: usize = 256 * 1024;

pub(crate) async fn of_workflow<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let pod = params.get("podName").map(str::to_owned);
    let framing = Framing::of(&headers);
    begin(&app, &namespace, &name, pod, framing, &params).await.unwrap_or_else(|error| framing.refuse(&error))
}

pub(crate) async fn of_pod<C: Cell>(
    State(app): State<App<C>>,
    Path((namespace, name, pod)): Path<(String, String, String)>,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let framing = Framing::of(&headers);
    begin(&app, &namespace, &name, Some(pod), framing, &params)
        .await
        .unwrap_or_else(|error| framing.refuse(&error))
}

/// What is wanted of each attempt's output.
#[derive(Clone)]
struct Wanted {
    key: WorkflowKey,
    pod: Option<String>,
    selector: LabelSelector,
    container: String,
    follow: bool,
    tail_lines: Option<u64>,
    since_ms: Option<i64>,
    previous: bool,
    timestamps: bool,
    limit_bytes: Option<u64>,
    grep: Option<Regex>,
    line_bytes_max: usize,
    sources_max: usize,
}

fn pattern(text: &str) -> Result<Regex, ApiError> {
    let wrong = |reason: String| {
        ApiError::new(Code::Internal, format!("failed to compile {text:?}: error parsing regexp: {reason}"))
    };
    if text.len() > GREP_LENGTH_MAX {
        return Err(wrong(format!("longer than {GREP_LENGTH_MAX} bytes")));
    }
    regex::RegexBuilder::new(text).size_limit(GREP_BYTES_MAX).build().map_err(|error| {
        let error = error.to_string();
        if error.contains("unclosed group") {
            return wrong(format!("missing closing ): `{text}`"));
        }
        let last = error.lines().last().unwrap_or_default();
        wrong(format!("{}: `{text}`", last.trim_start_matches("error: ")))
    })
}

/// The time that lines are wanted from, in milliseconds since 1970.
fn since(params: &Params) -> Result<Option<i64>, ApiError> {
    let wrong = |name: &str, wanted: &str| {
        ApiError::undecodable(format!("query parameter {name} has to be {wanted}"))
    };
    let seconds = params.number("logOptions.sinceSeconds")?;
    match (seconds, params.get("logOptions.sinceTime")) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(wrong("logOptions.sinceTime", "left out beside logOptions.sinceSeconds")),
        (Some(seconds), None) => {
            let back = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
            Ok(Some(jiff::Timestamp::now().as_millisecond().saturating_sub(back).max(1)))
        }
        (None, Some(time)) => {
            let time: jiff::Timestamp =
                time.parse().map_err(|_| wrong("logOptions.sinceTime", "a time of RFC 3339"))?;
            Ok(Some(time.as_millisecond().max(1)))
        }
    }
}

async fn begin<C: Cell>(
    app: &App<C>,
    namespace: &str,
    name: &str,
    pod: Option<String>,
    framing: Framing,
    params: &Params,
) -> Result<Response, ApiError> {
    let wrong = |error: crate::selector::Invalid| ApiError::new(Code::InvalidArgument, error.to_string());
    let selector = LabelSelector::parse(params.get("selector").unwrap_or_default()).map_err(wrong)?;
    let grep = params.get("grep").map(pattern).transpose()?;
    let follow = params.flag("logOptions.follow")?;
    let tail_lines = params.number("logOptions.tailLines")?;
    let previous = params.flag("logOptions.previous")?;
    let timestamps = params.flag("logOptions.timestamps")?;
    let limit_bytes = params.number("logOptions.limitBytes")?;
    let since_ms = since(params)?;
    let place = Place::take(app, "logs")?;
    let view = app.cell.read(Consistency::Linearizable).await?;
    let key = resolve(&view, namespace, name)?;
    let container =
        params.get("logOptions.container").filter(|name| *name != "main").unwrap_or_default().to_owned();
    let wanted = Wanted {
        key,
        pod,
        selector,
        container,
        follow,
        tail_lines,
        since_ms,
        previous,
        timestamps,
        limit_bytes,
        grep,
        line_bytes_max: app.limits.log_line_bytes_max,
        sources_max: app.limits.log_sources_max,
    };
    let (sender, receiver) = mpsc::channel(app.limits.log_lines_queued_max);
    let reader = tokio::spawn(read_all(app.cell.clone(), wanted, view, sender));
    let items =
        futures::stream::unfold((receiver, StopOnDrop(reader)), |(mut receiver, reader)| async move {
            let item = receiver.recv().await?;
            Some((item, (receiver, reader)))
        });
    let keep_alive = Duration::from_millis(app.limits.keep_alive_ms);
    Ok(respond(framing, place, keep_alive, Box::pin(items)))
}

/// The reading task belongs to the answer: it ends when the client goes.
struct StopOnDrop(tokio::task::JoinHandle<()>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Lines = mpsc::Sender<Result<Value, ApiError>>;

fn sources<V: View>(view: &V, wanted: &Wanted) -> Vec<LogSource> {
    let named = |source: &LogSource| {
        let is_named =
            wanted.pod.as_ref().is_none_or(|pod| source.pod_name == *pod || source.node_id == *pod);
        is_named && wanted.selector.matches(&source.labels)
    };
    view.log_sources(&wanted.key).into_iter().filter(named).collect()
}

/// Without `follow`: one attempt after the other. With it: all at once, and new ones as they appear, until the
/// workflow is over.
async fn read_all<C: Cell>(cell: C, wanted: Wanted, view: C::View, lines: Lines) {
    if wanted.follow {
        follow_all(cell, wanted, view, lines).await;
        return;
    }
    let mut failed = None;
    for source in sources(&view, &wanted) {
        match read_one(&cell, &wanted, &source, &lines).await {
            Ok(()) => {}
            // The attempt's cluster was lost: another attempt of the step has its output.
            Err(_) if source.superseded => {}
            Err(error) => failed = Some(error),
        }
        if lines.is_closed() {
            return;
        }
    }
    if let Some(error) = failed {
        // The client may have gone.
        let _ = lines.send(Err(ApiError::new(Code::Unavailable, error.to_string()))).await;
    }
}

async fn follow_all<C: Cell>(cell: C, wanted: Wanted, view: C::View, lines: Lines) {
    let mut changes = cell.changes();
    let mut begun: BTreeSet<Fence> = BTreeSet::new();
    let mut readers = tokio::task::JoinSet::new();
    let mut failed = Vec::new();
    let mut view = cell.read(Consistency::Linearizable).await.unwrap_or(view);
    loop {
        for source in sources(&view, &wanted) {
            if readers.len() < wanted.sources_max && begun.insert(source.fence) {
                let (cell, wanted, lines) = (cell.clone(), wanted.clone(), lines.clone());
                readers.spawn(async move {
                    read_one(&cell, &wanted, &source, &lines).await.map_err(|error| (source.fence, error))
                });
            }
        }
        let finished = view.summary(&wanted.key).is_none_or(|summary| summary.finished_at_ms.is_some());
        if finished && readers.is_empty() {
            // Of a superseded attempt nobody misses the rest: another attempt of the step has its output.
            let missed = |(fence, _): &(Fence, LogError)| {
                !sources(&view, &wanted).iter().any(|source| source.fence == *fence && source.superseded)
            };
            if let Some((_, error)) = failed.into_iter().find(missed) {
                // The client may have gone.
                let _ = lines.send(Err(ApiError::new(Code::Unavailable, error.to_string()))).await;
            }
            return;
        }
        tokio::select! {
            change = changes.next(), if !finished => match change {
                Some(Ok(change)) => view = change.after,
                Some(Err(_)) => {
                    changes = cell.changes();
                    view = cell.read(Consistency::Linearizable).await.unwrap_or(view);
                }
                None => return,
            },
            Some(ended) = readers.join_next() => if let Ok(Err((fence, error))) = ended {
                tracing::debug!(workflow = %wanted.key, %error, "the output of an attempt ended early");
                failed.push((fence, error));
            },
            () = lines.closed() => return,
        }
    }
}

async fn read_one<C: Cell>(
    cell: &C,
    wanted: &Wanted,
    source: &LogSource,
    lines: &Lines,
) -> Result<(), LogError> {
    let query = LogQuery {
        cluster: source.cluster.clone(),
        fence: source.fence,
        follow: wanted.follow && source.live,
        tail_lines: wanted.tail_lines,
        container: wanted.container.clone(),
        since_ms: wanted.since_ms,
        previous: wanted.previous,
        timestamps: wanted.timestamps,
    };
    let live = match cell.logs(query).await {
        Ok(chunks) => begun(chunks).await,
        Err(error) => Err(error),
    };
    let mut chunks = match live {
        Ok(chunks) => chunks,
        // Nothing came, and the attempt is over: its log may have been kept.
        Err(error) => archived(cell, wanted, source).await?.ok_or(error)?,
    };
    let mut splitter = Splitter { pending: Vec::new(), line_bytes_max: wanted.line_bytes_max };
    let mut room = wanted.limit_bytes.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    while room > 0
        && let Some(chunk) = chunks.next().await
    {
        let mut chunk = chunk?;
        chunk.truncate(room);
        room -= chunk.len();
        for line in splitter.push(&chunk) {
            if !send(wanted, source, &line, lines).await {
                return Ok(());
            }
        }
    }
    if let Some(line) = splitter.rest() {
        send(wanted, source, &line, lines).await;
    }
    Ok(())
}

type Chunks = BoxStream<'static, Result<Bytes, LogError>>;

/// A stream whose first chunk is no error.
async fn begun(mut chunks: Chunks) -> Result<Chunks, LogError> {
    match chunks.next().await {
        None => Ok(futures::stream::empty().boxed()),
        Some(Err(error)) => Err(error),
        Some(Ok(first)) => Ok(futures::stream::once(async { Ok(first) }).chain(chunks).boxed()),
    }
}

/// The log as it was archived, if it was; its last lines where that is asked for. One that was archived and can't be read is an error.
async fn archived<C: Cell>(
    cell: &C,
    wanted: &Wanted,
    source: &LogSource,
) -> Result<Option<Chunks>, LogError> {
    /// Bytes from the end in which last lines are looked for.
    const TAIL_BYTES_MAX: u64 = 16 * 1024 * 1024;
    if source.live || source.superseded || wanted.previous {
        return Ok(None);
    }
    // Lines have no times of their own there: of a step that ended before, nothing is wanted.
    if let (Some(since_ms), Some(finished_at_ms)) = (wanted.since_ms, source.finished_at_ms)
        && finished_at_ms < since_ms
    {
        return Ok(Some(futures::stream::empty().boxed()));
    }
    let Ok(view) = cell.read(Consistency::Stale).await else { return Ok(None) };
    let container = if wanted.container.is_empty() { "main" } else { &wanted.container };
    let place = view.artifact(&wanted.key, &source.node_id, &format!("{container}-logs"), false);
    let Some(place) = place else { return Ok(None) };
    let (cluster, entries) = artifact::stat(cell, &place).await?;
    let Some(entry) = entries.into_iter().find(|entry| entry.path.is_empty()) else { return Ok(None) };
    let Some(lines) = wanted.tail_lines else {
        return Ok(Some(artifact::bytes(cell.clone(), &place, cluster, &entry)));
    };
    let offset = entry.size.saturating_sub(TAIL_BYTES_MAX);
    let mut end = Vec::new();
    let mut chunks = artifact::bytes_from(cell.clone(), &place, cluster, &entry, offset);
    while let Some(chunk) = chunks.next().await {
        end.extend_from_slice(&chunk?);
    }
    let text = end.strip_suffix(b"\n").unwrap_or(&end);
    let breaks = text.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let count = usize::try_from(lines).unwrap_or(usize::MAX);
    let start = match count.checked_sub(1) {
        None => end.len(),
        Some(before) => breaks.map(|(at, _)| at + 1).nth(before).unwrap_or(0),
    };
    let rest = Bytes::from(end.split_off(start));
    Ok(Some(futures::stream::once(async { Ok(rest) }).boxed()))
}

/// False when the client has gone.
async fn send(wanted: &Wanted, source: &LogSource, line: &str, lines: &Lines) -> bool {
    if wanted.grep.as_ref().is_some_and(|grep| !grep.is_match(line)) {
        return true;
    }
    lines.send(Ok(json!({"content": line, "podName": source.pod_name}))).await.is_ok()
}

/// Cuts bytes into lines of bounded length.
struct Splitter {
    pending: Vec<u8>,
    line_bytes_max: usize,
}

impl Splitter {
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.pending.extend_from_slice(text);
            while self.pending.len() > self.line_bytes_max {
                let rest = self.pending.split_off(self.line_bytes_max);
                lines.push(line_text(&std::mem::replace(&mut self.pending, rest)));
            }
            if ended {
                lines.push(line_text(&std::mem::take(&mut self.pending)));
            }
        }
        lines
    }

    fn rest(self) -> Option<String> {
        (!self.pending.is_empty()).then(|| line_text(&self.pending))
    }
}

fn line_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_whatever_the_chunks() {
        let mut splitter = Splitter { pending: Vec::new(), line_bytes_max: 4 };
        assert_eq!(splitter.push(b"a\nb"), ["a"]);
        assert_eq!(splitter.push(b"c\r\n\nlonger"), ["bc", "", "long"]);
        assert_eq!(splitter.rest().as_deref(), Some("er"));
    }

    #[test]
    fn bad_patterns_are_told_as_argo_tells_them() {
        let error = pattern("(").unwrap_err();
        assert_eq!(error.message, "failed to compile \"(\": error parsing regexp: missing closing ): `(`");
        assert!(pattern(&"a".repeat(2_000)).is_err());
        assert!(pattern("(a{1000}){1000}").is_err());
    }
}
