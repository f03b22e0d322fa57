//! Templates without a container of the user: resources, requests, plugins; and a daemon's address.

use super::{Agent, assignment, fence, say, shell};
use argosy_agent_runtime::{AttemptObservation, LogOptions, Runtime, RuntimeAction};
use argosy_proto::common::{AttemptPhase, Fence};
use argosy_testcluster::Cluster;
use serde_json::{Value, json};

pub async fn all_cases(agent: &Agent, cluster: &Cluster) {
    a_resource_step_does_what_its_account_may(agent, cluster).await;
    a_resource_step_waits_for_its_condition(agent, cluster).await;
    let address = a_daemon_has_an_address(agent).await;
    a_request_is_sent_from_a_pod(agent, cluster, &address).await;
    an_argo_plugin_carries_a_step_out(agent, cluster).await;
}

fn config_map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

fn resource(fields: &Value, outputs: &Value) -> Value {
    json!({"name": "t", "serviceAccountName": "maker", "resource": fields, "outputs": {"parameters": outputs}})
}

async fn done(agent: &Agent, number: u64, fields: &Value) -> AttemptObservation {
    let step = agent.run(fence(number), &resource(fields, &json!([])));
    agent.end(step).await
}

fn data(cluster: &Cluster, name: &str) -> String {
    cluster.kubectl(&["-n", "default", "get", "configmap", name, "-o", "jsonpath={.data}"]).unwrap()
}

