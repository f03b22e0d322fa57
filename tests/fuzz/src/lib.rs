//! What is done with bytes that nobody has looked at: read, checked, evaluated. Nothing may panic, take long, or come out
//! otherwise the second time.
//!
//! Each function is a fuzz target (`fuzz_targets/`), and runs in every `cargo test` over `seeds/` and `regressions/`
//! (`src/spec/tests/fuzz_regressions.rs`).

use std::collections::BTreeMap;

use argosy_expr::{
    Env, Expressions, Limits, Lookup, Rules, Value, depends as dependencies, program, substitute,
    substitute_with,
};
use argosy_spec::{File, Manifest, Options, Review, Schedule, parse_json, parse_value, parse_yaml, review};

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("yaml", yaml),
    ("json", json),
    ("tags", tags),
    ("expression", expression),
    ("when", when),
    ("depends", depends),
    ("cron", cron),
];

/// Less than in production, so that a run sees many inputs a second; the bounds work alike.
const LIMITS: Limits = Limits {
    steps_max: 20_000,
    memory_bytes_max: 4 * 1024 * 1024,
    output_bytes_max: 256 * 1024,
    ..Limits::DEFAULT
};

/// A file of manifests: read, checked, looked at together with another, and stored.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let files = [File { name: "a", text }, File { name: "b", text: LIBRARY }];
    let report = review(&files, &Review::default());
    for (_, _, problem) in report.problems() {
        // Problems are shown to people.
        let shown = problem.to_string();
        assert!(!shown.chars().any(|next| next.is_control() && next != '\n'), "{shown:?}");
        if let Some(place) = &problem.place {
            assert!(place.line >= 1 && place.column >= 1 && place.length >= 1, "{place:?}");
        }
    }
    let Ok(documents) = parse_yaml("a", text, &Options::default()) else { return };
    for document in documents {
        let problems = document.validate();
        if document.kind.ends_with("Binding") || document.kind == "CronWorkflow" {
            continue;
        }
        // What is stored is what was checked.
        let again =
            Manifest::from_value(document.value.clone()).expect("a checked manifest can be read again");
        assert_eq!(again, document.manifest);
        assert_eq!(argosy_spec::validate(&again).len(), problems.len());
        let text = document.value.to_string();
        if let Ok(of_json) = parse_json(&text, &Options::default()) {
            assert_eq!(of_json.manifest, document.manifest);
        }
    }
}

const LIBRARY: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: t}
spec:
  entrypoint: a
  templates:
  - {name: a, inputs: {parameters: [{name: p, value: v}]}, container: {image: x}}
  - {name: b, steps: [[{name: c, template: a}]]}
";

/// A request of the API.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options = Options { drop_unknown_fields: true, api_path: Some("workflow"), ..Options::default() };
    let Ok(document) = parse_json(text, &options) else { return };
    let _ = document.validate();
    let again = parse_value(document.value.clone(), &options).expect("a checked request can be read again");
    assert_eq!(again.value, document.value);
}

/// A text with tags, and values for them: the first line is the text, each further one a value.
pub fn tags(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, values) = text.split_once('\n').unwrap_or((text, "1\n{{a}}\n\"\\"));
    let mut scope = BTreeMap::new();
    let mut env = Env::default();
    for (name, value) in
        ["a", "inputs.parameters.b", "steps.c.outputs.result", "item"].into_iter().zip(values.split('\n'))
    {
        scope.insert(name.to_owned(), value.to_owned());
        env.insert_text(name, value);
    }
    let json = serde_json::json!({"k": text, text: ["x", text]}).to_string();
    let lookups: [&dyn Lookup; 1] = [&scope];
    for rules in [Rules::LENIENT, Rules::STRICT_NODES, Rules::STRICT] {
        let plain = substitute(&json, &lookups.as_slice(), &rules);
        assert_eq!(plain.is_ok(), substitute(&json, &lookups.as_slice(), &rules).is_ok());
        let with = Expressions { environment: &env, now_ms: 1_700_000_000_000 };
        let first = substitute_with(&json, &scope, &with, &rules).map_err(|error| error.to_string());
        let second = substitute_with(&json, &scope, &with, &rules).map_err(|error| error.to_string());
        assert_eq!(first, second);
    }
}

/// An expression; what follows a line of `---` is a text that it can read as `t`.
pub fn expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, other) = text.split_once("\n---\n").unwrap_or((text, "a,b"));
    let mut env = Env::default();
    env.insert("t", Value::from(other));
    env.insert("n", Value::Int(3));
    env.insert("inputs.parameters.p", Value::from("1"));
    env.insert("nothing", Value::Nil);
    let Ok(program) = program::compile(text) else { return };
    let _ = (program.paths(), program.missing(&env));
    let evaluate = || {
        let value = program.evaluate(&env, &LIMITS, 1_700_000_000_000).map_err(|error| error.to_string())?;
        Ok::<_, String>((value.json(false, 100_000), value.display(100_000)))
    };
    assert_eq!(evaluate(), evaluate());
}

/// A condition of a step.
pub fn when(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let first = argosy_expr::when::evaluate(text).map_err(|error| error.to_string());
    assert_eq!(first, argosy_expr::when::evaluate(text).map_err(|error| error.to_string()));
}

/// What a task waits for.
pub fn depends(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mentions: Vec<String> =
        dependencies::mentions(text).iter().map(|mention| mention.task.to_owned()).collect();
    let _ = dependencies::expanded(text);
    let Ok(depends) = dependencies::parse(text) else { return };
    for task in depends.tasks() {
        assert!(
            mentions.iter().any(|mention| mention == task),
            "{task} of {text:?} is not among {mentions:?}"
        );
    }
    let all = depends.evaluate(&mut |_| true);
    assert_eq!(all, depends.evaluate(&mut |_| true));
}

/// A schedule: read, and its times around clock changes and the ends of years.
pub fn cron(data: &[u8]) {
    /// 2024-02-28, 2024-03-10 and 2024-11-03 in New York (clock changes), 2024-12-31, in seconds since 1970.
    const FROM: [i64; 4] = [1_709_078_400, 1_710_050_000, 1_730_600_000, 1_735_603_200];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schedule) = Schedule::parse(text) else { return };
    for from in FROM {
        let Some(next) = schedule.next(from, from) else { continue };
        assert!(next > from, "{text:?}: {next} is not after {from}");
        assert_eq!(schedule.latest(from, from, next + 1), Some(next), "{text:?} after {from}");
        assert_eq!(schedule.latest(from, from, next), None, "{text:?} before {next}");
        if let Some(after) = schedule.next(from, next) {
            assert!(after > next, "{text:?}: {after} is not after {next}");
        }
    }
}
