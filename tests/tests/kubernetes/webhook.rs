//! A validating admission webhook: what it refuses, and what becomes of steps while it is away.

use super::{WAIT, nodes, phase, say, until, workflow};
use anyhow::Context;
use argosy_testcluster::{Cluster, Federation};
use argosy_tests::cell::Cell;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const NAME: &str = "gate.example.org";
const REFUSED: &str = "admission webhook \"gate.example.org\" denied the request: no tickets left";

/// Refuses the first Pod of each workflow, and every one of `gate-closed`.
struct Gate {
    address: SocketAddr,
    authority: String,
    acceptor: TlsAcceptor,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    serving: JoinHandle<()>,
}

impl Gate {
    async fn open(address: IpAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec![address.to_string()])?.self_signed(&key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let asked = Arc::default();
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, acceptor.clone(), Arc::clone(&asked)));
        Ok(Self { address, authority: STANDARD.encode(certificate.pem()), acceptor, asked, serving })
    }

    /// Nobody listens there any more.
    async fn close(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    async fn open_again(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serving = tokio::spawn(serve(listener, self.acceptor.clone(), Arc::clone(&self.asked)));
        Ok(())
    }

    /// Asked for Pods with its label alone: nothing else in the cluster hangs on it.
    fn registration(&self) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "gate"},
            "webhooks": [{
                "name": NAME, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                "timeoutSeconds": 5, "objectSelector": {"matchLabels": {"gate": "asked"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "clientConfig": {"url": format!("https://{}/", self.address), "caBundle": self.authority},
            }],
        })
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, asked: Arc<Mutex<BTreeMap<String, usize>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if let Err(error) = answer(stream, &asked).await {
                println!("the webhook: {error:#}");
            }
        });
    }
}

/// One request, one answer.
async fn answer(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    asked: &Mutex<BTreeMap<String, usize>>,
) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let review: Value = serde_json::from_slice(&body)?;
    let labels = &review["request"]["object"]["metadata"]["labels"];
    let workflow = labels["workflows.argoproj.io/workflow"].as_str().context("a Pod of a workflow")?;
    let times = {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(workflow.to_owned()).or_default();
        *times += 1;
        *times
    };
    let allowed = times > 1 && workflow != "gate-closed";
    let mut response = json!({"uid": review["request"]["uid"], "allowed": allowed});
    if !allowed {
        response["status"] = json!({"code": 403, "message": "no tickets left"});
    }
    let text = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        .to_string();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

fn step(name: &str, home: &Cluster, retry: Option<&str>) -> Value {
    let mut main = json!({
        "name": "main", "nodeSelector": {"cluster.argosy.dev/name": home.name},
        "metadata": {"labels": {"gate": "asked"}},
        "container": {"image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"]},
    });
    if let Some(policy) = retry {
        main["retryStrategy"] = json!({"limit": 1, "retryPolicy": policy});
    }
    workflow(name, &json!([main]))
}

/// Phase and message of each try.
fn tries(ended: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = nodes(ended).filter(|node| node["type"] == "Pod").collect();
    found.sort_by_key(|node| text(&node["name"]));
    found.into_iter().map(|node| (text(&node["phase"]), text(&node["message"]))).collect()
}

pub async fn steps_are_admitted_or_not(
    cell: &Cell,
    federation: &Federation,
    home: &Cluster,
) -> anyhow::Result<()> {
    let mut gate = Gate::open(federation.hub_address().into()).await?;
    let file = home.folder().join("gate.json");
    std::fs::write(&file, gate.registration().to_string())?;
    home.kubectl(&["apply", "-f", &file.display().to_string()])?;
    let labels = "--labels=gate=asked,workflows.argoproj.io/workflow=gate-closed";
    let refused = ["run", "probe", "--image=busybox", labels, "--dry-run=server"];
    until("the webhook to be asked", || home.kubectl(&refused).is_err()).await;

    let error = ("Error".to_owned(), REFUSED.to_owned());
    let cases = [
        ("gate-closed", None, "Error", vec![error.clone()]),
        // Argo's default is to try failures again, and this is an error.
        ("gate-not-again", Some("OnFailure"), "Error", vec![error.clone()]),
        ("gate-again", Some("OnError"), "Succeeded", vec![error, ("Succeeded".to_owned(), String::new())]),
    ];
    for (name, retry, expected, told) in cases {
        cell.submit(&step(name, home, retry)).await?;
        let ended = cell.finished(name, WAIT).await?;
        assert_eq!((phase(&ended), tries(&ended)), (expected, told), "{name}: {}", ended["status"]);
    }
    say("a webhook refuses: Argo's words, tried again by policy");

    gate.close().await;
    cell.submit(&step("gate-away", home, Some("OnError"))).await?;
    let path = "/api/v1/workflows/default/gate-away";
    cell.until(WAIT, "a step to wait for the webhook", async || {
        let now = cell.get(path).await.ok()?;
        let waits = |(phase, message): (String, String)| {
            phase == "Pending" && message.contains("failed calling webhook")
        };
        tries(&now).into_iter().any(waits).then_some(())
    })
    .await?;
    gate.open_again().await?;
    let ended = cell.finished("gate-away", WAIT).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    home.kubectl(&["delete", "-f", &file.display().to_string()])?;
    gate.close().await;
    say("a webhook that is away: steps wait for it");
    Ok(())
}
