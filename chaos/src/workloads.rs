use serde_json::{Value, json};

use crate::random::Random;

/// A generated workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The Workflow object.
    pub manifest: Value,
    /// What its steps make of it when nobody interferes; `None` where a step fails by chance.
    pub succeeds: Option<bool>,
}

/// Longest step, virtual milliseconds.
const STEP_MAX_MS: u64 = 25_000;
/// Leaf templates in a thousand that must not overlap.
const EXCLUSIVE_PER_MILLE: u64 = 150;
/// Of those, so many in a thousand run for long: they still do when their cluster is taken over.
const EXCLUSIVE_LONG_PER_MILLE: u64 = 300;
/// For as long as this at most.
const EXCLUSIVE_LONG_MAX_MS: u64 = 60_000;
/// Longest step under a lock, and longest step of a workflow that is under one as a whole: what waits for a lock runs one
/// after the other. With longer ones a busy seed would still be queueing a quarter of an hour after its last fault.
const STEP_UNDER_LOCK_MAX_MS: u64 = 6_000;
const STEP_OF_LOCKED_MAX_MS: u64 = 500;
/// Mutexes of leaves.
const LEAF_LOCKS: u64 = 4;
/// Steps of a group, tasks of a DAG, items of a loop.
const WIDTH_MAX: u64 = 4;

struct Generator<'a> {
    random: &'a mut Random,
    templates: Vec<Value>,
    succeeds: Option<bool>,
}

/// Makes a workflow of that name: steps, DAGs, loops, retries, exit handlers, steps that read results, steps that fail and
/// steps that may not be repeated. Its containers tell the simulated runtime how long they run and how they end.
#[must_use]
pub fn generate(random: &mut Random, namespace: &str, name: &str) -> Workload {
    let mut generator = Generator { random, templates: Vec::new(), succeeds: Some(true) };
    let entrypoint = generator.group(2);
    let mut spec = json!({ "entrypoint": entrypoint });
    if generator.random.per_mille(300) {
        // An exit handler that fails would fail the workflow; these end well.
        spec["onExit"] = json!(generator.leaf_of(2_000, "0", false));
    }
    spec["templates"] = Value::Array(generator.templates);
    lock_some(&mut spec);
    let mut metadata = json!({ "name": name, "namespace": namespace });
    if let Some(word) = on_reconnect(&spec) {
        metadata["annotations"] = json!({ "argosy.dev/on-reconnect": word });
    }
    let manifest = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": metadata,
        "spec": spec,
    });
    Workload { manifest, succeeds: generator.succeeds }
}

/// What a thing that was generated draws for itself, so that it takes nothing from the sequence of the seed.
fn own_random(of: &Value) -> Random {
    Random::new(
        of.to_string().bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
    )
}

/// Half of the workflows say which attempt counts when a lost cluster comes back.
fn on_reconnect(spec: &Value) -> Option<&'static str> {
    let mut random = own_random(spec);
    random.pick(&["keep-original", "longest-running"]).copied().filter(|_| random.per_mille(500))
}

/// Puts some of the templates, and now and then the whole workflow, under mutexes that all workflows share. What is drawn
/// follows from the workflow itself, so that it takes nothing from the sequence of the seed. Locks of steps around others
/// are of another name than those of leaves: a circle is not what is to be shown here.
fn lock_some(spec: &mut Value) {
    let mut random = own_random(spec);
    let lock = |name: String| json!({ "name": name });
    let mut is_around = random.per_mille(100);
    if is_around {
        spec["synchronization"] = json!({ "mutexes": [lock("whole".to_owned())] });
    }
    let entrypoint = spec["entrypoint"].clone();
    let templates = spec["templates"].as_array_mut();
    let templates = templates.map(Vec::as_mut_slice).unwrap_or_default();
    for template in templates.iter_mut() {
        if template["name"] == entrypoint && random.per_mille(150) {
            is_around = true;
            template["synchronization"] = json!({ "mutexes": [lock("entry".to_owned())] });
        } else if template.get("container").is_some() && random.per_mille(150) {
            let mut locks = vec![lock(format!("leaf-{}", random.below(LEAF_LOCKS)))];
            if random.per_mille(300) {
                locks = vec![lock("leaf-1".to_owned()), lock("leaf-0".to_owned())];
            }
            template["synchronization"] = json!({ "mutexes": locks });
            shorten(template, STEP_UNDER_LOCK_MAX_MS);
        }
    }
    if is_around {
        templates.iter_mut().for_each(|template| shorten(template, STEP_OF_LOCKED_MAX_MS));
    }
}

