//! Tries of a node below its Retry wrapper (Argo reference 4, "Retry").

use argosy_expr::Rules;
use argosy_expr::date::duration_text;
use argosy_model::{NodePhase, pod_name};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{RetryStrategy, Template};

use crate::advance::create::{self, Place};
use crate::advance::{Turn, hold, leaf, memo, timers, workflow};
use crate::artifacts::NodeInputs;
use crate::express::{self, fill, fill_known};
use crate::lost_group;
use crate::state::{ROW_VERSION, phase_of};
use crate::view::{started_at_ms, time_text};
use argosy_spec::shown_name;

/// Makes the next try of a Retry node, or notes that it waits for others to end.
pub(crate) fn begin(turn: &mut Turn<'_>, index: u32) {
    let boundary = turn.node(index).boundary;
    if hold::is_held(turn, boundary) {
        hold::hold(turn, index, 0, None);
    } else {
        next_try(turn, index);
    }
}

/// Makes the next try of a Retry node.
pub(crate) fn next_try(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() {
        return;
    }
    if !node.message.is_empty() {
        turn.change(index, |node| node.message.clear());
    }
    let number = node.children_total;
    let place = Place {
        parent: index,
        ordinal: u64::from(number),
        name: format!("{}({number})", node.name),
        boundary: node.boundary,
        depth: node.depth,
        flag: row::NodeFlag::Retried,
        on_exit: node.on_exit,
    };
    let parsed = turn.parsed.clone();
    let made = match parsed.template(&node.template) {
        Some(template) => inputs_of_try(turn, &node, &place, template)
            .and_then(|inputs| create::instance(turn, place, template, inputs))
            .map(|made| memo::note_try(turn, &node, made)),
        None => Err(format!("template {} not found", node.template)),
    };
    if let Err(message) = made {
        turn.finish(index, NodePhase::Error, message, None);
    }
}

/// A try's inputs: what its wrapper's say of tries and of the Pod is known now (`retry/retry-last-retry-variables`).
fn inputs_of_try(
    turn: &Turn<'_>,
    node: &row::Node,
    place: &Place,
    template: &Template,
) -> Result<NodeInputs, String> {
    let mut inputs = NodeInputs::of(node);
    if !inputs.parameters.iter().flat_map(|parameter| &parameter.value).any(|value| value.contains("{{")) {
        return Ok(inputs);
    }
    let mut names = turn.parsed.globals.clone();
    leaf::try_names(turn, place.parent, place.ordinal, &mut names);
    if leaf::runs_as_pod(template) {
        let name = pod_name(&turn.row().name, shown_name(&template.name), &place.name);
        names.insert("pod.name".to_owned(), name);
    }
    for parameter in inputs.parameters.iter_mut().filter(|parameter| !parameter.verbatim) {
        if let Some(value) = &mut parameter.value {
            *value = fill_known(value, &names, turn.draft.now().0).map_err(|error| error.to_string())?;
        }
    }
    Ok(inputs)
}

/// A try is over: that is the node's end, or there is another.
pub(crate) fn try_done(turn: &mut Turn<'_>, index: u32, child: &row::Node) {
    let phase = phase_of(child);
    if !phase.is_failed_or_error() {
        turn.finish(index, phase, String::new(), child.outputs.clone());
        return;
    }
    let node = turn.node(index);
    let shutdown = turn.row().shutdown;
    if workflow::stops(shutdown, node.on_exit) {
        let message = workflow::stopped_message(shutdown).unwrap_or_else(|| deadline_message(turn));
        // One that waited had taken over what its last try left.
        let outputs = child.outputs.clone().filter(|_| !node.message.is_empty());
        turn.finish(index, phase, message, outputs);
        return;
    }
    match verdict(turn, index, child) {
        Verdict::Again => next_try(turn, index),
        Verdict::After { wait_ms } => wait(turn, index, wait_ms),
        Verdict::Over(message) => turn.finish(index, phase, message, child.outputs.clone()),
        Verdict::Error(message) => turn.finish(index, NodePhase::Error, message, None),
    }
}

