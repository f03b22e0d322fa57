//! A user's commands against the gateway with the real engine behind it.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use argosy_cli::context::Context;
use argosy_cli::{Cli, Console, run_with};
use argosy_gateway::testing::EngineCell;
use argosy_gateway::{Identity, Options, Role, Tokens, router};
use argosy_proto::common::Runtime;
use argosy_telemetry::Metrics;
use clap::Parser;
use std::path::PathBuf;

const TOKEN: &str = "secret";

struct World {
    cell: EngineCell,
    context: Context,
    files: tempfile::TempDir,
}

struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl World {
    async fn new() -> Self {
        Self::with(Runtime::Simulated).await
    }

    /// A world with one cluster.
    async fn with(runtime: Runtime) -> Self {
        let cell = EngineCell::default();
        cell.connect_as("eu", runtime);
        let identity = Identity { name: "admin".to_owned(), role: Role::Admin };
        let options =
            Options { tokens: Tokens::default().with(TOKEN, identity), archive: true, ..Options::default() };
        let service = router(cell.clone(), Metrics::new(), options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        // A first address where nobody listens: every command has to pass it over.
        let server = format!("http://127.0.0.1:1,http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, service).await });
        let context = Context { server, token: TOKEN.to_owned(), ..Context::default() };
        Self { cell, context, files: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    async fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with_input(arguments, "").await
    }

    async fn run_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        let cli = Cli::try_parse_from(std::iter::once("argosy").chain(arguments.iter().copied()));
        let cli = cli.unwrap_or_else(|error| panic!("{error}"));
        let (mut console, written) = Console::in_memory(input);
        let code = run_with(cli, &self.context, &mut console).await;
        drop(console);
        Outcome { code, out: written.out(), err: written.err() }
    }
}

const HELLO: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  name: hello
spec:
  entrypoint: main
  arguments:
    parameters:
      - name: message
        value: hi
  templates:
    - name: main
      container:
        image: busybox
        command: [echo]
        args: ['{{workflow.parameters.message}}']
";

#[tokio::test]
async fn a_workflow_from_file_to_deletion() {
    let world = World::new().await;
    let file = world.file("hello.yaml", HELLO);
    let submitted = world.run(&["submit", file.to_str().unwrap(), "-p", "message=other", "-o", "name"]).await;
    assert_eq!((submitted.code, submitted.out.as_str()), (0, "hello\n"), "{}", submitted.err);

    let (_, assignment) = world.cell.assignments().remove(0);
    assert!(assignment.template_json.contains("other"), "{}", assignment.template_json);
    world.cell.set_output(assignment.fence.unwrap(), "one\ntwo\n");

    let got = world.run(&["get", "@latest"]).await;
    assert!(got.out.contains("Status:              "), "{}", got.out);
    assert!(got.out.contains("STEP") && got.out.contains("hello  ") && got.out.contains("eu"), "{}", got.out);

    world.cell.finish_all();
    let waited = world.run(&["wait", "hello"]).await;
    assert_eq!(waited.code, 0);
    assert!(waited.out.starts_with("hello Succeeded at "), "{}", waited.out);

    let logs = world.run(&["logs", "hello"]).await;
    assert_eq!(logs.out, "hello: one\nhello: two\n", "{}", logs.err);

    let listed = world.run(&["list"]).await;
    assert!(listed.out.starts_with("NAME    STATUS      AGE"), "{}", listed.out);
    assert!(listed.out.contains("hello   Succeeded"));
    assert_eq!(world.run(&["list", "--running"]).await.out, "No workflows found\n");
    assert_eq!(world.run(&["list", "--completed", "-o", "name"]).await.out, "hello\n");

    let yaml = world.run(&["get", "hello", "-o", "yaml"]).await;
    assert!(yaml.out.contains("phase: Succeeded"), "{}", yaml.out);

    assert_eq!(world.run(&["delete", "hello"]).await.out, "Workflow 'hello' deleted\n");
    let archived = world.run(&["get", "hello", "-o", "name"]).await;
    assert_eq!((archived.code, archived.out.as_str()), (0, "hello\n"), "{}", archived.err);
    assert_eq!(world.run(&["delete", "--all"]).await.out, "No resources found\n");
}

#[tokio::test]
async fn watching_tells_what_changes_and_ends_with_the_workflows_fate() {
    let world = World::new().await;
    let cell = world.cell.clone();
    let runs = tokio::spawn(async move {
        while cell.assignments().is_empty() {
            tokio::task::yield_now().await;
        }
        let (cluster, assignment) = cell.assignments().remove(0);
        cell.start(&cluster, assignment.fence.unwrap());
        cell.end(&cluster, assignment.fence.unwrap(), 3, "Error (exit code 3)");
    });
    let watched = world.run_with_input(&["submit", "--watch", "-"], HELLO).await;
    runs.await.unwrap();
    assert_eq!(watched.code, 1, "{}", watched.err);
    assert!(watched.out.contains("hello: Failed"), "{}", watched.out);
    assert!(watched.out.contains(" ✖ hello  main"), "{}", watched.out);
}

#[tokio::test]
async fn problems_are_told_all_at_once_with_their_places_and_nothing_is_submitted() {
    let world = World::new().await;
    let good = world.file("good.yaml", HELLO);
    let bad = world.file("bad.yaml", "metadata:\n  name: x\nspec:\n  entrypoint: main\n  entrypont: main\n  templates:\n    - name: main\n      contaner: {}\n");
    let outcome = world.run(&["submit", good.to_str().unwrap(), bad.to_str().unwrap()]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("bad.yaml:5:3: error[ARG"), "{}", outcome.err);
    assert!(outcome.err.contains("bad.yaml:8:7: error[ARG"), "{}", outcome.err);
    assert!(outcome.err.contains("2 problems in the manifests: nothing was submitted"), "{}", outcome.err);
    assert_eq!(world.run(&["list"]).await.out, "No workflows found\n");
    let missing = world.run(&["submit", "/nowhere.yaml"]).await;
    assert_eq!(missing.code, 1);
    assert!(missing.err.starts_with("error: /nowhere.yaml: "), "{}", missing.err);
    assert_eq!(world.run(&["lint", good.to_str().unwrap()]).await.code, 0);
}

const BROKEN: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: broken}
spec:
  entryPoint: main
  parallelism: many
  templates:
  - name: main
    steps: [[{name: a, templateRef: {name: library, template: greet}}, {name: b, template: nap}]]
---
apiVersion: v1
kind: ConfigMap
";
const LIBRARY: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: library}
spec: {templates: [{name: greet, container: {image: busybox}}]}
";