/// Its exclusive steps run for so long, and have a short lease of their own; not where others wait for a lock meanwhile, nor
/// in loops.
pub fn last_exclusively(workload: &mut Workload, duration_ms: u64) {
    if workload.manifest.to_string().contains("\"synchronization\"") {
        return;
    }
    let templates = workload.manifest.pointer_mut("/spec/templates").and_then(Value::as_array_mut);
    for template in templates.into_iter().flatten() {
        let once = template.get("inputs").is_none();
        let Some(annotations) = template.pointer_mut("/metadata/annotations").filter(|_| once) else {
            continue;
        };
        if annotations.get("argosy.dev/exclusive").is_some() {
            annotations["argosy.dev/exclusive-lease"] = json!("5s");
            template["container"]["args"][0] = json!(format!("duration-ms={duration_ms}"));
        }
    }
}

/// A container's step takes at most so long.
fn shorten(template: &mut Value, most_ms: u64) {
    let arguments = template.pointer_mut("/container/args").and_then(Value::as_array_mut);
    for argument in arguments.into_iter().flatten() {
        let said = argument.as_str().and_then(|text| text.strip_prefix("duration-ms=")?.parse::<u64>().ok());
        if let Some(duration_ms) = said {
            *argument = json!(format!("duration-ms={}", duration_ms.min(most_ms)));
        }
    }
}

