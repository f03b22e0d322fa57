//! YAML as Go's `sigs.k8s.io/yaml` reads it.

use argosy_spec::{Diagnostic, Options, Severity, parse_yaml, read_yaml};
use serde_json::{Value, json};

/// What `withItems` of a step comes to.
fn items(list: &str) -> Value {
    let text = format!(
        "spec:\n  entrypoint: m\n  templates:\n  - name: m\n    steps:\n    - - name: s\n        template: t\n        withItems: {list}\n"
    );
    match parse_yaml("f", &text, &Options::default()) {
        Ok(documents) => documents[0].value["spec"]["templates"][0]["steps"][0][0]["withItems"].clone(),
        Err(problems) => panic!("{list}: {problems:?}"),
    }
}

/// What `args` of a container come to.
fn texts(list: &str) -> Value {
    let text =
        format!("spec:\n  templates:\n  - name: m\n    container:\n      image: x\n      args: {list}\n");
    match parse_yaml("f", &text, &Options::default()) {
        Ok(documents) => documents[0].value["spec"]["templates"][0]["container"]["args"].clone(),
        Err(problems) => panic!("{list}: {problems:?}"),
    }
}

fn problems(text: &str) -> Vec<Diagnostic> {
    let reading = read_yaml("f", text, &Options::default());
    reading
        .problems
        .into_iter()
        .chain(reading.documents.into_iter().flat_map(|document| document.problems))
        .collect()
}

#[test]
fn booleans_of_yaml_1_1() {
    assert_eq!(
        items("[y, n, yes, No, ON, off, True, FALSE, \"yes\", 'on', yEs, t]"),
        json!([true, false, true, false, true, false, true, false, "yes", "on", "yEs", "t"])
    );
    assert_eq!(
        items("[{y: 1, off: 2, 3: 4, 1.5: 5, \"n\": 6}]"),
        json!([{"true": 1, "false": 2, "3": 4, "1.5": 5, "n": 6}])
    );
}

#[test]
fn numbers() {
    assert_eq!(
        items(
            "[0644, 0o17, 0x1f, 0b11, -0b11, 1_000, +5, 08, 1e3, 1.50, .5, 5., -0x10, 1:30, 0x, 1__0, 18446744073709551615]"
        ),
        json!([
            420,
            15,
            31,
            3,
            -3,
            1000,
            5,
            8,
            1000,
            1.5,
            0.5,
            5,
            -16,
            "1:30",
            "0x",
            10,
            18_446_744_073_709_551_615_u64
        ])
    );
    assert_eq!(items("[1e400, ._5, 12e03, 1.e+1, 1e]"), json!(["1e400", "._5", 12000, 10, "1e"]));
    assert_eq!(items("[36893488147419103232]"), json!([36_893_488_147_419_103_232_f64]));
}

#[test]
fn nulls_timestamps_and_texts() {
    assert_eq!(
        items(
            "[~, null, Null, NULL, nUll, 2001-12-14, 2001-12-14t21:59:43.10-05:00, a b, 'it''s', \"\\u0041\\n\"]"
        ),
        json!([
            null,
            null,
            null,
            null,
            "nUll",
            "2001-12-14",
            "2001-12-14t21:59:43.10-05:00",
            "a b",
            "it's",
            "A\n"
        ])
    );
}

#[test]
fn scalars_become_texts_where_a_text_is_wanted() {
    assert_eq!(
        texts(
            "[5, 0644, 1.50, 1e3, 1234567.0, 0.1, 1.23456789, 1e-7, yes, 1_000, 2001-12-14, ~, 18446744073709551615]"
        ),
        json!([
            "5",
            "420",
            "1.5",
            "1000",
            "1.234567e+06",
            "0.1",
            "1.2345679",
            "1e-07",
            "true",
            "1000",
            "2001-12-14",
            "",
            "18446744073709551615"
        ])
    );
}

#[test]
fn a_text_that_is_not_what_is_written_is_warned_of() {
    let found = problems(
        "spec:\n  entrypoint: 0644\n  templates: [{name: a, container: {image: x, args: [yes, 1.10, 5, \"on\", true]}}]\n",
    );
    let told: Vec<_> = found.iter().map(|problem| (problem.severity, problem.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (Severity::Warning, "`0644` is not a text in YAML, and is read as \"420\""),
            (Severity::Warning, "`yes` is not a text in YAML, and is read as \"true\""),
            (Severity::Warning, "`1.10` is not a text in YAML, and is read as \"1.1\""),
        ]
    );
}

