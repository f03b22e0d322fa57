//! Members and agents as real processes on loopback: killed, restarted, fed with what they must refuse.

use anyhow::Context;
use argosy_tests::cell::{Cell, Options, TOKEN};
use serde_json::{Value, json};
use std::time::Duration;

/// A workflow of one step that echoes.
fn echo(name: &str) -> Value {
    steps(name, &json!({"container": {"image": "busybox", "command": ["echo"], "args": ["hello"]}}))
}

fn steps(name: &str, template: &Value) -> Value {
    let mut leaf = template.clone();
    leaf["name"] = json!("leaf");
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "a", "template": "leaf"}]]}, leaf,
        ]},
    })
}

fn phase(workflow: &Value) -> &str {
    workflow["status"]["phase"].as_str().unwrap_or_default()
}

/// The node of step `a`.
fn step_a(workflow: &Value) -> &Value {
    let nodes = workflow["status"]["nodes"].as_object().map(|nodes| nodes.values());
    nodes.into_iter().flatten().find(|node| node["displayName"] == "a").unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_workflows_survive_kill_9_of_each_member_in_turn() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    let mut accepted = Vec::new();
    for victim in [1, 2, 3] {
        for number in 0..4 {
            accepted.push(cell.submit(&echo(&format!("before-{victim}-{number}"))).await?);
        }
        cell.kill_member(victim);
        for number in 0..4 {
            accepted.push(cell.submit(&echo(&format!("without-{victim}-{number}"))).await?);
        }
        cell.start_member(victim)?;
        cell.leader().await?;
    }
    for name in &accepted {
        let workflow = cell.finished(name, Duration::from_secs(60)).await?;
        assert_eq!(phase(&workflow), "Succeeded", "{name}: {}", workflow["status"]);
    }
    Ok(())
}

