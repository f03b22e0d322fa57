//! What a workflow says of its Pods, seen from inside the Pod and at the API server: one workflow with all of it, and claims
//! that go or stay with the outcome.

use super::{WAIT, let_go, nodes, phase, pods, running, say, until, workflow};
use argosy_testcluster::Cluster;
use argosy_tests::cell::Cell;
use serde_json::{Value, json};

const CLASS: &str = r#"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: shaped}
value: 7
"#;
const NAME: &str = "shaped";

fn busybox(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c"], "args": [script]})
}

fn claims() -> Value {
    json!([{"metadata": {"name": "work"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Mi"}}}}])
}

/// A volume for each claim: nobody makes them when they are asked for.
fn make_volumes(home: &Cluster) -> anyhow::Result<()> {
    let volume = |number: u32| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("shaped-{number}")},
            "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "hostPath": {"path": format!("/tmp/argosy-shaped-{number}"), "type": "DirectoryOrCreate"}}})
    };
    let volumes: Vec<Value> = (1..=3).map(volume).collect();
    apply(home, "volumes.json", &json!({"apiVersion": "v1", "kind": "List", "items": volumes}).to_string())
}

fn apply(home: &Cluster, file: &str, text: &str) -> anyhow::Result<()> {
    let path = home.folder().join(file);
    std::fs::write(&path, text)?;
    home.kubectl(&["apply", "-f", &path.display().to_string()]).map(drop)
}

/// Sends an object to a subresource of a Pod.
fn send(home: &Cluster, pod: &str, part: &str, object: &Value) -> anyhow::Result<String> {
    let path = home.folder().join(format!("{part}.json"));
    std::fs::write(&path, object.to_string())?;
    let to = format!("/api/v1/namespaces/default/pods/{pod}/{part}");
    home.kubectl(&["create", "--raw", &to, "-f", &path.display().to_string()])
}

fn read(home: &Cluster, kind: &str, name: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&home.kubectl(&["-n", "default", "get", kind, name, "-o", "json"])?)?)
}

fn is_there(home: &Cluster, kind: &str, name: &str) -> bool {
    home.kubectl(&["-n", "default", "get", kind, "-o", "name"])
        .is_ok_and(|listed| listed.lines().any(|line| line.ends_with(&format!("/{name}"))))
}

