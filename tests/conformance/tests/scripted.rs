//! Recordings of the real Argo, replayed: a manifest runs in virtual time, its Pods end as the recording says they did,
//! and the tree of nodes must come out the same.
//!
//! CASES chooses another directory of recordings (`AREA/NAME.{yaml,json}`), AREAS some of its areas (comma-separated),
//! SHOW a case, to see all its differences. PRINT prints what ours come to in a recording's shape.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that reads files"
)]

mod operator;
mod table;
#[path = "../../../src/engine/tests/world/mod.rs"]
mod world;

use argosy_model::{Limits, node_id};
use argosy_proto::command::{CreateTemplate, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport, ContainerState, OutputParameter};
use operator::Player;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use world::World;

enum Outcome {
    Same,
    Unsupported(String),
    Different(Vec<String>),
}

fn run(path: &Path, yaml: &str, recording: &Value) -> Outcome {
    let documents = match argosy_spec::parse_yaml("case", yaml, &argosy_spec::Options::default()) {
        Ok(documents) => documents,
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(argosy_spec::Diagnostic::line).collect();
            return Outcome::Unsupported(all.join(" ## "));
        }
    };
    let Some((document, others)) = documents.split_first() else {
        return Outcome::Unsupported("no document".into());
    };
    let name = name_of(document);
    let mut world = World::new(Limits::default());
    world.join("one", 1_000_000_000);
    let mut player = match Player::of(path, &name, recording) {
        Ok(player) => player,
        Err(reason) => return Outcome::Unsupported(reason),
    };
    set_up(&mut world, path);
    if let Err(refusal) = world.submit(&name, &document.value) {
        // Argo's controller finds what we refuse at once.
        let found = recording["workflow"]["message"]
            .as_str()
            .filter(|_| recording["nodes"].as_array().is_none_or(Vec::is_empty))
            .map(|message| message.strip_prefix("invalid spec: ").unwrap_or(message));
        // A suggestion may follow Argo's words.
        let is_told =
            |told: &str| refusal.message == told || refusal.message.starts_with(&format!("{told}; "));
        if found.is_some_and(|found| is_told(&found.replace("$WF", &name))) {
            return Outcome::Same;
        }
        return Outcome::Unsupported(refusal.message);
    }
    for other in others {
        // Workflows beside it; those that an action creates later are left to the operator's script.
        if !other.manifest.metadata.annotations.contains_key("corpus/create-later") {
            let _ = world.submit(&name_of(other), &other.value);
        }
    }
    play_on(&mut world, &mut player, recording, &name);
    let ours = world.json(&name);
    if std::env::var("PRINT").is_ok() {
        println!("RECORD {name} {}", shape(&name, &ours));
    }
    let mut differences = compare(&name, &ours, recording);
    differences.append(&mut player.problems);
    if player.waits() {
        differences.push("the operator's script did not come to its end".to_owned());
    }
    for (snapshot, shown) in &player.snapshots {
        // Progress lags behind the nodes until the controller looks again.
        let mut found = compare(&name, shown, &recording["snapshots"][snapshot]);
        found.retain(|difference| !difference.contains(" progress: "));
        differences.extend(found.into_iter().map(|difference| format!("snapshot {snapshot}: {difference}")));
    }
    if let Some(child) = &player.child {
        let found = compare(child, &world.json(child), &recording["others"][0]);
        differences.extend(found.into_iter().map(|difference| format!("{child}: {difference}")));
    }
    if differences.is_empty() { Outcome::Same } else { Outcome::Different(differences) }
}

/// A document's name; one that is to be generated ends in the same letters every time.
fn name_of(document: &argosy_spec::Document) -> String {
    let metadata = &document.manifest.metadata;
    if metadata.name.is_empty() { format!("{}x7k2p", metadata.generate_name) } else { metadata.name.clone() }
}

/// Stores the templates that a case needs; in `refs` those of all cases.
fn set_up(world: &mut World, path: &Path) {
    let own = path.with_extension("setup.yaml");
    let shared = path.parent().unwrap().join("ref-workflow-template.setup.yaml");
    for setup in [own, shared] {
        let Ok(text) = std::fs::read_to_string(&setup) else { continue };
        for document in text.split("\n---\n") {
            let Ok(read) = argosy_spec::parse_yaml("setup", document, &argosy_spec::Options::default())
            else {
                continue;
            };
            for document in read {
                let cluster_scope = document.value["kind"] == "ClusterWorkflowTemplate";
                let create = CreateTemplate {
                    cluster_scope,
                    namespace: if cluster_scope { String::new() } else { "argo".into() },
                    name: document.value["metadata"]["name"].as_str().unwrap().into(),
                    uid: "uid".into(),
                    manifest_json: document.value.to_string(),
                    creator: "admin".into(),
                };
                let _ = world.command(Body::CreateTemplate(create));
            }
        }
    }
}

