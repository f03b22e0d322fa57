//! A look at files: all problems at once, whatever else is wrong.

use argosy_spec::{File, JoinedCluster, Options, Report, Review, Severity, review};

fn look(files: &[(&str, &str)]) -> Report {
    let files: Vec<File<'_>> = files.iter().map(|(name, text)| File { name, text }).collect();
    review(&files, &Review::default())
}

/// `file:line:column code message` of all problems.
fn told(report: &Report) -> Vec<String> {
    report
        .problems()
        .map(|(file, _, problem)| match &problem.place {
            Some(place) => {
                format!("{}:{}:{} {} {}", file.name, place.line, place.column, problem.code, problem.message)
            }
            None => format!("{} {} {}", file.name, problem.code, problem.message),
        })
        .collect()
}

#[test]
fn form_and_meaning_are_told_together() {
    let text = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: a-}
spec:
  entrypoint: main
  activeDeadlineSeconds: soon
  templates:
  - name: main
    dag:
      tasks:
      - {name: a, template: wrok, argumets: {}}
      - {name: b, template: work, depends: nope}
  - name: work
    contaner: {image: x}
  - name: work
    container: {image: [y]}
";
    assert_eq!(
        told(&look(&[("f", text)])),
        [
            "f:6:26 ARG0003 `spec.activeDeadlineSeconds` must be an integer, and is a string",
            "f:11:35 ARG0004 unknown field \"spec.templates[0].dag.tasks[0].argumets\"",
            "f:12:35 ARG0015 templates.main sorting failed: invalid dependency nope",
            "f:14:5 ARG0004 unknown field \"spec.templates[1].contaner\"",
            "f:15:5 ARG0013 spec.templates[2].name 'work' is not unique",
            "f:16:24 ARG0003 `spec.templates[2].container.image` must be a string, and is a list",
        ]
    );
}

#[test]
fn a_problem_brings_no_others_with_it() {
    for text in [
        // A type that can't be read is not missing.
        "spec:\n  entrypoint: [main]\n  templates: [{name: main, container: {image: x}}]\n",
        // What a misspelt field says is known.
        "spec:\n  entrypoint: main\n  templates:\n  - name: main\n    inputz: {parameters: [{name: p, value: v}]}\n    container: {image: x, args: [\"{{inputs.parameters.p}}\"]}\n",
        // Inputs that can't be read may hold any name.
        "spec:\n  entrypoint: main\n  templates:\n  - name: main\n    inputs: {parameters: p}\n    container: {image: x, args: [\"{{inputs.parameters.p}}\"]}\n",
        // An element that can't be read leaves the others where they are.
        "spec:\n  entrypoint: main\n  templates:\n  - 5\n  - {name: main, container: {image: x}}\n",
    ] {
        let report = look(&[("f", text)]);
        assert_eq!(report.errors(), 1, "{text}\n{:?}", told(&report));
    }
}

const GOOD: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a, templates: [{name: a, container: {image: x}}]}\n";

#[test]
fn a_document_that_cannot_be_read_does_not_hide_the_next() {
    let text = format!("{GOOD}---\nspec: [\n---\nspec: {{nonsense: 1}}\n---\na: b: c\n---\n{GOOD}");
    let report = look(&[("f", &text)]);
    let lines: Vec<_> =
        report.problems().filter_map(|(_, _, problem)| Some(problem.place.as_ref()?.line)).collect();
    assert_eq!(lines, [5, 9, 7, 7], "{:?}", told(&report));
    assert_eq!(report.documents(), 3);
}

#[test]
fn every_file_is_looked_at() {
    let report = look(&[("a", "spec: {x: 1}"), ("b", GOOD), ("c", "kind: Workflw\n")]);
    assert_eq!(report.problems().map(|(file, _, _)| file.name.as_str()).collect::<Vec<_>>(), ["a", "a", "c"]);
    assert_eq!((report.documents(), report.errors()), (2, 3));
}

