//! Cases whose object is a CronWorkflow: it is stored, time goes by, its workflows' containers do what their command says
//! (`sleep N`, `exit N`), the operator acts, and object and workflows are compared with the recording.

use crate::world::World;
use argosy_conformance::case::Case as Recorded;
use argosy_conformance::compare::{Moment, differences};
use argosy_conformance::normalise::normalise;
use argosy_conformance::table::Outcome;
use argosy_engine::{DesiredAttempt, view};
use argosy_model::{Fence, Limits};
use argosy_proto::command::{CreateCron, SuspendCron, command::Body};
use argosy_proto::common::{AttemptPhase, AttemptReport};
use argosy_spec::Document;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const NAMESPACE: &str = "argo";
/// Longest wait for a step of the script, where it names none.
const LIMIT_SECONDS: i64 = 300;

/// Whether a case is one of these.
pub fn is_cron(case: &Recorded) -> bool {
    case.objects.first().is_some_and(|object| object.kind == "CronWorkflow")
}

/// Runs a case and compares all that was recorded of it.
pub fn judge(recorded: &Recorded) -> Outcome {
    let first = &recorded.objects[0];
    let refuses = recorded.record["createError"].is_string();
    let document = match (&first.read, &first.document) {
        (Ok(_), Some(document)) => document,
        // Argo's API refuses the object: so do we, in our own words.
        _ if refuses => return Outcome::Same,
        (Ok(_), None) => return Outcome::Different(vec!["it is not read".into()]),
        (Err(problems), _) => return Outcome::Different(problems.iter().map(ToString::to_string).collect()),
    };
    if refuses && document.validate().is_empty() {
        return Outcome::Different(vec!["Argo's API refuses it".into()]);
    }
    if refuses {
        return Outcome::Same;
    }
    run(recorded, document)
}

fn run(recorded: &Recorded, document: &Document) -> Outcome {
    let recording = &recorded.record;
    let mut case = Case {
        world: World::new(Limits::default()),
        name: recorded.objects[0].name.clone(),
        ends: BTreeMap::new(),
        objects: Map::new(),
    };
    case.world.join("one", 1_000_000_000);
    let create = CreateCron {
        namespace: NAMESPACE.into(),
        name: case.name.clone(),
        uid: "8c4e7d10-5a0b-4f7e-9d55-2f0a6c1b7e22".into(),
        manifest_json: document.value.to_string(),
        creator: String::new(),
    };
    case.world.command(Body::CreateCron(create)).unwrap();
    for step in &recorded.script {
        if let Err(outcome) = case.play(&step.fields) {
            return outcome;
        }
    }
    let differences = case.differences(recording);
    if differences.is_empty() { Outcome::Same } else { Outcome::Different(differences) }
}

struct Case {
    world: World,
    name: String,
    /// When each container that runs ends, and with which code.
    ends: BTreeMap<Fence, (i64, i32)>,
    objects: Map<String, Value>,
}

impl Case {
    fn play(&mut self, step: &Value) -> Result<(), Outcome> {
        let limit = step["limit"].as_i64().unwrap_or(LIMIT_SECONDS) * 1000;
        let began = self.world.now;
        loop {
            self.work();
            if self.holds(&step["after"], began)? {
                break;
            }
            let waits = step["after"]["seconds"].as_i64().map(|seconds| began + seconds * 1000);
            let next = [self.world.state.next_timer().map(|due| due.0), waits]
                .into_iter()
                .chain(self.ends.values().map(|(at, _)| Some(*at)))
                .flatten()
                .filter(|at| *at > self.world.now)
                .min();
            match next {
                Some(at) if at - began <= limit => self.world.now = at,
                Some(_) | None => {
                    return Err(Outcome::Different(vec![format!("step {step} never comes")]));
                }
            }
        }
        self.act(step)
    }

