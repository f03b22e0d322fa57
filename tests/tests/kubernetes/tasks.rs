//! A daemon, a request to it, a container set and a resource, from the manifest to the cluster and back.

use super::{WAIT, nodes, phase, say, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

pub async fn steps_beside_containers(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    for cluster in clusters {
        for arguments in [
            "create role maker --verb=create,get --resource=configmaps",
            "create rolebinding maker --role=maker --serviceaccount=default:default",
        ] {
            let words: Vec<&str> = ["-n", "default"].into_iter().chain(arguments.split(' ')).collect();
            cluster.kubectl(&words)?;
        }
    }
    let busybox = |name: &str, script: &str, more: Value| {
        let mut container = json!({"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    let serve = "mkdir /tmp/w; echo hi > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w";
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: made-}\ndata: {body: '{{inputs.parameters.body}}'}\n";
    let given = |name: &str, value: &str| json!({"parameters": [{"name": name, "value": value}]});
    let templates = json!([
        {"name": "main", "steps": [
            [{"name": "server", "template": "server"}],
            [{"name": "ask", "template": "ask", "arguments": given("ip", "{{steps.server.ip}}")}],
            [{"name": "make", "template": "make", "arguments": given("body", "{{steps.ask.outputs.result}}")},
             {"name": "set", "template": "set"}]]},
        {"name": "server", "daemon": true, "container": busybox("", serve, json!({}))},
        {"name": "ask", "inputs": {"parameters": [{"name": "ip"}]}, "http": {"url": "http://{{inputs.parameters.ip}}:8080/index.html"}},
        {"name": "make", "inputs": {"parameters": [{"name": "body"}]}, "resource": {"action": "create", "manifest": manifest},
            "outputs": {"parameters": [{"name": "made", "valueFrom": {"jqFilter": ".data.body"}}]}},
        {"name": "set", "containerSet": {"containers": [
            busybox("a", "exit 0", json!({})), busybox("main", "echo last", json!({"dependencies": ["a"]}))]}},
    ]);
    let name = cell.submit(&workflow("tasks", &templates)).await?;
    let ended = cell.finished(&name, WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let node = |name: &str| nodes(&ended).find(|node| node["displayName"] == name).cloned().unwrap();
    assert_eq!((&node("ask")["type"], &node("ask")["outputs"]["result"]), (&json!("HTTP"), &json!("hi\n")));
    assert_eq!(node("make")["outputs"]["parameters"][0]["value"], "hi");
    assert_eq!(node("server")["phase"], "Succeeded");
    for container in ["a", "main"] {
        assert_eq!(
            (&node(container)["type"], &node(container)["phase"]),
            (&json!("Container"), &json!("Succeeded"))
        );
    }
    let places = |name: &str| node(name)["cluster"].clone();
    assert_eq!(places("ask"), places("server"), "an address is one of its cluster");
    say("a daemon, a request to it, a resource, a container set");
    Ok(())
}