#[tokio::test]
async fn lint_tells_all_problems_of_all_files() {
    let world = World::new().await;
    let directory = world.files.path().join("flows/inner");
    std::fs::create_dir_all(&directory).unwrap();
    let broken = world.file("flows/broken.yaml", BROKEN);
    world.file("flows/inner/library.yml", LIBRARY);
    world.file("flows/notes.txt", "not: [yaml");
    let root = world.files.path().join("flows");
    let outcome = world.run(&["lint", "--offline", root.to_str().unwrap()]).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""), "{}", outcome.out);
    let lines: Vec<&str> =
        outcome.out.lines().filter(|line| line.contains("[ARG") || line.starts_with('✖')).collect();
    let broken = broken.display();
    assert_eq!(
        lines,
        [
            format!("{broken}:5:3: warning[ARG0162]: field `spec.entryPoint` is written in another case"),
            format!("{broken}:6:16: error[ARG0003]: `spec.parallelism` must be an integer, and is a string"),
            format!("{broken}:9:82: error[ARG0011]: templates.main.steps[0].b template name 'nap' undefined"),
            "✖ 2 linting errors and 1 warning found in 2 files".to_owned(),
        ]
    );
    let only = world.run(&["lint", "--kinds", "wftmpl", root.to_str().unwrap()]).await;
    assert_eq!((only.code, only.out.as_str()), (0, "✔ no linting errors found in 1 document\n"));
    let nothing = world.run(&["lint", "--kinds", "cronworkflows", root.to_str().unwrap()]).await;
    assert_eq!((nothing.code, nothing.out.contains("found nothing to lint")), (1, true));
}

