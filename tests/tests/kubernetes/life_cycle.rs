//! How steps end on a cluster that does not give them what they want: Argo's phases and messages.

use super::{WAIT, nodes, phase, say, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

/// At most one Pod of a class, and Pods with a label refused.
const RULES: &str = r#"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: counted}
value: 1
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: counted, namespace: default}
spec: {hard: {pods: "1"}, scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [counted]}]}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: not-here}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "!has(object.metadata.labels) || !('refuse' in object.metadata.labels)", message: not here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: not-here}
spec: {policyName: not-here, validationActions: [Deny]}
"#;

fn step(fields: &Value, container: &Value, home: &Cluster) -> Value {
    let mut main = json!({
        "name": "main", "nodeSelector": {"cluster.argosy.dev/name": home.name},
        "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": ["true"]},
    });
    let given = |value: &Value| value.as_object().cloned().unwrap_or_default();
    main["container"].as_object_mut().unwrap().extend(given(container));
    for (key, value) in given(fields) {
        match (main[&key].as_object_mut(), value.as_object()) {
            (Some(there), Some(more)) => there.extend(more.clone()),
            _ => main[&key] = value,
        }
    }
    main
}

async fn end(cell: &Cell, name: &str) -> anyhow::Result<(String, String, Value)> {
    let ended = cell.finished(name, WAIT).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let node = nodes(&ended).find(|node| node["name"] == name).cloned().unwrap_or_default();
    Ok((text(&node["phase"]), text(&node["message"]), ended))
}

/// The node waits with such a message.
async fn waits(cell: &Cell, name: &str, told: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/workflows/default/{name}");
    cell.until(WAIT, &format!("{name} to say {told:?}"), async || {
        let now = cell.get(&path).await.ok()?;
        let found = nodes(&now).any(|node| {
            node["phase"] == "Pending" && node["message"].as_str().is_some_and(|it| it.contains(told))
        });
        found.then_some(())
    })
    .await
}

pub async fn every_end_has_its_words(cell: &Cell, home: &Cluster) -> anyhow::Result<()> {
    let rules = home.folder().join("rules.yaml");
    std::fs::write(&rules, RULES)?;
    home.kubectl(&["apply", "-f", &rules.display().to_string()])?;
    let submit = async |name: &str, fields: Value, container: Value| {
        cell.submit(&workflow(name, &json!([step(&fields, &container, home)]))).await
    };
    submit("no-image", json!({"activeDeadlineSeconds": 30}), json!({"image": "localhost:1/none:1"})).await?;
    submit("no-host", json!({"timeout": "30s", "nodeSelector": {"no-such": "host"}}), json!({})).await?;
    waits(cell, "no-image", "ImagePull").await?;
    waits(cell, "no-host", "Unschedulable: 0/").await?;
    let fills = json!({"args": ["head -c 8000000 /dev/zero > /fill; sleep 300"],
        "resources": {"limits": {"ephemeral-storage": "1Mi"}}});
    submit("evicted", json!({}), fills).await?;
    let full =
        json!({"args": ["head -c 200000000 /dev/zero | tail"], "resources": {"limits": {"memory": "24Mi"}}});
    submit("out-of-memory", json!({}), full).await?;

    let counted = step(&json!({"priorityClassName": "counted"}), &json!({"args": ["sleep 3"]}), home);
    let main = json!({"name": "two", "steps": [[{"name": "n", "template": "main", "withItems": [1, 2]}]]});
    let mut quota = workflow("quota", &json!([main, counted]));
    quota["spec"]["entrypoint"] = "two".into();
    cell.submit(&quota).await?;
    waits(cell, "quota", "exceeded quota: counted").await?;
    let ended = cell.finished("quota", WAIT).await?;
    assert_eq!(
        phase(&ended),
        "Succeeded",
        "what waited for the quota runs after the other: {}",
        ended["status"]
    );

    let refusing = ["run", "probe", "--image=busybox", "--labels=refuse=yes", "--dry-run=server"];
    super::until("the policy to be in force", || home.kubectl(&refusing).is_err()).await;
    submit("refused", json!({"metadata": {"labels": {"refuse": "yes"}}}), json!({})).await?;
    let (node, message, ended) = end(cell, "refused").await?;
    assert_eq!((node.as_str(), phase(&ended)), ("Error", "Error"), "{}", ended["status"]);
    assert!(
        message.contains("denied request: not here") && message.starts_with("pods \"refused\""),
        "{message}"
    );

    for (name, expected, told) in [
        ("no-image", "Failed", "Pod was active on the node longer than the specified deadline"),
        ("no-host", "Failed", "timeout"),
        ("out-of-memory", "Failed", "main: OOMKilled (exit code 137)"),
    ] {
        let (node, message, ended) = end(cell, name).await?;
        assert_eq!((node.as_str(), message.as_str()), (expected, told), "{}", ended["status"]);
    }
    let (node, message, _) = end(cell, "evicted").await?;
    assert!(node == "Failed" && message.contains("ephemeral"), "{node}: {message}");
    say("image, host, deadline, memory, eviction, quota, admission: each ends in Argo's words");
    Ok(())
}
