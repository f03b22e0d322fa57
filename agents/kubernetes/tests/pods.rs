//! Pods as they are built, against a written example, and the refusals.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_executor::protocol::Task;
use argosy_kubernetes::pod::{self, Delivery, Error, Image, Settings};
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
    Settings {
        cell: "cell-1".into(),
        cluster: "eu-1".into(),
        executor_image: "argosy/executor:1".into(),
        ..Settings::default()
    }
}

fn build_with(assignment: &Assignment, settings: &Settings) -> Result<Value, Error> {
    let environment = |task: &Task| {
        let mut variables = vec![("ARGOSY_AGENT".to_owned(), "10.0.0.1:2749".to_owned())];
        variables.extend(task.to_environment());
        variables
    };
    let pod = pod::build(assignment, settings, &environment, 1_000_000)?;
    Ok(serde_json::to_value(pod).unwrap())
}

fn build(assignment: &Assignment) -> Result<Value, Error> {
    build_with(assignment, &settings())
}

/// What the executor of a container is told.
fn task(pod: &Value, container: usize) -> Task {
    let variables = pod.pointer(&format!("/spec/containers/{container}/env")).unwrap().as_array().unwrap();
    let lookup = |name: &str| {
        let found = variables.iter().find(|variable| variable["name"] == name)?;
        found["value"].as_str().map(str::to_owned)
    };
    Task::from_environment(lookup).unwrap()
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
fn a_plain_container_runs_under_the_executor() {
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]}});
    let built = build(&assignment(&template, &json!({}))).unwrap();
    assert_eq!(built.pointer("/spec/restartPolicy"), Some(&json!("Never")));
    assert_eq!(built.pointer("/spec/terminationGracePeriodSeconds"), Some(&json!(35)));
    assert_eq!(built.pointer("/spec/automountServiceAccountToken"), None);
    assert_eq!(
        built.pointer("/spec/containers/0/command"),
        Some(&json!(["/var/run/argo/argosy-executor", "--", "true"]))
    );
    assert_eq!(
        built.pointer("/spec/initContainers/0/command"),
        Some(&json!(["/argosy-executor", "install", "/var/run/argo"]))
    );
    assert!(task(&built, 0).containers.is_empty());
}

#[test]
fn an_image_volume_takes_the_place_of_the_init_container() {
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]}});
    let settings = Settings { delivery: Delivery::ImageVolume, ..settings() };
    let built = build_with(&assignment(&template, &json!({})), &settings).unwrap();
    assert_eq!(built.pointer("/spec/initContainers"), None);
    assert_eq!(built.pointer("/spec/containers/0/command/0"), Some(&json!("/argosy/bin/argosy-executor")));
    let volumes = built.pointer("/spec/volumes").unwrap().as_array().unwrap();
    let image = json!({"name": "argosy-executor", "image": {"reference": "argosy/executor:1", "pullPolicy": "IfNotPresent"}});
    assert!(volumes.contains(&image), "{volumes:?}");
    let mounts = built.pointer("/spec/containers/0/volumeMounts").unwrap().as_array().unwrap();
    let mount = json!({"name": "argosy-executor", "mountPath": "/argosy/bin", "readOnly": true});
    assert!(mounts.contains(&mount), "{mounts:?}");
    // What must wait for the permit still does, with nothing to install.
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]},
        "initContainers": [{"name": "prep", "image": "i", "command": ["sh"]}]});
    let built = build_with(&assignment(&template, &json!({})), &settings).unwrap();
    assert_eq!(
        built.pointer("/spec/initContainers/0/command"),
        Some(&json!(["/argosy-executor", "await-permit"]))
    );
}

