//! Verdicts on recorded manifests: those of the project, or of ARGOSY_CONFORMANCE_DIR, a directory with
//! `cases/AREA/NAME.yaml` and recordings `NAME.json`. Manifests that use what is not supported yet are counted
//! and left out; all others must get Argo's verdict, in Argo's words.
#![expect(
    clippy::disallowed_methods,
    reason = "a test that reads files outside the repository, when told to"
)]

use std::collections::BTreeMap;
use std::path::Path;

use argosy_spec::{Diagnostic, Document, Options, parse_yaml};
use serde_json::Value;

const AREAS: [&str; 10] =
    ["invalid", "accepted", "steps", "dag", "params", "loops", "when", "exit", "retry", "tags"];
/// Codes of what is not supported yet.
const LATER: [&str; 3] = ["ARG0005", "ARG0007", "ARG0020"];
/// Our words instead of Argo's: the case, and why.
const OWN_WORDS: [(&str, &str); 1] = [(
    "invalid-step-name-yaml-boolean",
    "a wrong type in YAML is told with its place, not in the words of Go's reader",
)];

enum Outcome {
    Later(String),
    Equal,
    Different(String),
}

fn problems(name: &str, text: &str, check: fn(&Document) -> Vec<Diagnostic>) -> Vec<Diagnostic> {
    match parse_yaml(name, text, &Options::default()) {
        Err(problems) => problems,
        Ok(documents) => documents.iter().flat_map(check).collect(),
    }
}

/// Whether a recorded message, in which `$WF` stands for the workflow's name, is this one.
fn is_of_any_workflow(recorded: &str, message: &str) -> bool {
    match recorded.split_once("$WF") {
        Some((before, after)) => message.starts_with(before) && message.ends_with(after),
        None => recorded == message,
    }
}

fn judge(path: &Path) -> Outcome {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a file that was just listed");
    let problems = problems(&name, &text, Document::lint);
    let at_run = self::problems(&name, &text, Document::validate);
    if let Some(later) = problems.iter().find(|problem| LATER.contains(&problem.code)) {
        return Outcome::Later(later.message.clone());
    }
    let record: Value = std::fs::read_to_string(path.with_extension("json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let lint = &record["lint"];
    let argo = lint["message"].as_str().unwrap_or_default();
    let accepted =
        if record["createError"].is_string() { false } else { lint["ok"].as_bool().unwrap_or(true) };
    let run_message = record["workflow"]["message"].as_str().unwrap_or_default();
    let ran = run_message.strip_prefix("invalid spec: ");
    if let Some(refusal) = ran
        && at_run.first().is_none_or(|problem| !is_of_any_workflow(refusal, &problem.message))
    {
        return Outcome::Different(format!("argo when run: {refusal}\n    ours: {:?}", at_run.first()));
    }
    if record["workflow"].is_object() && ran.is_none() && !at_run.is_empty() {
        return Outcome::Different(format!("argo runs it\n    ours: {:?}", at_run.first()));
    }
    let ours = problems.first().map(|problem| problem.message.as_str());
    match (accepted, ours) {
        (true, None) => Outcome::Equal,
        (false, Some(_)) if OWN_WORDS.iter().any(|(case, _)| *case == name) || argo.is_empty() => {
            Outcome::Equal
        }
        (false, Some(ours)) if argo.ends_with(&format!("(Workflow): {ours}")) => Outcome::Equal,
        (false, Some(ours)) if argo.contains("strict decoding error") && argo.ends_with(ours) => {
            Outcome::Equal
        }
        (_, ours) => Outcome::Different(format!("argo: {accepted} {argo}\n    ours: {ours:?}")),
    }
}

#[test]
fn recorded_manifests_get_argos_verdict() {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance").to_owned();
    let root = std::env::var("ARGOSY_CONFORMANCE_DIR").unwrap_or(own);
    let mut different = Vec::new();
    for area in AREAS {
        let (mut equal, mut later) = (0, BTreeMap::<String, usize>::new());
        let mut files: Vec<_> = std::fs::read_dir(Path::new(&root).join("cases").join(area))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .filter(|path| !path.to_string_lossy().ends_with(".setup.yaml"))
            .collect();
        files.sort();
        for path in &files {
            match judge(path) {
                Outcome::Equal => equal += 1,
                Outcome::Later(why) => {
                    *later.entry(why.rsplit(['.', '`']).nth(1).unwrap_or_default().to_owned()).or_default() +=
                        1
                }
                Outcome::Different(why) => different.push(format!("{}\n    {why}", path.display())),
            }
        }
        println!("{area}: {} cases, {equal} equal, later: {later:?}", files.len());
    }
    assert!(different.is_empty(), "{} different:\n{}", different.len(), different.join("\n"));
}
