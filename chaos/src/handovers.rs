//! Workflows whose steps hand artifacts on, in a federation where every cluster has an object store of its own: what a
//! lost cluster had is made again for those who need it, and for nobody else.

use argosy_engine::State;
use argosy_model::{NodePhase, parse_fence};
use argosy_proto::command::{Command, ReportArtifactTask, command::Body};
use argosy_proto::state::{self as row, ArtifactTask, ArtifactTaskKind};
use serde_json::{Value, json};

use crate::checkers::Invariant;
use crate::random::Random;
use crate::workloads::Workload;
use crate::world::{Event, World};

/// The stores' one address.
pub(crate) const STORE: &str = "store.cluster:9000";
/// Between two looks at what is to be done in stores.
const LOOK_EVERY_MS: u64 = 500;
/// How often a step may be taken over or run again in these runs: clusters come and go all the time.
pub(crate) const AGAIN_MAX: u32 = 1_000;
/// Tries of a step.
const TRIES: u32 = 50;
/// Most steps are short; long ones meet the faults.
const STEP_MAX_MS: u64 = 20_000;

/// The repository of these runs.
pub(crate) fn repository() -> String {
    json!({"s3": {"endpoint": STORE, "bucket": "b"}}).to_string()
}

/// A workflow in which every step but the first reads what one or two before it made. Where nobody `is_told` whose store is
/// whose, readers go where they find nothing: how that ends is open.
pub(crate) fn generate(random: &mut Random, namespace: &str, name: &str, is_told: bool) -> Workload {
    let (mut tasks, mut templates) = (Vec::new(), Vec::new());
    let is_safe = random.per_mille(800);
    for number in 0..random.between(3, 7) {
        let mut read: Vec<u64> = Vec::new();
        if number > 0 {
            read.push(random.below(number));
            let other = random.below(number);
            if other != read[0] && random.per_mille(500) {
                read.push(other);
            }
        }
        let names: Vec<String> = read.iter().map(|other| format!("d{other}")).collect();
        let given: Vec<Value> = names
            .iter()
            .map(|from| json!({"name": from, "from": format!("{{{{tasks.{from}.outputs.artifacts.out}}}}")}))
            .collect();
        tasks.push(
            json!({"name": format!("d{number}"), "template": format!("t{number}"), "dependencies": names,
            "arguments": {"artifacts": given}}),
        );
        templates.push(template(random, number, &names, is_safe));
    }
    templates.insert(0, json!({"name": "main", "dag": {"tasks": tasks}}));
    let manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"entrypoint": "main", "templates": templates},
    });
    Workload { manifest, succeeds: (is_safe && is_told).then_some(true) }
}

fn template(random: &mut Random, number: u64, reads: &[String], is_safe: bool) -> Value {
    let most_ms = if random.per_mille(600) { 2_000 } else { STEP_MAX_MS };
    let inputs: Vec<Value> =
        reads.iter().map(|name| json!({"name": name, "path": format!("/{name}")})).collect();
    let mut template = json!({
        "name": format!("t{number}"),
        "inputs": {"artifacts": inputs},
        "outputs": {"artifacts": [{"name": "out", "path": "/out"}]},
        "container": {
            "image": "simulated", "command": ["simulate"],
            "args": [format!("duration-ms={}", random.between(0, most_ms)), "exit-code=0"],
            "resources": {"requests": {"cpu": format!("{}m", random.between(50, 300))}},
        },
    });
    if is_safe {
        template["retryStrategy"] = json!({"limit": TRIES.to_string(), "retryPolicy": "Always"});
    } else if random.per_mille(300) {
        let word = ["reschedule", "wait", "fail"][usize::try_from(random.below(3)).unwrap_or(0)];
        template["metadata"] = json!({"annotations": {"argosy.dev/failover": word}});
    }
    template
}

