use argosy_model::{Limits, NodeType};
use argosy_proto::command::Refusal;
use argosy_proto::state as row;
use argosy_spec::{Manifest, Step, Template};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Code;
use crate::advance::configured;
use crate::archive::on_its_way;
use crate::cron;
use crate::state::{State, type_of};
use argosy_spec::effective;

/// What only a leader keeps: limits and caches of what can be rebuilt from state. Dropped whole on step-down.
#[derive(Clone, Debug, Default)]
pub struct Leader {
    /// The maxima and times that decisions obey.
    pub limits: Limits,
    /// The cell's default artifact repository: Argo's ArtifactRepository object in JSON; empty = none.
    pub artifact_repository: String,
    /// Addresses of object stores of which every cluster has one of its own: artifacts in them are where they were made.
    pub cluster_stores: Vec<String>,
    /// Addresses of object stores that are in one cluster: all clusters reach them, until that cluster is lost.
    pub store_clusters: BTreeMap<String, String>,
    /// Where what belongs into the store of a lost cluster is kept meanwhile: Argo's ArtifactRepository object in JSON; empty =
    /// the cell's default.
    pub refuge_repository: String,
    /// Laid under every workflow that is submitted (Argo's `workflowDefaults`): `metadata` and `spec`.
    pub defaults: Option<Arc<Value>>,
    parsed: BTreeMap<u64, (Arc<Parsed>, usize)>,
    /// Bytes of the texts that `parsed` was read from.
    parsed_bytes: usize,
    expansions: BTreeMap<(u64, u32, u32), Arc<Vec<Value>>>,
    /// Names that nobody knows of a cluster whether they exist there: to be asked of its agent, until state knows.
    pub questions: BTreeMap<String, BTreeSet<String>>,
    /// CronWorkflows by number, as of a generation.
    crons: BTreeMap<u64, (u64, Arc<cron::Parsed>)>,
    /// How often concurrency policies kept something from starting, or ended it: by namespace, name and policy.
    cron_policies: BTreeMap<(String, String, String), u64>,
    /// Records of an archived workflow, loaded for the next decision.
    archived: Option<(u64, Option<Vec<Vec<u8>>>)>,
    /// Workflows that ask for metrics.
    pub(crate) measured: BTreeSet<u64>,
    /// The workflow served last by the agenda: the next turn begins after it.
    pub(crate) served: u64,
}

/// Whether this can be laid under every workflow.
///
/// # Errors
/// What is wrong with it, with its place.
pub fn check_defaults(defaults: &Value) -> Result<(), String> {
    let known = |key: &String| key == "metadata" || key == "spec";
    let fields = defaults.as_object().ok_or("it is no object with metadata and spec")?;
    if let Some(field) = fields.keys().find(|key| !known(key)) {
        return Err(format!("{field} is not metadata or spec"));
    }
    let manifest = argosy_spec::merge(
        defaults,
        &serde_json::json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}),
    );
    let problems = |problems: Vec<argosy_spec::Diagnostic>| {
        problems.iter().map(argosy_spec::Diagnostic::line).collect::<Vec<_>>().join("; ")
    };
    Manifest::from_value(manifest).map(drop).map_err(problems)
}

/// A workflow's manifest, read once.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub manifest: Manifest,
    templates: BTreeMap<String, usize>,
    plans: BTreeMap<String, Arc<Plan>>,
    /// (template, step) to (group, place in the group).
    steps: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
    /// Names that are the same all over the workflow.
    pub globals: BTreeMap<String, String>,
    /// (template, step or task) whose `outputs.result` somebody in the template reads: only those are kept, as in Argo.
    results: BTreeSet<(String, String)>,
    /// Templates with expressions.
    expressed: BTreeSet<String>,
    /// Some step or task has hooks.
    pub hooked: bool,
    /// Tags in what containers put out are tags, as in Argo.
    pub expands_outputs: bool,
    /// Template to colocation group, from 1.
    pub groups: BTreeMap<String, u32>,
}

/// A DAG, prepared for counting: which tasks are wanted, who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub names: BTreeMap<String, usize>,
    /// Tasks that each task waits for; no task twice.
    pub dependencies: Vec<Vec<usize>>,
    pub dependents: Vec<Vec<usize>>,
    /// Reachable from the targets; the others are never made.
    pub wanted: Vec<bool>,
    pub wanted_total: u32,
    /// Rank of a target among the targets by name; `None` for other tasks.
    pub target_rank: Vec<Option<u64>>,
}

