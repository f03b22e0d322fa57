//! `argosy lint`: all problems of all files, for people, for scripts and for editors.

use argosy_spec::{Diagnostic, DocumentReport, File, JoinedCluster, Options, Report, Review, review};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::submit::read_text;
use crate::client::Client;
use crate::context::Settings;
use crate::style::Style;
use crate::{Console, Error, Lint, LintOutput};

/// Files that are looked at in one go.
const FILES_MAX: usize = 100_000;
/// Depth of directories in each other.
const DEPTH_MAX: usize = 64;
/// Files of a directory that are manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Version of the JSON output; raised when a field changes its meaning or goes away.
const JSON_VERSION: u32 = 1;
/// How long a server may take to say which clusters have joined.
const ASK_SPAN: Duration = Duration::from_secs(5);

pub(super) async fn lint(
    arguments: &Lint,
    settings: &Settings,
    namespace: &str,
    console: &mut Console,
) -> Result<bool, Error> {
    let mut paths = Vec::new();
    for path in &arguments.files {
        collect(path, 0, &mut paths)?;
    }
    let mut texts = Vec::with_capacity(paths.len());
    let mut unreadable = Vec::new();
    for path in &paths {
        match read_text(path, console) {
            Ok(read) => texts.push(read),
            Err(error) => unreadable.push((path.display().to_string(), error.to_string())),
        }
    }
    let clusters = if arguments.offline { Vec::new() } else { joined(settings, console).await };
    let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File { name, text }).collect();
    let options = Options { warn_unknown_fields: arguments.strict == Some(false), ..Options::default() };
    let mut report = review(&files, &Review { options, namespace, clusters: &clusters });
    for (name, reason) in unreadable {
        let problems = vec![Diagnostic::plain("ARG0001", "", reason)];
        report.files.push(argosy_spec::FileReport { name, problems, ..Default::default() });
    }
    only_kinds(&mut report, &arguments.kinds)?;
    let is_good = is_good(&report, arguments.strict == Some(true));
    match arguments.output {
        LintOutput::Json => console.print(&format!("{:#}\n", as_json(&report, is_good)))?,
        LintOutput::Simple => simple(&report, console)?,
        LintOutput::Pretty => pretty(&report, console)?,
    }
    if arguments.output != LintOutput::Json {
        console.print(&format!("{}\n", summary(&report, is_good)))?;
    }
    Ok(is_good)
}

