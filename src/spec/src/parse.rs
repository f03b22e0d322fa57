//! From a text to documents.

use serde_json::Value;

use crate::manifest::Manifest;
use crate::node::{Data, Node, Source};
use crate::schema::{self, Rules};
use crate::{CronWorkflow, Diagnostic, cron, suggest, yaml};

/// Bounds on what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a text.
    pub bytes_max: usize,
    /// Depth of lists and objects in each other.
    pub depth_max: usize,
    /// Values of a text, aliases expanded.
    pub nodes_max: usize,
    /// Documents of a text.
    pub documents_max: usize,
    /// Problems that are told of one document.
    pub problems_max: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        bytes_max: 2 * 1024 * 1024,
        depth_max: 100,
        nodes_max: 400_000,
        documents_max: 1_000,
        problems_max: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a text or value is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// Bounds.
    pub limits: Limits,
    /// Unknown fields are left out in silence, as Argo's API does when a client sends them. Fields that are known and not
    /// supported are refused in any case.
    pub drop_unknown_fields: bool,
    /// Unknown fields are warned of instead of refused, as `argo lint --strict=false` has it.
    pub warn_unknown_fields: bool,
    /// Objects that are none of Argo's (a ConfigMap, say) and files of parameters are left alone and counted, instead of
    /// refused.
    pub skip_other_kinds: bool,
    /// JSON only: tell wrong types in the words of Argo's API, with paths under this name (`workflow` in a create
    /// request).
    pub api_path: Option<&'a str>,
}

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its kind; `Workflow` where it says none.
    pub kind: String,
    /// The typed manifest: of a CronWorkflow, its workflow; of a WorkflowEventBinding, nothing.
    pub manifest: Manifest,
    /// The document as it is to be stored: fields checked, scalars as their fields want them, order kept.
    pub value: Value,
    /// What its form gives rise to: errors (never, from [`parse_yaml`] and its like) and warnings.
    pub problems: Vec<Diagnostic>,
    /// Paths of values that are left out of `value` because they are wrong.
    lost: Vec<String>,
    node: Node,
    source: Option<(String, std::sync::Arc<str>)>,
}

impl Document {
    /// Everything that validation has against it, each with its place in the text.
    pub fn validate(&self) -> Vec<Diagnostic> {
        self.finished(crate::validate(&self.manifest))
    }

    /// As [`Document::validate`], for a text that is only looked at: parameters of the workflow need no values yet.
    pub fn lint(&self) -> Vec<Diagnostic> {
        self.finished(crate::lint(&self.manifest))
    }

    /// Problems of the document's workflow, and what the kind itself has against the rest of it; the first is Argo's.
    pub(crate) fn finished(&self, mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let own = match self.kind.as_str() {
            CRON => match CronWorkflow::from_value(&self.value) {
                Ok(cron) => cron.problems(),
                Err(problems) => problems,
            },
            BINDING => cron::event_binding_problems(&self.value),
            _ => return self.placed(problems),
        };
        for problem in &mut problems {
            problem.message = format!("cannot validate Workflow: {}", problem.message);
        }
        let mut all = self.located(own);
        all.extend(self.placed(problems));
        all
    }

    /// Gives problems of the manifest their paths in the document and their places in the text. Those that only follow
    /// from what is wrong with the form are left out.
    pub(crate) fn placed(&self, mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if self.kind == CRON {
            for problem in &mut problems {
                problem.path = cron_path(&problem.path);
            }
        }
        self.located(problems)
    }

    /// Gives problems with the document's own paths their places.
    fn located(&self, mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
        problems.retain(|problem| !self.lost.iter().any(|lost| follows(problem, lost)));
        if let Some((name, text)) = &self.source {
            let source = Source::new(name, text);
            for problem in &mut problems {
                problem.place = source.place(self.node.find(&problem.path));
            }
        }
        problems
    }