/// Why there is no other try once the workflow's time is over.
fn deadline_message(turn: &Turn<'_>) -> String {
    let seconds = turn.parsed.manifest.spec.active_deadline_seconds.unwrap_or_default();
    let over_ms = started_at_ms(&turn.row()).saturating_add(seconds.saturating_mul(1000));
    let time = time_text(over_ms).replace('T', " ").replace('Z', " +0000 UTC");
    format!("retry exceeded workflow deadline {time}")
}

/// Ends Retry nodes that wait for their next try in a workflow that is shut down, from a node on; `Some`: where to go on
/// when the batch is full.
pub(crate) fn shut_down(turn: &mut Turn<'_>, from: u32) -> Option<u32> {
    let workflow = turn.workflow;
    let mut next = from;
    loop {
        let timers = &turn.draft.state.index.timers_of;
        let waits =
            timers.range((workflow, next, i64::MIN, i32::MIN)..=(workflow, u32::MAX, i64::MAX, i32::MAX));
        let mut waits = waits.filter(|(.., kind)| *kind == i32::from(row::TimerKind::Retry));
        let (_, index, due_ms, kind) = waits.next().copied()?;
        if turn.is_full() {
            return Some(index);
        }
        turn.draft.spend(1);
        next = index.saturating_add(1);
        if workflow::stops(turn.row().shutdown, turn.node(index).on_exit) {
            let timer = row::Timer { version: ROW_VERSION, due_ms, workflow, node: index, kind };
            turn.draft.emit(Body::TimerCleared(fact::TimerCleared { timer: Some(timer) }));
            timers::again(turn, index);
        }
    }
}

enum Verdict {
    Again,
    After {
        wait_ms: i64,
    },
    Over(String),
    /// The strategy can't be carried out.
    Error(String),
}

fn verdict(turn: &mut Turn<'_>, index: u32, child: &row::Node) -> Verdict {
    let node = turn.node(index);
    let strategy = match strategy(turn, &node) {
        Ok(strategy) => strategy,
        Err(message) => return Verdict::Over(message),
    };
    let group = turn.parsed.groups.get(&node.template).copied().unwrap_or(0);
    if lost_group::is_lost_for_good(&turn.draft.state, turn.workflow, group) {
        return Verdict::Over(child.message.clone());
    }
    let tries = i64::from(node.children_total);
    let backoff = match backoff(turn, &node, &strategy, tries) {
        Ok(Ok(wait_ms)) => wait_ms,
        Ok(Err(message)) | Err(message) => return Verdict::Over(message),
    };
    let again = match strategy.retry_policy.as_str() {
        "Always" => true,
        "OnError" => phase_of(child) == NodePhase::Error,
        "OnTransientError" => is_transient(&child.message),
        // With an expression, it alone decides.
        "" if !strategy.expression.is_empty() => true,
        _ => phase_of(child) == NodePhase::Failed,
    };
    if !again {
        return Verdict::Over(child.message.clone());
    }
    if let Some(limit) = &strategy.limit {
        match limit.as_i64() {
            Some(limit) if tries > limit => return Verdict::Over("No more retries left".to_owned()),
            Some(_) => {}
            None => return Verdict::Over(format!("retryStrategy.limit {limit:?} is not a number")),
        }
    }
    if !strategy.expression.is_empty() {
        match expression(turn, &node, child, &strategy) {
            Ok(true) => {}
            Ok(false) => return Verdict::Over("retryStrategy.expression evaluated to false".to_owned()),
            Err(message) => return Verdict::Error(message),
        }
    }
    if backoff > 0 { Verdict::After { wait_ms: backoff } } else { Verdict::Again }
}

/// Whether the strategy's expression wants another try.
fn expression(
    turn: &Turn<'_>,
    node: &row::Node,
    child: &row::Node,
    strategy: &RetryStrategy,
) -> Result<bool, String> {
    let mut scope = turn.scope(0);
    scope.locals = leaf::inputs_of(&turn.parsed, node);
    leaf::last_try_names(&mut scope.locals, Some(child));
    scope.locals.insert("retries".to_owned(), child.ordinal.to_string());
    express::holds(&strategy.expression, &scope)
}