/// The clusters that have joined; none where no server is named. That one does not answer is no reason not to look at
/// the files: it is told, and they are checked without.
async fn joined(settings: &Settings, console: &mut Console) -> Vec<JoinedCluster> {
    if !settings.is_named {
        return Vec::new();
    }
    let ask = async { Client::of(settings)?.clusters().await };
    let reason = match tokio::time::timeout(ASK_SPAN, ask).await {
        Ok(Ok(clusters)) => {
            let joined = clusters.into_iter().map(|cluster| JoinedCluster {
                runs_processes: cluster.runtime == "process",
                name: cluster.name,
                labels: cluster.labels,
            });
            return joined.collect();
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", ASK_SPAN.as_secs()),
    };
    let word = Style::Yellow.paint("warning:");
    console.tell(&format!(
        "{word} checked without the clusters that have joined (--offline asks for none): {reason}"
    ));
    Vec::new()
}

/// As with Argo, nothing to check is an error. With `strict`, so is a warning.
fn is_good(report: &Report, strict: bool) -> bool {
    report.errors() == 0 && report.documents() > 0 && !(strict && report.warnings() > 0)
}

/// The manifests at a path: a file, or all files of a directory.
fn collect(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let wrong = |reason: String| Error::File { path: path.display().to_string(), reason };
    if found.len() >= FILES_MAX {
        return Err(wrong(format!("more than {FILES_MAX} files")));
    }
    if path == Path::new("-") || !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= DEPTH_MAX {
        return Err(wrong(format!("more than {DEPTH_MAX} directories in each other")));
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(|error| wrong(error.to_string()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let inner = entry.path();
        // Links to directories are not followed: they may lead round in a circle.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let extension = inner.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if is_directory || (EXTENSIONS.contains(&extension) && inner.is_file()) {
            collect(&inner, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Leaves the other kinds out; they still count for references.
fn only_kinds(report: &mut Report, kinds: &[String]) -> Result<(), Error> {
    if kinds.is_empty() || kinds.iter().any(|kind| kind == "all") {
        return Ok(());
    }
    let mut wanted = Vec::new();
    for kind in kinds {
        wanted.push(match kind.as_str() {
            "workflows" | "wf" => "Workflow",
            "workflowtemplates" | "wftmpl" => "WorkflowTemplate",
            "clusterworkflowtemplates" | "cwft" | "clusterwftmpl" => "ClusterWorkflowTemplate",
            "cronworkflows" | "cwf" | "cronwf" => "CronWorkflow",
            "workfloweventbindings" | "wfeb" => "WorkflowEventBinding",
            other => return Err(Error::Usage(format!("unknown kind: {other}"))),
        });
    }
    for file in &mut report.files {
        file.documents.retain(|document| wanted.contains(&document.kind.as_str()));
    }
    Ok(())
}

fn pretty(report: &Report, console: &mut Console) -> Result<(), Error> {
    for (file, _, problem) in report.problems() {
        let word = problem.severity.name();
        let style = if problem.is_error() { Style::Red } else { Style::Yellow };
        let text = problem.to_string().replacen(&format!("{word}["), &format!("{}[", style.paint(word)), 1);
        let text = if problem.place.is_none() { format!("{}: {text}", file.name) } else { text };
        console.print(&format!("{text}\n\n"))?;
    }
    Ok(())
}

/// One line for each problem, as `argo lint -o simple` has it.
fn simple(report: &Report, console: &mut Console) -> Result<(), Error> {
    for (file, document, problem) in report.problems() {
        let line = match document {
            Some(document) => format!("{}: {}", file.name, of_document(document, problem)),
            None => format!("{}: {}", file.name, problem.message),
        };
        let line: String =
            line.chars().map(|next| if next.is_control() { '\u{fffd}' } else { next }).collect();
        console.print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn of_document(document: &DocumentReport, problem: &Diagnostic) -> String {
    format!("in \"{}\" ({}): {}", document.name, document.kind, problem.message)
}

fn summary(report: &Report, is_good: bool) -> String {
    let count = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    if is_good {
        let mark = Style::Green.paint("✔");
        let warnings = match report.warnings() {
            0 => String::new(),
            warnings => format!(", {}", count(warnings, "warning")),
        };
        return format!(
            "{mark} no linting errors found in {}{warnings}",
            count(report.documents(), "document")
        );
    }
    let mark = Style::Red.paint("✖");
    if report.errors() + report.warnings() == 0 {
        return format!("{mark} found nothing to lint in the specified paths, failing...");
    }
    let told = [(report.errors(), "linting error"), (report.warnings(), "warning")];
    let told: Vec<String> = told
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| count(number, word))
        .collect();
    format!("{mark} {} found in {}", told.join(" and "), count(report.files.len(), "file"))
}

fn as_json(report: &Report, is_good: bool) -> Value {
    let problems: Vec<Value> = report
        .problems()
        .map(|(file, document, problem)| {
            let place = problem.place.as_ref();
            json!({
                "file": file.name,
                "line": place.map(|place| place.line),
                "column": place.map(|place| place.column),
                "endColumn": place.map(|place| place.column + place.length),
                "severity": problem.severity.name(),
                "code": problem.code,
                "message": problem.message,
                "suggestion": problem.suggestion,
                "path": problem.path,
                "snippet": place.map(|place| place.text.as_str()),
                "kind": document.map(|document| document.kind.as_str()),
                "name": document.map(|document| document.name.as_str()),
            })
        })
        .collect();
    json!({
        "version": JSON_VERSION,
        "success": is_good,
        "files": report.files.len(),
        "documents": report.documents(),
        "errors": report.errors(),
        "warnings": report.warnings(),
        "problems": problems,
    })
}
