//! Dag templates.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use argosy_expr::{depends, tags};

use super::names::Kind;
use super::{Scope, Validator, known_inputs};
use crate::manifest::{Arguments, Dag, Task, Template};
use crate::suggest;

/// Steps of searches through the graphs of one manifest; beyond them, arguments are not checked against ancestry.
pub(super) const SEARCH_MAX: usize = 5_000_000;

/// What the tasks of a graph are to each other, by name.
struct Links<'a> {
    /// Of each task: those it waits for, and the results asked for.
    mentions: BTreeMap<&'a str, Vec<depends::Mention<'a>>>,
    /// The tasks that are loops.
    loops: BTreeSet<&'a str>,
    /// Where each task is in the list; the first of a name counts.
    positions: BTreeMap<&'a str, usize>,
    /// Of each task, by position: those that wait for it directly.
    waiters: Vec<Vec<usize>>,
    /// Of a task that was asked about, by position: which tasks come after it.
    after: BTreeMap<usize, Vec<bool>>,
}

impl<'a> Links<'a> {
    fn new(dag: &'a Dag) -> Self {
        let mut positions = BTreeMap::new();
        for (index, task) in dag.tasks.iter().enumerate() {
            positions.entry(task.name.as_str()).or_insert(index);
        }
        Self {
            mentions: dag.tasks.iter().map(|task| (task.name.as_str(), mentions(task))).collect(),
            loops: dag.tasks.iter().filter(|task| task.is_loop()).map(|task| task.name.as_str()).collect(),
            positions,
            waiters: vec![Vec::new(); dag.tasks.len()],
            after: BTreeMap::new(),
        }
    }
}

impl<'v> Validator<'v> {
    pub(super) fn dag(
        &mut self,
        template: &'v Template,
        dag: &'v Dag,
        scope: &mut Scope,
        arguments: Option<&Arguments>,
        path: &str,
    ) {
        let name = &template.name;
        self.non_leaf(template, path);
        let tasks_path = format!("{path}.dag.tasks");
        if dag.tasks.is_empty() {
            self.tell("ARG0015", tasks_path, format!("templates.{name} must have at least one task"));
            return;
        }
        let names = dag.tasks.iter().map(|task| task.name.as_str());
        self.field_names(names, Kind::Field, &format!("templates.{name}.tasks"), &tasks_path);
        self.mixtures(template, dag, &tasks_path);
        let mut links = Links::new(dag);
        let Some(order) = self.sorted(template, dag, &mut links, &tasks_path) else { return };

        let known = known_inputs(template, arguments);
        for index in &order {
            let task = &dag.tasks[*index];
            let words = format!("templates.{name}.tasks.{}", task.name);
            let at = format!("{tasks_path}[{index}]");
            self.trail.push(words.clone());
            let target = self.target(task, None, &known, &at);
            self.hooks(&task.hooks, &task.on_exit, &at);
            self.trail.pop();
            scope.add_outputs(&format!("tasks.{}", task.name), target, task);
            self.add_globals(target, scope);
            self.results(template, task, &links, &format!("{at}.depends"));
        }
        let target = serde_json::Value::String(dag.target.clone());
        let words = format!("templates.{name}.targets");
        self.references(&target, scope, &words, &format!("{path}.dag.target"));
        self.targets(template, dag, path);
        for index in &order {
            let task = &dag.tasks[*index];
            let words = format!("templates.{name}.tasks.{}", task.name);
            let at = format!("{tasks_path}[{index}]");
            self.looping(task, &words, &at);
            scope.add_items(task);
            let hidden = self.untold(dag, task, &mut links, scope);
            self.step_references(task, scope, &words, &at);
            for name in hidden {
                scope.add(name);
            }
            self.arguments(
                &task.arguments,
                &format!("{words}.arguments."),
                &format!("{at}.arguments"),
                false,
            );
            self.ancestry(task, &mut links, &words, &at);
            self.trail.push(words);
            self.target(task, Some(&task.arguments), &known, &at);
            self.trail.pop();
        }
        // The template's own outputs are told nothing of how tasks ended.
        for task in &dag.tasks {
            scope.forget(&format!("tasks.{}.status", task.name));
        }
    }

