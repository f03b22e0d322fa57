//! The typed manifest: what the engine, the gateway and the command line read.
//!
//! Every struct here is filled from JSON that the schema walk ([`crate::schema`]) has already checked and normalised, or
//! from a template or step that tag substitution has rewritten. Names are Argo's, in Rust's spelling.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use crate::artifact::Artifact;
use crate::failover::EXPAND_OUTPUTS_ANNOTATION;
use crate::leaf::{ContainerSet, Data, Http, MAIN_CONTAINER, Resource};
use crate::metrics::Metrics;
pub use crate::policy::{
    Backoff, Cache, CacheName, ConfigMapKey, LabelValueFrom, LifecycleHook, Memoize, RetryAffinity,
    RetryStrategy, WorkflowMetadata,
};
use crate::synchronization::Synchronization;
use crate::{Diagnostic, Error};

/// A Workflow as submitted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// `apiVersion`; empty when the submitter left it out (the API allows that).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `kind`; empty or `Workflow`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Name, labels and annotations.
    pub metadata: Metadata,
    /// What to run.
    pub spec: WorkflowSpec,
}

/// The part of Kubernetes' ObjectMeta that a submission may carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The workflow's name; empty when `generate_name` is to be used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Prefix of a name that the server completes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    /// Namespace; empty means the one of the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels of the workflow (or, in a template, of its Pods).
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the workflow (or, in a template, of its Pods).
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Argo's WorkflowSpec, the fields that are honoured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowSpec {
    /// The template that the workflow starts with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub entrypoint: String,
    /// The workflow's own parameters: `workflow.parameters.NAME`.
    #[serde(deserialize_with = "null_is_default")]
    pub arguments: Arguments,
    /// All templates, in the order of the text.
    #[serde(deserialize_with = "null_is_default")]
    pub templates: Vec<Template>,
    /// The template run at the end whatever the outcome; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub on_exit: String,
    /// Retry strategy of every template that has none of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_strategy: Option<RetryStrategy>,
    /// Seconds from the start after which the workflow is failed; zero ends it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// `Stop` or `Terminate` when the workflow is to be shut down; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shutdown: String,
    /// Hooks by name: `exit` runs at the end like [`WorkflowSpec::on_exit`], others when their expression holds.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<String, LifecycleHook>,
    /// Steps that may run at the same time; `None` for no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i64>,
    /// What templates have where they say nothing themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_defaults: Option<Value>,
    /// Labels and annotations that the workflow gets as it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_metadata: Option<WorkflowMetadata>,
    /// Metrics that its end brings about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// True: nothing new starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Locks that the workflow takes before anything of it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronization: Option<Synchronization>,
    /// How long the workflow stays after its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_strategy: Option<TtlStrategy>,
    /// Position among waiting workflows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Service account of the Pods; empty means the namespace's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Labels and annotations put on every Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<Metadata>,
    /// Claims made at the start of the workflow, as submitted.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<Value>,
    /// Volumes that containers may mount, as submitted.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Value>,
    /// Whether logs of its steps are kept, where their template doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_logs: Option<bool>,
    /// When output artifacts are deleted, as submitted.
    #[serde(rename = "artifactGC", skip_serializing_if = "Option::is_none")]
    pub artifact_gc: Option<Value>,
    /// Where output artifacts are kept, as submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_repository_ref: Option<Value>,
    /// The stored template that this workflow is made of; followed by the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_template_ref: Option<Value>,
    /// The other fields that shape Pods (`nodeSelector`, `tolerations`, `securityContext`, ...), as submitted.
    #[serde(flatten)]
    pub pod: BTreeMap<String, Value>,
}

/// Argo's TTLStrategy: seconds after its end that a workflow stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TtlStrategy {
    /// Whatever the outcome, where the other two say nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_completion: Option<i64>,
    /// When it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_success: Option<i64>,
    /// When it failed; an error is no failure here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_failure: Option<i64>,
}

