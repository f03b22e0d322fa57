//! Recordings of the real Argo, replayed: a manifest runs in virtual time, its Pods end as the recording says they did,
//! and everything that was recorded must come out the same.
//!
//! CASES chooses another directory of recordings (`AREA/NAME.{yaml,json}`), AREAS some of its areas (comma-separated),
//! SHOW a case, to see all its differences. PRINT prints what ours come to in a recording's shape.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that reads files"
)]

mod artifacts;
mod cron;
mod outcome;
mod player;
mod stage;
#[path = "../../../../src/engine/tests/world/mod.rs"]
mod world;

use argosy_conformance::case::{Case, Cases, Object};
use argosy_conformance::compare::Seen;
use argosy_conformance::lint::{self, Verdict};
use argosy_conformance::normalise::normalise;
use argosy_conformance::script::Sight;
use argosy_conformance::table::{Outcome, Table};
use player::Player;
use serde_json::Value;
use stage::{Created, Stage};
use std::path::{Path, PathBuf};

/// Events of one case: one that comes so far goes round in a circle.
const EVENTS_MAX: usize = 50_000;
/// Virtual time of one case.
const TIME_MAX_MS: i64 = 7 * 24 * 3600 * 1000;

/// Runs a case and compares all that was recorded of it.
fn judge(case: &Case) -> Outcome {
    if cron::is_cron(case) {
        return cron::judge(case);
    }
    let Some(first) = case.objects.first() else { return Outcome::Unsupported("no document".into()) };
    let mut stage = Stage::new(&first.name);
    let mut player = match Player::of(case, stage.world.now) {
        Ok(player) => player,
        Err(reason) => return Outcome::Unsupported(reason),
    };
    artifacts::set_up(&mut stage);
    stage.set_up(case);
    let created = stage.create(first);
    if case.record["createError"].is_string() {
        // Argo's API refuses the object: so do we, in our own words.
        return match created {
            Err(Created::Refused(_)) => verdict(case, &stage, Vec::new()),
            Err(Created::Later(reason)) => Outcome::Unsupported(reason),
            Ok(()) => Outcome::Different(vec!["Argo's API refuses it".into()]),
        };
    }
    match created {
        Ok(()) => {}
        Err(Created::Later(reason)) => return Outcome::Unsupported(reason),
        Err(Created::Refused(message)) => return refused(case, &stage, first, &message),
    }
    for other in case.objects.iter().skip(1).filter(|object| !object.later) {
        if let Err(Created::Later(reason)) = stage.create(other) {
            return Outcome::Unsupported(reason);
        }
    }
    play_on(&mut stage, &mut player, pods_of(case));
    let found = compared(case, &stage, player);
    let outcome = verdict(case, &stage, found);
    if case.record["incomplete"].is_string() {
        return never_ending(case, &stage, outcome);
    }
    outcome
}

/// What says how Pods end: of a workflow that is gone at the end, the last look at it.
fn pods_of(case: &Case) -> &Value {
    let looks = case.record["snapshots"].as_object();
    let last = looks.and_then(|looks| looks.values().next_back()).filter(|_| case.record["deleted"] == true);
    last.unwrap_or(&case.record)
}

/// Argo never ends it: here it must end, and say why.
fn never_ending(case: &Case, stage: &Stage, outcome: Outcome) -> Outcome {
    let shown = stage.workflow(&stage.main).unwrap_or_default();
    let status = &shown["status"];
    let (phase, message) = (status["phase"].as_str().unwrap_or_default(), status["message"].as_str());
    let ended = !status["finishedAt"].is_null();
    match message {
        Some(message) if ended && phase != "Succeeded" => Outcome::Ended(format!("{phase}: {message}")),
        _ if ended && phase == "Succeeded" => Outcome::Ended(phase.to_owned()),
        _ if case.script.is_empty() => Outcome::Different(vec!["it never ends, and nobody is told".into()]),
        _ => outcome,
    }
}

/// What we refuse at once, Argo's controller finds when it looks at the workflow.
fn refused(case: &Case, stage: &Stage, first: &Object, message: &str) -> Outcome {
    let record = &case.record;
    let no_nodes = record["nodes"].as_array().is_none_or(Vec::is_empty);
    let found = record["workflow"]["message"].as_str().filter(|_| no_nodes);
    let found = found.map(|message| message.strip_prefix("invalid spec: ").unwrap_or(message));
    let found = found.map(|message| message.replace("$WF", &first.name));
    // A suggestion may follow Argo's words.
    let is_told = |told: &str| message == told || message.starts_with(&format!("{told}; "));
    let difference = match found {
        Some(told) if is_told(&told) => return verdict(case, stage, Vec::new()),
        Some(told) => format!("recorded {told:?}, ours refused: {message:?}"),
        None => format!("refused: {message}"),
    };
    verdict(case, stage, vec![difference])
}

