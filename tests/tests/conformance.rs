//! Recordings of the real Argo, replayed end to end: manifests go in through the REST API, containers run as processes of
//! a process cluster, operators act through the command line, and everything that was recorded must come out the same.
//!
//! With MODE=kubernetes they run as Pods of a real cluster instead (root and the test clusters are needed): objects are made
//! and looked at with kubectl, and Pods are deleted as the script says.
//!
//! Runs a named sample; with ALL=true every case whose containers can run on the cluster. CASES, AREAS and SHOW choose
//! as in the scripted mode. What can't run there is counted with the reason, which the agent itself gives.

#[path = "conformance/choice.rs"]
mod choice;
#[path = "conformance/outside.rs"]
mod outside;
#[path = "conformance/play.rs"]
mod play;
#[path = "conformance/world.rs"]
mod world;

use anyhow::{Context, ensure};
use argosy_conformance::case::{Case, Cases};
use argosy_conformance::compare::Seen;
use argosy_conformance::table::{Outcome, Table};
use argosy_testcluster::{Federation, unavailable};
use choice::{POD_SAMPLE, SAMPLE, lacking, needs_more, wants_kubernetes};
use play::{Created, Run};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use world::World;

const NAMESPACE: &str = "argo";
/// Cases that run at the same time.
const AT_ONCE: usize = 12;
/// For a step of the script, and for the workflow's end.
const WAIT: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(150);

fn refused(world: &World, reason: String) -> Outcome {
    if world.cluster.is_some() || wants_kubernetes(&reason) {
        Outcome::Unsupported(reason)
    } else {
        Outcome::Different(vec![format!("refused: {reason}")])
    }
}

async fn run(world: &World, case: &Case) -> anyhow::Result<Outcome> {
    if let Some(reason) = needs_more(case, world.cluster.is_some()) {
        return Ok(Outcome::Unsupported(reason));
    }
    let first = case.objects.first().context("no document")?;
    for object in &case.setup {
        if let Err(Created(reason)) = world.create(object).await {
            return Ok(refused(world, reason));
        }
    }
    for object in case.objects.iter().filter(|object| !object.later) {
        if let Err(Created(reason)) = world.create(object).await {
            let recorded = case.record["workflow"]["message"].as_str().unwrap_or_default();
            let told = recorded.strip_prefix("invalid spec: ").unwrap_or(recorded);
            let reason = reason.replace("\\\"", "\"");
            let as_recorded = !told.is_empty() && reason.contains(&told.replace("$WF", &first.name));
            return Ok(if as_recorded || case.record["createError"].is_string() {
                Outcome::Same
            } else {
                refused(world, reason)
            });
        }
    }
    if case.record["createError"].is_string() {
        return Ok(Outcome::Different(vec!["Argo's API refuses it".to_owned()]));
    }
    let mut run = Run {
        world,
        case,
        main: first.name.clone(),
        seen: Seen { is_live: true, ..Seen::default() },
        problems: Vec::new(),
    };
    for step in &case.script {
        let played = async {
            run.wait(step).await?;
            run.act(step).await
        };
        if let Err(error) = played.await {
            run.problems.push(error.to_string());
            break;
        }
    }
    run.finish().await?;
    // Cases of other areas may have the same name.
    let main = run.main.clone();
    let _ = world.command(&["delete".to_owned(), main]).await;
    if let Some(reason) = lacking(&run.seen) {
        return Ok(Outcome::Unsupported(reason));
    }
    if let Some(reason) = run.problems.iter().find(|problem| problem.contains("needs Kubernetes")) {
        return Ok(Outcome::Unsupported(reason.clone()));
    }
    let mut found = run.seen.differences(&case.record, &run.main);
    if let (Some(_), Some(shown)) = (&world.outside, &run.seen.main) {
        found.extend(argosy_conformance::artifacts::compare(&run.main, shown, &case.record));
    }
    found.append(&mut run.problems);
    Ok(if found.is_empty() { Outcome::Same } else { Outcome::Different(found) })
}

#[test]
fn recordings_of_argo_come_out_the_same_on_clusters() -> anyhow::Result<()> {
    if std::env::var("MODE").as_deref() != Ok("kubernetes") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(async { compare_all(World::start(None).await?, &SAMPLE).await });
    }
    if let Some(reason) = unavailable() {
        println!("SKIPPED: {reason}");
        return Ok(());
    }
    let federation = Federation::start()?;
    let cluster = federation.start_cluster("k1", 1)?;
    let hub = &federation;
    federation.block_on(move || async move {
        compare_all(World::start(Some((hub, cluster))).await?, &POD_SAMPLE).await
    })?
}

async fn compare_all(world: World, sample: &[&str]) -> anyhow::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let given = std::env::var("CASES").ok().map(PathBuf::from);
    let areas = std::env::var("AREAS").ok();
    let show = std::env::var("SHOW").ok();
    let all = given.is_some() || areas.is_some() || std::env::var("ALL").is_ok_and(|all| all == "true");
    let cases = Cases::of(&given.unwrap_or(home));
    let world = Arc::new(world);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    let mut named: BTreeMap<String, Arc<Semaphore>> = BTreeMap::new();
    for name in cases.names(areas.as_deref()) {
        let wanted = match &show {
            Some(show) => *show == name,
            None => all || sample.contains(&name.as_str()),
        };
        if !wanted {
            continue;
        }
        let case = cases.read(&name).map_err(anyhow::Error::msg)?;
        let (world, room) = (Arc::clone(&world), room.clone());
        let name = case.objects.first().map(|object| object.name.clone()).unwrap_or_default();
        let alone = named.entry(name).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        running.spawn(async move {
            let _alone = alone.acquire_owned().await;
            let _room = room.acquire_owned().await;
            let outcome = run(&world, &case).await;
            (case, outcome)
        });
    }
    let mut table = if world.cluster.is_some() { Table::of_pods() } else { Table::new() };
    let mut done: Vec<_> = running.join_all().await;
    for (case, outcome) in &mut done {
        // Scripts count seconds, which a busy machine stretches: what differs has another try with nothing beside it.
        if let Ok(Outcome::Different(differences)) = outcome
            && !case.script.is_empty()
        {
            println!("again, alone: {}: {}", case.name, differences.join("\n  "));
            *outcome = run(&world, case).await;
        }
    }
    done.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (case, outcome) in done {
        let outcome = outcome.unwrap_or_else(|error| Outcome::Different(vec![error.to_string()]));
        table.add(&case, outcome);
    }
    table.print(show.is_some());
    let problems = table.problems(false);
    ensure!(problems.is_empty(), "{}: see above", problems.join("; "));
    Ok(())
}
