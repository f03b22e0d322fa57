//! Cases on disk: `AREA/NAME.yaml` with its recording, set-up and script.

use argosy_spec::{Diagnostic, Document, Options};
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::script::Step;

/// Set-up files that all cases of their area see.
const SHARED_SETUP_AREAS: [&str; 4] = ["refs", "params", "scripts", "volumes"];
/// Letters that end every generated name here.
pub const GENERATED: &str = "x7k2p";
/// A document that an action creates later.
const CREATE_LATER: &str = "corpus/create-later";

/// What a directory's `manifest.json` says of a case; without one, what the case itself shows.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whose the case is: `language`, `execution` or `events`.
    pub owner: String,
    /// It runs containers.
    pub containers: bool,
    /// What it needs beside a cell: `s3`, `http`, `kubernetes`.
    pub needs: Vec<String>,
}

/// One object of a case's files.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its kind.
    pub kind: String,
    /// Its name; a generated one ends in [`GENERATED`].
    pub name: String,
    /// Its text.
    pub text: String,
    /// What was read: Argo's kinds as the language reads them, others as they stand.
    pub read: Result<Value, Vec<Diagnostic>>,
    /// The document, for Argo's kinds that can be read.
    pub document: Option<Document>,
    /// An action creates it later.
    pub later: bool,
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `AREA/NAME`.
    pub name: String,
    /// What is known of it.
    pub facts: Facts,
    /// What it needs first.
    pub setup: Vec<Object>,
    /// Its own objects; the first is what it is about.
    pub objects: Vec<Object>,
    /// The operator's script.
    pub script: Vec<Step>,
    /// What Argo did.
    pub record: Value,
}

/// A directory of cases.
pub struct Cases {
    root: PathBuf,
    facts: Value,
}

impl Cases {
    /// A directory that holds areas, or `cases` with areas.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let inner = directory.join("cases");
        let root = if inner.is_dir() { inner } else { directory.to_owned() };
        let beside = [root.join("manifest.json"), directory.join("manifest.json")];
        let above = root.parent().map(|parent| parent.join("manifest.json"));
        let facts = beside.into_iter().chain(above).find_map(|path| json(&path));
        Self { root, facts: facts.unwrap_or_default() }
    }

    /// `AREA/NAME` of all cases, or of those of some areas; files directly in the directory are the area `.`.
    #[must_use]
    pub fn names(&self, areas: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![(".".to_owned(), self.root.clone())];
        for entry in entries(&self.root) {
            if entry.is_dir() {
                directories.push((file_name(&entry), entry));
            }
        }
        for (area, directory) in directories {
            if areas.is_some_and(|areas| !areas.split(',').any(|wanted| wanted == area)) {
                continue;
            }
            let manifests = entries(&directory).into_iter().filter(|path| is_manifest(path));
            found.extend(manifests.map(|path| format!("{area}/{}", stem(&path))));
        }
        found.sort();
        found
    }

    /// Reads a case.
    ///
    /// # Errors
    /// A file of it can't be read.
    pub fn read(&self, name: &str) -> Result<Case, String> {
        let base = self.root.join(name);
        let file = |extension: &str| PathBuf::from(format!("{}.{extension}", base.display()));
        let text = std::fs::read_to_string(file("yaml")).map_err(|error| format!("{name}: {error}"))?;
        let record = json(&file("json")).ok_or_else(|| format!("{name}: the recording is not JSON"))?;
        let script = match std::fs::read_to_string(file("actions.json")) {
            Ok(text) => crate::script::read(&text).map_err(|error| format!("{name}: {error}"))?,
            Err(_) => Vec::new(),
        };
        let setup = self.setup(name).iter().flat_map(|text| objects(text)).collect();
        let (objects, with): (Vec<Object>, Vec<Object>) =
            objects(&text).into_iter().partition(|object| is_argos(&object.kind));
        let facts = self.facts(name, &text, &record);
        let mut case = Case { name: name.to_owned(), facts, setup, objects, script, record };
        case.setup.extend(with);
        Ok(case)
    }

    fn setup(&self, name: &str) -> Vec<String> {
        let (area, own) = name.split_once('/').unwrap_or((".", name));
        let directory = self.root.join(area);
        let mine = format!("{own}.setup.yaml");
        let mut files: Vec<PathBuf> = entries(&directory)
            .into_iter()
            .filter(|path| file_name(path).ends_with(".setup.yaml"))
            .filter(|path| SHARED_SETUP_AREAS.contains(&area) || file_name(path) == mine)
            .collect();
        files.sort();
        files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }

    fn facts(&self, name: &str, text: &str, record: &Value) -> Facts {
        let said = &self.facts[name];
        let area = name.split('/').next().unwrap_or_default();
        let owner = said["owner"].as_str().map_or_else(|| owner_of(area).to_owned(), str::to_owned);
        let nodes = record["nodes"].as_array().into_iter().flatten();
        let needs = said["needs"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Facts {
            owner,
            containers: said["containers"].as_bool().unwrap_or_else(|| {
                text.contains("image:") && nodes.into_iter().any(|node| node["type"] == "Pod")
            }),
            needs: needs.map(str::to_owned).collect(),
        }
    }
}

fn owner_of(area: &str) -> &'static str {
    match area {
        "artifacts" | "data" | "failure" | "gc" | "http" | "pods" | "podspec" | "resource" => "execution",
        "events" => "events",
        _ => "language",
    }
}

fn is_argos(kind: &str) -> bool {
    kind.is_empty()
        || kind.contains("Workflow")
            && !matches!(kind, "WorkflowTemplate" | "ClusterWorkflowTemplate" | "WorkflowTaskSet")
}

fn objects(text: &str) -> Vec<Object> {
    pieces(text).into_iter().filter_map(object).collect()
}

/// The documents of a text.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for line in text.lines() {
        let separates = line.trim_end() == "---" || line.starts_with("--- ");
        if separates {
            pieces.push(String::new());
        } else if let Some(piece) = pieces.last_mut() {
            piece.push_str(line);
            piece.push('\n');
        }
    }
    let says = |piece: &String| {
        piece.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    };
    pieces.retain(says);
    pieces
}

fn object(text: String) -> Option<Object> {
    let plain: Result<Value, _> = serde_yaml::from_str(&text);
    let plain = plain.unwrap_or_default();
    let kind = plain["kind"].as_str().unwrap_or_default().to_owned();
    let metadata = &plain["metadata"];
    let later = !metadata["annotations"][CREATE_LATER].is_null();
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) => format!("{prefix}{GENERATED}"),
        _ => String::new(),
    };
    let known =
        kind.is_empty() || plain["apiVersion"].as_str().is_some_and(|it| it.starts_with("argoproj.io"));
    let mut document = None;
    let read = if known || plain.is_null() {
        argosy_spec::parse_yaml("case", &text, &Options::default()).map(|read| {
            document = read.into_iter().next();
            document.as_ref().map(|document| without_marker(document.value.clone())).unwrap_or_default()
        })
    } else {
        Ok(plain)
    };
    Some(Object { kind, name, text, read, document, later })
}

fn without_marker(mut value: Value) -> Value {
    if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(CREATE_LATER);
    }
    value
}

fn is_manifest(path: &Path) -> bool {
    let name = file_name(path);
    name.ends_with(".yaml") && !name.ends_with(".setup.yaml") && path.with_extension("json").exists()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