/// Bytes of manifests' texts that are kept parsed; others are parsed again when needed.
const PARSED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// CronWorkflows that are kept parsed.
const CRONS_PARSED_MAX: usize = 2_000;
/// Fan-outs whose items are kept parsed.
const EXPANSIONS_MAX: usize = 200;

impl Leader {
    /// A new leader's caches: empty.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// With the cell's default artifact repository.
    #[must_use]
    pub fn with_artifact_repository(mut self, repository: String) -> Self {
        self.artifact_repository = repository;
        self
    }

    /// With the addresses of stores of which every cluster has one of its own.
    #[must_use]
    pub fn with_cluster_stores(mut self, stores: Vec<String>) -> Self {
        self.cluster_stores = stores;
        self
    }

    /// With the clusters that stores are in, by address, and the repository for what belongs into a lost one.
    #[must_use]
    pub fn with_store_clusters(mut self, clusters: BTreeMap<String, String>, refuge: String) -> Self {
        self.store_clusters = clusters;
        self.refuge_repository = refuge;
        self
    }

    /// With what is laid under every workflow.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Option<Arc<Value>>) -> Self {
        self.defaults = defaults;
        self
    }

    /// A submitted manifest over the defaults: what it says itself, or by its references, wins.
    pub(crate) fn over_defaults(&self, manifest: Value) -> Value {
        match &self.defaults {
            Some(defaults) => argosy_spec::merge(defaults, &manifest),
            None => manifest,
        }
    }

    /// The manifest of a workflow; `None` when the stored text can't be read, which acceptance has ruled out.
    pub(crate) fn parsed(&mut self, state: &State, id: u64) -> Option<Arc<Parsed>> {
        if let Some((parsed, _)) = self.parsed.get(&id) {
            return Some(parsed.clone());
        }
        let stored = state.manifests.get(&id)?;
        let json = if stored.resolved_json.is_empty() { &stored.json } else { &stored.resolved_json };
        let value = serde_json::from_str(json).ok()?;
        let manifest = Manifest::from_value(effective(&value).into_owned()).ok()?;
        let workflow = state.workflows.get(&id)?;
        if manifest.spec.metrics.is_some()
            || manifest.spec.templates.iter().any(|template| template.raw.get("metrics").is_some())
        {
            self.measured.insert(id);
        }
        let parsed = Arc::new(Parsed::new(manifest, workflow));
        while self.parsed_bytes > PARSED_BYTES_MAX
            && let Some((_, (_, bytes))) = self.parsed.pop_first()
        {
            self.parsed_bytes -= bytes;
        }
        self.parsed_bytes += json.len();
        self.parsed.insert(id, (parsed.clone(), json.len()));
        Some(parsed)
    }

    /// The items of a fan-out; empty for a sequence.
    pub(crate) fn items(&mut self, state: &State, key: (u64, u32, u32)) -> Arc<Vec<Value>> {
        if let Some(items) = self.expansions.get(&key) {
            return items.clone();
        }
        let items = state
            .expansions
            .get(&key)
            .and_then(|row| serde_json::from_str(&row.items_json).ok())
            .unwrap_or_default();
        let items = Arc::new(items);
        if self.expansions.len() >= EXPANSIONS_MAX {
            self.expansions.pop_first();
        }
        self.expansions.insert(key, items);
        self.expansions[&key].clone()
    }

    /// A CronWorkflow's object, read; `None` when it can't be.
    pub(crate) fn cron(&mut self, state: &State, id: u64) -> Option<Arc<cron::Parsed>> {
        let row = state.crons.get(&id)?;
        if let Some((_, parsed)) = self.crons.get(&id).filter(|(generation, _)| *generation == row.generation)
        {
            return Some(parsed.clone());
        }
        let parsed = Arc::new(cron::Parsed::new(&row.json)?);
        if self.crons.len() >= CRONS_PARSED_MAX {
            self.crons.pop_first();
        }
        self.crons.insert(id, (row.generation, parsed.clone()));
        Some(parsed)
    }

    /// Whether a leaf is tried again however it ends: with its Pod gone, by the signal that killed it.
    pub(crate) fn always_retries(&mut self, state: &State, workflow: u64, node: u32) -> bool {
        let Some(parsed) = self.parsed(state, workflow) else { return false };
        let parent = state.node(workflow, node).and_then(|row| state.node(workflow, row.parent));
        let Some(parent) = parent.filter(|row| type_of(row) == NodeType::Retry) else { return false };
        let own = parsed.template(&parent.template).and_then(|template| template.retry_strategy.as_ref());
        let Some(strategy) = own.or(parsed.manifest.spec.retry_strategy.as_ref()) else { return false };
        let tries_left = strategy.limit.as_ref().is_none_or(|limit| {
            limit.as_i64().is_some_and(|limit| i64::from(parent.children_total) <= limit)
        });
        tries_left && strategy.retry_policy == "Always" && strategy.expression.is_empty()
    }

    /// Records of an archived workflow, for the decision that needs them ([`crate::Draft::need`]); `None`: there are more
    /// than may be read.
    pub fn give_archived(&mut self, workflow: u64, records: Option<Vec<Vec<u8>>>) {
        self.archived = Some((workflow, records));
    }

    pub(crate) fn take_archived(&mut self, workflow: u64) -> Result<Vec<Vec<u8>>, Refusal> {
        let (_, records) =
            self.archived.take().filter(|(found, _)| *found == workflow).ok_or_else(on_its_way)?;
        let too_large = || Code::ArchiveTooLarge.refuse("the archived workflow is too large to come back");
        let records = records.ok_or_else(too_large)?;
        if records.is_empty() { Err(on_its_way()) } else { Ok(records) }
    }

    /// Counts that a concurrency policy took effect.
    pub(crate) fn note_policy(&mut self, namespace: &str, name: &str, policy: &str) {
        let key = (namespace.to_owned(), name.to_owned(), policy.to_owned());
        *self.cron_policies.entry(key).or_default() += 1;
    }

    /// How often concurrency policies of CronWorkflows took effect since leadership began: by namespace, name, policy.
    #[must_use]
    pub fn cron_policies(&self) -> &BTreeMap<(String, String, String), u64> {
        &self.cron_policies
    }

    /// Forgets what is cached of a workflow.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some((_, bytes)) = self.parsed.remove(&id) {
            self.parsed_bytes -= bytes;
        }
        let stale: Vec<_> =
            self.expansions.range((id, 0, 0)..=(id, u32::MAX, u32::MAX)).map(|(key, _)| *key).collect();
        for key in stale {
            self.expansions.remove(&key);
        }
    }
}