/// What is wrong with a step that was run again just now.
fn problem(
    before: &State,
    after: &State,
    (workflow, number): (u64, u32),
    node: &row::Node,
) -> Option<String> {
    let again = &node.rare().reproductions;
    let (last, earlier) = again.split_last()?;
    let name = &node.name;
    if NodePhase::from_number(node.phase) != Some(NodePhase::Succeeded) {
        return Some(format!("node {name} is run again and has not ended well"));
    }
    if earlier.iter().any(|one| one.end == 0) {
        return Some(format!("node {name} is run again twice at one time: {again:?}"));
    }
    if node.rare().input_artifacts.iter().any(|input| input.stored_key.is_empty()) {
        return Some(format!("node {name} is run again with inputs that nobody made"));
    }
    let nothing = State::new();
    let needs = |state: &State| {
        let rows = state.difference(&nothing).nodes;
        let reader = rows
            .into_iter()
            .find(|((id, _), row)| *id == workflow && row.is_some_and(|row| row.name == last.reader));
        reader.and_then(|(_, row)| row).is_some_and(|row| {
            let open = NodePhase::from_number(row.phase).is_some_and(|phase| !phase.is_fulfilled());
            open || row.rare().reproductions.last().is_some_and(|one| one.end == 0)
        })
    };
    if last.end == 0 && !needs(before) && !needs(after) {
        return Some(format!("node {name} ({number}) is run again for {}, which does not wait", last.reader));
    }
    None
}

fn is_gone(state: &State, cluster: &str) -> bool {
    state.cluster(cluster).is_none_or(|row| row.lost || row.removed)
}

impl World {
    /// Whoever leads has agents do what is to be done in stores.
    pub(crate) fn artifacts_due(&mut self) {
        self.queue.plan_after(LOOK_EVERY_MS, Event::ArtifactsDue);
        let now_ms = self.now_ms();
        let Some(leader) = self.members.iter().find(|(_, host)| host.leads(now_ms)).map(|(id, _)| *id) else {
            return;
        };
        let log_ms = self.latest.log_time().0;
        let due: Vec<(u64, ArtifactTask)> =
            self.latest.artifact_tasks_due(log_ms).map(|(number, task)| (number, task.clone())).collect();
        for (task, contents) in due {
            let error = self.carry_out(&contents).err().unwrap_or_default();
            self.line(format_args!("task {task} in the store of {}: {error:?}", contents.cluster));
            let body = Some(Body::ReportArtifactTask(ReportArtifactTask { task, error, permanent: false }));
            let command = Command { version: 1, idempotency_key: None, body };
            let request = self.fresh_id();
            self.member_input(leader, argosy_member::Input::Command { request, command });
        }
    }

    /// The agent of the cluster that made something copies it, if it can be asked.
    fn carry_out(&self, task: &ArtifactTask) -> Result<(), String> {
        if task.kind() != ArtifactTaskKind::Publish {
            return Ok(());
        }
        let cluster = self.clusters.iter().find(|cluster| cluster.name == task.cluster);
        let reached =
            cluster.filter(|cluster| !cluster.gone && cluster.is_up() && cluster.connection.is_some());
        let cluster = reached.ok_or("its cluster is not connected")?;
        let made_by = |key: &str| key.split('/').find_map(parse_fence);
        let is_there = |key: &str| made_by(key).is_some_and(|fence| cluster.runtime.has_stored(&fence));
        let there = task.copies.iter().all(|copy| is_there(&copy.from));
        there.then_some(()).ok_or_else(|| "The specified key does not exist.".to_owned())
    }

    /// Steps that were run again since.
    pub(crate) fn inspect_handovers(
        &mut self,
        before: &State,
        after: &State,
        nodes: &[((u64, u32), Option<&row::Node>)],
    ) {
        for (key, node) in nodes {
            let Some(node) = node else { continue };
            let again = &node.rare().reproductions;
            if !self.checkers.handovers.is_news(*key, again.len()) {
                continue;
            }
            let lost = again.last().map_or("", |last| last.lost.as_str());
            let gone = is_gone(before, lost) || is_gone(after, lost);
            self.line(format_args!("node {} is run again, {lost} is gone: {gone}", node.name));
            self.checkers.handovers.begun(gone);
            let check = problem(before, after, *key, node).map_or(Ok(()), Err);
            self.judge(Invariant::OneResult, check);
        }
    }