/// Whoever asks for a log and does not read it is cut off: steps, other readers and the agent go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_slows_nobody() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options { members: 1, ..Options::default() }).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    // More than all queues and sockets on the way hold.
    let script = "head -c 64000000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo last";
    let container = json!({"container": {"image": "busybox", "command": ["sh", "-c"], "args": [script]}});
    let name = cell.submit(&steps("loud", &container)).await?;
    let url = format!("{}/api/v1/workflows/default/{name}/log?logOptions.follow=true", cell.api(1));
    let slow = cell.http.get(url).bearer_auth(TOKEN).timeout(Duration::from_secs(300));
    let mut slow = slow.send().await?;
    slow.chunk().await?.context("the log has begun")?;
    for name in [name, cell.submit(&echo("beside")).await?] {
        let workflow = cell.finished(&name, Duration::from_secs(60)).await?;
        assert_eq!(phase(&workflow), "Succeeded", "{name}: {}", workflow["status"]);
    }
    let tail = cell.argosy(&["logs", "loud", "-n", "default", "--tail", "1"])?;
    assert!(tail.ends_with(": last\n"), "{tail}");
    let mut end = Vec::new();
    while let Some(chunk) = slow.chunk().await? {
        end.extend_from_slice(&chunk);
        end.drain(..end.len().saturating_sub(2_000));
    }
    let end = String::from_utf8_lossy(&end);
    assert!(end.contains("read more slowly than it comes"), "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_leader_dies_under_load() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    for round in 0..3 {
        let leader = cell.leader().await?;
        let submissions: Vec<_> = (0..40).map(|number| echo(&format!("load-{round}-{number}"))).collect();
        let submit = async {
            let names = submissions.iter().map(|workflow| cell.submit(workflow));
            futures::future::join_all(names).await.into_iter().collect::<anyhow::Result<Vec<_>>>()
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let pid = i32::try_from(cell.members[&leader].pid()).unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        };
        let (names, killed) = tokio::join!(submit, kill);
        killed?;
        cell.kill_member(leader);
        for name in names? {
            let found = cell.get(&format!("/api/v1/workflows/default/{name}")).await?;
            assert_eq!(found["metadata"]["name"], json!(name), "an acknowledged submission is there");
        }
        cell.start_member(leader)?;
    }
    let all = cell.get("/api/v1/workflows/default").await?;
    let names: std::collections::BTreeSet<_> = all["items"]
        .as_array()
        .context("items")?
        .iter()
        .map(|item| item["metadata"]["name"].to_string())
        .collect();
    assert_eq!(names.len(), 120, "each submission happened once, repeats included");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_far_behind_catches_up_by_snapshot() -> anyhow::Result<()> {
    let options = Options { log_entries_kept: 20, ..Options::default() };
    let mut cell = Cell::start(&options).await?;
    let leader = cell.leader().await?;
    let behind = (1..=3).find(|member| *member != leader).unwrap();
    cell.kill_member(behind);
    for number in 0..120 {
        cell.submit(&echo(&format!("missed-{number}"))).await?;
    }
    cell.start_member(behind)?;
    let url = format!("{}/api/v1/workflows/default?consistency=stale", cell.api(behind));
    cell.until(Duration::from_secs(60), "the member to have every workflow in its own state", async || {
        let answer = cell.http.get(&url).bearer_auth(argosy_tests::cell::TOKEN).send().await.ok()?;
        let list: Value = answer.json().await.ok()?;
        (list["items"].as_array()?.len() == 120).then_some(())
    })
    .await?;
    let metrics = cell.metrics(behind).await?;
    let installed =
        metrics.lines().any(|line| line.starts_with("argosy_snapshots_total{direction=\"installed\"}"));
    assert!(installed, "it came by snapshot:\n{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_scripts_and_logs_on_process_clusters() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "outputs-"},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "write", "template": "write"}],
                [{"name": "read", "template": "read", "arguments": {"parameters": [
                    {"name": "word", "value": "{{steps.write.outputs.parameters.word}}"},
                    {"name": "result", "value": "{{steps.write.outputs.result}}"},
                ]}}],
            ]},
            {"name": "write",
             "script": {"image": "busybox", "command": ["sh"], "source": "echo fifty > /tmp/word; echo a result"},
             "outputs": {"parameters": [{"name": "word", "valueFrom": {"path": "/tmp/word"}}]}},
            {"name": "read", "inputs": {"parameters": [{"name": "word"}, {"name": "result"}]},
             "container": {"image": "busybox", "command": ["echo"],
                           "args": ["{{inputs.parameters.word}}/{{inputs.parameters.result}}"]}},
        ]},
    });
    let name = cell.submit(&workflow).await?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let url = format!("{}/api/v1/workflows/default/{name}/log?logOptions.container=main", cell.api(1));
    let text = cell.http.get(url).bearer_auth(argosy_tests::cell::TOKEN).send().await?.text().await?;
    assert!(text.contains("fifty/a result"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_fails_its_workflow_with_its_exit_code() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let failing = json!({"container": {"image": "busybox", "command": ["sh", "-c", "exit 7"]}});
    let name = cell.submit(&steps("fails", &failing)).await?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(phase(&ended), "Failed");
    assert_eq!(step_a(&ended)["outputs"]["exitCode"], json!("7"));
    assert_eq!(step_a(&ended)["message"], json!("main: Error (exit code 7)"), "{}", step_a(&ended));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_lost_cluster_move_and_its_late_result_is_refused() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    let slow = json!({
        "retryStrategy": {"limit": 2},
        "container": {"image": "busybox", "command": ["sh", "-c", "sleep 6; echo done"]},
    });
    let name = cell.submit(&steps("moves", &slow)).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    let attempts = |workflow: &Value| -> Vec<Value> {
        let nodes = workflow["status"]["nodes"].as_object().cloned().unwrap_or_default();
        nodes.values().flat_map(|node| node["attempts"].as_array().cloned().unwrap_or_default()).collect()
    };
    let lost = cell
        .until(Duration::from_secs(30), "the step to run", async || {
            let workflow = cell.get(&path).await.ok()?;
            let running = attempts(&workflow).into_iter().find(|attempt| attempt["phase"] == "Running")?;
            running["cluster"].as_str().map(str::to_owned)
        })
        .await?;
    // The agent freezes: its step runs on and ends, but nobody can say so.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(cell.agents[&lost].pid())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    let tried = attempts(&ended);
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert!(
        tried.iter().any(|attempt| attempt["cluster"] == json!(lost) && attempt["phase"] == "Fenced"),
        "{tried:?}"
    );
    assert!(
        tried.iter().any(|attempt| attempt["cluster"] != json!(lost) && attempt["phase"] == "Succeeded"),
        "{tried:?}"
    );
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
    let leader = cell.leader().await?;
    cell.until(
        Duration::from_secs(30),
        "the late result to be refused and the cluster to be back",
        async || {
            let metrics = cell.metrics(leader).await.ok()?;
            let clusters = cell.get("/api/v1/clusters").await.ok()?;
            let back = clusters["items"]
                .as_array()?
                .iter()
                .all(|cluster| cluster["state"] == "connected" && cluster["attempts"] == 0);
            let refused =
                metrics.lines().any(|line| line.starts_with("argosy_reports_total{verdict=\"superseded\"}"));
            (back && refused).then_some(())
        },
    )
    .await?;
    let after = cell.get(&path).await?;
    assert_eq!(after["status"], ended["status"], "nothing changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_and_started_again_adopts_its_running_step() -> anyhow::Result<()> {
    let mut cell = Cell::start(&Options::default()).await?;
    cell.start_agent("east").await?;
    cell.wait_for_clusters(1).await?;
    let slow = json!({"container": {"image": "busybox", "command": ["sh", "-c", "sleep 4; echo done"]}});
    let name = cell.submit(&steps("adopted", &slow)).await?;
    let path = format!("/api/v1/workflows/default/{name}");
    cell.until(Duration::from_secs(30), "the step to run", async || {
        let workflow = cell.get(&path).await.ok()?;
        (step_a(&workflow)["phase"] == "Running").then_some(())
    })
    .await?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(cell.agents["east"].pid())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    cell.start_agent("east").await?;
    let ended = cell.finished(&name, Duration::from_secs(60)).await?;
    assert_eq!(phase(&ended), "Succeeded", "{}", ended["status"]);
    assert_eq!(
        step_a(&ended)["attempts"].as_array().map(Vec::len),
        Some(1),
        "the same attempt went on: {}",
        step_a(&ended)
    );
    Ok(())
}

/// Numbers that follow from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % bound
    }
}

