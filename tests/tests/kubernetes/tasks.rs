//! A daemon, a request to it, a sidecar, an executor plugin of Argo, a pause, a container set and a resource, from the
//! manifest to the cluster and back.

use super::{WAIT, nodes, phase, say, workflow};
use argosy_testcluster::{Cluster, executor_plugin};
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

pub async fn steps_beside_containers(cell: &Cell, clusters: &[Cluster]) -> anyhow::Result<()> {
    for cluster in clusters {
        for arguments in [
            "create role maker --verb=create,get,patch,update,delete --resource=configmaps,services",
            "create rolebinding maker --role=maker --serviceaccount=default:default",
        ] {
            let words: Vec<&str> = ["-n", "default"].into_iter().chain(arguments.split(' ')).collect();
            cluster.kubectl(&words)?;
        }
        let plugin = cluster.folder().join("plugin.json");
        std::fs::write(&plugin, executor_plugin().to_string())?;
        cluster.kubectl(&["-n", "default", "apply", "-f", &plugin.display().to_string()])?;
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
             {"name": "beside", "template": "beside"}, {"name": "hello", "template": "hello"},
             {"name": "pause", "template": "pause"}, {"name": "set", "template": "set"}]]},
        {"name": "server", "daemon": true, "container": busybox("", serve, json!({}))},
        {"name": "ask", "inputs": {"parameters": [{"name": "ip"}]}, "http": {"url": "http://{{inputs.parameters.ip}}:8080/index.html"}},
        {"name": "make", "inputs": {"parameters": [{"name": "body"}]}, "resource": {"action": "create", "manifest": manifest},
            "outputs": {"parameters": [{"name": "made", "valueFrom": {"jqFilter": ".data.body"}}]}},
        // A sidecar is reached at the Pod's own address; Argo's examples wait for it like this.
        {"name": "beside", "container": busybox("", "until wget -q -O - http://127.0.0.1:8080/; do sleep 0.2; done", json!({})),
            "sidecars": [busybox("web", serve, json!({}))]},
        {"name": "hello", "plugin": {"hello": {"anything": ["that", "the", "plugin", "knows"]}}},
        {"name": "pause", "suspend": {"duration": "1s"}},
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
    assert_eq!((&node("pause")["type"], &node("pause")["phase"]), (&json!("Suspend"), &json!("Succeeded")));
    assert_eq!((&node("beside")["type"], &node("beside")["phase"]), (&json!("Pod"), &json!("Succeeded")));
    let hello = node("hello");
    assert_eq!((&hello["type"], &hello["message"]), (&json!("Plugin"), &json!("hello")), "{hello}");
    assert_eq!(hello["outputs"]["parameters"], json!([{"name": "p", "value": "v"}]));
    for container in ["a", "main"] {
        assert_eq!(
            (&node(container)["type"], &node(container)["phase"]),
            (&json!("Container"), &json!("Succeeded"))
        );
    }
    let places = |name: &str| node(name)["cluster"].clone();
    assert_eq!(places("ask"), places("server"), "an address is one of its cluster");
    say("a daemon, a request to it, a sidecar, a plugin, a pause, a resource, a container set");
    Ok(())
}
