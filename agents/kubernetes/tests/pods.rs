//! Pods as they are built, against a written example, and the refusals.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_kubernetes::pod::{self, Error, Settings};
use argosy_proto::common::{Assignment, Fence};
use serde_json::{Value, json};

fn assignment(template: &Value, workflow: &Value) -> Assignment {
    Assignment {
        fence: Some(Fence { incarnation: 1, index: 42, ordinal: 7 }),
        namespace: "argo".into(),
        workflow: "hello".into(),
        workflow_uid: "8f1c".into(),
        node_id: "hello-123".into(),
        node_name: "hello[0].say".into(),
        pod_name: "hello-say-123".into(),
        template_json: template.to_string(),
        workflow_pod_json: workflow.to_string(),
        stop_grace_ms: 30_000,
        ..Assignment::default()
    }
}

fn settings() -> Settings {
    Settings { cell: "cell-1".into(), cluster: "eu-1".into(), executor_image: "argosy/executor:1".into() }
}

fn build(assignment: &Assignment) -> Result<Value, Error> {
    pod::task(assignment)?;
    let environment = [("ARGOSY_AGENT", "10.0.0.1:2749"), ("ARGOSY_TEMPLATE", "{}")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pod = pod::build(assignment, &settings(), &environment, 1_000_000)?;
    Ok(serde_json::to_value(pod).unwrap())
}

#[test]
fn a_script_with_everything_becomes_the_written_pod() {
    let template = json!({
        "name": "say", "metadata": {"labels": {"team": "a", "argosy.dev/fence": "9.9.9"}, "annotations": {"note": "template", "argosy.dev/permit": "x"}},
        "script": {"image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["sh"], "args": ["-x"], "source": "echo hi",
            "env": [{"name": "COLOUR", "value": "blue"}], "resources": {"requests": {"cpu": "100m"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "cache", "mountPath": "/cache"}]},
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "outputs": {"parameters": [{"name": "out", "valueFrom": {"path": "/tmp/out", "default": "none"}}]},
        "activeDeadlineSeconds": "60", "nodeSelector": {"disk": "ssd", "cluster.argosy.dev/region": "eu"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
    });
    let workflow = json!({
        "serviceAccountName": "runner", "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "unused", "emptyDir": {}}],
        "nodeSelector": {"never": "seen"}, "imagePullSecrets": [{"name": "registry"}], "podPriorityClassName": "low",
        "securityContext": {"runAsNonRoot": true}, "podMetadata": {"labels": {"team": "b", "owner": "c"}, "annotations": {"note": "workflow"}},
    });
    let mut assignment = assignment(&template, &workflow);
    assignment.on_exit = true;
    assignment.deadline_ms = 1_000_000 + 30_500;
    let built = build(&assignment).unwrap();
    let written: Value = serde_json::from_str(include_str!("pod.json")).unwrap();
    assert_eq!(built, written, "\n{}", serde_json::to_string_pretty(&built).unwrap());
}

#[test]
fn a_plain_container_gets_no_credentials() {
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]}});
    let built = build(&assignment(&template, &json!({}))).unwrap();
    assert_eq!(built.pointer("/spec/automountServiceAccountToken"), Some(&json!(false)));
    assert_eq!(built.pointer("/spec/restartPolicy"), Some(&json!("Never")));
    assert_eq!(built.pointer("/spec/terminationGracePeriodSeconds"), Some(&json!(35)));
    assert_eq!(
        built.pointer("/spec/containers/0/command"),
        Some(&json!(["/argosy/bin/argosy-executor", "--", "true"]))
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_its_reason() {
    let refused =
        |template: Value, workflow: Value| build(&assignment(&template, &workflow)).unwrap_err().to_string();
    let container = |extra: Value| {
        let mut container = json!({"image": "i", "command": ["true"]});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"name": "t", "container": container})
    };
    let none = || json!({});
    assert_eq!(
        refused(json!({"name": "t", "container": {"image": "i", "args": ["x"]}}), none()),
        r#"container "i" has no command: set command, since image entrypoints are not looked up"#
    );
    assert_eq!(refused(json!({"name": "t"}), none()), "the template has neither container nor script");
    let mounts = json!({"volumeMounts": [{"name": "missing", "mountPath": "/m"}]});
    assert_eq!(refused(container(mounts), none()), "volume 'missing' not found in workflow spec");
    let probe = json!({"livenessProbe": {"exec": {"command": ["true"]}}});
    assert!(refused(container(probe), none()).contains("livenessProbe is not supported"));
    let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}});
    assert!(refused(container(hook), none()).contains("lifecycle is not supported"));
    assert!(refused(container(json!({"ports": "x"})), none()).starts_with("the container is not valid: "));
    let mut with_sidecar = container(none());
    with_sidecar["sidecars"] = json!([{"name": "s", "image": "i"}]);
    assert!(refused(with_sidecar, none()).contains("sidecars is not supported"));
    assert!(
        refused(container(none()), json!({"podSpecPatch": "{}"})).contains("podSpecPatch is not supported")
    );
    assert!(
        refused(container(none()), json!({"tolerations": 3}))
            .starts_with("the workflow's Pod specification is not valid: tolerations")
    );
    let mut deadline = container(none());
    deadline["activeDeadlineSeconds"] = json!("soon");
    assert!(refused(deadline, none()).contains("activeDeadlineSeconds"));
    let mut broken = assignment(&none(), &none());
    broken.template_json = "{".into();
    assert!(build(&broken).unwrap_err().to_string().starts_with("the template is not valid: "));
}
