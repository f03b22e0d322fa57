//! The operator's script of a case, played against the engine: each step waits for its condition, then its command is
//! given. What is looked at on the way is kept, to be compared with the recording.

use argosy_conformance::case::{Case, GENERATED};
use argosy_conformance::script::{Arguments, Sight, Step, has_labels, holds, shown_fields};
use argosy_engine::{Refusal, Reply};
use argosy_proto::command::{
    self as ask, ResubmitWorkflow, ResumeWorkflow, RetryWorkflow, SetNode, ShutdownStrategy,
    ShutdownWorkflow, SuspendWorkflow, command::Body,
};
use argosy_proto::common::OutputParameter;
use serde_json::{Map, Value};

use crate::artifacts;
use crate::stage::{Coming, NAMESPACE, Stage};

const ACTOR: &str = "admin";

/// Verbs that need something which only a cluster or the servers around a cell have.
const ELSEWHERE: [(&str, &str); 1] = [("event", "the events API")];
/// Kinds of objects that the engine does not have.
const CLUSTER_KINDS: [&str; 5] =
    ["Pod", "WorkflowTaskSet", "PersistentVolumeClaim", "PodDisruptionBudget", "Job"];

/// A script under way.
pub struct Player<'a> {
    case: &'a Case,
    next: usize,
    waits_since_ms: i64,
    /// Snapshots taken: name, and the workflow's JSON.
    pub snapshots: Vec<(String, Value)>,
    /// Objects looked at.
    pub objects: Map<String, Value>,
    /// Differences between what commands answered and what was recorded.
    pub problems: Vec<String>,
    resubmitted: usize,
}

impl<'a> Player<'a> {
    /// The script of a case; an error names what cannot be played here.
    pub fn of(case: &'a Case, now_ms: i64) -> Result<Self, String> {
        for step in &case.script {
            if let Some((verb, needs)) = ELSEWHERE.iter().find(|(verb, _)| *verb == step.verb) {
                return Err(format!("action {verb} needs {needs}"));
            }
            let object = step.fields["object"].as_str().or(step.after["object"].as_str());
            let kind = step.fields["kind"].as_str().or(object.and_then(|it| it.split('/').next()));
            // A ConfigMap that a resource template makes is the cluster's.
            let makes_objects = case.objects.iter().any(|object| object.text.contains("resource:"));
            let is_clusters =
                |kind: &&str| CLUSTER_KINDS.contains(kind) || *kind == "ConfigMap" && makes_objects;
            if let Some(kind) = kind.filter(is_clusters) {
                return Err(format!("action {} needs Kubernetes ({kind})", step.verb));
            }
        }
        Ok(Self {
            case,
            next: 0,
            waits_since_ms: now_ms,
            snapshots: Vec::new(),
            objects: Map::new(),
            problems: Vec::new(),
            resubmitted: 0,
        })
    }

    fn rest(&self) -> impl Iterator<Item = &'a Step> + use<'a> {
        self.case.script.iter().skip(self.next)
    }

    /// Steps are left.
    pub fn waits(&self) -> bool {
        self.next < self.case.script.len()
    }

    /// The script ends before the workflow.
    pub fn is_final(&self) -> bool {
        self.case.script.last().is_some_and(Step::is_final)
    }

