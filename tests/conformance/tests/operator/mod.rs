//! The operator's script of a case (`NAME.actions.json`), played against the engine: each step waits for its condition,
//! then its command is given. Snapshots are taken on the way and compared at the end.

use crate::world::World;
use argosy_engine::{Refusal, Reply};
use argosy_proto::command::{
    self as ask, ResubmitWorkflow, ResumeWorkflow, RetryWorkflow, SetNode, ShutdownStrategy,
    ShutdownWorkflow, SuspendWorkflow, command::Body,
};
use argosy_proto::common::OutputParameter;
use serde_json::Value;
use std::path::Path;

const ACTOR: &str = "admin";
const NAMESPACE: &str = "argo";

/// A script under way.
pub struct Player {
    steps: Vec<Value>,
    next: usize,
    name: String,
    /// The workflow that a resubmission made.
    pub child: Option<String>,
    /// Snapshots taken: name and the workflow's JSON.
    pub snapshots: Vec<(String, Value)>,
    /// Differences between what commands answered and what was recorded.
    pub problems: Vec<String>,
    cli: Value,
}

const KNOWN: [&str; 12] = [
    "wait",
    "no-final",
    "snapshot",
    "stop",
    "terminate",
    "suspend",
    "resume",
    "retry",
    "resubmit",
    "node-set",
    "patch",
    "delete",
];

impl Player {
    /// The script beside a case; an error names what cannot be played here.
    pub fn of(path: &Path, name: &str, recording: &Value) -> Result<Self, String> {
        let text = std::fs::read_to_string(path.with_extension("actions.json"));
        let steps: Vec<Value> = text.map_or_else(|_| Vec::new(), |text| serde_json::from_str(&text).unwrap());
        for step in &steps {
            let verb = step["do"].as_str().unwrap_or_default();
            if !KNOWN.contains(&verb) {
                return Err(format!("action {verb}"));
            }
            if let Some(condition) = step["after"].as_object() {
                let unknown = condition.keys().find(|key| {
                    !["node", "phase", "messageContains", "seconds", "prefix"].contains(&key.as_str())
                });
                if let Some(unknown) = unknown {
                    return Err(format!("an action's condition {unknown}"));
                }
            }
        }
        Ok(Self {
            steps,
            next: 0,
            name: name.to_owned(),
            child: None,
            snapshots: Vec::new(),
            problems: Vec::new(),
            cli: recording["cli"].clone(),
        })
    }

    /// Steps are left.
    pub fn waits(&self) -> bool {
        self.next < self.steps.len()
    }

    /// The snapshot that comes next in the script: what pods come to before a retry is told by it.
    pub fn coming_snapshot(&self) -> Option<&str> {
        let rest = self.steps.iter().skip(self.next);
        rest.filter(|step| step["do"] == "snapshot").find_map(|step| step["as"].as_str())
    }

    /// A retry or resubmission is still to come.
    pub fn repeats(&self) -> bool {
        self.steps.iter().skip(self.next).any(|step| step["do"] == "retry")
    }

    /// The message that the next step waits to see at a node.
    pub fn coming_message(&self) -> Option<&str> {
        self.steps.get(self.next)?["after"]["messageContains"].as_str()
    }

    /// Plays the next step if its condition holds.
    pub fn play(&mut self, world: &mut World) -> bool {
        let Some(step) = self.steps.get(self.next).cloned() else { return false };
        if !self.holds(world, &step["after"]) {
            return false;
        }
        self.next += 1;
        let verb = step["do"].as_str().unwrap_or_default();
        if verb == "snapshot" {
            let shown = world.json(&self.name);
            self.snapshots.push((step["as"].as_str().unwrap().to_owned(), shown));
        } else if let Some(body) = self.body(verb, &step["args"]) {
            let outcome = world.command(body);
            self.judge(&step, outcome);
        }
        true
    }