/// One template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// Its name, unique in the workflow.
    pub name: String,
    /// What it takes.
    pub inputs: Inputs,
    /// What it yields.
    pub outputs: Outputs,
    /// What it does.
    pub kind: TemplateKind,
    /// Its own retry strategy.
    pub retry_strategy: Option<RetryStrategy>,
    /// Labels and annotations of its Pods; also carries `argosy.dev/...` annotations.
    pub metadata: Metadata,
    /// Annotations of the node (`workflows.argoproj.io/display-name`).
    pub annotations: BTreeMap<String, String>,
    /// Seconds that a Pod may be active; a string that may hold a tag until substitution is done.
    pub active_deadline_seconds: Option<IntOrString>,
    /// False: the children of a steps or dag template go on after one failed.
    pub fail_fast: Option<bool>,
    /// Seconds or a Go duration from the node's start, waiting included; empty for none.
    pub timeout: String,
    /// Steps and dag only: children that may run at the same time; `None` for no bound.
    pub parallelism: Option<i64>,
    /// Locks that it takes before it runs.
    pub synchronization: Option<Synchronization>,
    /// Where and how long its outputs are kept; `None`: they are not.
    pub memoize: Option<Memoize>,
    /// It goes on beside what follows it, and is ended with the template around it.
    pub daemon: bool,
    /// Seconds or a Go duration that it may wait for a host; empty for none.
    pub pending_timeout: String,
    /// The template as submitted, after reading rules were applied: what tag substitution works on, and where the Pod's
    /// fields (`volumes`, `sidecars`, `nodeSelector`, ...) are.
    pub raw: Value,
}

/// What a template does. Exactly one is set in a valid manifest.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TemplateKind {
    /// A Kubernetes Container, as submitted.
    Container(Value),
    /// A container with a script as its input.
    Script(Script),
    /// Groups of steps: groups in sequence, steps of a group in parallel.
    Steps(Vec<Vec<Step>>),
    /// A graph of tasks.
    Dag(Dag),
    /// Waits.
    Suspend(Suspend),
    /// Containers of one Pod, each with a node of its own.
    ContainerSet(ContainerSet),
    /// Something done to an object of Kubernetes.
    Resource(Resource),
    /// A request over HTTP.
    Http(Http),
    /// Paths of artifacts, sifted.
    Data(Data),
    /// What an executor plugin does: an object with one key, the plugin's.
    Plugin(Value),
    /// None: only in an invalid manifest.
    #[default]
    Missing,
}

/// A script template: a Kubernetes Container plus the script's text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// The text that is staged as a file and handed to `command` as its last argument.
    pub source: String,
    /// The Container without `source`, as submitted.
    pub container: Value,
}

/// A suspend template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspend {
    /// Seconds, or a Go duration such as `2m`; `None` waits for a resume.
    #[serde(deserialize_with = "null_is_default")]
    pub duration: Option<String>,
}

/// A dag template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dag {
    /// Names of the tasks to reach, separated by a space; empty means every leaf.
    pub target: String,
    /// The tasks, in the order of the text.
    #[serde(deserialize_with = "null_is_default")]
    pub tasks: Vec<Task>,
    /// Argo's `failFast`; `None` is true.
    pub fail_fast: Option<bool>,
}

/// A step of a steps template or a task of a dag template: the two differ only in `dependencies` and `depends`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// The template it runs.
    pub template: String,
    /// What it hands to the template.
    pub arguments: Arguments,
    /// The items of a literal loop, exactly as submitted; empty for none.
    pub with_items: Vec<Value>,
    /// Text that becomes a JSON list after substitution; empty for none.
    pub with_param: String,
    /// A numeric loop.
    pub with_sequence: Option<Sequence>,
    /// The condition, before substitution; empty for none.
    pub when: String,
    /// Whether a failure counts.
    pub continue_on: ContinueOn,
    /// Tasks only: names it waits for.
    pub dependencies: Vec<String>,
    /// Tasks only: the expression over other tasks' results; empty for none.
    pub depends: String,
    /// The template itself, instead of a name.
    pub inline: Option<Box<Template>>,
    /// Hooks by name: `exit` runs when the step is over, others when their expression holds.
    pub hooks: BTreeMap<String, LifecycleHook>,
    /// Argo's older word for `hooks.exit`: a template's name; empty for none.
    pub on_exit: String,
    /// The step as submitted, after reading rules were applied: what tag substitution works on.
    pub raw: Value,
}

/// A task of a dag template.
pub type Task = Step;

/// The name of the hook that runs at the end.
pub const EXIT_HOOK: &str = "exit";

/// Argo's ContinueOn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContinueOn {
    /// Go on when the step errored.
    pub error: bool,
    /// Go on when the step failed.
    pub failed: bool,
}

