//! Reading texts: what is accepted, how problems are told, and that nothing breaks it.

use argosy_spec::{Diagnostic, Document, Limits, Options, Status, TemplateKind, parse_json, parse_yaml};
use serde_json::json;

const GOOD: &str = r#"apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: hello-
  labels: {team: 7}
spec:
  entrypoint: main
  arguments:
    parameters:
    - {name: count, value: 5}
    - name: flag
      value: yes
  templates:
  - name: main
    steps:
    - - name: say
        template: echo
        arguments: {parameters: [{name: text, value: "{{item}}"}]}
        withItems: [1, two, {k: v}, 1.5]
  - name: echo
    inputs: {parameters: [{name: text}]}
    retryStrategy: {limit: 2}
    container:
      image: busybox
      command: [echo, "{{inputs.parameters.text}}"]
      env: [{name: N, value: 0644}]
"#;

fn read(text: &str) -> Result<Vec<Document>, Vec<Diagnostic>> {
    parse_yaml("flow.yaml", text, &Options::default())
}

fn problems(text: &str) -> Vec<Diagnostic> {
    match read(text) {
        Err(problems) => problems,
        Ok(documents) => documents.iter().flat_map(Document::validate).collect(),
    }
}

/// A text with a `spec` of one container template and more lines.
fn spec(more: &str) -> String {
    format!("spec:\n  entrypoint: main\n  templates:\n  - name: main\n    container: {{image: x}}\n{more}")
}

#[test]
fn a_good_manifest_is_read_with_gos_rules() {
    let documents = read(GOOD).unwrap();
    assert_eq!(documents[0].validate(), []);
    let manifest = &documents[0].manifest;
    assert_eq!(manifest.metadata.labels["team"], "7");
    let values: Vec<_> =
        manifest.spec.arguments.parameters.iter().map(|parameter| parameter.value.clone().unwrap()).collect();
    assert_eq!(values, ["5", "true"]);
    let TemplateKind::Steps(groups) = &manifest.spec.templates[0].kind else { panic!("steps") };
    assert_eq!(groups[0][0].with_items, [json!(1), json!("two"), json!({"k": "v"}), json!(1.5)]);
    assert!(groups[0][0].is_loop());
    let TemplateKind::Container(container) = &manifest.spec.templates[1].kind else { panic!("container") };
    assert_eq!(container["env"][0]["value"], "420");
    assert_eq!(
        manifest.spec.templates[1].retry_strategy.as_ref().unwrap().limit.as_ref().unwrap().as_i64(),
        Some(2)
    );
}

#[test]
fn what_is_stored_reads_back_the_same() {
    let document = read(GOOD).unwrap().remove(0);
    let again = argosy_spec::Manifest::from_value(document.value.clone()).unwrap();
    assert_eq!(again, document.manifest);
    let text = serde_json::to_string(&document.value).unwrap();
    assert_eq!(parse_json(&text, &Options::default()).unwrap().manifest, document.manifest);
}

#[test]
fn several_documents_and_anchors() {
    let text = "spec: {entrypoint: a, templates: [{name: a, container: &c {image: x}}, {name: b, container: *c}]}\n---\n\
                spec:\n  entrypoint: a\n  templates:\n  - name: a\n    container:\n      <<: {image: y, tty: true}\n      image: z\n---\n";
    let documents = read(text).unwrap();
    assert_eq!(documents.len(), 2);
    let TemplateKind::Container(container) = &documents[0].manifest.spec.templates[1].kind else { panic!() };
    assert_eq!(container["image"], "x");
    let TemplateKind::Container(container) = &documents[1].manifest.spec.templates[0].kind else { panic!() };
    assert_eq!((&container["image"], &container["tty"]), (&json!("z"), &json!(true)));
}

#[test]
fn every_problem_is_told_with_its_place() {
    let text =
        spec("  entrypiont: x\n  mutex: {strategy: x}\n  activeDeadlineSeconds: soon\n  onExit: [a]\n");
    let told: Vec<_> = problems(&text)
        .iter()
        .map(|problem| {
            let place = problem.place.as_ref().unwrap();
            (problem.code, problem.path.clone(), place.line, place.column)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("ARG0004", "spec.entrypiont".to_owned(), 6, 3),
            ("ARG0004", "spec.mutex".to_owned(), 7, 3),
            ("ARG0003", "spec.activeDeadlineSeconds".to_owned(), 8, 26),
            ("ARG0003", "spec.onExit".to_owned(), 9, 11),
        ]
    );
}

