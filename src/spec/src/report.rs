//! A look at many files at once: everything that is wrong with any of them, references between them followed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::parse::{Document, Options, read_yaml};
use crate::references::{self, Stored};
use crate::{Diagnostic, JoinedCluster, Manifest, effective, validate};

/// A text to look at.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its name, for the problems.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// How files are looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Review<'a> {
    /// How texts are read.
    pub options: Options<'a>,
    /// The namespace of objects that name none.
    pub namespace: &'a str,
    /// The clusters that have joined, as far as they are known: what none of them can run is told.
    pub clusters: &'a [JoinedCluster],
}

/// What there is to say of the files, in their order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each file.
    pub files: Vec<FileReport>,
}

/// What there is to say of a file.
#[derive(Clone, Debug, Default)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Problems of the text, or of documents that can't be read.
    pub problems: Vec<Diagnostic>,
    /// The documents that were checked.
    pub documents: Vec<DocumentReport>,
    /// Objects of other kinds, which were left alone.
    pub others: usize,
}

/// What there is to say of a document.
#[derive(Clone, Debug)]
pub struct DocumentReport {
    /// Its kind.
    pub kind: String,
    /// Its name, the prefix of its name, or its number in the file.
    pub name: String,
    /// Its problems, in the order of the text.
    pub problems: Vec<Diagnostic>,
}

impl Report {
    /// All problems, file by file in the order of the text, each with its document.
    pub fn problems(&self) -> impl Iterator<Item = (&FileReport, Option<&DocumentReport>, &Diagnostic)> {
        self.files.iter().flat_map(|file| {
            let of_text = file.problems.iter().map(move |problem| (file, None, problem));
            let of_documents = file.documents.iter().flat_map(move |document| {
                document.problems.iter().map(move |problem| (file, Some(document), problem))
            });
            of_text.chain(of_documents)
        })
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.problems().filter(|(_, _, problem)| problem.is_error()).count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.problems().filter(|(_, _, problem)| !problem.is_error()).count()
    }

    /// How many documents were checked.
    pub fn documents(&self) -> usize {
        self.files.iter().map(|file| file.documents.len()).sum()
    }
}

/// Looks at files. A reference finds what it asks for in any of them.
pub fn review(files: &[File<'_>], review: &Review<'_>) -> Report {
    let options = Options { skip_other_kinds: true, ..review.options };
    let mut found = Vec::with_capacity(files.len());
    let mut read = Vec::with_capacity(files.len());
    for file in files {
        let reading = read_yaml(file.name, file.text, &options);
        let (problems, others) = (reading.problems, reading.others);
        found.push(FileReport { name: file.name.to_owned(), problems, others, documents: Vec::new() });
        read.push(reading.documents);
    }
    let known = Known::of(read.iter().flatten(), review);
    let checked: Vec<Vec<Vec<Diagnostic>>> = read
        .iter()
        .map(|documents| documents.iter().map(|document| known.check(document)).collect())
        .collect();
    let of_templates = told_of_templates(&read, &checked);
    for ((file, documents), checked) in found.iter_mut().zip(read).zip(checked) {
        for (index, (mut document, meaning)) in documents.into_iter().zip(checked).enumerate() {
            let mut problems = std::mem::take(&mut document.problems);
            problems.extend(
                meaning.into_iter().filter(|problem| !is_told(problem, &document.kind, &of_templates)),
            );
            problems.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
            let name = label(&document, index);
            file.documents.push(DocumentReport { kind: document.kind, name, problems });
        }
    }
    Report { files: found }
}

/// What is wrong with stored templates themselves: it is told once, where they are.
fn told_of_templates(read: &[Vec<Document>], checked: &[Vec<Vec<Diagnostic>>]) -> Vec<String> {
    let pairs = read.iter().flatten().zip(checked.iter().flatten());
    let of_templates = pairs.filter(|(document, _)| document.kind.ends_with("Template"));
    of_templates.flat_map(|(_, problems)| problems.iter().map(|problem| problem.message.clone())).collect()
}

fn is_told(problem: &Diagnostic, kind: &str, of_templates: &[String]) -> bool {
    !kind.ends_with("Template")
        && problem.path.to_ascii_lowercase().ends_with("templateref")
        && of_templates.iter().any(|told| without_trail(told) == without_trail(&problem.message))
}

/// A message without the calls that led to what is wrong.
fn without_trail(message: &str) -> &str {
    message.rsplit(" templates.").next().unwrap_or(message).trim_start_matches("templates.")
}

fn label(document: &Document, index: usize) -> String {
    let metadata =
        |field: &str| document.value.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
    let name = metadata("name").filter(|name| !name.is_empty());
    let name = name.or_else(|| metadata("generateName").filter(|name| !name.is_empty()));
    name.map_or_else(|| format!("object #{}", index + 1), str::to_owned)
}

/// The stored templates of all files, by scope, namespace and name.
struct Known<'a> {
    templates: BTreeMap<(bool, String, String), Value>,
    namespace: &'a str,
    clusters: &'a [JoinedCluster],
}