    fn mixtures(&mut self, template: &Template, dag: &Dag, path: &str) {
        let name = &template.name;
        let uses_depends = dag.tasks.iter().any(|task| !task.depends.is_empty());
        for (index, task) in dag.tasks.iter().enumerate() {
            let waits = uses_depends || !task.dependencies.is_empty();
            if waits && task.name.starts_with(|first: char| first.is_ascii_digit()) {
                let message = format!(
                    "templates.{name}.tasks.{} name cannot begin with a digit when using either 'depends' or 'dependencies'",
                    task.name
                );
                self.tell("ARG0012", format!("{path}[{index}].name"), message);
            }
        }
        if !uses_depends {
            return;
        }
        for (index, task) in dag.tasks.iter().enumerate() {
            if !task.dependencies.is_empty() {
                self.tell(
                    "ARG0018",
                    format!("{path}[{index}].dependencies"),
                    format!("templates.{name} cannot use both 'depends' and 'dependencies' in the same DAG template"),
                );
            }
            if task.continue_on.error || task.continue_on.failed {
                self.tell(
                    "ARG0018",
                    format!("{path}[{index}].continueOn"),
                    format!(
                        "templates.{name} cannot use 'continueOn' when using 'depends'. Instead use \
                         'dep-task.Failed'/'dep-task.Errored'"
                    ),
                );
            }
        }
    }

    /// The tasks, each after those it waits for; `None` when there is no such order.
    fn sorted(
        &mut self,
        template: &Template,
        dag: &Dag,
        links: &mut Links<'_>,
        path: &str,
    ) -> Option<Vec<usize>> {
        let mut waiting_for = vec![0_usize; dag.tasks.len()];
        let mut complete = true;
        for (index, task) in dag.tasks.iter().enumerate() {
            let mut seen = BTreeSet::new();
            for mention in &links.mentions[task.name.as_str()] {
                let Some(position) = links.positions.get(mention.task).copied() else {
                    complete = false;
                    let near = suggest::nearest(mention.task, links.positions.keys().copied());
                    let field = if task.depends.is_empty() { "dependencies" } else { "depends" };
                    self.tell_with(
                        "ARG0015",
                        format!("{path}[{index}].{field}"),
                        format!(
                            "templates.{} sorting failed: invalid dependency {}",
                            template.name, mention.task
                        ),
                        near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default(),
                    );
                    continue;
                };
                if seen.insert(position) {
                    waiting_for[index] += 1;
                    links.waiters[position].push(index);
                }
            }
        }
        if !complete {
            return None;
        }
        let mut ready: VecDeque<usize> =
            (0..dag.tasks.len()).filter(|index| waiting_for[*index] == 0).collect();
        let mut order = Vec::with_capacity(dag.tasks.len());
        while let Some(index) = ready.pop_front() {
            order.push(index);
            for waiter in &links.waiters[index] {
                waiting_for[*waiter] -= 1;
                if waiting_for[*waiter] == 0 {
                    ready.push_back(*waiter);
                }
            }
        }
        if order.len() == dag.tasks.len() {
            return Some(order);
        }
        let stuck: Vec<usize> = (0..dag.tasks.len()).filter(|index| waiting_for[*index] > 0).collect();
        let names: Vec<&str> =
            stuck.iter().take(NAMED_MAX).map(|index| dag.tasks[*index].name.as_str()).collect();
        self.tell_with(
            "ARG0015",
            format!("{path}[{}]", stuck[0]),
            format!("templates.{} sorting failed: graph with cycle", template.name),
            format!("these wait for each other, or for one that does: {}", names.join(", ")),
        );
        None
    }