    /// Steps that did not find their inputs: where it is known whose store is whose, there are none.
    pub(crate) fn note_missed(&mut self, index: usize) {
        for missed in self.clusters[index].runtime.take_missed() {
            let text = format!(
                "attempt {} did not find {:?} on {}",
                argosy_model::display_fence(&missed.fence),
                missed.inputs,
                self.clusters[index].name
            );
            self.line(format_args!("{text}"));
            let is_told = self.options.handovers == Some(true);
            self.judge(Invariant::OneResult, if is_told { Err(text) } else { Ok(()) });
        }
    }

    /// What is safe to repeat ends well, whatever was lost.
    pub(crate) fn conclude_handovers(&mut self) {
        if self.options.handovers != Some(true) {
            return;
        }
        let makers = self.users.iter().filter(|user| user.hands_over());
        let expected: Vec<String> = makers
            .flat_map(|user| user.made())
            .filter(|(_, made)| made.succeeds == Some(true))
            .map(|(name, _)| name.clone())
            .collect();
        let ended: Vec<(String, row::Workflow)> =
            self.latest.workflows_in("").map(|(_, row)| (row.name.clone(), row.clone())).collect();
        for (name, workflow) in
            ended.into_iter().filter(|(name, row)| expected.contains(name) && row.shutdown == 0)
        {
            let phase = argosy_engine::workflow_phase(&workflow);
            let well = phase == Some(argosy_model::WorkflowPhase::Succeeded);
            self.checkers.handovers.ended(workflow.reproductions);
            let text = format!(
                "workflow {name} of steps that may be repeated ended {phase:?}: {}",
                workflow.message
            );
            self.judge(Invariant::Durable, if well { Ok(()) } else { Err(text) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_may_not_run_again_is_seen() {
        let begun = row::Reproduction { reader: "w.r".to_owned(), ..row::Reproduction::default() };
        let ended = row::Reproduction { end: 1, ..begun.clone() };
        let node = |phase: NodePhase, again: Vec<row::Reproduction>| {
            let mut node =
                row::Node { name: "w.s".to_owned(), phase: phase.number(), ..row::Node::default() };
            node.change_rare(|rare| rare.reproductions = again);
            node
        };
        let wrong =
            |node: &row::Node| problem(&State::new(), &State::new(), (1, 2), node).unwrap_or_default();
        let good = wrong(&node(NodePhase::Succeeded, vec![ended.clone(), ended.clone()]));
        assert_eq!(good, "");
        assert!(wrong(&node(NodePhase::Running, vec![begun.clone()])).contains("has not ended well"));
        assert!(wrong(&node(NodePhase::Succeeded, vec![begun.clone(), ended])).contains("twice at one time"));
        assert!(wrong(&node(NodePhase::Succeeded, vec![begun])).contains("which does not wait"));
    }

    #[test]
    fn every_workflow_is_one_that_the_product_accepts() {
        let mut random = Random::new(3);
        let mut two = 0;
        for number in 0..100 {
            let workload = generate(&mut random, "team", &format!("w{number}"), true);
            let text = workload.manifest.to_string();
            two += usize::from(text.contains(r#""dependencies":["d1","d0"]"#));
            let parsed = argosy_spec::Manifest::from_value(workload.manifest);
            let problems = parsed.map(|manifest| argosy_spec::validate(&manifest));
            assert!(matches!(&problems, Ok(problems) if problems.is_empty()), "{text}: {problems:?}");
        }
        assert!(two > 0);
    }
}
