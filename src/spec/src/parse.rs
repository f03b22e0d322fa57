//! From a text to documents.

use serde_json::Value;

use crate::manifest::Manifest;
use crate::node::{Data, Node, Source};
use crate::schema::{self, Rules};
use crate::{Diagnostic, yaml};

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
    /// JSON only: tell wrong types in the words of Argo's API, with paths under this name (`workflow` in a create
    /// request).
    pub api_path: Option<&'a str>,
}

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The typed manifest.
    pub manifest: Manifest,
    /// The document as it is to be stored: fields checked, scalars as their fields want them, order kept.
    pub value: Value,
    node: Node,
    source: Option<(String, std::sync::Arc<str>)>,
}

impl Document {
    /// Everything that validation has against it, each with its place in the text.
    pub fn validate(&self) -> Vec<Diagnostic> {
        self.placed(crate::validate(&self.manifest))
    }

    /// As [`Document::validate`], for a text that is only looked at: parameters of the workflow need no values yet.
    pub fn lint(&self) -> Vec<Diagnostic> {
        self.placed(crate::lint(&self.manifest))
    }

    fn placed(&self, mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
        if let Some((name, text)) = &self.source {
            let source = Source::new(name, text);
            for problem in &mut problems {
                problem.place = source.place(self.node.find(&problem.path));
            }
        }
        problems
    }
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
    too_long(text, options)?;
    let source = Source::new(source_name, text);
    let nodes = yaml::read(&source, text, &options.limits)?;
    if nodes.is_empty() {
        return Err(vec![Diagnostic::plain("ARG0001", "", format!("`{source_name}` holds no document"))]);
    }
    if nodes.len() > options.limits.documents_max {
        let message =
            format!("{} documents, and at most {} are allowed", nodes.len(), options.limits.documents_max);
        return Err(vec![Diagnostic::plain("ARG0002", "", message)]);
    }
    let rules = Rules {
        source: Some(&source),
        coerce: true,
        go_prefix: None,
        drop_unknown: options.drop_unknown_fields,
        limits: options.limits,
    };
    let mut documents = Vec::with_capacity(nodes.len());
    let mut problems = Vec::new();
    for node in nodes {
        match document(node, rules) {
            Ok(document) => documents.push(document),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let shared: std::sync::Arc<str> = text.into();
    for document in &mut documents {
        document.source = Some((source_name.to_owned(), std::sync::Arc::clone(&shared)));
    }
    Ok(documents)
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
        limits: options.limits,
    };
    document(Node::of_json(value), rules)
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

/// Kinds of documents that can be read.
const KINDS: [&str; 3] = ["Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate"];

fn document(node: Node, rules: Rules<'_>) -> Result<Document, Vec<Diagnostic>> {
    let problem = |path: &str, code: &'static str, message: String| {
        let place = rules.source.and_then(|source| source.place(node.find(path)));
        Diagnostic { place, ..Diagnostic::plain(code, path, message) }
    };
    if !matches!(node.data, Data::Map(_)) {
        return Err(vec![problem(
            "",
            "ARG0003",
            format!("a workflow must be an object, and this is {}", node.what()),
        )]);
    }
    let text_at = |key: &str| match node.get(key).map(|entry| &entry.value.data) {
        Some(Data::String(text)) => text.clone(),
        Some(_) | None => String::new(),
    };
    let kind = text_at("kind");
    if !kind.is_empty() && !KINDS.contains(&kind.as_str()) {
        let message = format!("kind `{kind}` is not supported yet; use one of: {}", KINDS.join(", "));
        return Err(vec![problem("kind", "ARG0007", message)]);
    }
    let version = text_at("apiVersion");
    if !version.is_empty() && version != "argoproj.io/v1alpha1" {
        let message = format!("apiVersion `{version}` is not known; use `argoproj.io/v1alpha1`");
        return Err(vec![problem("apiVersion", "ARG0007", message)]);
    }
    let (value, problems) = schema::walk(&node, &schema::WORKFLOW, rules);
    if !problems.is_empty() {
        return Err(problems);
    }
    let manifest = crate::decode::manifest(value.clone())?;
    Ok(Document { manifest, value, node, source: None })
}