#[test]
fn a_problem_shows_the_line_and_a_caret() {
    let shown = problems(&spec("  entrypiont: x\n"))[0].to_string();
    assert_eq!(
        shown,
        "flow.yaml:6:3: error[ARG0004]: unknown field \"spec.entrypiont\"\n   |\n 6 |   entrypiont: x\n   |   ^^^^^^^^^^\n  = did you mean `entrypoint`?"
    );
}

#[test]
fn later_checks_have_places_too() {
    let text = "spec:\n  entrypoint: main\n  templates:\n  - name: main\n    dag:\n      tasks:\n      - {name: a, template: wrok}\n  - name: work\n    container: {image: x}\n";
    let problems = problems(text);
    assert_eq!(problems[0].message, "templates.main.tasks.a template name 'wrok' undefined");
    assert_eq!(problems[0].suggestion, "did you mean `work`?");
    let place = problems[0].place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (7, 19));
}

#[test]
fn unsupported_fields_are_refused_by_name_unless_empty() {
    let message = |text: &str| problems(text).into_iter().map(|problem| problem.message).collect::<Vec<_>>();
    let hdfs = |value: &str| spec(&format!("  templateDefaults: {{archiveLocation: {{hdfs: {value}}}}}\n"));
    let told = "field `spec.templateDefaults.archiveLocation.hdfs` is not supported";
    assert_eq!(message(&hdfs("{path: /x}")), [told]);
    assert!(problems(&hdfs("{path: /x}"))[0].suggestion.contains("WebHDFS"));
    assert_eq!(message(&hdfs("null")), Vec::<String>::new());
}

#[test]
fn other_kinds_are_refused() {
    let problem = &problems("kind: CronWorkflw\nspec: {}\n")[0];
    assert_eq!(
        problem.message,
        "kind `CronWorkflw` is not known; use one of: Workflow, WorkflowTemplate, ClusterWorkflowTemplate, CronWorkflow, \
         WorkflowEventBinding"
    );
    assert_eq!(problem.suggestion, "did you mean `CronWorkflow`?");
    assert_eq!(problems("apiVersion: v1\nkind: Workflow\n")[0].code, "ARG0007");
    assert_eq!(problems("- a\n")[0].message, "a workflow must be an object, and this is a list");
    assert_eq!(problems("")[0].message, "`flow.yaml` holds no document");
}

#[test]
fn duplicate_keys_are_refused_with_both_places() {
    let problems = problems(&spec("  onExit: main\n  onExit: main\n"));
    assert_eq!(problems[0].message, "key \"onExit\" is given twice, before in line 6");
    assert_eq!(problems[0].place.as_ref().unwrap().line, 7);
}

#[test]
fn truncated_texts_are_refused_where_they_end() {
    for cut in ["spec: {entrypoint: main, templates: [", "spec:\n  entrypoint: \"main", "spec:\n  a: b\n c"] {
        let problems = problems(cut);
        assert_eq!(problems[0].code, "ARG0001", "{cut}");
        assert!(problems[0].place.is_some(), "{cut}");
    }
    let error = parse_json("{\"spec\": {", &Options::default()).unwrap_err();
    assert_eq!(error[0].message, "unexpected EOF");
}

#[test]
fn ten_megabytes_are_refused_at_once() {
    let text = format!("spec:\n  x: \"{}\"\n", "a".repeat(10 * 1024 * 1024));
    let problem = &problems(&text)[0];
    assert_eq!(
        (problem.code, problem.message.contains("bytes long, and at most 2097152 are allowed")),
        ("ARG0002", true)
    );
    assert_eq!(parse_json(&text, &Options::default()).unwrap_err()[0].code, "ARG0002");
}

#[test]
fn deep_and_doubling_texts_end_in_an_error() {
    for open in ["[", "{a: ", "- ", "? "] {
        assert!(!problems(&open.repeat(100_000)).is_empty(), "{open}");
    }
    let mut deep = String::new();
    for level in 0..500 {
        deep.push_str(&format!("{}a:\n", " ".repeat(level)));
    }
    assert!(!problems(&deep).is_empty());
    assert!(parse_json(&"[".repeat(100_000), &Options::default()).is_err());
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let problem = &problems(&bomb)[0];
    assert_eq!(
        (problem.code, problem.message.as_str()),
        ("ARG0002", "aliases expand to more than 400000 values")
    );
    assert!(!problems("a: &a [*a]").is_empty());
}

#[test]
fn long_lists_stay_within_the_bound_of_values() {
    let options = Options { limits: Limits { nodes_max: 50, ..Limits::DEFAULT }, ..Options::default() };
    let text = format!("spec: {{x: [{}]}}", "1, ".repeat(100));
    assert_eq!(parse_yaml("x", &text, &options).unwrap_err()[0].code, "ARG0002");
}