    /// The document as it is written, before any field was looked at.
    pub fn as_written(&self) -> Value {
        self.node.to_json()
    }

    /// The workflow in it.
    pub(crate) fn workflow(&self) -> Value {
        workflow_of(&self.kind, &self.value)
    }
}

const CRON: &str = "CronWorkflow";
const BINDING: &str = "WorkflowEventBinding";

/// Where a part of the workflow is in the CronWorkflow.
fn cron_path(path: &str) -> String {
    match path.strip_prefix("spec") {
        Some(rest) => format!("spec.workflowSpec{rest}"),
        None => match path.strip_prefix("metadata") {
            Some(rest) => format!("spec.workflowMetadata{rest}"),
            None => path.to_owned(),
        },
    }
}

/// Whether a problem of meaning may be there only because the value at a path is not.
fn follows(problem: &Diagnostic, lost: &str) -> bool {
    let parent = |path: &str| path.rfind(['.', '[']).map_or(0, |end| end);
    let path = problem.path.as_str();
    let is_within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    if is_within(path, lost) {
        return true;
    }
    let holder = &lost[..parent(lost)];
    match problem.code {
        // Something is missing: perhaps it is what could not be read.
        "ARG0010" | "ARG0014" | "ARG0017" => holder == path || holder == &path[..parent(path)],
        // A name is not known: perhaps it is defined in what could not be read.
        "ARG0011" | "ARG0015" | "ARG0016" => [
            "parameters",
            "artifacts",
            "inputs",
            "outputs",
            "arguments",
            "templates",
            "tasks",
            "steps",
            "name",
        ]
        .iter()
        .any(|part| lost.ends_with(part) || (lost.ends_with(']') && holder.ends_with(part))),
        _ => false,
    }
}

/// What a text holds, problems or not.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The documents that can be read, each with the problems of its form.
    pub documents: Vec<Document>,
    /// What is wrong with the text itself, or with documents that can't be read.
    pub problems: Vec<Diagnostic>,
    /// Objects that were left alone.
    pub others: usize,
}

/// Reads the documents of a YAML text (JSON is YAML, too). `source_name` is the file's name, for the problems.
///
/// # Errors
/// Every problem of every document: unreadable text, wrong types, unknown and unsupported fields, each with its line and
/// column. What validation has against a readable manifest is told by [`Document::validate`].
pub fn parse_yaml(
    source_name: &str,
    text: &str,
    options: &Options<'_>,
) -> Result<Vec<Document>, Vec<Diagnostic>> {
    let mut reading = read_yaml(source_name, text, options);
    if reading.problems.is_empty() && reading.documents.is_empty() {
        return Err(vec![Diagnostic::plain("ARG0001", "", format!("`{source_name}` holds no document"))]);
    }
    let of_documents = reading.documents.iter_mut();
    let errors = of_documents.flat_map(|document| {
        if document.problems.iter().any(Diagnostic::is_error) {
            std::mem::take(&mut document.problems)
        } else {
            Vec::new()
        }
    });
    let errors: Vec<Diagnostic> =
        reading.problems.into_iter().chain(errors).filter(Diagnostic::is_error).collect();
    if errors.is_empty() { Ok(reading.documents) } else { Err(errors) }
}

