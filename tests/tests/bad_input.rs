//! What comes from outside and must be refused: each with a clear word, a count where it came over the network, and no
//! effect on anything else.

use anyhow::Context;
use argosy_pki::{Authority, Lifetimes};
use argosy_proto::common::{AttemptPhase, Fence, Verdict};
use argosy_proto::peer::peer_client::PeerClient;
use argosy_proto::peer::{PeerFrame, peer_frame};
use argosy_server::core::clock;
use argosy_tests::cell::{Cell, Options, TOKEN, binary};
use argosy_tests::stranger::{HandAgent, agent_tls, dial, enrol, member_tls, report, without_certificate};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn one_member() -> Options {
    Options { members: 1, ..Options::default() }
}

fn echo(name: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [{
            "name": "main", "retryStrategy": {"limit": 1},
            "container": {"image": "busybox", "command": ["sh", "-c", "echo true result"]},
        }]},
    })
}

/// The cell is as it was: a workflow runs to its end.
async fn still_works(cell: &mut Cell) -> anyhow::Result<()> {
    if cell.agents.is_empty() {
        cell.start_agent("east").await?;
    }
    let name = cell.submit(&echo("afterwards")).await?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    Ok(())
}

/// A certificate authority that has nothing to do with the cell but its name.
fn impostor() -> anyhow::Result<Authority> {
    Ok(Authority::create("test", clock().wall_ms, Lifetimes::default())?)
}

