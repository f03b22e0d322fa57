//! Leaves: what runs on a cluster, and what waits.

use argosy_expr::{Rules, verbatim};
use argosy_model::{NodePhase, NodeType, pod_name};
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use argosy_spec::{IntOrString, Parameter, Template, TemplateKind};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::Leader;
use crate::advance::create::TOO_DEEP;
use crate::advance::{Turn, another_host, containers, daemon, hooks, outputs, retry, workflow};
use crate::artifacts;
use crate::commands::report_attempt::clip;
use crate::commands::{report_artifact_task, resume_workflow};
use crate::draft::Draft;
use crate::express::fill;
use crate::leader::Parsed;
use crate::place;
use crate::prerequisites;
use crate::reproduce;
use crate::scope::display_name;
use crate::state::{ROW_VERSION, phase_of, type_of};
use crate::view::started_at_ms;
use argosy_spec::{is_inline, shown_name};

/// Between asking a process to end and ending it, when the template doesn't say.
const STOP_GRACE_MS: i64 = 30_000;

/// The names that a node's inputs make. The list of them shows what its template declares as well.
pub(crate) fn inputs_of(parsed: &Parsed, node: &row::Node) -> BTreeMap<String, String> {
    let template = parsed.template(&node.template);
    input_names(&node.inputs, template.map_or(&[], |template| &template.inputs.parameters))
}

/// An input's value for those who fill it in: marked, where it came out of a container.
pub(crate) fn as_read(input: &row::Parameter) -> Option<String> {
    let value = input.value.as_deref()?;
    Some(if input.verbatim { verbatim::mark(value).into_owned() } else { value.to_owned() })
}

/// As [`inputs_of`], for inputs of a template with these declarations.
pub(crate) fn input_names(inputs: &[row::Parameter], declared: &[Parameter]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut list = Vec::new();
    for input in inputs.iter().filter(|input| input.value.is_some()) {
        let value = as_read(input);
        names.insert(format!("inputs.parameters.{}", input.name), value.clone().unwrap_or_default());
        let declared = declared.iter().find(|declared| declared.name == input.name).cloned();
        let declared = declared.unwrap_or_default();
        list.push(Parameter { name: input.name.clone(), value, ..declared });
    }
    // Texts and lists of texts: that always works.
    let list = serde_json::to_string(&list).unwrap_or_default();
    names.insert("inputs.parameters".to_owned(), list);
    names
}