/// As [`parse_yaml`], for a text that is only looked at: what can be read of a document with problems is there as well.
pub fn read_yaml(source_name: &str, text: &str, options: &Options<'_>) -> Reading {
    if let Err(problems) = too_long(text, options) {
        let problems = problems
            .into_iter()
            .map(|problem| Diagnostic { place: Source::new(source_name, text).start(), ..problem })
            .collect();
        return Reading { problems, ..Reading::default() };
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Source::new(source_name, text);
    let yaml::Read { documents: nodes, mut problems } = yaml::read(&source, text, &options.limits);
    if nodes.len() > options.limits.documents_max {
        let message =
            format!("{} documents, and at most {} are allowed", nodes.len(), options.limits.documents_max);
        problems.push(Diagnostic { place: source.start(), ..Diagnostic::plain("ARG0002", "", message) });
        return Reading { problems, ..Reading::default() };
    }
    let rules = Rules {
        source: Some(&source),
        coerce: true,
        go_prefix: None,
        drop_unknown: options.drop_unknown_fields,
        warn_unknown: options.warn_unknown_fields,
        limits: options.limits,
    };
    let shared: std::sync::Arc<str> = text.into();
    let mut documents = Vec::with_capacity(nodes.len());
    let mut others = 0;
    for node in nodes {
        if options.skip_other_kinds && is_other(&node) {
            others += 1;
            continue;
        }
        match document(node, rules) {
            Ok(mut document) => {
                document.source = Some((source_name.to_owned(), std::sync::Arc::clone(&shared)));
                documents.push(document);
            }
            Err(problem) => problems.push(*problem),
        }
    }
    Reading { documents, problems, others }
}

/// Reads one YAML document as it is, against no table: a configuration that stands in a ConfigMap.
///
/// # Errors
/// What makes the text unreadable, in one line.
pub fn yaml_value(text: &str) -> Result<Value, String> {
    let told = |problems: &[Diagnostic]| problems.first().map_or_else(String::new, Diagnostic::line);
    let options = Options::default();
    too_long(text, &options).map_err(|problems| told(&problems))?;
    let yaml::Read { documents, problems } = yaml::read(&Source::new("value", text), text, &options.limits);
    if problems.iter().any(Diagnostic::is_error) {
        return Err(told(&problems));
    }
    Ok(documents.first().map_or(Value::Null, Node::to_json))
}

/// Reads one JSON text.
///
/// # Errors
/// Every problem found; a text that ends too early is told as `unexpected EOF`, as Argo's API does.
pub fn parse_json(text: &str, options: &Options<'_>) -> Result<Document, Vec<Diagnostic>> {
    too_long(text, options)?;
    let value: Value = serde_json::from_str(text).map_err(|error| {
        let message =
            if error.is_eof() { "unexpected EOF".to_owned() } else { format!("invalid JSON: {error}") };
        vec![Diagnostic::plain("ARG0001", "", message)]
    })?;
    parse_value(value, options)
}

/// Reads a JSON value, such as the `workflow` of a create request.
///
/// # Errors
/// Every problem found.
pub fn parse_value(value: Value, options: &Options<'_>) -> Result<Document, Vec<Diagnostic>> {
    let rules = Rules {
        source: None,
        coerce: false,
        go_prefix: options.api_path,
        drop_unknown: options.drop_unknown_fields,
        warn_unknown: options.warn_unknown_fields,
        limits: options.limits,
    };
    let mut document = document(Node::of_json(value), rules).map_err(|problem| vec![*problem])?;
    if document.problems.iter().any(Diagnostic::is_error) {
        document.problems.retain(Diagnostic::is_error);
        return Err(document.problems);
    }
    Ok(document)
}

/// Checks a manifest that was stored: as [`parse_value`], forgiving about fields that are no longer known.
pub(crate) fn stored(value: Value) -> Result<Manifest, Vec<Diagnostic>> {
    let options = Options { drop_unknown_fields: true, ..Options::default() };
    parse_value(value, &options).map(|document| document.manifest)
}

fn too_long(text: &str, options: &Options<'_>) -> Result<(), Vec<Diagnostic>> {
    let limit = options.limits.bytes_max;
    if text.len() <= limit {
        return Ok(());
    }
    let message = format!("the manifest is {} bytes long, and at most {limit} are allowed", text.len());
    Err(vec![Diagnostic::plain("ARG0002", "", message).suggest("split it into several workflows")])
}

/// Kinds of the same group that belong to other programs, or that programs alone write.
const OTHER_KINDS: [&str; 14] = [
    "AnalysisRun",
    "AnalysisTemplate",
    "AppProject",
    "Application",
    "ApplicationSet",
    "ClusterAnalysisTemplate",
    "EventBus",
    "EventSource",
    "Experiment",
    "Rollout",
    "Sensor",
    "WorkflowArtifactGCTask",
    "WorkflowTaskResult",
    "WorkflowTaskSet",
];

/// True for an object that is none of ours: of another group, or no object of Kubernetes at all.
fn is_other(node: &Node) -> bool {
    let text_at = |key: &str| match node.get(key).map(|entry| &entry.value.data) {
        Some(Data::String(text)) => Some(text.as_str()),
        Some(_) | None => None,
    };
    match (text_at("apiVersion"), text_at("kind")) {
        (Some(version), _) if !version.starts_with("argoproj.io/") => true,
        (_, Some(kind)) => OTHER_KINDS.contains(&kind),
        (None, None) => matches!(node.data, Data::Map(_)) && node.get("spec").is_none(),
        (Some(_), None) => false,
    }
}

/// Reads a document as far as it can be read.
fn document(node: Node, rules: Rules<'_>) -> Result<Document, Box<Diagnostic>> {
    let problem = |path: &str, code: &'static str, message: String| {
        let place = rules.source.and_then(|source| source.place(node.find(path)));
        Box::new(Diagnostic { place, ..Diagnostic::plain(code, path, message) })
    };
    if !matches!(node.data, Data::Map(_)) {
        let message = format!("a workflow must be an object, and this is {}", node.what());
        return Err(problem("", "ARG0003", message));
    }
    let text_at = |key: &str| match node.get(key).map(|entry| &entry.value.data) {
        Some(Data::String(text)) => text.clone(),
        Some(_) | None => String::new(),
    };
    let kind = text_at("kind");
    let root = schema::KINDS.iter().find(|(name, _)| *name == kind || kind.is_empty());
    let Some((kind, root)) = root else {
        let names: Vec<&str> = schema::KINDS.iter().map(|(name, _)| *name).collect();
        let message = format!("kind `{kind}` is not known; use one of: {}", names.join(", "));
        let near = suggest::nearest(&kind, names.into_iter());
        let suggestion = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
        return Err(Box::new(problem("kind", "ARG0007", message).suggest(suggestion)));
    };
    let version = text_at("apiVersion");
    if !version.is_empty() && version != VERSION {
        let message = format!("apiVersion `{version}` is not known; use `{VERSION}`");
        return Err(problem("apiVersion", "ARG0007", message));
    }
    let walked = schema::walk(&node, root, rules);
    let manifest = crate::decode::manifest(workflow_of(kind, &walked.value)).map_err(|error| {
        let place = rules.source.and_then(|source| source.place(node.at));
        Box::new(Diagnostic { place, ..*error })
    })?;
    Ok(Document {
        kind: (*kind).to_owned(),
        manifest,
        value: walked.value,
        problems: walked.problems,
        lost: walked.lost,
        node,
        source: None,
    })
}

/// True for a kind of object that can be written.
pub fn is_kind(name: &str) -> bool {
    schema::KINDS.iter().any(|(kind, _)| *kind == name)
}

/// The version of Argo's API.
pub(crate) const VERSION: &str = "argoproj.io/v1alpha1";

/// The workflow in a document of some kind.
fn workflow_of(kind: &str, value: &Value) -> Value {
    match kind {
        CRON => serde_json::json!({
            "apiVersion": VERSION,
            "kind": CRON,
            "metadata": value.pointer("/spec/workflowMetadata").cloned().unwrap_or_else(|| serde_json::json!({})),
            "spec": value.pointer("/spec/workflowSpec").cloned().unwrap_or_else(|| serde_json::json!({})),
        }),
        BINDING => serde_json::json!({"kind": BINDING}),
        _ => value.clone(),
    }
}
