//! The verdict of the offline lint, against Argo's.

use argosy_spec::{Diagnostic, Document, Options, parse_yaml};
use serde_json::Value;

use crate::case::Case;

/// Codes of what is not supported yet.
const LATER: [&str; 3] = ["ARG0005", "ARG0007", "ARG0020"];
/// Words of Go's own readers of YAML and JSON: ours tell the place, in their own words.
/// And of its offline lint about templates that are nowhere: ours are those of the controller.
const OWN_WORDS: [&str; 6] = [
    "cannot unmarshal",
    "strict decoding error",
    "error unmarshaling",
    "yaml:",
    "json:",
    "couldn't find workflow template",
];

/// What came of a comparison.
pub enum Verdict {
    /// Argo's verdict, in Argo's words.
    Same,
    /// Ours is refused for something that is not supported yet.
    Later(String),
    /// Another verdict, or other words.
    Different(String),
}

/// Compares the recorded verdict with ours; the same when none is recorded. `references` tells what is wrong with a
/// manifest's references to templates that were set up.
#[must_use]
pub fn judge(case: &Case, references: &dyn Fn(&Value) -> Option<String>) -> Verdict {
    let lint = &case.record["lint"];
    let Some(accepted) = lint["ok"].as_bool() else { return Verdict::Same };
    let argo = lint["message"].as_str().unwrap_or_default();
    let mut problems: Vec<Diagnostic> = Vec::new();
    for object in &case.objects {
        match parse_yaml(&case.name, &object.text, &Options::default()) {
            Ok(documents) => problems.extend(documents.iter().flat_map(Document::lint)),
            Err(found) => problems.extend(found),
        }
    }
    if let Some(later) = problems.iter().find(|problem| LATER.contains(&problem.code)) {
        return Verdict::Later(later.message.clone());
    }
    let first = case.objects.first().and_then(|object| object.read.as_ref().ok());
    let ours = match problems.first() {
        Some(problem) => Some(problem.message.clone()),
        None => first.and_then(references),
    };
    let ours = ours.as_deref();
    let in_argos_words = |ours: &str| {
        argo.is_empty()
            || argo.trim_end().ends_with(ours)
            || argo.contains(&format!("{ours}\n"))
            || OWN_WORDS.iter().any(|words| argo.contains(words))
    };
    match ours {
        None if accepted => Verdict::Same,
        Some(ours) if !accepted && in_argos_words(ours) => Verdict::Same,
        _ => Verdict::Different(format!(
            "lint: recorded {}, ours {}",
            if accepted { Value::from("ok") } else { argo.into() },
            Value::from(ours.unwrap_or("ok"))
        )),
    }
}