/// A numeric loop: `start` to `end` (inclusive, downwards when `end` is lower), or `count` numbers from `start`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sequence {
    /// How many; not together with `end`.
    pub count: Option<IntOrString>,
    /// The first number; zero when absent.
    pub start: Option<IntOrString>,
    /// The last number.
    pub end: Option<IntOrString>,
    /// A Go format; `%d` when empty.
    #[serde(deserialize_with = "null_is_default")]
    pub format: String,
}

/// An integer, or a string that holds one after substitution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// Written as a number.
    Int(i64),
    /// Written as a string.
    String(String),
}

impl IntOrString {
    /// The number, if it is one (now that tags are substituted).
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::String(text) => text.trim().parse().ok(),
        }
    }
}

/// What a template takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// The declared parameters; `value` wins over `default`, an argument wins over both.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// The declared artifacts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// What a template yields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outputs {
    /// The declared parameters, each with a `value_from`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// The declared artifacts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// What a step or the workflow hands over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arguments {
    /// The parameters.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// The artifacts.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

impl Arguments {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// The artifact of that name.
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name)
    }
}

/// A parameter: declared, given or produced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Used when nothing is given.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The value.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
    /// Outputs only: also known as `workflow.outputs.parameters.NAME`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub global_name: String,
    /// The values allowed; `None` allows all.
    #[serde(rename = "enum", deserialize_with = "any_strings", skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<String>>,
    /// For people.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where a parameter's value comes from. At most one besides `default` is set in a valid manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueFrom {
    /// A file in the container; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// A tag of an inner step or task, with or without braces; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub parameter: String,
    /// An expression; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// A filter over the resource's JSON; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub jq_filter: String,
    /// A path into the resource, as `kubectl -o jsonpath=` takes it; empty for none.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub json_path: String,
    /// Inputs and arguments only: a key of a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKey>,
    /// Filled in by a person while the workflow waits (suspend templates).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplied: Option<Value>,
    /// Used when the source has nothing.
    #[serde(deserialize_with = "any_string", skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

impl Manifest {
    /// Reads a stored manifest (JSON that was checked when it was submitted).
    ///
    /// # Errors
    /// All problems found, as at submission.
    pub fn from_value(value: Value) -> Result<Self, Vec<Diagnostic>> {
        crate::parse::stored(value)
    }

    /// The workflow's labels: those of its metadata, and what `workflowMetadata` adds.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let added = self.spec.workflow_metadata.iter().flat_map(|added| added.labels.clone());
        self.metadata.labels.clone().into_iter().chain(added).collect()
    }

    /// The workflow's annotations, likewise.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let added = self.spec.workflow_metadata.iter().flat_map(|added| added.annotations.clone());
        self.metadata.annotations.clone().into_iter().chain(added).collect()
    }

    /// Whether tags in what its containers put out are read as tags, as in Argo.
    #[must_use]
    pub fn expands_outputs(&self) -> bool {
        self.annotations().get(EXPAND_OUTPUTS_ANNOTATION).is_some_and(|value| value == "true")
    }

    /// The template of that name.
    pub fn template(&self, name: &str) -> Option<&Template> {
        self.spec.templates.iter().find(|template| template.name == name)
    }
}

impl WorkflowSpec {
    /// When output artifacts are deleted that don't say so themselves; empty for never.
    pub fn artifact_gc_strategy(&self) -> &str {
        self.artifact_gc.as_ref().and_then(|gc| gc.get("strategy")?.as_str()).unwrap_or_default()
    }

    /// What runs at the end whatever the outcome: `onExit`, else the hook `exit`.
    pub fn exit_hook(&self) -> Option<LifecycleHook> {
        exit_hook(&self.on_exit, &self.hooks)
    }
}

fn exit_hook(on_exit: &str, hooks: &BTreeMap<String, LifecycleHook>) -> Option<LifecycleHook> {
    match hooks.get(EXIT_HOOK) {
        Some(hook) => Some(hook.clone()),
        None if on_exit.is_empty() => None,
        None => Some(LifecycleHook { template: on_exit.to_owned(), ..LifecycleHook::default() }),
    }
}