    fn holds(&mut self, world: &mut World, condition: &Value) -> bool {
        if let Some(seconds) = condition["seconds"].as_i64() {
            world.now += seconds * 1000;
            return true;
        }
        let name = match (condition["prefix"].as_str(), &self.child) {
            (None, _) => self.name.clone(),
            (Some(_), Some(child)) => child.clone(),
            (Some(_), None) => return false,
        };
        let shown = world.json(&name);
        let wanted = |phase: &Value| {
            let asked = &condition["phase"];
            asked.is_null() || asked == phase || asked.as_array().is_some_and(|phases| phases.contains(phase))
        };
        let Some(node) = condition["node"].as_str() else {
            return match condition["phase"].as_str() {
                Some("done") => !shown["status"]["finishedAt"].is_null(),
                _ => wanted(&shown["status"]["phase"]),
            };
        };
        let says = condition["messageContains"].as_str().unwrap_or_default();
        shown["status"]["nodes"].as_object().into_iter().flatten().any(|(_, found)| {
            (found["name"] == node || found["displayName"] == node)
                && wanted(&found["phase"])
                && found["message"].as_str().unwrap_or_default().contains(says)
        })
    }

    fn body(&mut self, verb: &str, arguments: &Value) -> Option<Body> {
        let arguments =
            Arguments(arguments.as_array().into_iter().flatten().filter_map(Value::as_str).collect());
        let (namespace, name, actor) = (NAMESPACE.to_owned(), self.name.clone(), ACTOR.to_owned());
        let node_field_selector = arguments.value("--node-field-selector");
        let message = arguments.value("--message");
        let shutdown = |strategy: ShutdownStrategy| {
            Body::ShutdownWorkflow(ShutdownWorkflow {
                namespace: NAMESPACE.to_owned(),
                name: self.name.clone(),
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
                outputs: arguments.outputs(),
                actor,
            }),
            "retry" => Body::RetryWorkflow(RetryWorkflow {
                namespace,
                name,
                restart_successful: arguments.0.contains(&"--restart-successful"),
                node_field_selector,
                parameters: arguments.values("-p"),
                actor,
            }),
            "resubmit" => {
                let new_name = format!("{name}-abcde");
                Body::ResubmitWorkflow(ResubmitWorkflow {
                    namespace,
                    name,
                    new_uid: format!("uid-{new_name}"),
                    new_name,
                    memoized: arguments.0.contains(&"--memoized"),
                    parameters: arguments.values("-p"),
                    creator: actor,
                })
            }
            "delete" => Body::DeleteWorkflow(ask::DeleteWorkflow { namespace, name }),
            _ => return None,
        })
    }

    fn judge(&mut self, step: &Value, outcome: Result<Reply, Refusal>) {
        let recorded = step["as"].as_str().map(|name| self.cli[name].clone());
        let expected = recorded.as_ref().filter(|recorded| recorded["rc"] != 0);
        match (outcome, expected) {
            (Ok(_), None) if step["do"] == "resubmit" => self.child = Some(format!("{}-abcde", self.name)),
            (Ok(_), None) => {}
            (Ok(_), Some(expected)) => self.problems.push(format!("{step}: recorded {expected}, ours: done")),
            (Err(refusal), Some(expected)) => {
                let said = expected["output"].as_str().unwrap_or_default().replace("$WF", &self.name);
                if !said.contains(&refusal.message) {
                    self.problems.push(format!("{step}: recorded {said:?}, ours {:?}", refusal.message));
                }
            }
            (Err(refusal), None) => self.problems.push(format!("{step}: refused: {}", refusal.message)),
        }
    }
}

struct Arguments<'a>(Vec<&'a str>);

impl Arguments<'_> {
    fn values(&self, flag: &str) -> Vec<String> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs.filter(|(name, _)| **name == flag).map(|(_, value)| (*value).to_owned()).collect()
    }

    fn value(&self, flag: &str) -> String {
        self.values(flag).pop().unwrap_or_default()
    }

    fn outputs(&self) -> Vec<OutputParameter> {
        let mut given = self.values("--output-parameter");
        given.extend(self.values("-p"));
        given
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| OutputParameter { name: name.into(), value: value.into() })
            .collect()
    }
}