fn shaped(home: &Cluster) -> Value {
    let look = "until wget -q -O /tmp/side http://127.0.0.1:8080/; do sleep 0.2; done; \
        { cat /work/init /tmp/side; grep named.example /etc/hosts | tr '\\t' ' '; cat /etc/resolv.conf; hostname; echo $ADDED; } > /tmp/seen; \
        while [ ! -e /tmp/go ]; do sleep 0.2; done";
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    let mut main = busybox("", look);
    main["volumeMounts"] = mounts;
    let mut before = busybox("before", "echo from-init > /work/init");
    before["mirrorVolumeMounts"] = true.into();
    let template = json!({"name": "main", "nodeSelector": {"cluster.argosy.dev/name": home.name}, "container": main,
        "initContainers": [before],
        "sidecars": [busybox("side", "mkdir /tmp/w; echo from-side > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w")],
        "outputs": {"parameters": [{"name": "seen", "valueFrom": {"path": "/tmp/seen"}}]}});
    let patch = json!({"hostname": "patched",
        "containers": [{"name": "main", "env": [{"name": "ADDED", "value": "by-patch"}]}]});
    let mut made = workflow(NAME, &json!([template]));
    let fields = json!({
        "hostAliases": [{"ip": "10.9.8.7", "hostnames": ["named.example"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.1.2.3"], "searches": ["team.example"], "options": [{"name": "ndots", "value": "3"}]},
        "imagePullSecrets": [{"name": "pull"}],
        "podPriorityClassName": "shaped",
        "schedulerName": "by-hand",
        "podDisruptionBudget": {"minAvailable": 1},
        "podSpecPatch": patch.to_string(),
        "podMetadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "volumeClaimTemplates": claims(),
    });
    made["spec"].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    made
}

pub async fn are_what_the_workflow_says(cell: &Cell, home: &Cluster) -> anyhow::Result<()> {
    apply(home, "shaped.yaml", CLASS)?;
    make_volumes(home)?;
    home.kubectl(&[
        "-n",
        "default",
        "create",
        "secret",
        "docker-registry",
        "pull",
        "--docker-server=registry.example",
        "--docker-username=user",
        "--docker-password=word",
    ])?;
    cell.submit(&shaped(home)).await?;
    until("the Pod to be made", || pods(home).iter().any(|pod| pod.workflow == NAME)).await;
    let pod = pods(home).into_iter().find(|pod| pod.workflow == NAME).unwrap();
    let made = read(home, "pod", &pod.name)?;
    // Its scheduler is this test.
    assert!(made["spec"]["nodeName"].is_null(), "{made}");
    let target = json!({"apiVersion": "v1", "kind": "Node", "name": home.name});
    let metadata = json!({"name": pod.name, "namespace": "default"});
    send(
        home,
        &pod.name,
        "binding",
        &json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}),
    )?;
    let spec = &made["spec"];
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!((&spec["priorityClassName"], &spec["priority"]), (&json!("shaped"), &json!(7)));
    assert_eq!(
        (&made["metadata"]["labels"]["team"], &made["metadata"]["annotations"]["note"]),
        (&json!("a"), &json!("b"))
    );
    until("the step to run", || running(home, NAME).len() == 1).await;
    // The budget protects it, whoever asks.
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata});
    let refusal = send(home, &pod.name, "eviction", &eviction).unwrap_err().to_string();
    assert!(refusal.contains("disruption budget"), "{refusal}");
    let claim = format!("{NAME}-work");
    assert!(is_there(home, "pvc", &claim), "the workflow's claim");
    until("the step to be let go", || let_go(home, &pod)).await;
    let ended = cell.finished(NAME, WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let step = nodes(&ended).find(|node| node["type"] == "Pod").unwrap();
    let seen: Vec<&str> = step["outputs"]["parameters"][0]["value"].as_str().unwrap().lines().collect();
    let expected = [
        "from-init",
        "from-side",
        "10.9.8.7 named.example",
        "search team.example",
        "nameserver 10.1.2.3",
        "options ndots:3",
        "patched",
        "by-patch",
    ];
    assert_eq!(seen, expected);
    until("claim and budget to go", || !is_there(home, "pvc", &claim) && !is_there(home, "pdb", NAME)).await;
    say(
        "hosts, names, secrets, class, scheduler, budget, patch, metadata, claim, init container, sidecar: as written",
    );
    claims_go_with_the_outcome(cell, home).await
}

async fn claims_go_with_the_outcome(cell: &Cell, home: &Cluster) -> anyhow::Result<()> {
    // The one that stays fails first: when the other one's claim is gone, it has been seen to.
    for (name, strategy) in [("claim-stays", "OnWorkflowSuccess"), ("claim-goes", "OnWorkflowCompletion")] {
        let mut main = busybox("", "echo used > /work/file; exit 1");
        main["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
        let template = json!({"name": "main", "nodeSelector": {"cluster.argosy.dev/name": home.name}, "container": main});
        let mut made = workflow(name, &json!([template]));
        made["spec"]["volumeClaimTemplates"] = claims();
        made["spec"]["volumeClaimGC"] = json!({"strategy": strategy});
        cell.submit(&made).await?;
        let ended = cell.finished(name, WAIT).await?;
        assert_eq!(phase(&ended), "Failed", "{}", ended["status"]);
    }
    until("the claim to go", || !is_there(home, "pvc", "claim-goes-work")).await;
    assert!(is_there(home, "pvc", "claim-stays-work"), "a claim of a failure was removed");
    let kept = read(home, "pvc", "claim-stays-work")?;
    assert!(kept["metadata"]["deletionTimestamp"].is_null(), "{kept}");
    say("claims go or stay with the outcome");
    Ok(())
}