#[test]
fn the_api_is_answered_in_argos_words() {
    let options = Options { api_path: Some("workflow"), drop_unknown_fields: true, ..Options::default() };
    let error = |value: serde_json::Value| match argosy_spec::parse_value(value, &options) {
        Err(problems) => problems[0].message.clone(),
        Ok(document) => {
            document.validate().first().map(|problem| problem.message.clone()).unwrap_or_default()
        }
    };
    let container = json!({"name": "main", "container": {"image": "busybox"}});
    assert_eq!(
        error(json!({"spec": {"entrypoint": 5}})),
        "json: cannot unmarshal number into Go struct field WorkflowSpec.workflow.spec.entrypoint of type string"
    );
    assert_eq!(error(json!({"spec": {"templates": [container]}})), "spec.entrypoint is required");
    assert_eq!(
        error(json!({"spec": {"entrypoint": "zzz", "templates": [container]}})),
        "template name 'zzz' undefined"
    );
    assert_eq!(error(json!({"spec": {"entrypoint": "main", "nonsense": 1, "templates": [container]}})), "");
    assert_eq!(
        error(
            json!({"spec": {"entrypoint": "main", "templates": [{"name": "main", "steps": [[{"name": "a", "template": "zzz"}]]}]}})
        ),
        "templates.main.steps[0].a template name 'zzz' undefined"
    );
    assert_eq!(
        error(json!({"spec": {"entrypoint": "main", "templates": [
            {"name": "main", "inputs": {"parameters": [{"name": "p"}]}, "container": {"image": "b", "args": ["{{inputs.parameters.p}}"]}}
        ]}})),
        "templates.main inputs.parameters.p was not supplied"
    );
}

#[test]
fn the_table_of_fields_names_each_field_once() {
    let table = argosy_spec::field_table();
    let mut seen = std::collections::BTreeSet::new();
    for line in &table {
        assert!(seen.insert((line.owner, line.field)), "{}.{} twice", line.owner, line.field);
        let says_why = matches!(line.status, Status::Dropped | Status::Refused);
        assert_eq!(
            !line.reason.is_empty(),
            says_why,
            "{}.{}: {:?}, because {:?}",
            line.owner,
            line.field,
            line.status,
            line.reason
        );
    }
    for (owner, field, _) in argosy_spec::field_reasons() {
        let is_used =
            |line: &argosy_spec::FieldLine| line.field == *field && ["*", line.owner].contains(owner);
        assert!(
            table.iter().any(is_used),
            "a reason is given for {owner}.{field}, which is not in the table"
        );
    }
    assert!(table.len() > 200);
}

#[test]
fn the_table_of_fields_has_every_field_of_argo() {
    let table = argosy_spec::field_table();
    let (mut lacking, mut types) = (Vec::new(), 0);
    for line in include_str!("argo-fields.txt").lines().filter(|line| !line.starts_with('#')) {
        let (owner, fields) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        // A type that is not in the table stands inside a field that is refused, or taken as it is.
        if !table.iter().any(|line| line.owner == owner) {
            continue;
        }
        types += 1;
        for field in fields.split_whitespace() {
            if !table.iter().any(|line| line.owner == owner && line.field == field) {
                lacking.push(format!("{owner}.{field}"));
            }
        }
    }
    assert_eq!(lacking, Vec::<String>::new());
    assert!(types > 40, "only {types} types");
}

#[test]
fn the_documentation_has_every_field_and_code() {
    assert!(
        include_str!("../../../docs/manifest-fields.md") == argosy_spec::field_page(),
        "run: cargo run -p argosy-spec --example fields > docs/manifest-fields.md"
    );
    assert!(
        include_str!("../../../docs/argosy.schema.json") == argosy_spec::json_schema_text(),
        "run: cargo run -p argosy-spec --example schema > docs/argosy.schema.json"
    );
    let errors = include_str!("../../../docs/errors.md");
    for (code, meaning) in argosy_spec::CODES {
        assert!(errors.contains(&format!("| {code} | {meaning} |")), "docs/errors.md lacks {code}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = problems(&text);
        let _ = parse_json(&text, &Options::default());
    }

    #[test]
    fn any_yaml_like_text_ends(text in "[a-c:\\[\\]{}&*!|>'\"#?, \n-]{0,120}") {
        let _ = problems(&text);
    }

    #[test]
    fn any_damage_to_a_good_text_ends(at in 0..GOOD.len(), length in 0..20_usize, with in "[\\[{}:&*\n -]{0,3}") {
        let end = (at + length).min(GOOD.len());
        if GOOD.is_char_boundary(at) && GOOD.is_char_boundary(end) {
            let _ = problems(&format!("{}{with}{}", &GOOD[..at], &GOOD[end..]));
        }
    }
}