    /// When a step that waits for time goes on.
    pub fn next_ms(&self) -> Option<i64> {
        let seconds = self.rest().next()?.after["seconds"].as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "small numbers of seconds")]
        Some(self.waits_since_ms + (seconds * 1000.0) as i64)
    }

    /// What the recording says of the time from here on.
    pub fn coming(&self, main: &str) -> Coming<'a> {
        let repeats = self.rest().any(|step| step.verb == "retry");
        let record = &self.case.record["snapshots"];
        let mut looks: Vec<(String, &Value)> = Vec::new();
        for step in self.rest().filter(|step| step.is_snapshot()) {
            let workflow = step.workflow().unwrap_or(main);
            if !looks.iter().any(|(of, _)| of == workflow) {
                looks.push((workflow.to_owned(), &record[step.record_name().unwrap_or_default()]));
            }
        }
        let of_main = looks.iter().find(|(of, _)| of == main).map(|(_, look)| *look);
        Coming { first_run: of_main.filter(|_| repeats), looks, repeats }
    }

    /// The node and message that the next step waits to see.
    pub fn coming_message(&self) -> Option<(&'a str, &'a str)> {
        let after = &self.rest().next()?.after;
        let (node, part) = (after["node"].as_str()?, after["messageContains"].as_str()?);
        let snapshots = self.case.record["snapshots"].as_object().into_iter().flatten();
        let nodes = snapshots.flat_map(|(_, look)| look["nodes"].as_array().into_iter().flatten());
        let whole = nodes.filter_map(|node| node["message"].as_str()).find(|message| message.contains(part));
        Some((node, whole.unwrap_or(part)))
    }

    /// Plays the next step if its condition holds.
    pub fn play(&mut self, stage: &mut Stage) -> bool {
        let Some(step) = self.rest().next() else { return false };
        let main = stage.main.clone();
        let in_time = self.next_ms().is_none_or(|at| at <= stage.world.now);
        let mut condition = step.after.clone();
        let only_time = condition.as_object_mut().is_none_or(|fields| {
            fields.remove("seconds");
            fields.is_empty()
        });
        if !in_time || !only_time && !holds(&condition, &main, stage) {
            return false;
        }
        self.next += 1;
        self.waits_since_ms = stage.world.now;
        self.act(stage, step);
        true
    }

    fn act(&mut self, stage: &mut Stage, step: &Step) {
        let name = step.workflow().map_or_else(|| stage.main.clone(), str::to_owned);
        let record_name = step.record_name().unwrap_or_default().to_owned();
        match step.verb.as_str() {
            "wait" | "no-final" => {}
            "s3-put" => drop(stage.bucket.insert(step.fields["key"].as_str().unwrap_or_default().to_owned())),
            "s3-list" => {
                let recorded = &self.case.record["objects"][&record_name];
                let shown = stage.workflow(&name).unwrap_or_default();
                let found = artifacts::compare_bucket(&name, &shown, recorded, &stage.bucket);
                self.problems.extend(found);
            }
            "snapshot" => match stage.workflow(&name) {
                Some(shown) => self.snapshots.push((record_name, shown)),
                None => self.problems.push(format!("snapshot {record_name}: there is no workflow {name}")),
            },
            "get" => {
                let found = stage.object(step.fields["object"].as_str().unwrap_or_default());
                self.objects.insert(record_name, shown_fields(found.as_ref(), &step.fields["fields"]));
            }
            "list" => {
                let labels = step.fields["labels"].as_str().unwrap_or_default();
                let names = stage.names().into_iter().filter_map(|name| stage.workflow(&name));
                let count = names.filter(|workflow| has_labels(workflow, labels)).count();
                self.objects.insert(record_name, count.into());
            }
            "create-doc" => {
                let wanted = step.fields["name"].as_str().unwrap_or_default();
                let found = self.case.objects.iter().find(|object| object.name == wanted);
                if found.is_none_or(|object| stage.create(object).is_err()) {
                    self.problems.push(format!("{wanted} can't be created"));
                }
            }
            "delete-pod" => {
                let node = step.fields["node"].as_str().unwrap_or_default();
                if !stage.delete_pod(node) {
                    self.problems.push(format!("node {node} has no Pod to delete"));
                }
            }
            "patch" | "remove" => {
                // What only Pods see is left out: what that changes is in the recording.
                let patch = Some(&step.fields["patch"]).filter(|_| step.verb == "patch");
                stage.change(step.fields["object"].as_str().unwrap_or_default(), patch);
            }
            verb => match self.command(verb, &name, &step.arguments()) {
                Some(body) => {
                    let outcome = stage.world.command(body);
                    self.judge(step, &name, outcome);
                }
                None => self.problems.push(format!("action {verb} is unknown")),
            },
        }
    }

    fn command(&mut self, verb: &str, name: &str, arguments: &Arguments) -> Option<Body> {
        let (namespace, name, actor) = (NAMESPACE.to_owned(), name.to_owned(), ACTOR.to_owned());
        let node_field_selector = arguments.value("--node-field-selector");
        let message = arguments.values(&["--message", "-m"]).pop().unwrap_or_default();
        let parameters = arguments.values(&["-p", "--parameter"]);
        let shutdown = |strategy: ShutdownStrategy| {
            Body::ShutdownWorkflow(ShutdownWorkflow {
                namespace: NAMESPACE.to_owned(),
                name: name.clone(),
                strategy: strategy.into(),
                message: message.clone(),
                actor: ACTOR.to_owned(),
                node_field_selector: node_field_selector.clone(),
            })
        };
        Some(match verb {
            "stop" => shutdown(ShutdownStrategy::Stop),
            "terminate" => shutdown(ShutdownStrategy::Terminate),
            "suspend" => Body::SuspendWorkflow(SuspendWorkflow { namespace, name, actor }),
            "resume" => Body::ResumeWorkflow(ResumeWorkflow { namespace, name, node_field_selector, actor }),
            "node-set" => Body::SetNode(SetNode {
                namespace,
                name,
                node_field_selector,
                phase: arguments.value("--phase"),
                message,
                outputs: outputs(arguments),
                actor,
            }),
            "retry" => Body::RetryWorkflow(RetryWorkflow {
                namespace,
                name,
                restart_successful: arguments.has("--restart-successful"),
                node_field_selector,
                parameters,
                actor,
            }),
            "resubmit" => {
                self.resubmitted += 1;
                let number = if self.resubmitted == 1 { String::new() } else { self.resubmitted.to_string() };
                let new_name = format!("{name}-{GENERATED}{number}");
                Body::ResubmitWorkflow(ResubmitWorkflow {
                    namespace,
                    name,
                    new_uid: format!("uid-{new_name}"),
                    new_name,
                    memoized: arguments.has("--memoized"),
                    parameters,
                    creator: actor,
                })
            }
            "delete" => Body::DeleteWorkflow(ask::DeleteWorkflow { namespace, name }),
            _ => return None,
        })
    }

    fn judge(&mut self, step: &Step, name: &str, outcome: Result<Reply, Refusal>) {
        let recorded = step.record_name().map(|name| &self.case.record["cli"][name]);
        let expected = recorded.filter(|recorded| recorded["rc"] != 0);
        let what = &step.verb;
        match (outcome, expected) {
            (Ok(_), None) => {}
            (Ok(_), Some(expected)) => self.problems.push(format!("{what}: recorded {expected}, ours: done")),
            (Err(refusal), Some(expected)) => {
                let said = expected["output"].as_str().unwrap_or_default().replace("$WF", name);
                if !said.contains(&refusal.message) {
                    self.problems.push(format!("{what}: recorded {said:?}, ours {:?}", refusal.message));
                }
            }
            (Err(refusal), None) => self.problems.push(format!("{what}: refused: {}", refusal.message)),
        }
    }
}

fn outputs(arguments: &Arguments) -> Vec<OutputParameter> {
    let given = arguments.values(&["--output-parameter", "-p"]);
    let pairs = given.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| OutputParameter { name: name.into(), value: value.into() }).collect()
}