#[tokio::test]
async fn what_no_cluster_can_run_is_told_by_lint_and_refused() {
    let world = World::with(Runtime::Process).await;
    let mounts = HELLO.replace("command: [echo]", "volumeMounts: [{name: v, mountPath: /v}]")
        + "  volumes: [{name: v, emptyDir: {}}]\n";
    let file = world.file("mounts.yaml", &mounts);
    let file = file.to_str().unwrap();
    let message = "template 'main': volumes need a Kubernetes cluster, and only process clusters have joined";
    let told = world.run(&["lint", file]).await;
    assert_eq!((told.code, told.err.as_str()), (1, ""));
    assert!(told.out.contains(&format!("mounts.yaml:15:9: error[ARG1121]: {message}")), "{}", told.out);
    assert_eq!(world.run(&["lint", "--offline", file]).await.code, 0);
    let refused = world.run(&["submit", file]).await;
    assert_eq!((refused.code, refused.err.contains(message)), (1, true), "{}", refused.err);

    let limited = HELLO.replace("image: busybox", "image: busybox\n        resources: {limits: {cpu: 1}}");
    let file = world.file("limited.yaml", &limited);
    let file = file.to_str().unwrap();
    let warning =
        "warning[ARG1242]: template 'main': process cluster eu leaves out container.resources.limits";
    let told = world.run(&["lint", file]).await;
    assert_eq!((told.code, told.out.contains(&format!(":15:21: {warning}"))), (0, true), "{}", told.out);
    let accepted = world.run(&["submit", file, "-o", "name"]).await;
    assert_eq!((accepted.code, accepted.out.as_str()), (0, "hello\n"));
    assert_eq!(accepted.err.trim_end(), warning);
}

#[tokio::test]
async fn lint_goes_on_without_a_server_that_does_not_answer() {
    let mut world = World::new().await;
    world.context.server = "http://127.0.0.1:1".to_owned();
    let outcome = world.run_with_input(&["lint", "-"], HELLO).await;
    assert_eq!(outcome.code, 0, "{}", outcome.out);
    assert!(outcome.err.contains("checked without the clusters that have joined"), "{}", outcome.err);
}

#[tokio::test]
async fn lint_speaks_to_editors() {
    let world = World::new().await;
    let outcome = world.run_with_input(&["lint", "-o", "json", "-"], BROKEN).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
    let told: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((&told["version"], &told["success"], &told["files"]), (&1.into(), &false.into(), &1.into()));
    assert_eq!((&told["documents"], &told["errors"], &told["warnings"]), (&1.into(), &3.into(), &1.into()));
    assert_eq!(
        told["problems"][1],
        serde_json::json!({
            "file": "-", "line": 6, "column": 16, "endColumn": 20, "severity": "error", "code": "ARG0003",
            "message": "`spec.parallelism` must be an integer, and is a string", "suggestion": "",
            "path": "spec.parallelism", "snippet": "  parallelism: many", "kind": "Workflow", "name": "broken",
        })
    );
    let simple = world.run_with_input(&["lint", "-o", "simple", "-"], BROKEN).await;
    let wanted = "-: in \"broken\" (Workflow): templates.main.steps[0].b template name 'nap' undefined\n";
    assert!(simple.out.contains(wanted), "{}", simple.out);
}

#[tokio::test]
async fn lint_can_be_strict_about_warnings() {
    let world = World::new().await;
    let text = HELLO.replace("name: hello", "name: 0644").replace("spec:", "spec:\n  nonsense: 1");
    let lint = async |flags: &[&str], text: &str| {
        let arguments: Vec<&str> = ["lint"].iter().chain(flags).chain(&["-"]).copied().collect();
        world.run_with_input(&arguments, text).await.code
    };
    assert_eq!(lint(&[], &text).await, 1);
    assert_eq!(lint(&["--strict=false"], &text).await, 0);
    let known = text.replace("\n  nonsense: 1", "");
    assert_eq!((lint(&[], &known).await, lint(&["--strict"], &known).await), (0, 1));
    let missing = world.run(&["lint", "/nowhere.yaml"]).await;
    assert_eq!(
        (missing.code, missing.out.contains("/nowhere.yaml: error[ARG0001]")),
        (1, true),
        "{}",
        missing.out
    );
}

#[tokio::test]
async fn the_schema_is_printed() {
    let world = World::new().await;
    let outcome = world.run(&["schema"]).await;
    assert_eq!(outcome.out, include_str!("../../../docs/argosy.schema.json"));
}

#[tokio::test]
async fn a_submission_whose_answer_is_lost_happens_once() {
    let world = World::new().await;
    world.cell.lose_next_reply();
    let text = HELLO.replace("name: hello", "generateName: hello-");
    let outcome = world.run_with_input(&["submit", "-", "-o", "name"], &text).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let listed = world.run(&["list", "-o", "name"]).await;
    assert_eq!(listed.out, outcome.out);
}