/// Two steps in a row, the second of which needs what the first has said.
fn handed_over(name: &str) -> Value {
    let argument = json!({"parameters": [{"name": "word", "value": "{{steps.a.outputs.result}}"}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"entrypoint": "main", "templates": [
            {"name": "main", "steps": [
                [{"name": "a", "template": "say"}], [{"name": "b", "template": "repeat", "arguments": argument}],
            ]},
            {"name": "say", "retryStrategy": {"limit": 5, "retryPolicy": "Always"},
             "container": {"image": "busybox", "command": ["sh", "-c", format!("sleep 0.4; echo {name}")]}},
            {"name": "repeat", "retryStrategy": {"limit": 5, "retryPolicy": "Always"}, "inputs": {"parameters": [{"name": "word"}]},
             "container": {"image": "busybox", "command": ["sh", "-c", "sleep 0.2; echo {{inputs.parameters.word}}"]}},
        ]},
    })
}

/// `ARGOSY_KILL_SEED` replays an order.
#[tokio::test(flavor = "multi_thread")]
async fn members_and_agents_killed_in_random_order_lose_nothing_and_commit_each_result_once()
-> anyhow::Result<()> {
    let seed =
        std::env::var("ARGOSY_KILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("ARGOSY_KILL_SEED={seed}");
    let mut draw = Draw(seed);
    let mut cell = Cell::start(&Options::default()).await?;
    for cluster in ["east", "west"] {
        cell.start_agent(cluster).await?;
    }
    cell.wait_for_clusters(2).await?;
    let mut accepted = Vec::new();
    for round in 0..8 {
        accepted.push(cell.submit(&handed_over(&format!("before-{round}"))).await?);
        tokio::time::sleep(Duration::from_millis(draw.below(600))).await;
        // Now and then two members: the cell waits for them, and has lost nothing.
        let members: Vec<u64> = match draw.below(4) {
            0 => Vec::new(),
            1 => vec![1 + draw.below(3), 1 + draw.below(3)],
            _ => vec![1 + draw.below(3)],
        };
        let agent = [None, Some("east"), Some("west")][usize::try_from(draw.below(3))?];
        let with_steps = draw.below(3) == 0;
        println!("round {round}: members {members:?}, agent {agent:?}, its steps too: {with_steps}");
        members.iter().for_each(|member| cell.kill_member(*member));
        match agent {
            Some(cluster) if with_steps => cell.lose_cluster(cluster),
            Some(cluster) => cell.kill_agent(cluster),
            None => {}
        }
        if members.len() < 2 {
            accepted.push(cell.submit(&handed_over(&format!("without-{round}"))).await?);
        }
        tokio::time::sleep(Duration::from_millis(draw.below(1_500))).await;
        for member in members {
            if !cell.members.contains_key(&member) {
                cell.start_member(member)?;
            }
        }
        if let Some(cluster) = agent {
            cell.start_agent(cluster).await?;
        }
    }
    for name in &accepted {
        let workflow = cell.finished(name, Duration::from_secs(90)).await?;
        assert_eq!(phase(&workflow), "Succeeded", "{name}: {}", workflow["status"]);
        let nodes = workflow["status"]["nodes"].as_object().context("nodes")?;
        let pods = || nodes.values().filter(|node| node["type"] == "Pod");
        for node in pods() {
            let attempts = node["attempts"].as_array().context("attempts")?;
            let committed = attempts.iter().filter(|attempt| attempt["phase"] == "Succeeded").count();
            assert_eq!(committed, usize::from(node["phase"] == "Succeeded"), "one result: {node}");
        }
        let results = pods().filter(|node| node["phase"] == "Succeeded");
        let results: Vec<&Value> = results.filter_map(|node| node["outputs"].get("result")).collect();
        assert_eq!(results, [&json!(name)], "the first step's result, once: {}", workflow["status"]);
    }
    // Every member has the same in its own state.
    let leader = cell.leader().await?;
    let own = async |member: u64| -> anyhow::Result<Value> {
        let url = format!("{}/api/v1/workflows/default?consistency=stale", cell.api(member));
        let list: Value =
            cell.http.get(url).bearer_auth(argosy_tests::cell::TOKEN).send().await?.json().await?;
        Ok(list["items"].clone())
    };
    let expected = own(leader).await?;
    assert_eq!(expected.as_array().map(Vec::len), Some(accepted.len()));
    for member in 1..=3 {
        cell.until(Duration::from_secs(20), &format!("member {member} to agree"), async || {
            (own(member).await.ok()? == expected).then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_comes_back_as_a_follower_and_tells_nothing_old() -> anyhow::Result<()> {
    use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
    let mut cell = Cell::start(&Options::default()).await?;
    let frozen = cell.leader().await?;
    cell.submit(&echo("before")).await?;
    cell.signal_member(frozen, SIGSTOP)?;
    let stopped = cell.members.remove(&frozen).context("it runs")?;
    let name = cell.submit(&echo("meanwhile")).await?;
    cell.members.insert(frozen, stopped);
    // The first thing that it is asked on waking is what happened while it slept: it believes that it leads.
    let url = format!("{}/api/v1/workflows/default/{name}", cell.api(frozen));
    let asked = cell.http.get(&url).bearer_auth(argosy_tests::cell::TOKEN).send();
    let (asked, woken) = tokio::join!(asked, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cell.signal_member(frozen, SIGCONT)
    });
    woken?;
    let (status, found): (_, Value) = {
        let answer = asked?;
        (answer.status(), answer.json().await?)
    };
    assert!(status.is_success() || status == 503, "what is committed, or nothing: {status} {found}");
    assert!(status == 503 || found["metadata"]["name"] == json!(name), "{found}");
    cell.until(Duration::from_secs(20), "the old leader to follow", async || {
        let members = cell.get("/api/v1/members").await.ok()?;
        let leader =
            members["items"].as_array()?.iter().find(|member| member["role"] == "leader")?["id"].as_u64()?;
        (leader != frozen).then_some(())
    })
    .await?;
    cell.submit(&echo("afterwards")).await?;
    Ok(())
}