impl Parsed {
    pub(crate) fn new(mut manifest: Manifest, workflow: &argosy_proto::state::Workflow) -> Self {
        configured::fill_in(&mut manifest, &workflow.configured);
        let templates = manifest
            .spec
            .templates
            .iter()
            .enumerate()
            .map(|(at, template)| (template.name.clone(), at))
            .collect();
        let plans = manifest
            .spec
            .templates
            .iter()
            .filter_map(|template| {
                let dag = template.kind.dag()?;
                Some((template.name.clone(), Arc::new(Plan::new(dag, &dag.target))))
            })
            .collect();
        let mut steps: BTreeMap<String, BTreeMap<String, (u64, u64)>> = BTreeMap::new();
        for template in &manifest.spec.templates {
            if let Some(groups) = template.kind.steps() {
                let places = steps.entry(template.name.clone()).or_default();
                for (group, members) in groups.iter().enumerate() {
                    for (slot, step) in members.iter().enumerate() {
                        places.insert(step.name.clone(), (group as u64, slot as u64));
                    }
                }
            }
        }
        let globals = crate::scope::globals(&manifest, workflow);
        let groups = crate::place::groups(&manifest);
        let results = results_read(&manifest);
        let hooked =
            manifest.spec.templates.iter().flat_map(|template| template.kind.children()).any(has_hooks);
        let expressed = manifest
            .spec
            .templates
            .iter()
            .filter(|template| template.raw.to_string().contains("{{="))
            .map(|template| template.name.clone())
            .collect();
        let expands_outputs = manifest.expands_outputs();
        Self {
            manifest,
            templates,
            plans,
            steps,
            globals,
            results,
            expressed,
            hooked,
            expands_outputs,
            groups,
        }
    }

    pub(crate) fn template(&self, name: &str) -> Option<&Template> {
        self.templates.get(name).map(|at| &self.manifest.spec.templates[*at])
    }

    pub(crate) fn step_place(&self, template: &str, step: &str) -> Option<(u64, u64)> {
        self.steps.get(template)?.get(step).copied()
    }

