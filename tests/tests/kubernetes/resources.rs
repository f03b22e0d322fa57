//! Resource templates: each action through a workflow, on objects of a real API server.

use super::{WAIT, nodes, phase, say, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

/// The steps of the workflow, in groups.
const GROUPS: [&[&str]; 9] = [
    &["create", "first"],
    &["strategic"],
    &["merge"],
    &["json"],
    &["awaited", "second"],
    &["refused", "read", "dry"],
    &["replace"],
    &["delete", "delete-by-name"],
    &["missing"],
];
/// Those that are to fail.
const FAILING: [&str; 2] = ["refused", "missing"];

fn config_map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

fn service(rest: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web, labels: {{a: b}}}}\n{rest}")
}

fn template(cluster: &str, name: &str, resource: &Value, outputs: &[(&str, &str, &str)]) -> Value {
    let outputs: Vec<Value> =
        outputs.iter().map(|(name, how, path)| json!({"name": name, "valueFrom": {*how: path}})).collect();
    // What one step makes, the next looks for.
    json!({"name": name, "nodeSelector": {"cluster.argosy.dev/name": cluster}, "resource": resource,
        "outputs": {"parameters": outputs}})
}

fn templates(cluster: &str) -> Vec<Value> {
    let of = |name: &str, resource: Value, outputs: &[(&str, &str, &str)]| {
        template(cluster, name, &resource, outputs)
    };
    let ports = ("ports", "jqFilter", "[.spec.ports[].name] | join(\",\")");
    let state = ("state", "jsonPath", "{.data.state}");
    let mut second =
        of("second", json!({"action": "apply", "manifestFrom": {"artifact": {"name": "written"}}}), &[state]);
    second["inputs"] = json!({"artifacts": [{"name": "written", "path": "/tmp/manifest.yaml",
        "raw": {"data": config_map("state", "{state: ready}")}}]});
    vec![
        of(
            "create",
            json!({"action": "create", "setOwnerReference": true,
                "manifest": service("spec: {ports: [{name: a, port: 80}]}\n")}),
            &[("name", "jsonPath", "{.metadata.name}"), ports],
        ),
        of(
            "strategic",
            json!({"action": "patch", "mergeStrategy": "strategic",
                "manifest": service("spec: {ports: [{name: b, port: 81}]}\n")}),
            &[ports],
        ),
        of(
            "merge",
            json!({"action": "patch", "mergeStrategy": "merge", "flags": ["service", "web"],
                "manifest": "spec: {ports: [{name: c, port: 82}]}\n"}),
            &[ports],
        ),
        of(
            "json",
            json!({"action": "patch", "mergeStrategy": "json", "flags": ["service/web"],
                "manifest": "- {op: replace, path: /metadata/labels/a, value: c}\n"}),
            &[
                ("label", "jsonPath", "{.metadata.labels.a}"),
                ("owner", "jqFilter", ".metadata.labels[\"workflows.argoproj.io/workflow\"]"),
            ],
        ),
        of(
            "first",
            json!({"action": "apply", "manifest": config_map("state", "{state: waiting}")}),
            &[state],
        ),
        of(
            "awaited",
            json!({"action": "get", "flags": ["configmap", "state"], "successCondition": "data.state == ready",
                "failureCondition": "data.state == broken"}),
            &[state],
        ),
        second,
        of(
            "refused",
            json!({"action": "get", "manifest": config_map("state", "{}"), "successCondition": "data.state == never",
                "failureCondition": "data.state in (ready, broken)"}),
            &[],
        ),
        of("read", json!({"action": "get", "manifest": config_map("state", "{}")}), &[state]),
        of(
            "dry",
            json!({"action": "delete", "flags": ["configmap", "no-such", "--ignore-not-found", "--wait=false"]}),
            &[],
        ),
        of(
            "replace",
            json!({"action": "replace", "flags": ["--validate=false"], "manifest": config_map("state", "{only: this}")}),
            &[("only", "jsonPath", "{.data.only}"), ("keys", "jqFilter", ".data | keys | join(\",\")")],
        ),
        of("delete", json!({"action": "delete", "manifest": config_map("state", "{}")}), &[]),
        of(
            "delete-by-name",
            json!({"action": "delete", "flags": ["service", "web", "--grace-period=0", "--cascade=foreground"]}),
            &[],
        ),
        of("missing", json!({"action": "get", "flags": ["configmap", "state"]}), &[]),
    ]
}

pub async fn every_action_is_carried_out(cell: &Cell, cluster: &Cluster) -> anyhow::Result<()> {
    let step = |name: &&str| json!({"name": name, "template": name, "continueOn": {"failed": FAILING.contains(name)}});
    let groups: Vec<Vec<Value>> = GROUPS.iter().map(|group| group.iter().map(step).collect()).collect();
    let mut all = vec![json!({"name": "main", "steps": groups})];
    all.extend(templates(&cluster.name));
    let name = cell.submit(&workflow("resources", &all.into())).await?;
    let ended = cell.finished(&name, WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let node = |name: &str| nodes(&ended).find(|node| node["displayName"] == name).cloned().unwrap();
    for (name, values) in [
        ("create", vec!["web", "a"]),
        // Kubernetes' own way puts a list together by its key, JSON's merge takes the new one.
        ("strategic", vec!["b,a"]),
        ("merge", vec!["c"]),
        ("json", vec!["c", "resources"]),
        ("first", vec!["waiting"]),
        ("awaited", vec!["ready"]),
        ("second", vec!["ready"]),
        ("read", vec!["ready"]),
        ("replace", vec!["this", "only"]),
        ("delete", vec![]),
        ("delete-by-name", vec![]),
        ("dry", vec![]),
    ] {
        let node = node(name);
        let outputs = node["outputs"]["parameters"].as_array().cloned().unwrap_or_default();
        let mut found: Vec<&str> = outputs.iter().filter_map(|one| one["value"].as_str()).collect();
        let mut wanted = values;
        if name == "strategic" {
            // The order of a list that is put together is the server's.
            let mut ports: Vec<&str> = found.iter().flat_map(|ports| ports.split(',')).collect();
            ports.sort_unstable();
            (found, wanted) = (ports, vec!["a", "b"]);
        }
        assert_eq!((&node["phase"], found), (&json!("Succeeded"), wanted), "{name}: {node}");
    }
    let told = |name: &str| node(name)["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        told("refused"),
        "main: Error (exit code 64): failure condition '{data.state in [broken ready]}' evaluated true"
    );
    assert_eq!(
        told("missing"),
        "main: Error (exit code 64): no more retries Error from server (NotFound): configmaps \"state\" not found"
    );
    let left = cluster.kubectl(&["-n", "default", "get", "configmap,service", "-o", "name"])?;
    assert!(!left.contains("configmap/state") && !left.contains("service/web"), "{left}");
    say(
        "resource templates: every action, merge strategies, conditions, outputs, flags, a manifest from an artifact",
    );
    Ok(())
}