#[test]
fn whole_numbers_are_integers_however_they_are_written() {
    let text = "spec: {activeDeadlineSeconds: 1e3, parallelism: 2.0, templates: [{name: a, retryStrategy: {limit: 3.0}, container: {image: x}}]}";
    let document = parse_yaml("f", text, &Options::default()).unwrap().remove(0);
    assert_eq!(document.value["spec"]["activeDeadlineSeconds"], 1000);
    assert_eq!(document.value["spec"]["templates"][0]["retryStrategy"]["limit"], 3);
    assert_eq!(problems("spec: {parallelism: 2.5}")[0].code, "ARG0003");
}

#[test]
fn tags_say_what_a_scalar_is() {
    assert_eq!(
        items("[!!str 5, !!int \"5\", !!float 5, !!bool \"yes\", !!null \"\", !!binary aGk=, !own 5, ! 5]"),
        json!(["5", 5, 5, true, null, "hi", "5", "5"])
    );
    assert_eq!(problems("spec: {parallelism: !!int x}")[0].message, "cannot decode `x` as a !!int");
    assert_eq!(problems("spec: {entrypoint: !!binary \"?\"}")[0].code, "ARG0001");
}

#[test]
fn anchors_and_merges() {
    let merged = items("[&a {k: 1, l: 2}, {<<: *a, k: 3}, {<<: [*a, {m: 4, l: 5}]}, *a, {\"<<\": 6}]");
    assert_eq!(
        merged,
        json!([{"k": 1, "l": 2}, {"k": 3, "l": 2}, {"k": 1, "l": 2, "m": 4}, {"k": 1, "l": 2}, {"<<": 6}])
    );
    assert_eq!(
        problems("spec: {<<: 5}")[0].message,
        "map merge requires map or sequence of maps as the value"
    );
    assert_eq!(problems("spec: *nowhere")[0].code, "ARG0001");
}

#[test]
fn keys_are_given_once_whatever_they_look_like() {
    let found =
        problems("spec: {entrypoint: a}\nmetadata: {labels: {1: a, \"1\": b, yes: c, true: d}}\nspec: {}\n");
    let messages: Vec<_> = found.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "key \"1\" is given twice, before in line 2",
            "key \"true\" is given twice, before in line 2",
            "key \"spec\" is given twice, before in line 1"
        ]
    );
    assert_eq!(problems("~: 1")[0].code, "ARG0001");
    assert_eq!(problems("[a]: 1")[0].code, "ARG0001");
}

#[test]
fn marks_of_order_line_ends_and_documents() {
    let spec = "spec:\r\n  entrypoint: a\r\n  templates:\r\n  - name: a\r\n    container:\r\n      image: x\r\n      command: [sh]\r\n      args: |\r\n";
    assert_eq!(problems(&spec.replace("      args: |\r\n", "")).len(), 0);
    let text = format!(
        "\u{feff}%YAML 1.1\n---\n{}...\n---\n---\n# nothing\n---\nkind: Workflow\n",
        spec.replace("      args: |\r\n", "")
    );
    let documents = parse_yaml("f", &text, &Options::default()).unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(documents[0].value["spec"]["templates"][0]["container"]["image"], "x");
}

#[test]
fn json_is_yaml_even_with_tabs() {
    let text = "{\n\t\"spec\": {\n\t\t\"entrypoint\": \"a\",\n\t\t\"templates\": [{\"name\": \"a\", \"container\": {\"image\": \"x\\/y\\u00e9\"}}]\n\t}\n}\n";
    let document = parse_yaml("f", text, &Options::default()).unwrap().remove(0);
    assert_eq!(document.value["spec"]["templates"][0]["container"]["image"], "x/yé");
    let found = problems("spec:\n\tentrypoint: a\n");
    assert_eq!(
        (found[0].code, found[0].suggestion.as_str()),
        ("ARG0001", "YAML is indented with spaces; this line begins with a tab")
    );
}

#[test]
fn infinity_has_no_word_in_json() {
    assert_eq!(
        problems("spec: {parallelism: .inf}")[0].message,
        "`.inf` is a number that JSON has no word for"
    );
}

#[test]
fn names_are_found_in_another_case() {
    let text = "spec: {entryPoint: a, Templates: [{name: a, container: {image: x}}]}";
    let document = parse_yaml("f", text, &Options::default()).unwrap().remove(0);
    assert_eq!(document.value["spec"]["entrypoint"], "a");
    assert_eq!(document.validate(), []);
    assert_eq!(document.problems[0].code, "ARG0162");
    assert_eq!(problems("spec: {entrypoint: a, entryPoint: b}")[0].code, "ARG0162");
}