impl Template {
    /// Reads a template, for instance after tag substitution rewrote its JSON.
    ///
    /// # Errors
    /// When a substituted value doesn't fit its field.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        crate::decode::template(value)
    }

    /// True when the template is a leaf: something that runs or waits, not a steps or dag.
    pub fn is_leaf(&self) -> bool {
        match self.kind {
            TemplateKind::Container(_)
            | TemplateKind::Script(_)
            | TemplateKind::Suspend(_)
            | TemplateKind::ContainerSet(_)
            | TemplateKind::Resource(_)
            | TemplateKind::Http(_)
            | TemplateKind::Data(_)
            | TemplateKind::Plugin(_) => true,
            TemplateKind::Steps(_) | TemplateKind::Dag(_) | TemplateKind::Missing => false,
        }
    }

    /// True when the template's node is a Pod in Argo.
    pub fn is_pod(&self) -> bool {
        match self.kind {
            TemplateKind::Container(_)
            | TemplateKind::Script(_)
            | TemplateKind::ContainerSet(_)
            | TemplateKind::Resource(_)
            | TemplateKind::Data(_) => true,
            TemplateKind::Suspend(_)
            | TemplateKind::Http(_)
            | TemplateKind::Plugin(_)
            | TemplateKind::Steps(_)
            | TemplateKind::Dag(_)
            | TemplateKind::Missing => false,
        }
    }

    /// True when the template may yield an exit code and a result.
    pub fn has_result(&self) -> bool {
        match &self.kind {
            TemplateKind::Container(_)
            | TemplateKind::Script(_)
            | TemplateKind::Data(_)
            | TemplateKind::Http(_)
            | TemplateKind::Plugin(_) => true,
            TemplateKind::ContainerSet(set) => set.container(MAIN_CONTAINER).is_some(),
            TemplateKind::Resource(_)
            | TemplateKind::Suspend(_)
            | TemplateKind::Steps(_)
            | TemplateKind::Dag(_)
            | TemplateKind::Missing => false,
        }
    }
}

impl TemplateKind {
    /// The groups of a steps template.
    pub fn steps(&self) -> Option<&Vec<Vec<Step>>> {
        if let Self::Steps(groups) = self { Some(groups) } else { None }
    }

    /// The graph of a dag template.
    pub fn dag(&self) -> Option<&Dag> {
        if let Self::Dag(dag) = self { Some(dag) } else { None }
    }

    /// The containers of a container set.
    pub fn container_set(&self) -> Option<&ContainerSet> {
        if let Self::ContainerSet(set) = self { Some(set) } else { None }
    }

    /// The steps of a steps or dag template, in the order of the text.
    pub fn children(&self) -> Vec<&Step> {
        let groups = self.steps().into_iter().flatten().flatten();
        groups.chain(self.dag().into_iter().flat_map(|dag| &dag.tasks)).collect()
    }

    /// The type as Argo's messages name it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Container(_) => "Container",
            Self::Script(_) => "Script",
            Self::Steps(_) => "Steps",
            Self::Dag(_) => "DAG",
            Self::Suspend(_) => "Suspend",
            Self::ContainerSet(_) => "ContainerSet",
            Self::Resource(_) => "Resource",
            Self::Http(_) => "HTTP",
            Self::Data(_) => "Data",
            Self::Plugin(_) => "Plugin",
            Self::Missing => "Unknown",
        }
    }
}

impl Step {
    /// Reads a step or task, for instance after tag substitution rewrote its JSON.
    ///
    /// # Errors
    /// When a substituted value doesn't fit its field.
    pub fn from_value(value: Value) -> Result<Self, Error> {
        crate::decode::step(value)
    }

    /// What runs when the step is over: the hook `exit`, else `onExit`.
    pub fn exit_hook(&self) -> Option<LifecycleHook> {
        exit_hook(&self.on_exit, &self.hooks)
    }

    /// True when the step is a loop. A literal empty `withItems` is none, as in Argo.
    pub fn is_loop(&self) -> bool {
        !self.with_items.is_empty() || !self.with_param.is_empty() || self.with_sequence.is_some()
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::decode::template(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::decode::step(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

/// JSON null reads as the default, as in Go.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Argo's AnyString: a string, or a scalar that becomes one.
fn any_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(any_string_of(&Value::deserialize(deserializer)?))
}

fn any_strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.iter().map(|value| any_string_of(value).unwrap_or_default()).collect()))
}

/// The text that Argo makes of a value where any scalar may stand: numbers go through a double, an object or a list
/// becomes the empty string, null is absent.
pub fn any_string_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => {
            Some(number.as_f64().map_or_else(|| number.to_string(), |double| double.to_string()))
        }
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => Some(String::new()),
    }
}
