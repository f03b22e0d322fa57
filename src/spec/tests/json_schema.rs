//! The JSON schema accepts what the reader accepts, and no misspelt or refused field.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that reads files")]

use argosy_spec::{Options, json_schema, read_yaml};
use serde_json::Value;

/// Why a value does not fit a schema of the kind that we make; `None`: it fits.
fn misfit(root: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        return misfit(root, &root["definitions"][name], value, path);
    }
    if let Some(kind) = schema.get("type") {
        let kinds: Vec<&str> = kind.as_str().map_or_else(
            || kind.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap()).collect(),
            |kind| vec![kind],
        );
        let fits = kinds.iter().any(|kind| match *kind {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("{other} is no type"),
        });
        if !fits {
            return Some(format!("{path}: {value:.40} is not {kind}"));
        }
    }
    if schema.get("const").is_some_and(|wanted| wanted != value) {
        return Some(format!("{path}: not {}", schema["const"]));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|allowed| !allowed.contains(value)) {
        return Some(format!("{path}: not one of {}", schema["enum"]));
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        let mut found = values
            .iter()
            .enumerate()
            .filter_map(|(at, value)| misfit(root, items, value, &format!("{path}[{at}]")));
        if let Some(why) = found.next() {
            return Some(why);
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{path}.{key}");
        let of_key = schema.get("properties").and_then(|properties| properties.get(key));
        match of_key.or_else(|| schema.get("additionalProperties")) {
            Some(Value::Bool(false)) => return Some(format!("{at}: unknown")),
            Some(schema) => {
                if let Some(why) = misfit(root, schema, value, &at) {
                    return Some(why);
                }
            }
            None => {}
        }
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let condition = &part["if"];
        let has_required = condition["required"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|key| value.get(key.as_str().unwrap()).is_some());
        if has_required && misfit(root, condition, value, path).is_none() {
            return misfit(root, &part["then"], value, path);
        }
    }
    None
}

#[test]
fn every_recorded_manifest_that_can_be_read_fits() {
    let schema = json_schema();
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/cases");
    let (mut fit, mut wrong) = (0, Vec::new());
    for area in std::fs::read_dir(cases).unwrap() {
        for file in std::fs::read_dir(area.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let options = Options { skip_other_kinds: true, ..Options::default() };
            for document in read_yaml("f", &text, &options).documents {
                let is_readable = !document.problems.iter().any(argosy_spec::Diagnostic::is_error);
                match misfit(&schema, &schema, &document.as_written(), "") {
                    None if is_readable => fit += 1,
                    // A text inside steps is read strictly, which the schema does not know.
                    None => {}
                    Some(why) if is_readable => wrong.push(format!("{}: {why}", path.display())),
                    Some(_) => {}
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(fit > 500, "only {fit} documents");
}

#[test]
fn what_the_reader_refuses_does_not_fit() {
    let schema = json_schema();
    for text in [
        "spec: {entrypiont: a}",
        "kind: CronWorkflow\nspec: {entrypoint: a}",
        "kind: Workflow\nspec: {schedules: []}",
        "spec: {templates: {}}",
        "spec: {parallelism: x}",
        "spec: {templates: [{container: {imagge: x}}]}",
        "kind: Nonsense",
        "metadata: {finalizers: [a]}",
    ] {
        let reading = read_yaml("f", text, &Options::default());
        assert!(
            reading
                .problems
                .iter()
                .chain(reading.documents.iter().flat_map(|one| &one.problems))
                .any(|one| one.is_error()),
            "{text} is accepted"
        );
        if let Some(document) = reading.documents.first() {
            assert!(misfit(&schema, &schema, &document.as_written(), "").is_some(), "{text} fits");
        }
    }
}
