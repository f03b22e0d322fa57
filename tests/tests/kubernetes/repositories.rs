//! Repositories that ask for a login or a key: both are in a Secret of the cluster, and in nothing else that it holds.

use super::{WAIT, sh, workflow};
use argosy_git::testing::{git, serve_at, serve_ssh};
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::Cell;
use argosy_tests::manifests::node;
use base64::Engine;
use serde_json::{Value, json};
use std::path::Path;

/// `user:secret`, as a header of HTTP has it.
const LOGIN: &str = "dXNlcjpzZWNyZXQ=";

/// What nobody but the Secret may hold: the lines of the key, the key in base64, and the login in its forms.
fn credentials(key: &str) -> Vec<String> {
    let lines = key.lines().filter(|line| !line.is_empty() && !line.starts_with("-----"));
    let mut found: Vec<String> = lines.map(str::to_owned).collect();
    assert!(found.len() >= 3, "a key has lines");
    let encoded = base64::engine::general_purpose::STANDARD.encode(key);
    found.extend([encoded[..64].to_owned(), LOGIN.to_owned(), "user:secret".to_owned()]);
    found
}

/// Which of them a text holds.
fn held<'a>(text: &str, credentials: &'a [String]) -> Vec<&'a str> {
    credentials.iter().map(String::as_str).filter(|one| text.contains(one)).collect()
}

/// Everything that a cluster holds, Secrets aside.
fn everything(cluster: &Cluster) -> anyhow::Result<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<&str> = kinds.split_whitespace().filter(|kind| *kind != "secrets").collect();
    assert!(kinds.contains(&"pods") && kinds.contains(&"configmaps"), "{kinds:?}");
    cluster.kubectl(&["get", &kinds.join(","), "--all-namespaces", "-o", "json"])
}

fn make_source(source: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(source)?;
    git(source, &["init", "-q"]);
    std::fs::write(source.join("file"), "from the repository\n")?;
    git(source, &["add", "-A"]);
    git(source, &["commit", "-q", "-m", "first"]);
    git(source, &["tag", "v1"]);
    Ok(())
}

pub async fn are_cloned_with_logins_that_stay_in_secrets(
    federation: &Federation,
    cell: &Cell,
    east: &Cluster,
) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    make_source(&directory.path().join("private-source"))?;
    let hub = federation.hub_address().into();
    let by_http = serve_at(hub, directory.path().to_owned()).await;
    let by_ssh = serve_ssh(hub, directory.path().to_owned(), true).await;
    let credentials = credentials(&by_ssh.user_key);
    let key = directory.path().join("key");
    std::fs::write(&key, &by_ssh.user_key)?;
    let from_key = format!("--from-file=key={}", key.display());
    let login = ["--from-literal=user=user", "--from-literal=password=secret", &from_key];
    let secret = ["create", "secret", "generic", "repository", "-n", "default"];
    east.kubectl(&[secret.as_slice(), login.as_slice()].concat())?;
    // The search finds a key where somebody leaves one.
    east.kubectl(&["create", "configmap", "careless", "-n", "default", &from_key])?;
    assert!(!held(&everything(east)?, &credentials).is_empty(), "the search is blind");
    east.kubectl(&["delete", "configmap", "careless", "-n", "default"])?;

    let of = |key: &str| json!({"name": "repository", "key": key});
    let of_http = json!({"repo": format!("{by_http}/private-source"), "revision": "v1",
        "usernameSecret": of("user"), "passwordSecret": of("password")});
    let of_ssh = json!({"repo": format!("ssh://git@{}/~/private-source", by_ssh.address), "revision": "v1", "depth": 1,
        "sshPrivateKeySecret": of("key")});
    let mut of_any_host = of_ssh.clone();
    of_any_host["insecureIgnoreHostKey"] = json!(true);
    let without_login = json!({"repo": format!("{by_http}/private-source"), "revision": "v1"});
    let unknown = "init: Error (exit code 64): artifact f failed to load: ssh: handshake failed: knownhosts: key is unknown";
    let refused = "init: Error (exit code 64): artifact f failed to load: ";
    for (name, repository, reason) in [
        ("git-http", of_http, None),
        ("git-ssh", of_any_host, None),
        ("git-unknown-host", of_ssh, Some(unknown)),
        ("git-no-login", without_login, Some(refused)),
    ] {
        let done = clone(cell, name, &repository).await?;
        let told = node(&done, name);
        match reason {
            None => {
                let outputs = &told["outputs"]["parameters"];
                assert_eq!(outputs[0]["value"], "from the repository", "{}", done["status"]);
                let seen = outputs[1]["value"].as_str().unwrap_or_default();
                assert!(seen.contains("[remote \"origin\"]") && seen.contains("PATH="), "{seen}");
                assert_eq!(held(seen, &credentials), Vec::<&str>::new(), "{name}: the step sees {seen}");
            }
            Some(reason) => {
                let message = told["message"].as_str().unwrap_or_default();
                assert!(message.starts_with(reason), "{}", done["status"]);
            }
        }
    }
    let everything = everything(east)?;
    assert!(
        everything.contains("git-ssh") && !everything.contains("secretKeyRef"),
        "a Pod refers to a Secret"
    );
    assert_eq!(
        held(&everything, &credentials),
        Vec::<&str>::new(),
        "an object of the cluster has a credential"
    );
    Ok(())
}

/// One step that reads a file of the repository, and tells all that a user's command might learn a login from.
async fn clone(cell: &Cell, name: &str, repository: &Value) -> anyhow::Result<Value> {
    let told = |name: &str, path: &str| json!({"name": name, "valueFrom": {"path": path}});
    let templates = json!([{"name": "main", "nodeSelector": {"cluster.argosy.dev/name": "east"},
        "inputs": {"artifacts": [{"name": "f", "path": "/in", "git": repository}]},
        "container": sh("cat /in/file > /tmp/out; { cat /in/.git/config; env; ls \"$HOME/.ssh\" || true; } > /tmp/seen 2>&1"),
        "outputs": {"parameters": [told("out", "/tmp/out"), told("seen", "/tmp/seen")]}}]);
    let name = cell.submit(&workflow(name, templates)).await?;
    cell.finished(&name, WAIT).await
}