/// The message of a recorded snapshot that holds a text.
fn snapshot_message<'a>(recording: &'a Value, part: &str) -> Option<&'a str> {
    let snapshots = recording["snapshots"].as_object().into_iter().flatten();
    let nodes = snapshots.flat_map(|(_, snapshot)| snapshot["nodes"].as_array().into_iter().flatten());
    nodes.filter_map(|node| node["message"].as_str()).find(|message| message.contains(part))
}

/// Pods end as recorded, time goes by, and the operator acts, until nothing moves.
fn play_on(world: &mut World, player: &mut Player, recording: &Value, name: &str) {
    for _ in 0..2_000 {
        world.settle();
        if player.play(world) {
            continue;
        }
        let running = |fence: &argosy_model::Fence| {
            world.state.attempt(fence).is_some_and(|attempt| attempt.revision > 0)
        };
        let daemons = daemons(world);
        let ready = daemons
            .iter()
            .copied()
            .find(|fence| !running(fence) && goes_on(world, player, recording, name, *fence));
        if let Some(fence) = ready {
            world.report("one", daemon_ready(fence));
            continue;
        }
        let open: Vec<_> = world.state.attempts_on("one").map(|(fence, _)| fence).collect();
        // A daemon that is ready goes on until it is ended.
        let open: Vec<_> =
            open.into_iter().filter(|fence| !(daemons.contains(fence) && running(fence))).collect();
        let idle = open.iter().copied().find(|fence| player.waits() && !running(fence));
        if let (Some(fence), Some(message)) = (idle, player.coming_message()) {
            let phase = AttemptPhase::Pending.into();
            let message = snapshot_message(recording, message).unwrap_or(message).to_owned();
            let report =
                AttemptReport { fence: Some(fence), revision: 1, phase, message, ..AttemptReport::default() };
            world.report("one", report);
        } else if let Some(fence) = idle {
            world.running("one", fence);
        } else if let Some(fence) = open.first().copied() {
            let mut report = outcome(world, player, recording, name, fence);
            report.revision = 9;
            world.now += 1000;
            world.report("one", report);
        } else if let Some(due) = world.state.next_timer() {
            world.now = world.now.max(due.0);
        } else {
            return;
        }
    }
}

/// How an attempt ends: as the next snapshot says, or the recording's end.
fn outcome(
    world: &World,
    player: &Player,
    recording: &Value,
    name: &str,
    fence: argosy_model::Fence,
) -> AttemptReport {
    let of_child = player.child.as_ref().and_then(|child| Some((child, node_of(world, child, fence)?)));
    let (workflow, node, source) = match of_child {
        Some((child, node)) => (child.as_str(), node, &recording["others"][0]),
        None => {
            let snapshot = player.coming_snapshot().map(|coming| &recording["snapshots"][coming]);
            let node = node_of(world, name, fence).unwrap();
            (name, node, snapshot.filter(|_| player.repeats()).unwrap_or(recording))
        }
    };
    let nodes = || source["nodes"].as_array().into_iter().flatten();
    let named = |found: &Value| found["name"].as_str().unwrap().replace("$WF", workflow);
    let recorded = nodes().find(|found| named(found) == node);
    let mut report = scripted(recorded, fence);
    let inside = nodes().filter(|found| found["type"] == "Container");
    report.containers =
        inside.filter_map(|found| container(found, named(found).strip_prefix(&node)?)).collect();
    let stopping = world.wanted("one").into_iter().any(|(wanted, desired)| {
        wanted == fence && matches!(desired, argosy_engine::DesiredAttempt::Stop { .. })
    });
    if stopping && player.repeats() && player.coming_snapshot().is_none() {
        // Nothing is recorded of the run that was stopped before the retry.
        report.phase = AttemptPhase::Failed.into();
    }
    report
}