    /// Starts and ends containers, and lets the engine come to rest.
    fn work(&mut self) {
        loop {
            self.world.settle();
            let wanted = self.world.wanted("one");
            let now = self.world.now;
            let mut moved = false;
            for (fence, desired) in wanted {
                let stops = matches!(desired, DesiredAttempt::Stop { .. });
                match self.ends.get(&fence).copied() {
                    None if !stops => {
                        let template = self.world.state.assignment(&fence).unwrap().template_json;
                        let (span, code) = script(&serde_json::from_str(&template).unwrap());
                        self.world.running("one", fence);
                        self.ends.insert(fence, (now + span, code));
                        moved = true;
                    }
                    Some((at, code)) if stops || at <= now => {
                        self.ends.remove(&fence);
                        self.end(fence, if stops { 143 } else { code });
                        moved = true;
                    }
                    None => {
                        self.end(fence, 143);
                        moved = true;
                    }
                    Some(_) => {}
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn end(&mut self, fence: Fence, code: i32) {
        let (phase, message) = if code == 0 {
            (AttemptPhase::Succeeded, String::new())
        } else {
            (AttemptPhase::Failed, format!("main: Error (exit code {code})"))
        };
        let report = AttemptReport {
            fence: Some(fence),
            revision: 9,
            phase: phase.into(),
            permitted: true,
            exit_code: Some(code),
            message,
            progress: if code == 0 { "1/1" } else { "0/1" }.into(),
            ..AttemptReport::default()
        };
        self.world.report("one", report);
    }

    /// The workflows that it made, by name.
    fn workflows(&self) -> Vec<(String, Value)> {
        let found = self.world.state.workflows_in(NAMESPACE);
        let named =
            found.map(|(id, row)| (row.name.clone(), view::workflow_json(&self.world.state, id).unwrap()));
        named.collect()
    }

    fn cron(&self) -> Value {
        view::cron_json(&self.world.state, NAMESPACE, &self.name).unwrap_or_default()
    }

    fn status(&self) -> Value {
        if view::cron_has_status(&self.world.state, NAMESPACE, &self.name) {
            plain(&self.cron()["status"])
        } else {
            Value::Null
        }
    }

    fn holds(&self, condition: &Value, began: i64) -> Result<bool, Outcome> {
        let Some(fields) = condition.as_object() else { return Ok(true) };
        if let Some(seconds) = condition["seconds"].as_i64() {
            return Ok(self.world.now >= began + seconds * 1000);
        }
        if let Some(prefix) = condition["prefix"].as_str() {
            let phases = &condition["phase"];
            let fits = |(name, shown): &(String, Value)| {
                let phase = &shown["status"]["phase"];
                name.starts_with(prefix)
                    && match phases.as_str() {
                        Some("done") => !shown["status"]["finishedAt"].is_null(),
                        _ => phases == phase || phases.as_array().is_some_and(|list| list.contains(phase)),
                    }
            };
            return Ok(self.workflows().iter().any(fits));
        }
        if condition["object"] == format!("CronWorkflow/{}", self.name).as_str() {
            let path = format!("/{}", condition["field"].as_str().unwrap_or_default().replace('.', "/"));
            let shown = json!({"status": self.status(), "spec": self.cron()["spec"]});
            return Ok(shown.pointer(&path) == Some(&condition["equals"]));
        }
        let keys: Vec<&String> = fields.keys().collect();
        Err(Outcome::Unsupported(format!("an action's condition {keys:?}")))
    }

    fn act(&mut self, step: &Value) -> Result<(), Outcome> {
        let named = step["as"].as_str().unwrap_or_default().to_owned();
        match step["do"].as_str().unwrap_or_default() {
            "wait" | "no-final" => {}
            verb @ ("cron-suspend" | "cron-resume") => {
                let suspend = verb == "cron-suspend";
                let (namespace, name) = (NAMESPACE.to_owned(), self.name.clone());
                self.world.command(Body::SuspendCron(SuspendCron { namespace, name, suspend })).unwrap();
                self.work();
            }
            "get" => {
                let mut fields = Map::new();
                for field in step["fields"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let value = if field == "status" { self.status() } else { plain(&self.cron()[field]) };
                    fields.insert(field.to_owned(), value);
                }
                self.objects.insert(named, Value::Object(fields));
            }
            "list" => {
                let labels = step["labels"].as_str().unwrap_or_default();
                let wanted: Vec<(&str, &str)> =
                    labels.split(',').filter_map(|pair| pair.split_once('=')).collect();
                let fits = |(_, shown): &&(String, Value)| {
                    wanted.iter().all(|(label, value)| shown["metadata"]["labels"][*label] == *value)
                };
                let count = self.workflows().iter().filter(fits).count();
                self.objects.insert(named, json!(count));
            }
            verb => return Err(Outcome::Unsupported(format!("action {verb}"))),
        }
        Ok(())
    }

    fn differences(&self, recording: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let cron = self.cron();
        differ("spec", &plain(&recording["spec"]), &plain(&cron["spec"]), &mut found);
        differ("status", &recording["status"], &self.status(), &mut found);
        for (name, recorded) in recording["objects"].as_object().into_iter().flatten() {
            let recorded =
                json!({"spec": plain(&recorded["spec"]), "status": recorded["status"], "own": recorded});
            let ours = self.objects.get(name).cloned().unwrap_or_default();
            let ours = json!({"spec": ours["spec"], "status": ours["status"], "own": ours});
            if recorded["own"].is_object() {
                differ(&format!("{name}.spec"), &recorded["spec"], &ours["spec"], &mut found);
                differ(&format!("{name}.status"), &recorded["status"], &ours["status"], &mut found);
            } else {
                differ(name, &recorded["own"], &ours["own"], &mut found);
            }
        }
        for field in ["labels", "annotations"] {
            differ(field, &recording["meta"][field], &cron["metadata"][field], &mut found);
        }
        let mut mine = self.workflows();
        for other in recording["others"].as_array().into_iter().flatten() {
            let of = |(_, shown): &(String, Value)| differences(other, &normalise(shown), Moment::End);
            let Some(at) = (0..mine.len()).min_by_key(|at| of(&mine[*at]).len()) else {
                found.push(format!("a workflow is missing: {}", other["workflow"]));
                continue;
            };
            found.extend(of(&mine[at]));
            mine.remove(at);
        }
        found.extend(mine.iter().map(|(name, _)| format!("{name}: not in the recording")));
        found
    }
}

/// How long a container runs, in milliseconds, and the code it ends with.
fn script(template: &Value) -> (i64, i32) {
    let text = template.to_string();
    let number = |word: &str| {
        let rest = text.split(word).nth(1)?.trim_start();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok()
    };
    let code = number("exit ").and_then(|code| i32::try_from(code).ok()).unwrap_or(0);
    (number("sleep ").map_or(1_000, |seconds| seconds * 1000), code)
}

/// Without what is empty or null: Kubernetes keeps no such fields, Argo's types write some.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(
                kept.filter(|(key, value)| !(is_empty(value) || key == "name" && value == "")).collect(),
            )
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// Notes where two values differ; times and drawn names of the recording stand for any.
fn differ(path: &str, recorded: &Value, ours: &Value, found: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::String(text), Value::String(_))
            if ["$TIME", "$HASH", "$UID"].iter().any(|mark| text.contains(mark)) => {}
        (Value::Object(recorded), Value::Object(own)) => {
            let keys: std::collections::BTreeSet<&String> = recorded.keys().chain(own.keys()).collect();
            for key in keys.into_iter().filter(|key| !["uid", "resourceVersion"].contains(&key.as_str())) {
                let none = Value::Null;
                let (recorded, own) = (recorded.get(key).unwrap_or(&none), own.get(key).unwrap_or(&none));
                differ(&format!("{path}.{key}"), recorded, own, found);
            }
        }
        (Value::Array(recorded), Value::Array(own)) if recorded.len() == own.len() => {
            for (index, (recorded, own)) in recorded.iter().zip(own).enumerate() {
                differ(&format!("{path}[{index}]"), recorded, own, found);
            }
        }
        (recorded, own) if recorded == own => {}
        (recorded, own) => found.push(format!("{path}: recorded {recorded}, ours {own}")),
    }
}