/// Sends frames to a member's peer listener and returns the refusal, if the stream was refused.
async fn exchange(tls: rustls::ClientConfig, cell: &Cell, frames: Vec<PeerFrame>) -> Result<(), String> {
    let channel = dial(tls, cell.configs[&1].listen.peer).await.map_err(|error| format!("{error:#}"))?;
    let stream = tokio_stream::iter(frames);
    PeerClient::new(channel).exchange(stream).await.map(drop).map_err(|status| status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_reach_the_peer_listener_and_foreign_frames_are_dropped() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let (own, foreign) = (&cell.authority, impostor()?);
    let rows = [
        (without_certificate(own)?, "no_certificate", "the client showed no certificate"),
        (member_tls(&foreign, 2, own)?, "foreign", "issued by another certificate authority"),
        (agent_tls(own, "east", own)?, "wrong_role", "may not connect here: a member"),
    ];
    for (tls, reason, told) in rows {
        exchange(tls, &cell, Vec::new()).await.expect_err(reason);
        let metric = format!("argosy_tls_refused_total{{listener=\"peer\",reason=\"{reason}\"}}");
        cell.counted(1, &metric, 1.0).await?;
        assert!(cell.log(1)?.contains(told), "the log says {told:?}");
    }
    let refused = exchange(member_tls(own, 9, own)?, &cell, Vec::new()).await.unwrap_err();
    assert!(refused.contains("member 9 is not of this cell"), "{refused}");
    cell.counted(1, "argosy_peer_frames_dropped_total{reason=\"not_member\"}", 1.0).await?;
    // The right certificate, and frames that can't be its own.
    let consensus = |bytes: &[u8]| Some(peer_frame::Body::Consensus(bytes.to_vec()));
    let frame =
        |version, cell: &str, from, body| PeerFrame { version, cell: cell.to_owned(), from, to: 1, body };
    let frames = vec![
        frame(1, "test", 9, consensus(b"of a member that is none")),
        frame(1, "elsewhere", 2, consensus(b"of another cell")),
        frame(7, "test", 2, consensus(b"of another version")),
        frame(1, "test", 2, consensus(&[0xff; 64])),
        frame(1, "test", 2, None),
    ];
    exchange(member_tls(own, 2, own)?, &cell, frames)
        .await
        .expect("each frame is dropped, the stream goes on");
    for reason in ["wrong_address", "wrong_cell", "version", "malformed", "empty"] {
        cell.counted(1, &format!("argosy_peer_frames_dropped_total{{reason=\"{reason}\"}}"), 1.0).await?;
    }
    still_works(&mut cell).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_own_certificate_or_cluster_is_refused() -> anyhow::Result<()> {
    let mut cell = Cell::start(&one_member()).await?;
    let (own, foreign, address) = (&cell.authority, impostor()?, cell.configs[&1].listen.agent);
    let greeted = HandAgent::greet(without_certificate(own)?, address, "east").await;
    let text = format!("{:#}", greeted.err().context("a session without certificate is refused")?);
    assert!(text.contains("client certificate is required"), "{text}");
    cell.counted(1, "argosy_agent_frames_refused_total{reason=\"no_identity\"}", 1.0).await?;
    let rows = [
        (agent_tls(&foreign, "east", own)?, "foreign", "issued by another certificate authority"),
        (member_tls(own, 1, own)?, "wrong_role", "may not connect here: a cluster's agent"),
    ];
    for (tls, reason, told) in rows {
        let greeted = HandAgent::greet(tls, address, "east").await;
        assert!(greeted.is_err(), "{reason}");
        let metric = format!("argosy_tls_refused_total{{listener=\"agent\",reason=\"{reason}\"}}");
        cell.counted(1, &metric, 1.0).await?;
        assert!(cell.log(1)?.contains(told), "the log says {told:?}");
    }
    // A certificate of the cell for a cluster that nobody has invited.
    let mut ghost = HandAgent::greet(agent_tls(own, "ghost", own)?, address, "ghost").await?;
    let (code, message) = ghost.refusal().await?;
    assert_eq!(code, "ARG1010", "{message}");
    assert!(message.contains("argosy cluster invite ghost"), "{message}");
    // And one that speaks for another cluster than its own.
    let mut liar = HandAgent::greet(agent_tls(own, "ghost", own)?, address, "east").await?;
    let (code, message) = liar.refusal().await?;
    assert_eq!(code, "identity-mismatch", "{message}");
    cell.counted(1, "argosy_agent_frames_refused_total{reason=\"session_refused\"}", 2.0).await?;
    let clusters = cell.get("/api/v1/clusters").await?;
    assert_eq!(clusters["items"].as_array().map_or(0, Vec::len), 0, "nobody was registered: {clusters}");
    still_works(&mut cell).await
}

async fn invite(cell: &Cell, cluster: &str, ttl_seconds: u64) -> anyhow::Result<String> {
    let path = format!("/api/v1/clusters/{cluster}/invite");
    let answer = cell.post(&path, &json!({"ttlSeconds": ttl_seconds})).await?;
    Ok(answer["token"].as_str().context("an invite has a token")?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_that_is_wrong_used_expired_or_anothers_is_refused_each_in_its_own_words()
-> anyhow::Result<()> {
    let mut cell = Cell::start(&one_member()).await?;
    let address = cell.configs[&1].listen.agent;
    let (good, short) = (invite(&cell, "hand", 600).await?, invite(&cell, "late", 1).await?);
    let made_up =
        argosy_pki::Invite::new("hand", cell.authority.fingerprint(), vec![address.to_string()], [7; 32])?;
    let unknown = enrol(address, &made_up.token(), "hand").await.err().context("an unknown invite")?;
    let others = enrol(address, &good, "west").await.err().context("an invite of another cluster")?;
    enrol(address, &good, "hand").await?;
    let used = enrol(address, &good, "hand").await.err().context("a used invite")?;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let expired = enrol(address, &short, "late").await.err().context("an expired invite")?;
    let rows = [(&unknown, "ARG1013"), (&others, "ARG1016"), (&used, "ARG1015"), (&expired, "ARG1014")];
    for (status, code) in rows {
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
        assert!(status.message().starts_with(code), "{code}: {}", status.message());
        assert!(status.message().contains("argosy cluster invite"), "what to do next: {}", status.message());
    }
    let mut told: Vec<_> = rows.iter().map(|(status, _)| status.message()).collect();
    told.dedup();
    assert_eq!(told.len(), 4, "{told:?}");
    cell.counted(1, "argosy_agent_frames_refused_total{reason=\"invite\"}", 4.0).await?;
    // A token that lost a character on the way does not leave the agent's machine.
    let torn = enrol(address, &good[..good.len() - 1], "hand").await.err().context("a torn invite")?;
    assert!(torn.message().contains("invite"), "{}", torn.message());
    // The real agent ends with the reason, instead of trying for ever.
    let data = cell.directory.path().join("second-agent");
    std::fs::create_dir_all(&data)?;
    let ended = Command::new(binary("argosy-agent")?)
        .args(["--runtime", "process", "--executor-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
        .args(["--invite", &good, "--data-dir"])
        .arg(&data)
        .output()?;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(text.contains("ARG1015") && text.contains("was used already"), "{text}");
    still_works(&mut cell).await
}

/// Step `b` repeats the result of step `a`.
fn repeated_result(name: &str) -> Value {
    let mut workflow = echo(name);
    let mut first = workflow["spec"]["templates"][0].take();
    first["name"] = json!("first");
    let argument = json!({"parameters": [{"name": "word", "value": "{{steps.a.outputs.result}}"}]});
    workflow["spec"]["templates"] = json!([
        {"name": "main", "steps": [
            [{"name": "a", "template": "first"}], [{"name": "b", "template": "second", "arguments": argument}],
        ]},
        first,
        {"name": "second", "inputs": {"parameters": [{"name": "word"}]},
         "container": {"image": "busybox", "command": ["echo"], "args": ["{{inputs.parameters.word}}"]}},
    ]);
    workflow
}

/// A fence as the API writes it.
fn fence_of(text: &str) -> Option<Fence> {
    let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
    let (incarnation, index, ordinal) = (parts.next()??, parts.next()??, parts.next()??);
    Some(Fence { incarnation, index, ordinal: u32::try_from(ordinal).ok()? })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_with_an_old_or_foreign_fence_is_counted_and_has_no_effect() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    let leader = cell.leader().await?;
    // Through a follower: what it relays is judged at the same place.
    let through = (1..=3).find(|member| *member != leader).context("a follower")?;
    let address = cell.configs[&through].listen.agent;
    let token = invite(&cell, "hand", 600).await?;
    let tls = enrol(address, &token, "hand").await?;
    let mut hand = HandAgent::open(tls.clone(), address, "hand", Vec::new()).await?;
    let name = cell.submit(&repeated_result("fenced")).await?;
    let old = hand.assigned().await?;
    assert_eq!(hand.report(report(old, 1, AttemptPhase::Running, None)).await?, Verdict::Accepted);
    // It falls silent, and the step is taken over.
    drop(hand);
    cell.start_agent("east").await?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{}", ended["status"]);
    let mut nodes = ended["status"]["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    let of_hand = |node: &&Value| node["attempts"].to_string().contains("\"hand\"");
    let node =
        nodes.find(of_hand).with_context(|| format!("the node that was taken over: {}", ended["status"]))?;
    assert_eq!(node["outputs"]["result"], "true result", "{node}");
    let attempts = node["attempts"].as_array().context("attempts")?;
    let winner =
        attempts.iter().find(|attempt| attempt["cluster"] == "east").context("an attempt on east")?;
    let winner = winner["fence"].as_str().and_then(fence_of).context("a fence")?;
    assert_ne!(winner, old);

    let held = report(old, 2, AttemptPhase::Running, None);
    let mut hand = HandAgent::open(tls, address, "hand", vec![held]).await?;
    let forged = Some("forged result");
    assert_eq!(
        hand.report(report(old, 3, AttemptPhase::Succeeded, forged)).await?,
        Verdict::Superseded,
        "an old fence"
    );
    assert_eq!(
        hand.report(report(winner, 9, AttemptPhase::Failed, forged)).await?,
        Verdict::Unknown,
        "of another cluster"
    );
    let invented = Fence { index: old.index + 1_000_000, ..old };
    assert_eq!(
        hand.report(report(invented, 1, AttemptPhase::Succeeded, forged)).await?,
        Verdict::Unknown,
        "of nobody"
    );
    let leader = cell.leader().await?;
    cell.counted(leader, "argosy_reports_refused_total{reason=\"stale_fence\"}", 1.0).await?;
    cell.counted(leader, "argosy_reports_refused_total{reason=\"unknown_attempt\"}", 2.0).await?;
    let after = cell.get(&format!("/api/v1/workflows/default/{name}")).await?;
    assert_eq!(after["status"], ended["status"], "nothing changed");
    still_works(&mut cell).await
}

/// Runs the command line against the cell.
fn argosy(cell: &Cell, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    use std::io::Write;
    let mut child = Command::new(binary("argosy")?)
        .args(arguments)
        .env("ARGOSY_SERVER", cell.configs[&1].listen.api.to_string())
        .env("ARGOSY_TOKEN", TOKEN)
        .env("ARGOSY_CERTIFICATE_AUTHORITY", cell.directory.path().join("pki/ca.pem"))
        .env("ARGOSY_HOME", cell.directory.path().join("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    // A command that refuses early does not read on.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Ok(child.wait_with_output()?)
}

const HEAD: &str = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata:\n  name: bad\nspec:\n";

/// Name, what follows `HEAD` (from line 6 on), where the problem is, its code, and a word of its text.
const MANIFESTS: [(&str, &str, &str, &str, &str); 7] = [
    (
        "unknown-field",
        "  entrypoint: main\n  templates:\n    - name: main\n      container:\n        image: busybox\n        comand: [echo]\n",
        ":11:9: ",
        "ARG0004",
        "comand",
    ),
    (
        "wrong-type",
        "  entrypoint: [main]\n  templates:\n    - name: main\n      container: {image: busybox}\n",
        ":6:",
        "ARG0003",
        "entrypoint",
    ),
    (
        "missing-template",
        "  entrypoint: main\n  templates:\n    - name: main\n      steps:\n        - - name: a\n            template: nowhere\n",
        ":11:13: ",
        "ARG0011",
        "nowhere",
    ),
    (
        "cycle",
        "  entrypoint: main\n  templates:\n    - name: main\n      dag:\n        tasks:\n          - {name: a, template: leaf, dependencies: [b]}\n          - {name: b, template: leaf, dependencies: [a]}\n    - name: leaf\n      container: {image: busybox}\n",
        ":1",
        "ARG0015",
        "cycle",
    ),
    (
        "duplicate-template",
        "  entrypoint: main\n  templates:\n    - name: main\n      container: {image: busybox}\n    - name: main\n      container: {image: busybox}\n",
        ":10:",
        "ARG0013",
        "main",
    ),
    (
        "duplicate-key",
        "  entrypoint: main\n  entrypoint: other\n  templates:\n    - name: main\n      container: {image: busybox}\n",
        ":7:3: ",
        "ARG0006",
        "entrypoint",
    ),
    (
        "truncated",
        "  entrypoint: main\n  templates:\n    - name: main\n      container: {image: busybox, command: [ec",
        ":9:",
        "ARG0001",
        "",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_is_refused_with_its_place_and_a_huge_one_with_its_size() -> anyhow::Result<()> {
    let mut cell = Cell::start(&one_member()).await?;
    for (name, rest, place, code, word) in MANIFESTS {
        let file = cell.directory.path().join(format!("{name}.yaml"));
        std::fs::write(&file, format!("{HEAD}{rest}"))?;
        let ended = argosy(&cell, &["submit", &file.display().to_string()], "")?;
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains(&format!("{name}.yaml{place}")), "{name} at {place}: {text}");
        assert!(text.contains(&format!("error[{code}]")) && text.contains(word), "{name}: {text}");
        assert!(ended.stdout.is_empty(), "{name}: {}", String::from_utf8_lossy(&ended.stdout));
    }
    let padding = "x".repeat(10 * 1024 * 1024);
    let huge = format!(
        "{HEAD}  entrypoint: main\n  templates:\n    - name: main\n      container: {{image: busybox, args: [{padding}]}}\n"
    );
    let ended = argosy(&cell, &["submit", "-"], &huge)?;
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{text}");
    assert!(
        text.contains("ARG0002") && text.len() < 2_000,
        "a short word about the size: {} bytes",
        text.len()
    );
    // Past the command line, straight at the API.
    let mut workflow = echo("huge");
    workflow["spec"]["templates"][0]["container"]["args"] = json!([padding]);
    let url = format!("{}/api/v1/workflows/default", cell.api(1));
    let request = cell.http.post(&url).bearer_auth(TOKEN).json(&json!({"workflow": workflow}));
    let answer = request.send().await?;
    assert!(answer.status().is_client_error(), "{}", answer.status());
    let refusal: Value = answer.json().await?;
    assert!(refusal["message"].as_str().is_some_and(|message| message.contains("large")), "{refusal}");
    cell.counted(1, "argosy_http_refused_total{reason=\"too_large\"}", 1.0).await?;
    // Half a request, and no JSON at all.
    let request = cell.http.post(&url).bearer_auth(TOKEN).body("{\"workflow\": {\"apiVersion\": ");
    assert_eq!(request.send().await?.status(), 400);
    let unknown = argosy(&cell, &["cluster", "get", "nowhere"], "")?;
    let text = String::from_utf8_lossy(&unknown.stderr);
    assert!(unknown.status.code() == Some(1) && text.contains("nowhere"), "{text}");
    let all = cell.get("/api/v1/workflows/default").await?;
    assert_eq!(all["items"].as_array().map_or(0, Vec::len), 0, "nothing was accepted: {all}");
    still_works(&mut cell).await
}

/// Somebody whose certificate nobody trusts, on a port of its own.
async fn impostor_api() -> anyhow::Result<String> {
    let names = ["127.0.0.1".to_owned()];
    let credentials = impostor()?.issue_server(&names, 3_600_000, clock().wall_ms)?;
    let acceptor =
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(argosy_pki::api_server_config(&credentials)?));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("https://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Whatever is asked: there is no connection to ask over.
            drop(acceptor.accept(stream).await);
        }
    });
    Ok(address)
}

/// Regression: for a moment after `argosy ca roll --finish` a member may still serve from the authority that was dropped; the
/// command line gave up at the first server of that kind, though the next one was trusted.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_trusted_is_passed_over_and_named_when_there_is_no_other() -> anyhow::Result<()>
{
    let cell = Cell::start(&one_member()).await?;
    let impostor = impostor_api().await?;
    let both = format!("{impostor},{}", cell.api(1));
    let (well, text) = cell.try_argosy(&["--argo-server", &both, "member", "list"])?;
    assert!(well, "{text}");
    let (well, text) = cell.try_argosy(&["--argo-server", &impostor, "member", "list"])?;
    assert!(!well && text.contains("is not trusted") && text.contains("--certificate-authority"), "{text}");
    Ok(())
}