/// The lint's verdict, too.
fn verdict(case: &Case, stage: &Stage, mut found: Vec<String>) -> Outcome {
    let references = |value: &Value| {
        argosy_engine::check_references(&stage.world.state, stage::NAMESPACE, value)
            .err()
            .map(|refusal| refusal.message)
    };
    match lint::judge(case, &references) {
        Verdict::Same => {}
        Verdict::Later(reason) => return Outcome::Unsupported(reason),
        Verdict::Different(difference) => found.push(difference),
    }
    if found.is_empty() { Outcome::Same } else { Outcome::Different(found) }
}

/// Pods end as recorded, time goes by, and the operator acts, until nothing moves.
fn play_on(stage: &mut Stage, player: &mut Player<'_>, record: &Value) {
    let begun_ms = stage.world.now;
    for _ in 0..EVENTS_MAX {
        stage.world.settle();
        if artifacts::store(stage) {
            continue;
        }
        let main = stage.main.clone();
        let coming = player.coming(&main);
        stage.look(record, &coming);
        if player.play(stage) {
            continue;
        }
        if !player.waits() && player.is_final() {
            return;
        }
        if let Some((node, message)) = player.coming_message()
            && stage.show_pending(node, message)
        {
            continue;
        }
        let timer = stage.world.state.next_timer().map(|due| due.0);
        let times = [stage.next_ms(), timer, player.next_ms()];
        let Some(next) = times.into_iter().flatten().min() else {
            if over(stage, player) || !stage.nudge(record, &coming) {
                return;
            }
            continue;
        };
        stage.world.now = stage.world.now.max(next);
        if stage.world.now - begun_ms > TIME_MAX_MS {
            return;
        }
        if timer.is_none_or(|timer| timer > stage.world.now) {
            stage.act(record, &coming);
        }
    }
}

/// All that is recorded has happened.
fn over(stage: &Stage, player: &Player<'_>) -> bool {
    let ended = |name: &String| {
        stage.workflow(name).is_none_or(|workflow| !workflow["status"]["finishedAt"].is_null())
    };
    !player.waits() && stage.names().iter().all(ended)
}

fn compared(case: &Case, stage: &Stage, mut player: Player<'_>) -> Vec<String> {
    let main = stage.workflow(&stage.main);
    if std::env::var("PRINT").is_ok() {
        println!("RECORD {} {}", case.name, normalise(main.as_ref().unwrap_or(&Value::Null)));
    }
    let others = stage.others().into_iter().filter_map(|name| Some((name.clone(), stage.workflow(&name)?)));
    let seen = Seen {
        main,
        others: others.collect(),
        is_live: false,
        snapshots: std::mem::take(&mut player.snapshots),
        objects: std::mem::take(&mut player.objects),
    };
    let mut found = seen.differences(&case.record, &stage.main);
    found.append(&mut player.problems);
    if let Some(shown) = &seen.main {
        found.extend(argosy_conformance::artifacts::compare(&stage.main, shown, &case.record));
    }
    if player.waits() {
        found.push("the operator's script did not come to its end".to_owned());
    }
    found
}

#[test]
fn recordings_of_argo_come_out_the_same() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var("CASES").ok().map(PathBuf::from);
    let roots = match &given {
        Some(directory) => vec![directory.clone()],
        None => vec![home.to_owned(), home.join("own")],
    };
    let areas = std::env::var("AREAS").ok();
    let show = std::env::var("SHOW").ok();
    let mut table = Table::new();
    for cases in roots.iter().map(|root| Cases::of(root)) {
        for name in cases.names(areas.as_deref()) {
            if show.as_ref().is_some_and(|show| *show != name) {
                continue;
            }
            let case = cases.read(&name).unwrap();
            table.add(&case, judge(&case));
        }
    }
    table.print(show.is_some());
    let whole = given.is_none() && areas.is_none() && show.is_none();
    let problems = table.problems(whole);
    assert!(problems.is_empty(), "{}: see above", problems.join("; "));
}