/// A leaf's template with everything resolved that can be.
fn resolved(turn: &mut Turn<'_>, node: &row::Node) -> Result<(Value, Template), String> {
    let around = if is_inline(&node.template) { hooks::item_names(turn, node) } else { BTreeMap::new() };
    let turn = &*turn;
    let template = turn
        .parsed
        .template(&node.template)
        .ok_or_else(|| format!("template {} not found", node.template))?;
    let mut raw = template.raw.clone();
    if runs_as_pod(template) {
        artifacts::locate(turn, &mut raw);
    }
    let text = raw.to_string();
    if text.contains("{{") {
        let mut scope = turn.scope(0);
        scope.on_exit = node.on_exit;
        scope.locals = locals(turn, node, template);
        let mut text = fill(&text, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
        if is_inline(&node.template) {
            // Written inside a step, it also sees what the step sees.
            let mut outer = turn.scope(node.boundary);
            outer.locals = inputs_of(&turn.parsed, &turn.node(node.boundary));
            outer.locals.extend(around);
            text = fill(&text, &outer, &Rules::LENIENT).map_err(|error| error.to_string())?;
        }
        scope.locals.extend(inputs_of(&turn.parsed, node));
        let text = fill(&text, &scope, &Rules::LENIENT).map_err(|error| error.to_string())?;
        raw = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    }
    artifacts::furnish(node, &mut raw);
    let template = Template::from_value(raw.clone()).map_err(|error| error.to_string())?;
    Ok((raw, template))
}

/// What runs in a Pod of its own, and may leave files behind.
pub(crate) fn runs_as_pod(template: &Template) -> bool {
    template.is_leaf() && !matches!(template.kind, TemplateKind::Suspend(_))
}

fn locals(turn: &Turn<'_>, node: &row::Node, template: &Template) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let workflow = turn.row();
    names.insert("pod.name".to_owned(), pod_name(&workflow.name, shown_name(&node.template), &node.name));
    names.insert("node.name".to_owned(), node.name.clone());
    let display = display_name(&turn.draft.state, turn.workflow, node);
    names.insert("steps.name".to_owned(), display.clone());
    names.insert("tasks.name".to_owned(), display);
    for output in &template.outputs.parameters {
        if let Some(from) = output.value_from.as_ref().filter(|from| !from.path.is_empty()) {
            names.insert(format!("outputs.parameters.{}.path", output.name), from.path.clone());
        }
    }
    names.extend(artifacts::paths(template));
    if node.flag == i32::from(row::NodeFlag::Retried) {
        try_names(turn, node.parent, node.ordinal, &mut names);
    }
    names
}

/// What is known of try `ordinal` of the Retry node `wrapper`, and of the one before.
pub(crate) fn try_names(turn: &Turn<'_>, wrapper: u32, ordinal: u64, names: &mut BTreeMap<String, String>) {
    names.insert("retries".to_owned(), ordinal.to_string());
    let children = &turn.draft.state.index.children;
    let last = ordinal.checked_sub(1).and_then(|before| children.get(&(turn.workflow, wrapper, before)));
    let last = last.map(|index| turn.node(*index));
    last_try_names(names, last.as_deref());
}

/// What is known of the try before: Argo's defaults when there is none.
pub(crate) fn last_try_names(names: &mut BTreeMap<String, String>, last: Option<&row::Node>) {
    let code = last.and_then(|last| last.outputs.as_ref()?.exit_code);
    let unknown = if last.is_some() { "-1" } else { "0" };
    let code = code.map_or_else(|| unknown.to_owned(), |code| code.to_string());
    let duration = last.map_or(0, |last| (last.finished_at_ms - last.started_at_ms) / 1000);
    names.insert("lastRetry.exitCode".to_owned(), code);
    names.insert("lastRetry.status".to_owned(), last.map_or("", |last| phase_of(last).as_str()).to_owned());
    names.insert("lastRetry.duration".to_owned(), duration.to_string());
    names.insert(
        "lastRetry.message".to_owned(),
        last.map_or_else(String::new, |last| verbatim::mark(&last.message).into_owned()),
    );
}

/// A Pod node was made: it waits for a cluster, or ends at once when the workflow is being shut down.
pub(crate) fn queue(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if stopped(turn, index, &node) {
        return;
    }
    let (work, template) = match work(turn, index, &node) {
        Ok(work) => work,
        Err(message) => {
            turn.finish(index, NodePhase::Error, message, None);
            return;
        }
    };
    for limit_ms in waits_at_most_ms(&template).unwrap_or_default() {
        wait_at_most(turn, index, limit_ms);
    }
    turn.draft.emit(Body::NodeQueued(fact::NodeQueued {
        workflow: turn.workflow,
        node: index,
        work: Some(work),
    }));
    containers::declare(turn, index, &template);
}

/// What a leaf that has ended well needs to run once more: its inputs are those of the first time.
pub(crate) fn work_again(turn: &mut Turn<'_>, index: u32) -> Result<row::Work, String> {
    let node = turn.node(index);
    work(turn, index, &node).map(|(work, _)| work)
}

/// All that a cluster and its choice need of a leaf, and its template with everything resolved.
fn work(turn: &mut Turn<'_>, index: u32, node: &row::Node) -> Result<(row::Work, Template), String> {
    let (mut raw, template) = resolved(turn, node)?;
    bound_time(&template, &mut raw)?;
    inherit(turn, node, &mut raw);
    let excluded = another_host::keep_away(turn, index, node, &mut raw);
    let workflow_pod_json = own_pod_json(turn, node, &template)?;
    let selector = place::selector(&turn.parsed.manifest, &raw);
    let tolerations = place::tolerations(&turn.parsed.manifest, &raw);
    let requests = place::requests(&raw);
    if let Some(fields) = raw.as_object_mut() {
        place::strip_selector(fields);
    }
    let spec = &turn.parsed.manifest.spec;
    let retried = template.retry_strategy.is_some() || spec.retry_strategy.is_some();
    let workflow = turn.row();
    let deadline_ms = spec
        .active_deadline_seconds
        .filter(|_| !node.on_exit)
        .map_or(0, |seconds| started_at_ms(&workflow).saturating_add(seconds.saturating_mul(1000)));
    let grace = raw
        .get("terminationGracePeriodSeconds")
        .or_else(|| spec.pod.get("terminationGracePeriodSeconds"))
        .and_then(Value::as_i64);
    let pod_json = if workflow_pod_json.is_empty() { &workflow.pod_json } else { &workflow_pod_json };
    let pod_value: Value = serde_json::from_str(pod_json).unwrap_or_default();
    let prerequisites = prerequisites::of(&workflow.namespace, &raw, &pod_value);
    let stop_grace_ms = grace.map_or(STOP_GRACE_MS, |seconds| seconds.saturating_mul(1000));
    let exclusive_lease_ms = exclusive_lease_ms(turn, &template, &raw);
    let mut work = row::Work {
        version: ROW_VERSION,
        template_json: raw.to_string(),
        template_name: shown_name(&node.template).to_owned(),
        requests: Some(requests),
        selector,
        group: turn.parsed.groups.get(&node.template).copied().unwrap_or(0),
        idempotent: retried || template.idempotent() || turn.parsed.manifest.idempotent(),
        deadline_ms,
        failover: failover(template.failover().or_else(|| turn.parsed.manifest.failover())).into(),
        on_reconnect: if exclusive_lease_ms > 0 || template.daemon {
            // Two runs that overlap, or an address that others have been told: the replacement stays.
            row::OnReconnect::Unspecified.into()
        } else {
            on_reconnect(template.on_reconnect().or_else(|| turn.parsed.manifest.on_reconnect())).into()
        },
        runtime: place::runtime(&turn.parsed, &node.template, &template).into(),
        daemon: template.daemon,
        capture_result: outputs::result_is_read(turn, node),
        workflow_pod_json,
        prerequisites,
        stop_grace_ms,
        exclusive_lease_ms,
        excluded,
        tolerations,
        ..row::Work::default()
    };
    work.near = artifacts::nearest(node);
    work.bound = reproduce::bound(&turn.draft.state, turn.leader, turn.workflow, node);
    work.shape = place::shape(&turn.draft.state, turn.workflow, index, &work);
    Ok((work, template))
}

/// What a leaf takes of the steps or dag template around it, where it says nothing itself: Argo's rule for hosts.
fn inherit(turn: &Turn<'_>, node: &row::Node, raw: &mut Value) {
    const INHERITED: [&str; 3] = ["nodeSelector", "affinity", "tolerations"];
    if node.boundary == 0 {
        return;
    }
    let boundary = turn.node(node.boundary);
    let (Some(around), Some(fields)) = (turn.parsed.template(&boundary.template), raw.as_object_mut()) else {
        return;
    };
    for field in INHERITED {
        if fields.contains_key(field) {
            continue;
        }
        let Some(value) = around.raw.get(field).filter(|value| !value.is_null()) else { continue };
        let text = value.to_string();
        let mut scope = turn.scope(0);
        scope.locals = inputs_of(&turn.parsed, &boundary);
        let filled = text.contains("{{").then(|| fill(&text, &scope, &Rules::LENIENT).ok()).flatten();
        let value = filled.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(|| value.clone());
        fields.insert(field.to_owned(), value);
    }
}

/// The workflow's part of the Pod with this leaf's tags resolved; empty where it holds none.
fn own_pod_json(turn: &Turn<'_>, node: &row::Node, template: &Template) -> Result<String, String> {
    let workflow = turn.row();
    let text = &workflow.pod_json;
    if !text.contains("{{") {
        return Ok(String::new());
    }
    let mut scope = turn.scope(0);
    scope.on_exit = node.on_exit;
    scope.locals = locals(turn, node, template);
    scope.locals.extend(inputs_of(&turn.parsed, node));
    fill(text, &scope, &Rules::LENIENT).map_err(|error| error.to_string())
}

/// Argo's words.
const DISPLAY_NAME_INVALID: &str =
    "displayName must match the regex ^[a-zA-Z0-9][a-zA-Z0-9-.]{0,61}[a-zA-Z0-9]$";

/// A name that the template's own annotation gives must be one that Argo shows.
fn has_valid_display_name(template_json: &str) -> bool {
    if !template_json.contains("workflows.argoproj.io/display-name") {
        return true;
    }
    let template: Value = serde_json::from_str(template_json).unwrap_or_default();
    let own = template.pointer("/annotations/workflows.argoproj.io~1display-name").and_then(Value::as_str);
    own.filter(|own| !own.is_empty()).is_none_or(is_display_name)
}

/// A name that Argo shows for a node.
pub(crate) fn is_display_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    (2..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| plain(byte) || b"-.".contains(byte))
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

/// A template's `timeout` bounds the time that the Pod is active.
fn bound_time(template: &Template, raw: &mut Value) -> Result<(), String> {
    if let Some(limit_ms) = waits_at_most_ms(template)?.first().filter(|_| !template.timeout.is_empty()) {
        let seconds = (limit_ms.saturating_add(999) / 1000).max(1);
        let own = template.active_deadline_seconds.as_ref().and_then(IntOrString::as_i64);
        let seconds = own.map_or(seconds, |own| own.min(seconds));
        if let Some(fields) = raw.as_object_mut() {
            fields.insert("activeDeadlineSeconds".to_owned(), seconds.into());
        }
    }
    Ok(())
}

/// The bounds that a template sets on waiting: its `timeout` first.
fn waits_at_most_ms(template: &Template) -> Result<Vec<i64>, String> {
    let limits = [&template.timeout, &template.pending_timeout];
    limits.into_iter().filter(|limit| !limit.is_empty()).map(|limit| retry::duration_ms(limit)).collect()
}

/// A node waits for locks: its template's bounds count from now.
pub(crate) fn waits(turn: &mut Turn<'_>, index: u32, template: &Template) {
    for limit in [&template.timeout, &template.pending_timeout] {
        // One that cannot be read is told of when the node's turn comes.
        if let Ok(limit_ms) = retry::duration_ms(limit)
            && !limit.is_empty()
        {
            wait_at_most(turn, index, limit_ms);
        }
    }
}

/// One that waits longer fails.
fn wait_at_most(turn: &mut Turn<'_>, index: u32, limit_ms: i64) {
    let timer = row::Timer {
        version: ROW_VERSION,
        due_ms: turn.draft.now().plus_ms(limit_ms).0,
        workflow: turn.workflow,
        node: index,
        kind: row::TimerKind::Timeout.into(),
    };
    turn.draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
}

/// A template's timeout passed: one that still waits fails; one that runs is ended by its cluster.
pub(crate) fn timed_out(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if phase_of(&node) != NodePhase::Pending {
        return;
    }
    match turn.draft.state.works.get(&(turn.workflow, index)).and_then(|work| work.fence) {
        Some(fence) => {
            let reason = TIMEOUT.to_owned();
            turn.draft.emit(Body::AttemptStopped(fact::AttemptStopped { fence: Some(fence), reason }));
        }
        None => turn.finish(index, NodePhase::Failed, TIMEOUT.to_owned(), None),
    }
}

/// The message of a node whose template's timeout passed while it waited.
pub(crate) const TIMEOUT: &str = "timeout";

/// How long a step may run after its last acknowledged renewal; 0 when it is not exclusive.
fn exclusive_lease_ms(turn: &Turn<'_>, template: &Template, raw: &Value) -> i64 {
    let manifest = &turn.parsed.manifest;
    let wanted = template.exclusive().or_else(|| manifest.exclusive()).unwrap_or(false);
    if !wanted || manifest.unenforceable(raw).is_some() {
        return 0;
    }
    let said = template.exclusive_lease_ms().or_else(|| manifest.exclusive_lease_ms());
    said.unwrap_or(turn.leader.limits.exclusive_lease_ms).max(argosy_spec::EXCLUSIVE_LEASE_MS_MIN)
}

fn failover(word: Option<argosy_spec::Failover>) -> row::Failover {
    match word {
        None => row::Failover::Unspecified,
        Some(argosy_spec::Failover::Reschedule) => row::Failover::Reschedule,
        Some(argosy_spec::Failover::Fail) => row::Failover::Fail,
        Some(argosy_spec::Failover::Wait) => row::Failover::Wait,
    }
}

fn on_reconnect(word: Option<argosy_spec::OnReconnect>) -> row::OnReconnect {
    match word {
        None | Some(argosy_spec::OnReconnect::KeepReplacement) => row::OnReconnect::Unspecified,
        Some(argosy_spec::OnReconnect::KeepOriginal) => row::OnReconnect::KeepOriginal,
        Some(argosy_spec::OnReconnect::LongestRunning) => row::OnReconnect::LongestRunning,
    }
}

/// Ends a new leaf of a workflow that is being shut down.
fn stopped(turn: &mut Turn<'_>, index: u32, node: &row::Node) -> bool {
    let shutdown = turn.row().shutdown;
    let stops = workflow::stops(shutdown, node.on_exit);
    if stops {
        let waits = type_of(node) == NodeType::Suspend;
        let message = workflow::stopped_message(shutdown).filter(|_| waits);
        let message = message.unwrap_or_else(|| workflow::refused_message(shutdown));
        turn.finish(index, NodePhase::Failed, message, None);
    }
    stops
}

/// A Suspend node was made: it waits for its duration, or for somebody.
pub(crate) fn suspend(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    if stopped(turn, index, &node) {
        return;
    }
    let outcome = resolved(turn, &node).and_then(|(_, template)| match &template.kind {
        TemplateKind::Suspend(suspend) => {
            suspend.duration.as_deref().filter(|text| !text.is_empty()).map(retry::duration_ms).transpose()
        }
        TemplateKind::Container(_)
        | TemplateKind::Script(_)
        | TemplateKind::ContainerSet(_)
        | TemplateKind::Resource(_)
        | TemplateKind::Http(_)
        | TemplateKind::Data(_)
        | TemplateKind::Plugin(_)
        | TemplateKind::Steps(_)
        | TemplateKind::Dag(_)
        | TemplateKind::Missing => Ok(None),
    });
    if outcome.is_ok() {
        declare_supplied(turn, index, &node);
    }
    match outcome {
        Ok(None) => {}
        Ok(Some(0)) => suspend_over(turn, index),
        Ok(Some(wait_ms)) => {
            let due_ms = turn.draft.now().plus_ms(wait_ms).0;
            let timer = row::Timer {
                version: ROW_VERSION,
                due_ms,
                workflow: turn.workflow,
                node: index,
                kind: row::TimerKind::Suspend.into(),
            };
            turn.draft.emit(Body::TimerSet(fact::TimerSet { timer: Some(timer) }));
        }
        Err(message) => turn.finish(index, NodePhase::Error, message, None),
    }
}

/// A suspend's time is over: its supplied outputs take their defaults.
pub(crate) fn suspend_over(turn: &mut Turn<'_>, index: u32) {
    let node = turn.node(index);
    match supplied_outputs(turn, &node) {
        Ok(outputs) => turn.finish(index, NodePhase::Succeeded, node.message.clone(), outputs),
        Err(message) => turn.finish(index, NodePhase::Error, message, node.outputs.clone()),
    }
}

fn supplied_outputs(turn: &mut Turn<'_>, node: &row::Node) -> Result<Option<row::Outputs>, String> {
    let (_, template) = resolved(turn, node)?;
    resume_workflow::supplied(node.outputs.as_ref(), &template, &node.inputs)
}

/// What a waiting Suspend node yields if it is resumed now.
pub(crate) fn suspend_outputs(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    index: u32,
) -> Result<Option<row::Outputs>, String> {
    let mut turn = Turn::new(draft, leader, workflow)
        .ok_or_else(|| "the stored manifest cannot be read: submit the workflow again".to_owned())?;
    let node = turn.node(index);
    supplied_outputs(&mut turn, &node)
}

/// Outputs that somebody must supply are shown while the node waits.
fn declare_supplied(turn: &mut Turn<'_>, index: u32, node: &row::Node) {
    let parsed = turn.parsed.clone();
    let declared =
        parsed.template(&node.template).map(|found| found.outputs.parameters.as_slice()).unwrap_or_default();
    let parameters: Vec<_> = declared
        .iter()
        .map(|declared| row::Parameter { name: declared.name.clone(), value: None, verbatim: false })
        .collect();
    if !parameters.is_empty() {
        turn.draft.emit(Body::NodeSet(fact::NodeSet {
            workflow: turn.workflow,
            node: index,
            message: node.message.clone(),
            outputs: Some(row::Outputs { parameters, ..row::Outputs::default() }),
        }));
    }
}

/// The current attempt of a leaf reported its end.
pub(crate) fn attempt_over(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    index: u32,
    report: &AttemptReport,
) {
    if reproduce::reader_lacks(draft, leader, workflow, index, report) {
        return;
    }
    if reproduce::is_reproduction(&draft.state, workflow, index) {
        return reproduce::attempt_over(draft, leader, workflow, index, report);
    }
    let Some(mut turn) = Turn::new(draft, leader, workflow) else { return };
    let node = turn.node(index);
    if phase_of(&node).is_fulfilled() {
        return;
    }
    let (mut phase, mut message) = ending(&turn, index, report);
    let yielded = artifacts::of_leaf(&turn, index, report);
    let mut outputs = match outputs::of_leaf(&turn, &node, report) {
        Ok(outputs) => outputs,
        Err(problem) => {
            (phase, message) = (NodePhase::Error, problem);
            None
        }
    };
    // Argo finds it while the Pod runs, and the outputs stay.
    let work = turn.draft.state.works.get(&(workflow, index));
    if work.is_some_and(|work| !has_valid_display_name(&work.template_json)) {
        (phase, message) = (NodePhase::Error, DISPLAY_NAME_INVALID.to_owned());
    }
    let (host, progress) = (clip(&report.host), clip(&report.progress));
    let started_at_ms = report.started_at_ms.max(0);
    if node.host != host
        || node.rare().progress != progress
        || started_at_ms != 0 && started_at_ms != node.started_at_ms
    {
        turn.change(index, |node| {
            node.host = host;
            node.progress = progress;
            node.started_at_ms = started_at_ms;
        });
    }
    if !node.rare().containers.is_empty() {
        containers::reported(turn.draft, workflow, index, report);
        if phase == NodePhase::Error && is_refusal(&message) {
            containers::withdraw(&mut turn, index);
        }
    }
    if !yielded.artifacts.is_empty() {
        outputs.get_or_insert_default().artifacts = yielded.artifacts;
    }
    let finished_at_ms = report.finished_at_ms.max(0);
    match yielded.task {
        // The result is committed; the node ends when users find its artifacts under the keys they know.
        Some(mut task) if turn.draft.state.artifact_tasks.len() < turn.leader.limits.artifact_tasks_max => {
            task.end = Some(row::ArtifactTaskEnd { phase: phase.number(), message, outputs, finished_at_ms });
            report_artifact_task::add(turn.draft, task);
        }
        Some(_) => {
            let message = "failed to save artifacts: too many wait to be copied to their keys".to_owned();
            turn.finish_at(index, NodePhase::Error, message, None, finished_at_ms);
        }
        None => turn.finish_at(index, phase, message, outputs, finished_at_ms),
    }
}

/// The current attempt of a daemon is ready.
pub(crate) fn daemon_ready(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
    index: u32,
    report: &AttemptReport,
) {
    if let Some(mut turn) = Turn::new(draft, leader, workflow) {
        daemon::ready(&mut turn, index, &clip(&report.pod_ip));
    }
}

pub(crate) fn ending(turn: &Turn<'_>, index: u32, report: &AttemptReport) -> (NodePhase, String) {
    let message = clip(&report.message);
    let is_daemon = turn.draft.state.works.get(&(turn.workflow, index)).is_some_and(|work| work.daemon);
    match report.phase() {
        // It is to go on until it is ended.
        AttemptPhase::Succeeded if is_daemon => (NodePhase::Failed, message),
        AttemptPhase::Succeeded => (NodePhase::Succeeded, message),
        AttemptPhase::Failed => (NodePhase::Failed, message),
        AttemptPhase::Stopped => {
            let shutdown = turn.row().shutdown;
            let fence = report.fence.unwrap_or_default();
            let timed_out =
                turn.draft.state.attempt(&fence).is_some_and(|attempt| attempt.stop_reason == TIMEOUT);
            if shutdown == 0 && timed_out {
                return (NodePhase::Failed, TIMEOUT.to_owned());
            }
            if shutdown == 0 {
                return (
                    NodePhase::Error,
                    if message.is_empty() { "pod deleted".to_owned() } else { message },
                );
            }
            if let Some(stopped) = workflow::stopped_message(shutdown).filter(|_| is_task(&turn.node(index)))
            {
                return (NodePhase::Failed, stopped);
            }
            // One that never ran has nothing of its own to say.
            let own = message.is_empty() || report.exit_code.is_none();
            (NodePhase::Failed, if own { workflow::leaf_message(shutdown) } else { message })
        }
        AttemptPhase::Error
        | AttemptPhase::Unspecified
        | AttemptPhase::Received
        | AttemptPhase::Pending
        | AttemptPhase::Running => (NodePhase::Error, message),
    }
}

/// A node that Argo's agent carries out, without a Pod of its own.
pub(crate) fn is_task(node: &row::Node) -> bool {
    matches!(type_of(node), NodeType::Http | NodeType::Plugin)
}

/// The node is in error because the engine could not carry its template out, which Argo tells the nodes around it in
/// other words than a step's own error.
pub(crate) fn is_execution_error(node: &row::Node) -> bool {
    let composed = matches!(type_of(node), NodeType::Steps | NodeType::Dag) && !node.message.is_empty();
    let unreadable = type_of(node) == NodeType::Suspend
        && [retry::UNREADABLE_DURATION, resume_workflow::NOT_SUPPLIED]
            .iter()
            .any(|start| node.message.starts_with(start));
    let refused = match type_of(node) {
        NodeType::Pod => is_refusal(&node.message),
        NodeType::Retry => node.message.starts_with("unable to cast expression result "),
        NodeType::Skipped => node.message != TOO_DEEP,
        NodeType::Container
        | NodeType::Steps
        | NodeType::StepGroup
        | NodeType::Dag
        | NodeType::TaskGroup
        | NodeType::Suspend
        | NodeType::Http
        | NodeType::Plugin => false,
    };
    phase_of(node) == NodePhase::Error && (composed || unreadable || refused)
}

/// The message of a Pod that could not be made: Kubernetes' refusal, or a template that makes none.
fn is_refusal(message: &str) -> bool {
    let refused = ["Pod \"", "pods \""].iter().any(|start| message.starts_with(start))
        && (message.contains("\" is invalid: ") || message.contains("\" is forbidden: "));
    let unshown = message.starts_with("displayName must match the regex ");
    refused
        || unshown
        || message.ends_with("' not found in workflow spec")
        || message == "Error applying PodSpecPatch"
}