#[tokio::test]
async fn output_is_followed_from_the_first_step_to_the_last() {
    let world = World::new().await;
    let cell = world.cell.clone();
    let runs = tokio::spawn(async move {
        for place in 0..2 {
            while cell.assignments().is_empty() {
                tokio::task::yield_now().await;
            }
            let (cluster, assignment) = cell.assignments().remove(0);
            let fence = assignment.fence.unwrap();
            cell.set_output(fence, &format!("line {place}\n"));
            cell.start(&cluster, fence);
            cell.end(&cluster, fence, 0, "");
        }
    });
    let steps = "    - name: main\n      steps:\n        - [{name: a, template: say}]\n        - [{name: b, template: say}]\n    - name: say\n";
    let followed = world
        .run_with_input(&["submit", "--log", "-o", "name", "-"], &HELLO.replace("    - name: main\n", steps))
        .await;
    runs.await.unwrap();
    assert_eq!(followed.code, 0, "{}", followed.err);
    let lines: Vec<&str> =
        followed.out.lines().filter_map(|line| line.split_once(": ")).map(|(_, text)| text).collect();
    assert_eq!(lines, ["line 0", "line 1"], "{}", followed.out);
    assert!(followed.out.contains("hello Succeeded at "), "{}", followed.out);
}

#[tokio::test]
async fn stopping_and_terminating() {
    let world = World::new().await;
    world.run_with_input(&["submit", "-"], HELLO).await;
    assert_eq!(world.run(&["stop", "hello", "--dry-run"]).await.out, "workflow hello stopped (dry-run)\n");
    assert_eq!(world.run(&["stop", "hello", "--message", "enough"]).await.out, "workflow hello stopped\n");
    assert_eq!(world.run(&["terminate", "@latest"]).await.out, "workflow hello terminated\n");
    assert_eq!(world.run(&["stop"]).await.code, 1);
    assert_eq!(world.run(&["stop", "missing"]).await.code, 1);
}