#[test]
fn what_would_run_before_the_permit_waits_for_it_in_the_first_container() {
    let template = |extra: &Value, list: &Value| {
        let mut container = json!({"image": "i", "command": ["true"]});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut template = json!({"name": "t", "container": container});
        template.as_object_mut().unwrap().extend(list.as_object().unwrap().clone());
        template
    };
    let none = json!({});
    for template in [
        template(&json!({"livenessProbe": {"exec": {"command": ["true"]}}}), &none),
        template(&json!({"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}), &none),
        template(&none, &json!({"initContainers": [{"name": "prep", "image": "i", "command": ["sh"]}]})),
        template(&none, &json!({"sidecars": [{"name": "web", "image": "nginx"}]})),
    ] {
        let built = build(&assignment(&template, &json!({}))).unwrap();
        let first = built.pointer("/spec/initContainers/0").unwrap();
        assert_eq!(first["command"], json!(["/argosy-executor", "await-permit", "install", "/var/run/argo"]));
        let holder =
            json!({"name": "ARGOSY_HOLDER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
        assert!(first["env"].as_array().unwrap().contains(&holder), "{first}");
    }
    let plain = template(&none, &json!({"sidecars": [{"name": "s", "image": "i", "command": ["sh"]}]}));
    let built = build(&assignment(&plain, &json!({}))).unwrap();
    assert_eq!(built.pointer("/spec/initContainers/0/command/1"), Some(&json!("install")));
}

#[test]
fn a_container_set_runs_each_container_under_an_executor_that_knows_the_others() {
    let template = json!({"name": "t", "containerSet": {
        "retryStrategy": {"retries": "2", "duration": "1s"}, "volumeMounts": [{"name": "w", "mountPath": "/w"}],
        "containers": [
            {"name": "a", "image": "i", "command": ["sh"]},
            {"name": "main", "image": "i", "command": ["sh"], "dependencies": ["a"]}]},
        "sidecars": [{"name": "side", "image": "i", "command": ["sh"], "mirrorVolumeMounts": true}],
        "volumes": [{"name": "w", "emptyDir": {}}],
        "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/w/o"}}]}});
    let built = build(&assignment(&template, &json!({}))).unwrap();
    let (first, main, side) = (task(&built, 0), task(&built, 1), task(&built, 2));
    let names: Vec<_> = main.containers.iter().map(|one| (one.name.as_str(), one.sidecar)).collect();
    assert_eq!(names, [("a", false), ("main", false), ("side", true)]);
    assert_eq!((first.tries_max, first.retry_wait_ms, side.tries_max), (3, 1_000, 0));
    assert_eq!((main.dependencies.as_slice(), first.dependencies.len()), (["a".to_owned()].as_slice(), 0));
    // Outputs are those of the container called main.
    assert_eq!((first.parameters.len(), main.parameters.len(), side.parameters.len()), (0, 1, 0));
    assert!(!first.capture_result && main.capture_result && !side.capture_result);
    for container in 0..3 {
        let mounts = built.pointer(&format!("/spec/containers/{container}/volumeMounts")).unwrap();
        let has = |name: &str| mounts.as_array().unwrap().iter().any(|mount| mount["name"] == name);
        assert!(has("w") && has("var-run-argo"), "{mounts}");
    }
    assert_eq!(built.pointer("/metadata/annotations/argosy.dev~1sidecars"), Some(&json!("side")));
}

#[test]
fn images_without_a_command_are_looked_up_or_run_by_themselves() {
    let template = |extra: Value| {
        let mut template = json!({"name": "t", "container": {"image": "known", "args": ["-c", "x"]}});
        template.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        template
    };
    let mut settings = settings();
    let image = Image { entrypoint: vec!["/entry".into()], cmd: vec!["default".into()] };
    settings.images.insert("known".into(), image);
    let built = build_with(&assignment(&template(json!({})), &json!({})), &settings).unwrap();
    assert_eq!(
        built.pointer("/spec/containers/0/command"),
        Some(&json!(["/var/run/argo/argosy-executor", "--", "/entry"]))
    );
    assert_eq!(built.pointer("/spec/containers/0/args"), Some(&json!(["-c", "x"])));
    // Argo's table gives arguments where the container has none.
    let bare = json!({"name": "t", "container": {"image": "known"}});
    let built = build_with(&assignment(&bare, &json!({})), &settings).unwrap();
    assert_eq!(built.pointer("/spec/containers/0/args"), Some(&json!(["default"])));

    let unknown = json!({"name": "t", "container": {"image": "unknown"}, "sidecars": [{"name": "s", "image": "i", "command": ["sh"]}]});
    let mut of = assignment(&unknown, &json!({}));
    of.capture_result = Some(false);
    let built = build_with(&of, &settings).unwrap();
    assert_eq!(built.pointer("/spec/containers/0/command"), None);
    assert_eq!(built.pointer("/metadata/annotations/argosy.dev~1no-executor"), Some(&json!("true")));
    // Its sidecars are Kubernetes' own, which end with it.
    assert_eq!(built.pointer("/spec/initContainers/1/restartPolicy"), Some(&json!("Always")));
    of.capture_result = Some(true);
    assert!(build_with(&of, &settings).unwrap_err().to_string().contains("\"unknown\" has no command"));
}

#[test]
fn patches_of_workflow_and_template_are_merged_before_the_executor_comes_in() {
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]},
        "podSpecPatch": "hostname: from-template\ncontainers: [{name: main, command: [other], resources: {limits: {memory: 64Mi}}}, {name: wait, resources: {}}]"});
    let workflow = json!({"podSpecPatch": r#"{"hostname":"from-workflow","terminationGracePeriodSeconds":7,"initContainers":[{"name":"init","resources":{"limits":{"cpu":"1"}}}]}"#});
    let built = build(&assignment(&template, &workflow)).unwrap();
    assert_eq!(built.pointer("/spec/hostname"), Some(&json!("from-template")));
    assert_eq!(built.pointer("/spec/terminationGracePeriodSeconds"), Some(&json!(12)));
    assert_eq!(task(&built, 0).stop_grace_ms, 7_000);
    assert_eq!(built["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(built.pointer("/spec/containers/0/command/2"), Some(&json!("other")));
    assert_eq!(built.pointer("/spec/containers/0/resources/limits/memory"), Some(&json!("64Mi")));
    assert_eq!(built["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(built.pointer("/spec/initContainers/0/resources"), Some(&json!({"limits": {"cpu": "1"}})));
    assert_eq!(built.pointer("/spec/initContainers/0/image"), Some(&json!("argosy/executor:1")));
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
    let no_command = refused(json!({"name": "t", "container": {"image": "i", "args": ["x"]}}), none());
    assert!(no_command.starts_with(r#"container "i" has no command"#), "{no_command}");
    assert_eq!(refused(json!({"name": "t"}), none()), "the template has neither container nor script");
    let mounts = json!({"volumeMounts": [{"name": "missing", "mountPath": "/m"}]});
    assert_eq!(refused(container(mounts), none()), "volume 'missing' not found in workflow spec");
    assert!(refused(container(json!({"ports": "x"})), none()).starts_with("the container is not valid: "));
    for patch in [r#"{"containers": 5}"#, "[", r#"{"containers":[{"image":"x"}]}"#] {
        assert_eq!(refused(container(none()), json!({"podSpecPatch": patch})), "Error applying PodSpecPatch");
    }
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

/// The rule that refuses the Pod as it is built.
fn refused(rules: &Value, template: &Value, workflow: &Value) -> Option<&'static str> {
    let policy: argosy_agent_runtime::Policy = serde_json::from_value(rules.clone()).unwrap();
    let assignment = assignment(template, workflow);
    let pod = build(&assignment).unwrap();
    policy
        .check_pod(&assignment.namespace, &pod, &settings().executor_image)
        .err()
        .map(|refusal| refusal.rule)
}

#[test]
fn the_owners_policy_sees_the_pod_as_it_is_made() {
    let rules = json!({
        "serviceAccounts": ["default"], "images": ["busybox"], "hostAccess": {},
        "largestPod": {"cpu": 1, "memory": "1Gi"},
    });
    let container = |more: Value| {
        let mut template = json!({"name": "t", "container": {"image": "busybox", "command": ["true"]}});
        for (key, value) in more.as_object().unwrap() {
            template[key] = value.clone();
        }
        template
    };
    let none = json!({});
    assert_eq!(
        refused(&rules, &container(json!({})), &none),
        None,
        "the executor's own parts are no objection"
    );
    let patch = |patch: &str| container(json!({"podSpecPatch": patch}));
    for (patched, rule) in [
        ("hostNetwork: true", "hostAccess.network"),
        ("{\"hostPID\": true}", "hostAccess.processes"),
        ("containers: [{name: main, securityContext: {privileged: true}}]", "hostAccess.privileged"),
        ("containers: [{name: main, image: evil}]", "images"),
        ("containers: [{name: main, resources: {limits: {cpu: 1001m}}}]", "largestPod"),
        ("serviceAccountName: root", "serviceAccounts"),
    ] {
        assert_eq!(refused(&rules, &patch(patched), &none), Some(rule), "{patched}");
        assert_eq!(
            refused(&rules, &container(json!({})), &json!({"podSpecPatch": patched})),
            Some(rule),
            "{patched}"
        );
    }
    let sidecar = container(json!({"sidecars": [{"name": "s", "image": "nginx", "command": ["true"]}]}));
    assert_eq!(refused(&rules, &sidecar, &none), Some("images"));
    let mounts = container(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}],
        "container": {"image": "busybox", "command": ["true"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}}));
    assert_eq!(refused(&rules, &mounts, &none), Some("hostAccess.paths"));
    assert_eq!(
        refused(&rules, &container(json!({})), &json!({"serviceAccountName": "runner"})),
        Some("serviceAccounts")
    );
}

#[test]
fn drivers_stand_beside_the_step_and_are_not_seen_by_it() {
    let plugin = |key: &str| json!({"name": "d", "configuration": "c", "key": key});
    let template = json!({"name": "t", "container": {"image": "i", "command": ["true"]},
        "inputs": {"artifacts": [{"name": "in", "path": "/in", "plugin": plugin("k")}, {"name": "raw", "path": "/raw", "raw": {"data": "x"}}]},
        "outputs": {"artifacts": [{"name": "out", "path": "/out", "plugin": plugin("o")}, {"name": "s", "path": "/s", "s3": {"key": "s"}}]},
        "initContainers": [{"name": "own", "image": "i", "command": ["true"]}],
    });
    let assignment = assignment(&template, &json!({}));
    let drivers = argosy_kubernetes::ArtifactDriver::list(
        "[{name: d, image: 'driver:1', connectionTimeoutSeconds: 7}]",
    )
    .unwrap();
    let settings = Settings { artifact_drivers: drivers, ..settings() };
    let built = build_with(&assignment, &settings).unwrap();
    let inits = built.pointer("/spec/initContainers").unwrap().as_array().unwrap();
    let names: Vec<&str> = inits.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["init", "artifact-plugin-d", "init-artifact-d", "artifact-saver-d", "own"]);
    assert_eq!(
        inits[0]["command"],
        json!(["/argosy-executor", "await-permit", "install", "/var/run/argo", "load"])
    );
    let driver = &inits[1];
    assert_eq!(
        driver["args"],
        json!(["/tmp/artifact-plugins/d/socket"]),
        "as its image says, with its socket"
    );
    assert_eq!((driver.get("command"), &driver["restartPolicy"]), (None, &json!("Always")));
    let paths = |container: &Value| -> Vec<String> {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(driver), ["/argo/inputs/artifacts", "/var/run/argo", "/tmp/artifact-plugins/d"]);
    assert_eq!(inits[2]["command"], json!(["/var/run/argo/argosy-executor", "driver-load"]));
    assert_eq!(inits[3]["command"], json!(["/var/run/argo/argosy-executor", "driver-save"]));
    for container in &inits[1..4] {
        assert_eq!(container["image"], "driver:1", "the same image, and so the same user");
    }
    assert_eq!(inits[2].get("restartPolicy"), None);
    let main = built.pointer("/spec/containers/0").unwrap();
    assert!(!paths(main).iter().any(|path| path.contains("artifact-plugins")), "{main}");
    assert_eq!(paths(main), ["/var/run/argo", "/in", "/raw"]);
    assert!(!main.to_string().contains("\\\"configuration\\\""), "what a driver is told is not for the step");
    let saved: Vec<(String, String)> =
        task(&built, 0).output_files.into_iter().map(|one| (one.name, one.driver)).collect();
    assert_eq!(saved, [("out".to_owned(), "d".to_owned()), ("s".to_owned(), String::new())]);
    let volumes = built.pointer("/spec/volumes").unwrap().as_array().unwrap();
    assert!(volumes.contains(&json!({"name": "artifact-plugin-d", "emptyDir": {}})), "{volumes:?}");

    let by_image = Settings { delivery: Delivery::ImageVolume, ..settings };
    let built = build_with(&assignment, &by_image).unwrap();
    assert_eq!(
        built.pointer("/spec/initContainers/2/command/0"),
        Some(&json!("/argosy/bin/argosy-executor"))
    );
    let missing = build(&assignment).unwrap_err();
    assert_eq!(missing, Error::NoDriver("d".to_owned()));
}