/// The attempts that are to run and whose step is a daemon.
fn daemons(world: &World) -> Vec<argosy_model::Fence> {
    let is_daemon = |fence: &argosy_model::Fence| {
        let assignment = world.state.assignment(fence);
        let template = assignment.and_then(|one| serde_json::from_str::<Value>(&one.template_json).ok());
        template.is_some_and(|template| template["daemon"] == true)
    };
    world.state.attempts_on("one").map(|(fence, _)| fence).filter(is_daemon).collect()
}

/// The recording doesn't say that the daemon ended by itself.
fn goes_on(
    world: &World,
    player: &Player,
    recording: &Value,
    name: &str,
    fence: argosy_model::Fence,
) -> bool {
    outcome(world, player, recording, name, fence).phase() == AttemptPhase::Succeeded
}

fn daemon_ready(fence: argosy_model::Fence) -> AttemptReport {
    AttemptReport {
        fence: Some(fence),
        revision: 2,
        phase: AttemptPhase::Running.into(),
        permitted: true,
        ready: true,
        pod_ip: "10.200.9.9".to_owned(),
        host: "host-1".to_owned(),
        ..AttemptReport::default()
    }
}

/// A container of a set as recorded.
fn container(node: &Value, name: &str) -> Option<ContainerState> {
    let phase = match node["phase"].as_str()? {
        "Succeeded" => AttemptPhase::Succeeded,
        "Error" => AttemptPhase::Error,
        _ => AttemptPhase::Failed,
    };
    Some(ContainerState {
        name: name.strip_prefix('.')?.to_owned(),
        phase: phase.into(),
        message: node["message"].as_str().unwrap_or_default().to_owned(),
        ..ContainerState::default()
    })
}

/// Ours in the shape of a recording.
fn shape(name: &str, ours: &Value) -> Value {
    let status = &ours["status"];
    let mut nodes: Vec<Value> = Vec::new();
    for (_, node) in status["nodes"].as_object().into_iter().flatten() {
        let mut fields = Map::new();
        for field in [
            "name",
            "displayName",
            "type",
            "phase",
            "message",
            "templateName",
            "templateScope",
            "progress",
            "nodeFlag",
        ] {
            fields.insert(field.into(), node[field].clone());
        }
        fields.insert("children".into(), names(status, &node["children"], name));
        let outbound = names(status, &node["outboundNodes"], name);
        fields.insert(
            "outboundNodes".into(),
            if outbound == serde_json::json!([]) { Value::Null } else { outbound },
        );
        fields.insert("inputs".into(), io(&node["inputs"]));
        fields.insert("outputs".into(), io(&node["outputs"]));
        fields.retain(|_, value| !value.is_null());
        nodes.push(Value::Object(fields));
    }
    nodes.sort_by_key(|node| node["name"].to_string());
    let workflow = serde_json::json!({"phase": status["phase"], "message": status["message"], "progress": status["progress"]});
    let text = serde_json::json!({"workflow": workflow, "nodes": nodes}).to_string().replace(name, "$WF");
    serde_json::from_str(&text).unwrap()
}

fn names(status: &Value, ids: &Value, workflow: &str) -> Value {
    let ids = ids.as_array().into_iter().flatten();
    let mut names: Vec<String> = ids
        .map(|id| {
            status["nodes"][id.as_str().unwrap()]["name"].as_str().unwrap_or("?").replace(workflow, "$WF")
        })
        .collect();
    names.sort();
    names.into()
}

fn node_of(world: &World, name: &str, fence: argosy_model::Fence) -> Option<String> {
    let shown = world.json(name);
    let fence = argosy_model::display_fence(&fence);
    let holds = |node: &Value| {
        node["attempts"].as_array().into_iter().flatten().any(|attempt| attempt["fence"] == fence)
    };
    let nodes = shown["status"]["nodes"].as_object().into_iter().flatten();
    Some(nodes.map(|(_, node)| node).find(|node| holds(node))?["name"].as_str().unwrap().to_owned())
}