#[tokio::test]
async fn clusters_and_members() {
    let world = World::new().await;
    assert_eq!(world.run(&["cluster", "invite", "us", "--ttl", "5m"]).await.out, "invite-us\n");
    let list = world.run(&["cluster", "list"]).await.out;
    assert!(
        list.lines().any(|line| line.starts_with("eu     connected") || line.starts_with("eu   connected")),
        "{list}"
    );
    assert!(world.run(&["cluster", "get", "eu"]).await.out.contains("runtime: simulated"));
    assert_eq!(world.run(&["cluster", "get", "nowhere"]).await.code, 1);
    assert!(world.run(&["member", "list"]).await.out.contains("1    leader"));
    assert!(world.run(&["version"]).await.out.contains("server: v0."));
    assert_eq!(world.run(&["version", "--short"]).await.out, concat!(env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn what_is_wrong_with_the_connection_is_told() {
    let mut world = World::new().await;
    world.context.token = "wrong".to_owned();
    let outcome = world.run(&["list"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("token not valid for this server"), "{}", outcome.err);
    world.context.certificate_authority = "/nowhere.pem".to_owned();
    assert!(world.run(&["list"]).await.err.contains("/nowhere.pem"), "an authority that is not there");
}

#[tokio::test]
async fn config_maps_are_applied_listed_and_deleted() {
    let world = World::new().await;
    let text = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: limits\n  labels: {{workflows.argoproj.io/configmap-type: Parameter}}\ndata: {{n: \"{value}\"}}\n"
        )
    };
    let file = world.file("limits.yaml", &text("1"));
    let apply = ["configmap", "apply", "-f", file.to_str().unwrap()];
    assert_eq!(world.run(&apply).await.out, "configmap/limits created\n");
    let file = world.file("limits.yaml", &text("2"));
    assert_eq!(world.run(&apply).await.out, "configmap/limits configured\n");
    assert!(file.exists());
    let got = world.run(&["cm", "get", "limits"]).await;
    assert!(got.out.contains("n: '2'"), "{}{}", got.out, got.err);
    let listed = world.run(&["configmap", "list"]).await;
    assert!(listed.out.contains("limits   1      Parameter   cell"), "{}", listed.out);
    let workflow = world.file("w.yaml", "kind: Workflow\nmetadata: {name: w}\n");
    let refused = world.run(&["configmap", "apply", "-f", workflow.to_str().unwrap()]).await;
    assert!(refused.err.contains("the file holds a Workflow"), "{}", refused.err);
    assert_eq!(world.run(&["configmap", "delete", "limits"]).await.out, "configmap \"limits\" deleted\n");
    assert_eq!(world.run(&["configmap", "get", "limits"]).await.code, 1);
}

const TICK: &str = "\
apiVersion: argoproj.io/v1alpha1
kind: CronWorkflow
metadata:
  name: tick
spec:
  schedules: ['@hourly']
  workflowSpec:
    entrypoint: main
    templates:
      - {name: main, container: {image: busybox}}
";

#[tokio::test]
async fn a_cron_workflow_from_file_to_deletion() {
    let world = World::new().await;
    let file = world.file("tick.yaml", TICK);
    let file = file.to_str().unwrap();
    assert_eq!(world.run(&["cron", "list"]).await.out, "No cron workflows found\n");
    assert!(world.run(&["cron", "lint", file]).await.out.contains("no linting errors found!"));
    let made = world.run(&["cron", "create", file, "--schedule", "@daily"]).await;
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("Schedules:                     @daily"), "{}", made.out);
    let updated = world.run(&["cron", "update", file, "-o", "name"]).await;
    assert_eq!((updated.code, updated.out.as_str()), (0, "tick\n"), "{}", updated.err);
    assert_eq!(world.run(&["cron", "suspend", "tick"]).await.out, "CronWorkflow 'tick' suspended\n");
    assert!(world.run(&["cron", "list"]).await.out.contains("@hourly"));
    assert_eq!(world.run(&["cron", "resume", "tick"]).await.out, "CronWorkflow 'tick' resumed\n");
    let one = world.run(&["submit", "--from", "cronwf/tick", "--name", "now", "-o", "name"]).await;
    assert_eq!((one.code, one.out.as_str()), (0, "now\n"), "{}", one.err);
    assert!(world.run(&["cron", "get", "tick"]).await.out.contains("Active Workflows:              now"));
    let period = ["--start", "2020-01-01T00:00:00Z", "--end", "2020-01-01T02:00:00Z"];
    let backfill = [&["cron", "backfill", "tick", "--name", "b"][..], &period].concat();
    let filled = world.run(&backfill).await;
    assert!(filled.out.contains("Total Backfill Schedule: 2"), "{}{}", filled.out, filled.err);
    assert_eq!(world.run(&backfill).await.code, 0, "again is no harm");
    let wrong = world.run(&["cron", "create", world.file("w.yaml", HELLO).to_str().unwrap()]).await;
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("this command is for CronWorkflow"), "{}", wrong.err);
    let other = world.run(&["submit", file]).await;
    assert!(other.err.contains("argosy cron create"), "{}", other.err);
    assert_eq!(world.run(&["cron", "delete", "--all"]).await.out, "CronWorkflow 'tick' deleted\n");
    assert_eq!(world.run(&["cron", "get", "tick"]).await.code, 1);
}

#[tokio::test]
async fn an_archived_workflow_is_found_and_submitted_again() {
    let world = World::new().await;
    let file = world.file("hello.yaml", HELLO);
    assert_eq!(world.run(&["archive", "list"]).await.out, "No workflows found\n");
    world.run(&["submit", file.to_str().unwrap()]).await;
    world.cell.finish_all();
    assert_eq!(world.run(&["delete", "--all"]).await.out, "Workflow 'hello' deleted\n");
    world.cell.settle();
    assert_eq!(
        world.run(&["delete", "--all"]).await.out,
        "No resources found\n",
        "archived ones are not live"
    );
    assert!(world.run(&["list"]).await.out.contains("hello"));
    assert!(world.run(&["archive", "list"]).await.out.contains("hello   Succeeded"));
    let got = world.run(&["archive", "get", "hello"]).await;
    assert!(
        got.out.contains("Status:              Succeeded") && got.out.contains("STEP"),
        "{}{}",
        got.out,
        got.err
    );
    let again = world.run(&["archive", "resubmit", "hello", "-o", "name"]).await;
    assert!(again.out.starts_with("hello-"), "{}{}", again.out, again.err);
    assert!(world.run(&["archive", "list-label-keys"]).await.out.contains("workflows.argoproj.io/phase\n"));
    let gone = world.run(&["archive", "delete", "hello"]).await;
    assert!(gone.out.starts_with("Archived workflow '"), "{}{}", gone.out, gone.err);
    assert_eq!(world.run(&["archive", "get", "hello"]).await.code, 1);
}