/// Messages of failures that are likely to pass (Argo's own list; its environment variable for more is not read).
const TRANSIENT: [&str; 9] = [
    "i/o timeout",
    "TLS handshake timeout",
    "connection timed out",
    "connection reset by peer",
    "connection refused",
    "http2: client connection lost",
    "transport connection broken",
    "exceeded quota",
    "etcdserver: request timed out",
];

fn is_transient(message: &str) -> bool {
    TRANSIENT.iter().any(|part| message.contains(part))
}

/// The strategy with its tags resolved.
pub(super) fn strategy(turn: &Turn<'_>, node: &row::Node) -> Result<RetryStrategy, String> {
    let own = turn.parsed.template(&node.template).and_then(|template| template.retry_strategy.as_ref());
    let strategy = own.or(turn.parsed.manifest.spec.retry_strategy.as_ref()).cloned().unwrap_or_default();
    let text = serde_json::to_string(&strategy).map_err(|error| error.to_string())?;
    if !text.contains("{{") {
        return Ok(strategy);
    }
    let mut scope = turn.scope(0);
    scope.locals = leaf::inputs_of(&turn.parsed, node);
    let text = fill(&text, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Milliseconds to wait before the next try; inner error: no time is left for one.
fn backoff(
    turn: &Turn<'_>,
    node: &row::Node,
    strategy: &RetryStrategy,
    tries: i64,
) -> Result<Result<i64, String>, String> {
    /// Longest wait, whatever the factor.
    const WAIT_MAX_MS: f64 = 365.0 * 24.0 * 3600.0 * 1000.0;
    let Some(backoff) = &strategy.backoff else { return Ok(Ok(0)) };
    let first = if backoff.duration.is_empty() { 0 } else { duration_ms(&backoff.duration)? };
    let factor = backoff.factor.as_ref().and_then(argosy_spec::IntOrString::as_i64).unwrap_or(1).max(1);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "bounded by WAIT_MAX_MS"
    )]
    let mut wait_ms = (first as f64 * (factor as f64).powi(i32::try_from(tries - 1).unwrap_or(i32::MAX)))
        .min(WAIT_MAX_MS) as i64;
    if !backoff.cap.is_empty() {
        wait_ms = wait_ms.min(duration_ms(&backoff.cap)?);
    }
    if !backoff.max_duration.is_empty() {
        let last = node.started_at_ms.saturating_add(duration_ms(&backoff.max_duration)?);
        if turn.draft.now().0 > last {
            return Ok(Err("Max duration limit exceeded".to_owned()));
        }
        if turn.draft.now().0.saturating_add(wait_ms) > last {
            return Ok(Err("Backoff would exceed max duration limit".to_owned()));
        }
    }
    Ok(Ok(wait_ms))
}

fn wait(turn: &mut Turn<'_>, index: u32, wait_ms: i64) {
    let due_ms = turn.draft.now().plus_ms(wait_ms).0;
    let timer = row::Timer {
        version: ROW_VERSION,
        due_ms,
        workflow: turn.workflow,
        node: index,
        kind: row::TimerKind::Retry.into(),
    };
    turn.draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
    let message = format!("Backoff for {}", duration_text(wait_ms.saturating_mul(1_000_000)));
    turn.change(index, |node| node.message = message);
}

/// How the message about a span that can't be read begins.
pub(crate) const UNREADABLE_DURATION: &str = "unable to parse ";

/// A span as Argo writes it: seconds, or a Go duration such as `1h30m`.
pub(crate) fn duration_ms(text: &str) -> Result<i64, String> {
    let invalid = || format!("{UNREADABLE_DURATION}{text} as a duration: time: invalid duration {text:?}");
    if let Ok(seconds) = text.trim().parse::<i64>() {
        return Ok(seconds.saturating_mul(1000));
    }
    let mut rest = text.trim();
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit_ms = match &rest[..end] {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 24.0 * 3600e3,
            _ => return Err(invalid()),
        };
        total += number * unit_ms;
        rest = &rest[end..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is what a huge span should do"
    )]
    Ok(total.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::duration_ms;

    #[test]
    fn durations_are_gos_or_seconds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("2", Some(2000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("x", None),
            ("", None),
            ("5", Some(5000)),
            ("5x", None),
        ] {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
    }
}