impl Generator<'_> {
    fn add(&mut self, mut template: Value) -> String {
        let name = format!("t{}", self.templates.len());
        template["name"] = json!(name);
        self.templates.push(template);
        name
    }

    /// A template of steps or tasks, with others below it down to a depth.
    fn group(&mut self, depth: u32) -> String {
        if self.random.per_mille(500) { self.steps(depth) } else { self.dag(depth) }
    }

    /// A call of a template, now and then over items. True: it is one pod, so its result can be read.
    fn call(&mut self, name: String, depth: u32) -> (Value, bool) {
        if self.random.per_mille(200) {
            let items: Vec<Value> = (0..self.random.between(1, WIDTH_MAX)).map(|item| json!(item)).collect();
            let mut call = self.call_with(name, "{{item}}");
            call["withItems"] = json!(items);
            return (call, false);
        }
        if depth > 0 && self.random.per_mille(200) {
            return (json!({ "name": name, "template": self.group(depth - 1) }), false);
        }
        (json!({ "name": name, "template": self.leaf() }), true)
    }

    fn call_with(&mut self, name: String, value: &str) -> Value {
        let arguments = json!({ "parameters": [{ "name": "item", "value": value }] });
        json!({ "name": name, "template": self.leaf_with_item(), "arguments": arguments })
    }

    /// Now and then a call that reads the result of one of the given; else any.
    fn call_after(&mut self, name: String, depth: u32, kind: &str, readable: &[String]) -> (Value, bool) {
        match self.random.pick(readable).cloned() {
            Some(read) if self.random.per_mille(500) => {
                (self.call_with(name, &format!("{{{{{kind}.{read}.outputs.result}}}}")), true)
            }
            Some(_) | None => self.call(name, depth),
        }
    }

    fn steps(&mut self, depth: u32) -> String {
        let mut groups = Vec::new();
        let mut readable = Vec::new();
        for group in 0..self.random.between(1, 3) {
            let mut calls = Vec::new();
            let mut pods = Vec::new();
            for step in 0..self.random.between(1, WIDTH_MAX) {
                let name = format!("s{group}-{step}");
                let (call, is_pod) = self.call_after(name.clone(), depth, "steps", &readable);
                calls.push(call);
                pods.extend(is_pod.then_some(name));
            }
            groups.push(calls);
            readable.extend(pods);
        }
        self.add(json!({ "steps": groups }))
    }

    fn dag(&mut self, depth: u32) -> String {
        let mut tasks = Vec::new();
        let mut pods: Vec<String> = Vec::new();
        for task in 0..self.random.between(1, 2 * WIDTH_MAX) {
            let name = format!("d{task}");
            let dependencies: Vec<String> =
                (0..task).filter(|_| self.random.per_mille(300)).map(|before| format!("d{before}")).collect();
            let readable: Vec<String> =
                pods.iter().filter(|name| dependencies.contains(name)).cloned().collect();
            let (mut call, is_pod) = self.call_after(name.clone(), depth, "tasks", &readable);
            if !dependencies.is_empty() {
                call["dependencies"] = json!(dependencies);
            }
            tasks.push(call);
            pods.extend(is_pod.then_some(name));
        }
        self.add(json!({ "dag": { "tasks": tasks } }))
    }

    fn duration_ms(&mut self) -> u64 {
        // Most are short; long ones meet the faults.
        let most = if self.random.per_mille(700) { 2_000 } else { STEP_MAX_MS };
        self.random.between(0, most)
    }

    fn leaf(&mut self) -> String {
        let duration_ms = self.duration_ms();
        let fails = self.random.per_mille(40);
        if fails {
            self.succeeds = self.succeeds.map(|_| false);
        }
        let retried = self.random.per_mille(600);
        self.leaf_of(duration_ms, if fails { "1" } else { "0" }, retried)
    }

    fn leaf_of(&mut self, duration_ms: u64, exit_code: &str, retried: bool) -> String {
        let mut template = json!({ "container": self.container(duration_ms, exit_code) });
        if retried {
            // What stops itself is an error, not a failure.
            let policy = if self.random.per_mille(500) { "Always" } else { "OnFailure" };
            let limit = self.random.between(1, 3).to_string();
            template["retryStrategy"] = json!({ "limit": limit, "retryPolicy": policy });
        }
        self.make_exclusive(&mut template);
        self.add(template)
    }

    fn leaf_with_item(&mut self) -> String {
        let duration_ms = self.duration_ms();
        let mut container = self.container(duration_ms, "0");
        container["env"] = json!([{ "name": "ITEM", "value": "{{inputs.parameters.item}}" }]);
        let mut template =
            json!({ "inputs": { "parameters": [{ "name": "item" }] }, "container": container });
        self.make_exclusive(&mut template);
        self.add(template)
    }

    /// Now and then. Such a step stops itself when the control plane is away for long: how it ends is open.
    fn make_exclusive(&mut self, template: &mut Value) {
        if !self.random.per_mille(EXCLUSIVE_PER_MILLE) {
            return;
        }
        self.succeeds = None;
        let once = template.get("inputs").is_none();
        if once && self.random.per_mille(EXCLUSIVE_LONG_PER_MILLE) {
            let duration_ms = self.random.between(STEP_MAX_MS, EXCLUSIVE_LONG_MAX_MS);
            template["container"]["args"][0] = json!(format!("duration-ms={duration_ms}"));
        }
        let mut annotations = json!({ "argosy.dev/exclusive": "true" });
        if self.random.per_mille(700) {
            annotations["argosy.dev/exclusive-lease"] = json!(format!("{}s", self.random.between(5, 40)));
        }
        template["metadata"] = json!({ "annotations": annotations });
    }

    fn container(&mut self, duration_ms: u64, exit_code: &str) -> Value {
        json!({
            "image": "simulated",
            "command": ["simulate"],
            "args": [format!("duration-ms={duration_ms}"), format!("exit-code={exit_code}")],
            "resources": { "requests": { "cpu": format!("{}m", self.random.between(50, 600)) } },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_a_workflow_that_the_product_accepts() {
        let mut random = Random::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..300 {
            let workload = generate(&mut random, "team", &format!("w{number}"));
            let text = workload.manifest.to_string();
            for word in [
                "steps",
                "dag",
                "withItems",
                "retryStrategy",
                "onExit",
                "dependencies",
                "outputs.result",
                "argosy.dev/exclusive",
                "mutexes",
            ] {
                if text.contains(word) {
                    seen.insert(word);
                }
            }
            let parsed = argosy_spec::Manifest::from_value(workload.manifest);
            let problems = parsed.map(|manifest| argosy_spec::validate(&manifest));
            assert!(matches!(&problems, Ok(problems) if problems.is_empty()), "{text}: {problems:?}");
        }
        assert_eq!(seen.len(), 9, "{seen:?}");
    }
}