#[test]
fn objects_of_others_are_left_alone() {
    let text = "apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n---\nmessage: a parameter\n---\napiVersion: argoproj.io/v1alpha1\nkind: Sensor\nspec: {x: 1}\n";
    let report = look(&[("f", text)]);
    assert_eq!((report.documents(), report.errors(), report.files[0].others), (0, 0, 3));
}

const LIBRARY: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: library}
spec:
  templates:
  - name: greet
    inputs: {parameters: [{name: who}]}
    outputs: {parameters: [{name: said, valueFrom: {path: /said}}]}
    container: {image: x, args: [\"{{inputs.parameters.who}}\"]}
";

fn user(reference: &str, arguments: &str) -> String {
    format!(
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    steps:\n    - - name: a\n        templateRef: {reference}\n        arguments: {arguments}\n    - - name: b\n        template: say\n        arguments: {{parameters: [{{name: v, value: \"{{{{steps.a.outputs.parameters.said}}}}\"}}]}}\n  - name: say\n    inputs: {{parameters: [{{name: v}}]}}\n    container: {{image: x}}\n"
    )
}

#[test]
fn references_lead_to_other_files() {
    let good = user("{name: library, template: greet}", "{parameters: [{name: who, value: me}]}");
    assert_eq!(told(&look(&[("w", &good), ("l", LIBRARY)])), Vec::<String>::new());
    let missing = user("{name: library, template: greet}", "{}");
    assert_eq!(
        told(&look(&[("w", &missing), ("l", LIBRARY)])),
        ["w:9:9 ARG0017 templates.main.steps[0].a templates.greet inputs.parameters.who was not supplied"]
    );
    assert_eq!(
        told(&look(&[("w", &good)])),
        [
            "w:10:9 ARG0163 templates.main.steps[0].a couldn't find workflow template \"library\" in namespace \"\""
        ]
    );
    let other = user("{name: library, template: bow}", "{}");
    assert_eq!(
        told(&look(&[("w", &other), ("l", LIBRARY)])),
        ["w:10:9 ARG0011 templates.main.steps[0].a template reference library.bow not found"]
    );
}

#[test]
fn what_is_wrong_with_a_stored_template_is_told_where_it_is() {
    let broken = LIBRARY.replace("inputs.parameters.who}}", "inputs.parameters.whom}}");
    let good = user("{name: library, template: greet}", "{parameters: [{name: who, value: me}]}");
    assert_eq!(
        told(&look(&[("w", &good), ("l", &broken)])),
        ["l:9:34 ARG0016 templates.greet templates.greet: failed to resolve {{inputs.parameters.whom}}"]
    );
    // What is wrong only as the workflow uses it is told at the reference.
    let asks = LIBRARY
        .replace("inputs.parameters.who}}", "workflow.parameters.p}}")
        .replace("  templates:", "  arguments: {parameters: [{name: p, value: v}]}\n  templates:");
    assert_eq!(
        told(&look(&[("w", &good), ("l", &asks)])),
        [
            "w:10:9 ARG0016 templates.main.steps[0].a templates.greet: failed to resolve {{workflow.parameters.p}}"
        ]
    );
}

#[test]
fn whole_workflows_come_from_templates_too() {
    let whole =
        LIBRARY.replace("spec:\n", "spec:\n  entrypoint: greet\n  arguments: {parameters: [{name: who}]}\n");
    let workflow = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  workflowTemplateRef: {name: library}\n  arguments: {parameters: [{name: who, value: me}]}\n";
    assert_eq!(told(&look(&[("w", workflow), ("l", &whole)])), Vec::<String>::new());
    let elsewhere = whole.replace("{name: library}", "{name: library, namespace: other}");
    let report = look(&[("w", workflow), ("l", &elsewhere)]);
    assert_eq!(
        told(&report),
        ["w:4:3 ARG0163 couldn't find workflow template \"library\" in namespace \"\""]
    );
    assert_eq!(report.files[0].documents[0].problems[0].suggestion, "`library` is in namespace \"other\"");
}

#[test]
fn the_workflow_of_a_cron_workflow_is_checked() {
    let cron = "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {name: c}\nspec:\n  schedule: \"* * * * *\"\n  workflowSpec:\n    entrypoint: mian\n    templates:\n    - {name: main, container: {image: x}}\n";
    let report = look(&[("c", cron)]);
    assert_eq!(
        told(&report),
        [
            "c:5:3 ARG0160 field `spec.schedule` is deprecated: write `schedules`, a list",
            "c:7:5 ARG0011 cannot validate Workflow: template name 'mian' undefined"
        ]
    );
    assert_eq!((report.errors(), report.warnings()), (1, 1));
    let (_, document, problem) = report.problems().next().unwrap();
    assert_eq!((document.unwrap().name.as_str(), problem.severity), ("c", Severity::Warning));
}

#[test]
fn unknown_fields_can_be_let_pass() {
    let files = [File {
        name: "f",
        text: "spec: {entrypoint: a, nonsense: 1, templates: [{name: a, container: {image: x}}]}",
    }];
    let options = Options { warn_unknown_fields: true, ..Options::default() };
    let report = review(&files, &Review { options, namespace: "", ..Review::default() });
    assert_eq!((report.errors(), report.warnings()), (0, 1));
}

/// What Argo's resource definitions refuse before Argo sees it (`memo/memoize-max-age-missing`,
/// `gc/podgc-invalid-strategy`).
#[test]
fn what_the_resource_definitions_refuse_is_refused() {
    let told_of = |rest: &str| {
        let text = format!(
            "kind: Workflow\nmetadata: {{name: x}}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n{rest}"
        );
        told(&look(&[("f", &text)]))
    };
    let pod = "    container: {image: x, command: [x]}\n";
    for (rest, wanted) in [
        (
            "    suspend: {}\n    memoize: {key: k, cache: {configMap: {name: c}}}\n",
            "f:8:14 ARG0010 spec.templates[0].memoize.maxAge is required",
        ),
        (
            "    suspend: {}\n    memoize: {key: k, maxAge: 1h, cache: null}\n",
            "f:8:14 ARG0010 spec.templates[0].memoize.cache is required",
        ),
        (
            "    suspend: {}\n  podGC: {strategy: Whenever}\n",
            "f:8:21 ARG0018 spec.podGC.strategy can't be \"Whenever\": it must be one of OnPodCompletion, OnPodSuccess, \
             OnWorkflowCompletion, OnWorkflowSuccess",
        ),
        (
            "    suspend: {}\n    retryStrategy: {retryPolicy: \"\"}\n",
            "f:8:34 ARG0018 spec.templates[0].retryStrategy.retryPolicy must not be empty",
        ),
        (
            &format!(
                "{pod}    inputs: {{artifacts: [{{name: a, path: /a, mode: 512, raw: {{data: x}}}}]}}\n"
            ),
            "f:8:52 ARG0018 spec.templates[0].inputs.artifacts[0].mode can't be 512: it must be from 0 to 511",
        ),
        (
            "    suspend: {}\n    metrics: {prometheus: [{name: a, help: b, labels: [{key: 1a, value: v}], counter: {value: \"1\"}}]}\n",
            "f:8:62 ARG0018 spec.templates[0].metrics.prometheus[0].labels[0].key can't be \"1a\": it must have only \
             letters, digits and `_`, no digit first",
        ),
        ("    steps: []\n", "f:7:12 ARG0018 spec.templates[0].steps must not be empty"),
    ] {
        assert_eq!(told_of(rest).first().map(String::as_str), Some(wanted), "{rest}");
    }
}

#[test]
fn a_cron_workflow_refers_to_a_stored_template() {
    let template = "\
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: job}
spec: {entrypoint: main, templates: [{name: main, suspend: {}}]}
";
    let cron = |name: &str| {
        format!(
            "apiVersion: argoproj.io/v1alpha1\nkind: CronWorkflow\nmetadata: {{name: c}}\nspec:\n  \
             schedules: [\"0 2 * * *\"]\n  workflowSpec: {{workflowTemplateRef: {{name: {name}}}}}\n"
        )
    };
    assert_eq!(told(&look(&[("t", template), ("c", &cron("job"))])), Vec::<String>::new());
    let wrong = told(&look(&[("t", template), ("c", &cron("jbo"))]));
    assert!(wrong[0].contains("couldn't find workflow template \"jbo\""), "{wrong:?}");
}

fn told_with(text: &str, clusters: &[JoinedCluster]) -> Vec<String> {
    let files = [File { name: "w.yaml", text }];
    let report = review(&files, &Review { clusters, ..Review::default() });
    let shown = |problem: &argosy_spec::Diagnostic| {
        let place = problem.place.as_ref().map(|place| format!("{}:{}: ", place.line, place.column));
        format!(
            "{}{}[{}]: {}",
            place.unwrap_or_default(),
            problem.severity.name(),
            problem.code,
            problem.message
        )
    };
    report.problems().map(|(_, _, problem)| shown(problem)).collect()
}

fn cluster(name: &str, runs_processes: bool) -> JoinedCluster {
    JoinedCluster {
        name: name.to_owned(),
        runs_processes,
        labels: [("zone".to_owned(), name.to_owned())].into(),
    }
}

const FOR_KUBERNETES: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: w}
spec:
  entrypoint: main
  serviceAccountName: builder
  templateDefaults: {container: {command: [echo]}}
  templates:
  - name: main
    steps: [[{name: a, template: mounts}, {name: b, template: plain}, {name: c, template: chosen}]]
  - name: mounts
    container: {image: x, volumeMounts: [{name: v, mountPath: /v}]}
  - name: plain
    nodeSelector: {disk: ssd}
    container: {image: x, resources: {limits: {cpu: 1}}}
  - name: chosen
    nodeSelector: {cluster.argosy.dev/zone: west}
    resource: {action: get, flags: [pods]}
  - name: unused
    script: {image: x, source: x, envFrom: [{secretRef: {name: s}}]}
";

#[test]
fn what_no_cluster_that_has_joined_can_run_is_told_where_it_is() {
    assert_eq!(told_with(FOR_KUBERNETES, &[]), [""; 0]);
    assert_eq!(told_with(FOR_KUBERNETES, &[cluster("east", false), cluster("west", false)]), [""; 0]);
    assert_eq!(
        told_with(FOR_KUBERNETES, &[cluster("east", true), cluster("west", true)]),
        [
            "6:3: warning[ARG1242]: the workflow: process clusters east, west leave out serviceAccountName",
            "12:27: error[ARG1121]: template 'mounts': volumes need a Kubernetes cluster, and only process clusters have joined",
            "14:5: warning[ARG1242]: template 'plain': process clusters east, west leave out nodeSelector",
            "15:39: warning[ARG1242]: template 'plain': process clusters east, west leave out container.resources.limits",
            "18:5: error[ARG1121]: template 'chosen': resource templates need a Kubernetes cluster, and only process clusters have joined",
        ]
    );
    // A cluster of each kind: only what is bound to the wrong one is an error.
    let told = told_with(FOR_KUBERNETES, &[cluster("east", false), cluster("west", true)]);
    let errors: Vec<&String> = told.iter().filter(|line| line.contains("error[")).collect();
    assert_eq!(
        errors,
        [
            "18:5: error[ARG1121]: template 'chosen': resource templates need a Kubernetes cluster, and its nodeSelector asks for process clusters (west)"
        ]
    );
}

#[test]
fn a_data_template_runs_on_any_cluster() {
    let text = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  entrypoint: main\n  templates:\n  - name: main\n    data:\n      source: {artifactPaths: {name: x, s3: {bucket: b, key: k}}}\n      transformation: [{expression: data}]\n";
    for runs_processes in [false, true] {
        assert_eq!(told_with(text, &[cluster("east", runs_processes)]), Vec::<String>::new());
    }
}

#[test]
fn a_step_for_a_cluster_that_has_not_joined_is_warned_of() {
    let told = told_with(FOR_KUBERNETES, &[cluster("north", false)]);
    assert_eq!(
        told,
        [
            "17:5: warning[ARG1243]: template 'chosen': no cluster that has joined has cluster.argosy.dev/zone: west; its steps wait"
        ]
    );
}