    fn results(&mut self, template: &Template, task: &Task, links: &Links<'_>, at: &str) {
        for mention in &links.mentions[task.name.as_str()] {
            let Some(result) = mention.result else { continue };
            let Some(selector) = depends::Selector::parse(result) else {
                let words = format!("templates.{}.tasks.{}", template.name, task.name);
                let message =
                    format!("{words} task result '{result}' for task '{}' is invalid", mention.task);
                self.tell("ARG0015", at, message);
                continue;
            };
            if selector.is_of_loops() && !links.loops.contains(mention.task) {
                // Argo names the other task here twice, and not the one that depends on it.
                let (name, other) = (&template.name, mention.task);
                let message = format!(
                    "templates.{name}.tasks.{other} dependency '{other}' uses an items-based condition such as .AnySucceeded \
                     or .AllFailed but does not contain any items"
                );
                self.tell("ARG0015", at, message);
            }
        }
    }

    fn targets(&mut self, template: &Template, dag: &Dag, path: &str) {
        if dag.target.is_empty() {
            return;
        }
        let names: BTreeSet<&str> = dag.tasks.iter().map(|task| task.name.as_str()).collect();
        for target in dag.target.split(' ') {
            if !target.contains("{{") && !names.contains(target) {
                let message =
                    format!("templates.{}.targets: target '{target}' is not defined", template.name);
                self.tell("ARG0015", format!("{path}.dag.target"), message);
            }
        }
    }

    /// An argument that is another task's output needs that task among those waited for.
    /// Takes the states of tasks that a task does not wait for out of its sight, and says which.
    fn untold(&mut self, dag: &Dag, task: &Task, links: &mut Links<'_>, scope: &mut Scope) -> Vec<String> {
        if !task.raw.to_string().contains(".status") {
            return Vec::new();
        }
        let mut hidden = Vec::new();
        for other in &dag.tasks {
            if !self.waits_for(task, &other.name, links) {
                let name = format!("tasks.{}.status", other.name);
                scope.forget(&name);
                hidden.push(name);
            }
        }
        hidden
    }

    fn ancestry(&mut self, task: &Task, links: &mut Links<'_>, words: &str, at: &str) {
        for (index, parameter) in task.arguments.parameters.iter().enumerate() {
            let Some(value) = parameter.value.as_ref().filter(|value| value.starts_with("{{")) else {
                continue;
            };
            let Some(other) = tags::names(value).next().and_then(|tag| tag.strip_prefix("tasks.")) else {
                continue;
            };
            let other = other.split('.').next().unwrap_or_default();
            if !self.waits_for(task, other, links) {
                self.tell(
                    "ARG0016",
                    format!("{at}.arguments.parameters[{index}].value"),
                    format!("{words} missing dependency '{other}' for parameter '{}'", parameter.name),
                );
            }
        }
    }

    /// Whether a task waits for another, directly or not. True when there is no work left to find out.
    fn waits_for(&mut self, task: &Task, other: &str, links: &mut Links<'_>) -> bool {
        if links.mentions[task.name.as_str()].iter().any(|mention| mention.task == other) {
            return true;
        }
        let Some(from) = links.positions.get(other).copied() else { return false };
        let position = links.positions[task.name.as_str()];
        if let Some(after) = links.after.get(&from) {
            return after[position];
        }
        if self.search_left == 0 {
            return true;
        }
        let mut after = vec![false; links.waiters.len()];
        let mut open = vec![from];
        let mut work = after.len();
        while let Some(index) = open.pop() {
            work += links.waiters[index].len();
            for waiter in &links.waiters[index] {
                if !std::mem::replace(&mut after[*waiter], true) {
                    open.push(*waiter);
                }
            }
        }
        self.search_left = self.search_left.saturating_sub(work);
        let waits = after[position];
        links.after.insert(from, after);
        waits
    }
}

/// Names that are shown of a cycle.
const NAMED_MAX: usize = 10;

fn mentions(task: &Task) -> Vec<depends::Mention<'_>> {
    if task.depends.is_empty() {
        task.dependencies.iter().map(|name| depends::Mention { task: name, result: None }).collect()
    } else {
        depends::mentions(&task.depends)
    }
}