fn scripted(node: Option<&Value>, fence: argosy_model::Fence) -> AttemptReport {
    let none = Value::Null;
    let node = node.unwrap_or(&none);
    let phase = match node["phase"].as_str() {
        Some("Failed") => AttemptPhase::Failed,
        Some("Error") => AttemptPhase::Error,
        _ => AttemptPhase::Succeeded,
    };
    let parameters = node["outputs"]["parameters"].as_array().into_iter().flatten().filter_map(|parameter| {
        Some(OutputParameter {
            name: parameter["name"].as_str()?.to_owned(),
            value: parameter["value"].as_str()?.to_owned(),
        })
    });
    AttemptReport {
        fence: Some(fence),
        revision: 1,
        phase: phase.into(),
        permitted: true,
        exit_code: node["outputs"]["exitCode"].as_str().and_then(|code| code.parse().ok()),
        message: node["message"].as_str().unwrap_or_default().to_owned(),
        host: "host-1".to_owned(),
        progress: node["progress"].as_str().filter(|_| node["type"] == "Pod").unwrap_or_default().to_owned(),
        // A request without an answer has none.
        result: match node["outputs"]["result"].as_str() {
            None if node["type"] == "HTTP" => None,
            result => Some(result.unwrap_or_default().to_owned()),
        },
        parameters: parameters.collect(),
        ..AttemptReport::default()
    }
}

fn compare(name: &str, ours: &Value, recording: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    let status = &ours["status"];
    for label in ["workflows.argoproj.io/action", "workflows.argoproj.io/resubmitted-from-workflow"] {
        let recorded = &recording["meta"]["labels"][label];
        same(label, recorded, &ours["metadata"]["labels"][label], name, &mut differences);
    }
    let stored = status["storedTemplates"].as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let stored: Vec<&str> = stored.collect();
    if let Some(expected) = recording["workflow"]["storedTemplates"].as_array() {
        same("storedTemplates", &expected.clone().into(), &stored.into(), name, &mut differences);
    }
    for field in ["phase", "message", "progress"] {
        same(
            &format!("workflow {field}"),
            &recording["workflow"][field],
            &status[field],
            name,
            &mut differences,
        );
    }
    same(
        "workflow outputs",
        &recording["workflow"]["outputs"],
        &io(&status["outputs"]),
        name,
        &mut differences,
    );
    let mut mine: BTreeMap<String, &Value> = BTreeMap::new();
    for node in status["nodes"].as_object().into_iter().flatten().map(|(_, node)| node) {
        mine.insert(node["name"].as_str().unwrap().to_owned(), node);
    }
    for expected in recording["nodes"].as_array().into_iter().flatten() {
        let node = expected["name"].as_str().unwrap().replace("$WF", name);
        match mine.remove(&node) {
            Some(found) => compare_node(name, &node, expected, found, status, &mut differences),
            None => differences.push(format!("{node}: missing")),
        }
    }
    differences.extend(mine.keys().map(|node| format!("{node}: not in the recording")));
    differences
}

fn compare_node(
    workflow: &str,
    node: &str,
    expected: &Value,
    found: &Value,
    status: &Value,
    differences: &mut Vec<String>,
) {
    for field in [
        "displayName",
        "type",
        "phase",
        "message",
        "templateName",
        "templateRef",
        "templateScope",
        "progress",
        "nodeFlag",
        "daemoned",
        "memoizationStatus",
    ] {
        same(&format!("{node} {field}"), &expected[field], &found[field], workflow, differences);
    }
    same(
        &format!("{node} children"),
        &expected["children"],
        &names(status, &found["children"], workflow),
        workflow,
        differences,
    );
    let boundary = found["boundaryID"].as_str().map_or(Value::Null, |id| path_of(status, id).into());
    if expected["path"].is_string() {
        same(&format!("{node} boundary"), &expected["boundary"], &boundary, workflow, differences);
    }
    let outbound = names(status, &found["outboundNodes"], workflow);
    let outbound = if outbound.as_array().is_some_and(Vec::is_empty) { Value::Null } else { outbound };
    same(&format!("{node} outboundNodes"), &expected["outboundNodes"], &outbound, workflow, differences);
    for side in ["inputs", "outputs"] {
        same(&format!("{node} {side}"), &expected[side], &io(&found[side]), workflow, differences);
    }
}

/// A node's place among boundaries, as recordings write it: display names of those around it and its own.
fn path_of(status: &Value, id: &str) -> String {
    let node = &status["nodes"][id];
    let own = node["displayName"].as_str().unwrap_or_default();
    match node["boundaryID"].as_str() {
        Some(boundary) => format!("{}/{own}", path_of(status, boundary)),
        None => own.to_owned(),
    }
}