    pub(crate) fn reads_result(&self, template: &str, step: &str) -> bool {
        self.results.contains(&(template.to_owned(), step.to_owned()))
    }

    pub(crate) fn has_expressions(&self, template: &str) -> bool {
        self.expressed.contains(template)
    }

    /// The plan of a DAG node. Its targets may be given by the node's inputs, and then are not known before.
    pub(crate) fn plan(&self, node: &row::Node) -> Option<Arc<Plan>> {
        let plan = self.plans.get(&node.template)?;
        let dag = self.template(&node.template)?.kind.dag()?;
        if !dag.target.contains("{{") {
            return Some(plan.clone());
        }
        let target = with_names(&dag.target, &node.inputs, &|name| self.globals.get(name).cloned());
        Some(Arc::new(Plan::new(dag, &target)))
    }
}

fn has_hooks(step: &Step) -> bool {
    !step.hooks.is_empty() || !step.on_exit.is_empty()
}

fn results_read(manifest: &Manifest) -> BTreeSet<(String, String)> {
    let mut results = BTreeSet::new();
    for template in manifest.spec.templates.iter().filter(|template| !template.is_leaf()) {
        let text = template.raw.to_string();
        // By text and not by tag: expressions and `valueFrom.parameter` without braces read results as well.
        for (at, marker) in text.match_indices(".outputs.result") {
            let before = text.get(..at).unwrap_or_default();
            // `steps['a']` and `steps["a"]` (in JSON) as `steps.a`.
            let before = before.strip_suffix("']").or_else(|| before.strip_suffix("\\\"]")).unwrap_or(before);
            let start = before
                .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
                .map_or(0, |found| found + 1);
            debug_assert!(!marker.is_empty());
            results.insert((template.name.clone(), before.get(start..).unwrap_or_default().to_owned()));
        }
    }
    results
}

/// A text of a template, with the workflow's names and the node's inputs filled in.
pub(crate) fn with_names(
    text: &str,
    inputs: &[row::Parameter],
    global: &dyn Fn(&str) -> Option<String>,
) -> String {
    let known = |name: &str| match name.strip_prefix("inputs.parameters.") {
        Some(wanted) => inputs.iter().find(|input| input.name == wanted)?.value.clone(),
        None => global(name),
    };
    argosy_expr::substitute(text, &known, &argosy_expr::Rules::LENIENT).unwrap_or_else(|_| text.to_owned())
}

impl Plan {
    fn new(dag: &argosy_spec::Dag, target: &str) -> Self {
        let names: BTreeMap<String, usize> =
            dag.tasks.iter().enumerate().map(|(at, task)| (task.name.clone(), at)).collect();
        let dependencies: Vec<Vec<usize>> = dag
            .tasks
            .iter()
            .map(|task| {
                let wanted: BTreeSet<usize> =
                    task_dependencies(task).iter().filter_map(|name| names.get(name).copied()).collect();
                wanted.into_iter().collect()
            })
            .collect();
        let mut dependents = vec![Vec::new(); dag.tasks.len()];
        for (task, waits) in dependencies.iter().enumerate() {
            for dependency in waits {
                dependents[*dependency].push(task);
            }
        }
        let mut targets: BTreeSet<&str> = target.split_whitespace().collect();
        if targets.is_empty() {
            targets = dag
                .tasks
                .iter()
                .enumerate()
                .filter(|(at, _)| dependents[*at].is_empty())
                .map(|(_, task)| task.name.as_str())
                .collect();
        }
        let mut target_rank = vec![None; dag.tasks.len()];
        let mut wanted = vec![false; dag.tasks.len()];
        let mut open = Vec::new();
        for (rank, name) in targets.iter().enumerate() {
            if let Some(at) = names.get(*name) {
                target_rank[*at] = Some(rank as u64);
                open.push(*at);
            }
        }
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut wanted[at], true) {
                open.extend(&dependencies[at]);
            }
        }
        let wanted_total = u32::try_from(wanted.iter().filter(|wanted| **wanted).count()).unwrap_or(u32::MAX);
        Self { names, dependencies, dependents, wanted, wanted_total, target_rank }
    }
}

/// Names of the tasks that a task waits for.
pub(crate) fn task_dependencies(task: &argosy_spec::Task) -> Vec<String> {
    if task.depends.is_empty() {
        return task.dependencies.clone();
    }
    crate::scope::depends_names(&task.depends)
}