async fn a_resource_step_does_what_its_account_may(agent: &Agent, cluster: &Cluster) {
    for arguments in [
        "create serviceaccount maker",
        "create role maker --verb=create,get,patch,update,delete --resource=configmaps",
        "create rolebinding maker --role=maker --serviceaccount=default:maker",
    ] {
        let words: Vec<&str> = ["-n", "default"].into_iter().chain(arguments.split(' ')).collect();
        cluster.kubectl(&words).unwrap();
    }
    let create = json!({"action": "create", "manifest": config_map("made", "{a: one}")});
    let outputs = json!([
        {"name": "v", "valueFrom": {"jsonPath": "{.data.a}"}},
        {"name": "n", "valueFrom": {"jqFilter": ".metadata.name"}},
        {"name": "none", "valueFrom": {"jsonPath": "{.data.zzz}", "default": "dflt"}},
    ]);
    let step = agent.run(fence(200), &resource(&create, &outputs));
    let end = agent.end(step).await;
    assert_eq!((end.phase, end.exit_code, end.message.as_str()), (AttemptPhase::Succeeded, Some(0), ""));
    let values: Vec<&str> = end.parameters.iter().map(|one| one.value.as_str()).collect();
    assert_eq!(values, ["one", "made", ""]);
    assert!(agent.log(step, LogOptions::default()).await.contains("/configmaps/made"));

    let exists = done(agent, 201, &create).await;
    let told = "main: Error (exit code 64): no more retries Error from server (AlreadyExists): error when creating \
                \"/tmp/manifest.yaml\": configmaps \"made\" already exists";
    assert_eq!((exists.phase, exists.message.as_str()), (AttemptPhase::Failed, told));

    let merge =
        json!({"action": "patch", "mergeStrategy": "merge", "manifest": config_map("made", "{b: two}")});
    assert_eq!(done(agent, 202, &merge).await.phase, AttemptPhase::Succeeded);
    assert_eq!(data(cluster, "made"), r#"{"a":"one","b":"two"}"#);
    let patch = json!({"action": "patch", "mergeStrategy": "json", "flags": ["configmap", "made"],
        "manifest": "- {op: replace, path: /data/a, value: uno}\n"});
    assert_eq!(done(agent, 203, &patch).await.phase, AttemptPhase::Succeeded);
    assert_eq!(data(cluster, "made"), r#"{"a":"uno","b":"two"}"#);
    let replace = json!({"action": "replace", "manifest": config_map("made", "{c: three}")});
    assert_eq!(done(agent, 204, &replace).await.message, "");
    assert_eq!(data(cluster, "made"), r#"{"c":"three"}"#);
    for (number, text) in [(205, "{d: four}"), (206, "{d: five}")] {
        let apply = json!({"action": "apply", "manifest": config_map("applied", text)});
        assert_eq!(done(agent, number, &apply).await.message, "");
    }
    assert_eq!(data(cluster, "applied"), r#"{"d":"five"}"#);
    for number in [207, 208] {
        // What is not there any more is no failure.
        let delete = json!({"action": "delete", "manifest": config_map("made", "{}")});
        assert_eq!(done(agent, number, &delete).await.phase, AttemptPhase::Succeeded);
    }
    let missing = done(agent, 209, &json!({"action": "get", "manifest": config_map("made", "{}")})).await;
    let told = "main: Error (exit code 64): no more retries Error from server (NotFound): configmaps \"made\" not found";
    assert_eq!(missing.message, told);
    let text = done(agent, 210, &json!({"action": "create", "manifest": "just text"})).await;
    assert!(
        text.message.contains("no more retries error: error validating \"/tmp/manifest.yaml\""),
        "{}",
        text.message
    );

    // The account decides, not the agent.
    let mut other = resource(&create, &json!([]));
    other["serviceAccountName"] = "default".into();
    let refused = agent.run(fence(211), &other);
    let message = agent.end(refused).await.message;
    assert!(
        message.contains("system:serviceaccount:default:default\" cannot create resource \"configmaps\""),
        "{message}"
    );
    say("resource steps: create, apply, patch, replace, delete, get, outputs, the account's rights");
}

async fn a_resource_step_waits_for_its_condition(agent: &Agent, cluster: &Cluster) {
    cluster
        .kubectl(&["-n", "default", "create", "configmap", "state", "--from-literal=state=waiting"])
        .unwrap();
    let get = |failure: &str| {
        json!({"action": "get", "successCondition": "data.state == ready", "failureCondition": failure,
            "manifest": config_map("state", "{}")})
    };
    let waits = agent.run(fence(220), &resource(&get("data.state == broken"), &json!([])));
    agent.running(waits).await;
    let failed = done(agent, 221, &get("data.state in (waiting, broken)")).await;
    let told =
        "main: Error (exit code 64): failure condition '{data.state in [broken waiting]}' evaluated true";
    assert_eq!((failed.phase, failed.message.as_str()), (AttemptPhase::Failed, told));
    let stopped = agent.run(fence(222), &resource(&get(""), &json!([])));
    agent.running(stopped).await;
    agent.runtime.act(RuntimeAction::Stop { fence: stopped, grace_ms: 0 });
    agent.end(stopped).await;
    let patch = r#"{"data":{"state":"ready"}}"#;
    cluster.kubectl(&["-n", "default", "patch", "configmap", "state", "--type=merge", "-p", patch]).unwrap();
    assert_eq!(agent.end(waits).await.phase, AttemptPhase::Succeeded);
    say("resource steps: conditions, stop");
}

async fn a_daemon_has_an_address(agent: &Agent) -> String {
    let script = "mkdir -p /tmp/w/cgi-bin; echo hi > /tmp/w/index.html; \
        printf '#!/bin/sh\\nprintf \"Content-Type: text/plain\\\\r\\\\nX-Answer: 42\\\\r\\\\n\\\\r\\\\n$REQUEST_METHOD $HTTP_X_TOKEN\"\\n' > /tmp/w/cgi-bin/echo; \
        chmod +x /tmp/w/cgi-bin/echo; exec httpd -f -p 8080 -h /tmp/w";
    let mut server = shell(script);
    server["daemon"] = true.into();
    let server = agent.run(fence(230), &server);
    let ready = agent.observed(server, "readiness", |seen| seen.ready && !seen.pod_ip.is_empty()).await;
    assert_eq!(ready.phase, AttemptPhase::Running);
    say("a daemon is ready and has an address");
    ready.pod_ip
}

async fn a_request_is_sent_from_a_pod(agent: &Agent, cluster: &Cluster, address: &str) {
    cluster
        .kubectl(&["-n", "default", "create", "secret", "generic", "web", "--from-literal=token=s3cret"])
        .unwrap();
    let request =
        |number: u64, http: Value| -> Fence { agent.run(fence(number), &json!({"name": "t", "http": http})) };
    let plain = request(240, json!({"url": format!("http://{address}:8080/index.html")}));
    let secret = request(
        241,
        json!({"url": format!("http://{address}:8080/cgi-bin/echo"), "method": "POST", "body": "b",
        "headers": [{"name": "X-Token", "valueFrom": {"secretKeyRef": {"name": "web", "key": "token"}}}],
        "successCondition": "response.headers[\"X-Answer\"][0] == \"42\" && response.body contains \"s3cret\""}),
    );
    let missing = request(242, json!({"url": format!("http://{address}:8080/nothing")}));
    let nobody = request(243, json!({"url": format!("http://{address}:9/")}));
    assert_eq!(agent.outcome(plain).await.result.as_deref(), Some("hi\n"));
    let outcome = agent.outcome(secret).await;
    assert_eq!(outcome.result.as_deref(), Some("POST s3cret"));
    assert!(!outcome.verdict.unwrap().failed);
    let verdict = agent.outcome(missing).await.verdict.unwrap();
    assert_eq!((verdict.failed, verdict.message.as_str()), (true, "received non-2xx response code: 404"));
    let verdict = agent.outcome(nobody).await.verdict.unwrap();
    let told = format!("Get \"http://{address}:9/\": dial tcp {address}:9: connect: connection refused");
    assert_eq!(verdict.message, told);
    say("requests from a Pod: result, Secret, conditions, failures");
}

async fn an_argo_plugin_carries_a_step_out(agent: &Agent, cluster: &Cluster) {
    let map = argosy_testcluster::executor_plugin();
    let file = cluster.folder().join("plugin.json");
    std::fs::write(&file, map.to_string()).unwrap();
    cluster.kubectl(&["-n", "default", "apply", "-f", file.to_str().unwrap()]).unwrap();
    let step = fence(250);
    let template = json!({"name": "t", "plugin": {"hello": {}}});
    agent.runtime.act(RuntimeAction::Ensure(assignment(step, "default", &template)));
    let outcome = agent.outcome(step).await;
    let verdict = outcome.verdict.clone().unwrap();
    assert_eq!((verdict.failed, verdict.message.as_str()), (false, "hello"), "{outcome:?}");
    assert_eq!(outcome.parameters[0].value, "v");
    say("an executor plugin of Argo");
}