impl<'a> Known<'a> {
    fn of<'d>(documents: impl Iterator<Item = &'d Document>, review: &Review<'a>) -> Self {
        let (namespace, clusters) = (review.namespace, review.clusters);
        let mut known = Self { templates: BTreeMap::new(), namespace, clusters };
        for document in documents {
            let cluster_scope = match document.kind.as_str() {
                "WorkflowTemplate" => false,
                "ClusterWorkflowTemplate" => true,
                _ => continue,
            };
            let namespace = if cluster_scope { String::new() } else { known.namespace_of(document) };
            let name = document.manifest.metadata.name.clone();
            known.templates.entry((cluster_scope, namespace, name)).or_insert_with(|| document.value.clone());
        }
        known
    }

    fn namespace_of(&self, document: &Document) -> String {
        let own = document.value.pointer("/metadata/namespace").and_then(Value::as_str);
        own.filter(|own| !own.is_empty()).unwrap_or(self.namespace).to_owned()
    }

    /// What is wrong with a document's meaning.
    fn check(&self, document: &Document) -> Vec<Diagnostic> {
        let of = InNamespace { known: self, namespace: self.namespace_of(document) };
        let Some(resolved) = references::resolve(&of, &document.workflow()) else {
            let mut problems = document.lint();
            problems.extend(document.placed(self.misfits(document, document.workflow())));
            return problems;
        };
        let mut problems = resolved.problems;
        for problem in &mut problems {
            if problem.code == "ARG0163" {
                problem.suggestion = of.elsewhere(&problem.message);
            }
        }
        // It has a workflow's form already, whatever kind it comes from.
        let mut resolved_manifest = resolved.manifest;
        resolved_manifest["kind"] = "Workflow".into();
        problems.extend(self.misfits(document, resolved_manifest.clone()));
        let manifest = Manifest::from_value(resolved_manifest);
        match manifest.map(|manifest| Manifest { kind: document.kind.clone(), ..manifest }) {
            Ok(manifest) => problems.extend(validate::lint_resolved(&manifest, resolved.own_templates)),
            Err(found) => problems.extend(found),
        }
        for problem in &mut problems {
            problem.message = references::plain(&problem.message);
        }
        document.finished(problems)
    }

    /// What the clusters that have joined can't run of a document's own templates. What can't be read is told elsewhere.
    fn misfits(&self, document: &Document, mut workflow: Value) -> Vec<Diagnostic> {
        if self.clusters.is_empty() {
            return Vec::new();
        }
        workflow["kind"] = "Workflow".into();
        let Ok(manifest) = Manifest::from_value(effective(&workflow).into_owned()) else { return Vec::new() };
        Manifest { kind: document.kind.clone(), ..manifest }.own_misfits(self.clusters)
    }
}

/// The stored templates as a workflow of a namespace sees them.
struct InNamespace<'a> {
    known: &'a Known<'a>,
    namespace: String,
}

impl InNamespace<'_> {
    /// What to do about a resource that is not there.
    fn elsewhere(&self, message: &str) -> String {
        let named = |(_, _, name): &&(bool, String, String)| message.contains(&format!("\"{name}\""));
        match self.known.templates.keys().find(named) {
            Some((true, _, name)) => {
                format!("`{name}` is a ClusterWorkflowTemplate: write `clusterScope: true`")
            }
            Some((false, namespace, name)) => format!("`{name}` is in namespace \"{namespace}\""),
            None => "name the file that it is in as well".to_owned(),
        }
    }
}

impl Stored for InNamespace<'_> {
    fn resource(&self, cluster_scope: bool, name: &str) -> Option<Value> {
        let namespace = if cluster_scope { String::new() } else { self.namespace.clone() };
        self.known.templates.get(&(cluster_scope, namespace, name.to_owned())).cloned()
    }

    fn missing(&self, cluster_scope: bool, name: &str, _: Option<&str>) -> String {
        if cluster_scope {
            format!("couldn't find cluster workflow template \"{name}\"")
        } else {
            format!("couldn't find workflow template \"{name}\" in namespace \"{}\"", self.namespace)
        }
    }
}
