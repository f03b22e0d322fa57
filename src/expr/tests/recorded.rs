//! Expressions as recorded from Argo: every case of the area `expr` of the project's recordings, or of those in the
//! directory that `ARGOSY_CONFORMANCE_DIR` names.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this test reads the recordings, and fails where they are not as they should be"
)]

use std::collections::BTreeMap;
use std::path::Path;

use argosy_expr::{Env, Error, Expressions, Rules, substitute_with};
use serde_json::Value as Json;

const NOW_MS: i64 = 1_709_287_200_000;

fn parameters(json: &Json) -> impl Iterator<Item = (&str, String)> {
    json["parameters"].as_array().into_iter().flatten().filter_map(|parameter| {
        let value = Some(&parameter["value"]).filter(|value| !value.is_null());
        let value = value.unwrap_or(&parameter["default"]);
        let value = value.as_str().map(str::to_owned)?;
        Some((parameter["name"].as_str()?, value))
    })
}

/// The names that the steps of the entrypoint see.
fn environment(workflow: &Json, record: &Json) -> Env {
    let mut env = Env::default();
    env.insert_text("workflow.name", workflow["metadata"]["name"].as_str().unwrap());
    env.insert_text("workflow.parameters", "[]");
    for (name, value) in parameters(&workflow["spec"]["arguments"]) {
        env.insert_text(&format!("workflow.parameters.{name}"), &value);
    }
    env.insert_text("inputs.parameters", "[]");
    for node in record["nodes"].as_array().unwrap() {
        let Some(name) = node["displayName"].as_str() else { continue };
        if name == "$WF" {
            for (name, value) in parameters(&node["inputs"]) {
                env.insert_text(&format!("inputs.parameters.{name}"), &value);
            }
        }
        let prefix = format!("steps.{name}");
        env.insert_text(&format!("{prefix}.status"), node["phase"].as_str().unwrap_or_default());
        for (parameter, value) in parameters(&node["outputs"]) {
            env.insert_text(&format!("{prefix}.outputs.parameters.{parameter}"), &value);
        }
        for key in ["exitCode", "result"] {
            if let Some(value) = node["outputs"][key].as_str() {
                let name = if key == "result" { "outputs.result" } else { key };
                env.insert_text(&format!("{prefix}.{name}"), value);
            }
        }
    }
    env
}

fn resolve(text: &str, env: &Env) -> Result<String, Error> {
    let scope: BTreeMap<String, String> = BTreeMap::new();
    let with = Expressions { environment: env, now_ms: NOW_MS };
    let quoted = Json::from(text).to_string();
    let early = substitute_with(&quoted, &scope, &with, &Rules::LENIENT)?;
    let late = substitute_with(&early, &scope, &with, &Rules::STRICT_NODES)?;
    Ok(serde_json::from_str(&late).unwrap_or(late))
}

/// Compares one case; gives what was compared and what differs.
fn compare(yaml: &Path) -> (usize, Vec<String>) {
    let workflow: Json = serde_yaml::from_str(&std::fs::read_to_string(yaml).unwrap()).unwrap();
    let record = std::fs::read_to_string(yaml.with_extension("json")).unwrap();
    let record: Json = serde_json::from_str(&record).unwrap();
    let env = environment(&workflow, &record);
    let nodes = record["nodes"].as_array().unwrap();
    let (mut compared, mut differences) = (0, Vec::new());
    let mut check = |what: &str, expected: &str, given: Result<String, Error>| {
        compared += 1;
        let given = given.unwrap_or_else(|error| error.to_string());
        let masked = matches!(expected, "$DURATION" | "$HEX64");
        if given != expected && !masked {
            differences.push(format!("{what}: expected {expected:?}, got {given:?}"));
        }
    };
    let templates = workflow["spec"]["templates"].as_array().unwrap();
    let steps = templates.iter().filter_map(|template| template["steps"].as_array()).flatten();
    for step in steps.filter_map(Json::as_array).flatten() {
        let node = nodes.iter().find(|node| node["displayName"] == step["name"]);
        let recorded: BTreeMap<&str, String> =
            node.map(|node| parameters(&node["inputs"]).collect()).unwrap_or_default();
        for (name, text) in parameters(&step["arguments"]) {
            if !text.contains("{{=") {
                continue;
            }
            let given = resolve(&text, &env);
            if let Some(expected) = recorded.get(name) {
                check(&text, expected, given);
            } else if let Some(message) = nodes.iter().find_map(|node| node["message"].as_str()) {
                check(&text, message.trim_start_matches("failed to resolve references: "), given);
            }
        }
    }
    (compared, differences)
}

#[test]
fn every_recorded_expression_comes_out_the_same() {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance");
    let directory = std::env::var_os("ARGOSY_CONFORMANCE_DIR").unwrap_or_else(|| own.into());
    let directory = Path::new(&directory).join("cases/expr");
    let (mut cases, mut compared, mut differences) = (0, 0, Vec::new());
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".yaml") || name.ends_with(".setup.yaml") {
            continue;
        }
        cases += 1;
        let (count, different) = compare(&file);
        compared += count;
        differences.extend(different.iter().map(|difference| format!("{name}: {difference}")));
    }
    println!("{cases} cases, {compared} expressions compared");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 0, "no expression was found to compare");
}