fn io(side: &Value) -> Value {
    let Some(fields) = side.as_object() else { return Value::Null };
    let mut kept = Map::new();
    for (key, value) in fields {
        if key == "parameters" {
            let parameters = value.as_array().unwrap().iter().map(|parameter| {
                let fields = parameter.as_object().unwrap().iter().filter(|(key, _)| {
                    matches!(key.as_str(), "name" | "value" | "default" | "globalName" | "enum")
                });
                Value::Object(fields.map(|(key, value)| (key.clone(), value.clone())).collect())
            });
            kept.insert(key.clone(), parameters.collect());
        } else {
            kept.insert(key.clone(), value.clone());
        }
    }
    if kept.is_empty() { Value::Null } else { Value::Object(kept) }
}

/// Equal after the recording's placeholders are filled in; texts with times or durations count as equal.
fn same(what: &str, expected: &Value, found: &Value, workflow: &str, differences: &mut Vec<String>) {
    let text = expected.to_string();
    if ["$TIME", "$DUR", "$UID", "$UUID", "$POSIX", "$HASH", "$HEX", "$POD{", "$PTR", "$IP"]
        .iter()
        .any(|marker| text.contains(marker))
    {
        return;
    }
    let filled = fill(expected, workflow);
    let found = fill(found, workflow);
    let empty = found.as_str() == Some("") || found.as_object().is_some_and(Map::is_empty);
    if filled != found && !(filled.is_null() && empty) {
        differences.push(format!("{what}: recorded {filled}, ours {found}"));
    }
}

fn fill(value: &Value, workflow: &str) -> Value {
    match value {
        Value::String(text) => {
            let mut text = text.clone();
            while let Some((start, end)) =
                text.find("$ID{").and_then(|start| Some((start, start + text[start..].find('}')?)))
            {
                let node = text[start + 4..end].replace("$WF", workflow);
                text.replace_range(start..=end, &node_id(workflow, &node));
            }
            Value::String(text.replace("$WF", workflow))
        }
        Value::Array(items) => items.iter().map(|item| fill(item, workflow)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), fill(value, workflow))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Every case of a directory: `AREA/NAME` and the path of its manifest.
fn cases(root: &Path, areas: Option<&str>) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for area in
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let name = area.file_name().unwrap().to_string_lossy().into_owned();
        if areas.is_some_and(|areas| !areas.split(',').any(|wanted| wanted == name)) {
            continue;
        }
        for path in std::fs::read_dir(&area).unwrap().map(|entry| entry.unwrap().path()) {
            let plain = path.extension().is_some_and(|extension| extension == "yaml")
                && !path.to_string_lossy().contains(".setup.");
            if plain && path.with_extension("json").exists() {
                found.push((format!("{name}/{}", path.file_stem().unwrap().to_string_lossy()), path));
            }
        }
    }
    found.sort();
    found
}

/// One case: refusals that were recorded count as the same when we refuse, too.
fn judge(path: &Path) -> Outcome {
    let recording: Value =
        serde_json::from_str(&std::fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
    let yaml = std::fs::read_to_string(path).unwrap();
    if recording.get("incomplete").is_some() {
        return Outcome::Unsupported("Argo never ends it".into());
    }
    let outcome = run(path, &yaml, &recording);
    if recording.get("createError").is_some() {
        return match outcome {
            // Its API refuses the object: so do we, in our own words.
            Outcome::Unsupported(_) => Outcome::Same,
            Outcome::Same | Outcome::Different(_) => Outcome::Different(vec!["Argo's API refuses it".into()]),
        };
    }
    outcome
}

#[test]
fn recordings_of_argo_come_out_the_same() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var("CASES").ok().map(PathBuf::from);
    let given = given.map(|dir| if dir.join("cases").is_dir() { dir.join("cases") } else { dir });
    let roots = match &given {
        Some(dir) => vec![dir.clone()],
        None => vec![home.join("cases"), home.join("own/cases")],
    };
    let areas = std::env::var("AREAS").ok();
    let show = std::env::var("SHOW").ok();
    let mut table = table::Table::new(home);
    for (case, path) in roots.iter().flat_map(|root| cases(root, areas.as_deref())) {
        if show.as_ref().is_none_or(|show| *show == case) {
            table.add(&case, judge(&path));
        }
    }
    table.print(show.is_some());
    assert!(given.is_some() || table.unexpected() == 0, "cases differ that no document lists: see above");
    assert!(table.total() > 0, "no case was run");
}
