//! Finished workflows leave: limits, the archive, and the way back.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod world;

use argosy_engine::{ArchiveChange, Changes, Command, State, archive_range, archived_state, evolve, view};
use argosy_engine::{Draft, Position};
use argosy_model::{Limits, LogTime, WorkflowId};
use argosy_proto::command::{self as ask, command::Body};
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::World;

/// A world whose archive family is kept.
struct Cell {
    world: World,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn apply(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &Changes) {
    for change in changes.archive() {
        match change {
            ArchiveChange::Put(key, value) => drop(records.insert(key.clone(), value.to_vec())),
            ArchiveChange::DropRange(from, to) => records.retain(|key, _| !(from..to).contains(&key)),
        }
    }
}

impl Cell {
    fn new(limits: Limits) -> Self {
        let mut world = World::new(limits);
        world.follows = false;
        world.join("one", 1_000_000);
        Self { world, records: BTreeMap::new() }
    }

    /// As [`World::batch`], with the archive.
    fn batch<T>(&mut self, make: impl FnOnce(&mut Draft, &mut argosy_engine::Leader) -> T) -> T {
        let world = &mut self.world;
        world.index += 1;
        let position = Position { incarnation: 1, index: world.index };
        let mut draft = Draft::new(&world.state, position, LogTime(world.now), world.index);
        let made = make(&mut draft, &mut world.leader);
        if draft.is_empty() {
            world.index -= 1;
            return made;
        }
        let before = world.state.clone();
        let (batch, state, changes) = draft.finish();
        let mut follower = before;
        let evolved = evolve(&mut follower, position, &batch).unwrap().unwrap();
        assert_eq!(evolved, changes, "a follower writes the same records");
        assert_eq!(follower.hash(), state.hash());
        apply(&mut self.records, &changes);
        world.state = state;
        made
    }

    fn command(&mut self, body: Body) -> Result<ask::Reply, ask::Refusal> {
        let command = Command { version: 1, idempotency_key: None, body: Some(body) };
        let records = self.records.clone();
        self.batch(|draft, leader| {
            if let Some(workflow) = draft.need(&command) {
                let (from, to) = archive_range(workflow);
                let found = records.range(from..to).map(|(_, record)| record.clone()).collect();
                leader.give_archived(workflow, Some(found));
            }
            draft.command(&command, leader)
        })
    }

    fn settle(&mut self) {
        while self.batch(|draft, leader| draft.advance(leader)) || self.world.state.has_work() {}
    }

    fn pass(&mut self, span: i64) {
        self.world.now += span;
        self.settle();
    }

    fn submit(&mut self, name: &str, spec: Value) {
        let submit = ask::SubmitWorkflow {
            namespace: "argo".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            manifest_json: json!({"metadata": {"labels": {"team": "blue"}}, "spec": spec}).to_string(),
            creator: "tester".into(),
            ..ask::SubmitWorkflow::default()
        };
        self.command(Body::SubmitWorkflow(submit)).unwrap();
        self.settle();
    }

    fn end_all(&mut self, phase: AttemptPhase) {
        while let Some((cluster, fence, _)) = self.world.to_run().into_iter().next() {
            let epoch = self.world.state.cluster(&cluster).map_or(0, |row| row.session_epoch);
            let report = Some(world::ended(fence, phase));
            let report = ask::ReportAttempt { cluster, session_epoch: epoch, report };
            self.command(Body::ReportAttempt(report)).unwrap();
            self.settle();
        }
    }

    fn delete(&mut self, name: &str) {
        let delete = ask::DeleteWorkflow { namespace: "argo".into(), name: name.into() };
        self.command(Body::DeleteWorkflow(delete)).unwrap();
    }

    fn live(&self) -> Vec<String> {
        self.world.state.workflows_in("argo").map(|(_, row)| row.name.clone()).collect()
    }

    fn archived(&self) -> Vec<String> {
        self.world.state.archived_in("argo").map(|(_, row)| row.name.clone()).collect()
    }

    fn shown(&self, id: u64) -> Value {
        let (from, to) = archive_range(id);
        let found = self.records.range(from..to).map(|(_, record)| record.as_slice());
        view::workflow_json(&archived_state(found).unwrap(), WorkflowId(id)).unwrap()
    }
}

fn leaf() -> Value {
    json!({"name": "leaf", "container": {"image": "busybox"}})
}

fn simple() -> Value {
    json!({"entrypoint": "leaf", "templates": [leaf()]})
}

fn steps(width: usize) -> Value {
    let items: Vec<usize> = (0..width).collect();
    json!({
        "entrypoint": "main",
        "templates": [{"name": "main", "steps": [[{"name": "s", "template": "leaf", "withItems": items}]]}, leaf()],
    })
}

#[test]
fn an_archived_workflow_is_shown_as_it_was() {
    let mut cell = Cell::new(Limits::default());
    cell.submit("w", steps(150));
    cell.end_all(AttemptPhase::Succeeded);
    let id = cell.world.id("w").unwrap();
    let mut before = view::workflow_json(&cell.world.state, id).unwrap();
    cell.delete("w");
    assert!(cell.live().is_empty(), "gone for everybody at once");
    assert_eq!(cell.archived(), ["w"], "and listed as archived at once");
    assert!(cell.world.state.archived(id.0).unwrap().archiving);
    cell.settle();
    assert!(!cell.world.state.archived(id.0).unwrap().archiving);
    let mut after = cell.shown(id.0);
    for shown in [&mut before, &mut after] {
        shown["metadata"]["resourceVersion"] = json!("");
        shown["metadata"]["generation"] = json!("");
    }
    assert_eq!(after, before);
    // State holds one row of it.
    let rows = cell.world.state.rows().len();
    cell.command(Body::DeleteArchived(ask::DeleteArchived { uid: "uid-w".into() })).unwrap();
    assert_eq!(cell.world.state.rows().len(), rows - 1);
    assert!(cell.records.is_empty());
    let again = ask::DeleteArchived { uid: "uid-w".into() };
    assert_eq!(cell.command(Body::DeleteArchived(again)).unwrap_err().code, "ARG1145");
}

#[test]
fn a_workflow_that_did_not_end_is_not_archived() {
    let mut cell = Cell::new(Limits::default());
    cell.submit("w", simple());
    cell.delete("w");
    cell.settle();
    assert!(cell.archived().is_empty() && cell.records.is_empty());
    let mut cell = Cell::new(Limits { archive_workflows_max: 0, ..Limits::default() });
    cell.submit("w", simple());
    cell.end_all(AttemptPhase::Succeeded);
    cell.delete("w");
    cell.settle();
    assert!(cell.archived().is_empty() && cell.records.is_empty(), "there is no archive");
}

#[test]
fn limits_move_the_oldest_and_the_archive_forgets_its_oldest() {
    let limits = Limits { retention: [2, 1, 0], archive_workflows_max: 3, ..Limits::default() };
    let mut cell = Cell::new(limits);
    for number in 0..6 {
        cell.submit(&format!("good-{number}"), simple());
        cell.end_all(AttemptPhase::Succeeded);
        cell.world.now += 1_000;
    }
    cell.submit("bad-0", simple());
    cell.end_all(AttemptPhase::Failed);
    assert_eq!(cell.live(), ["bad-0", "good-4", "good-5"]);
    assert_eq!(cell.archived(), ["good-3", "good-2", "good-1"], "those that ended last come first");
    let kept: std::collections::BTreeSet<&[u8]> = cell.records.keys().map(|key| &key[..9]).collect();
    assert_eq!(kept.len(), 3, "no records of what was forgotten");
}

#[test]
fn finished_nodes_are_bounded_together() {
    let mut cell = Cell::new(Limits { finished_nodes_max: 60, ..Limits::default() });
    for number in 0..4 {
        cell.submit(&format!("w{number}"), steps(20));
        cell.end_all(AttemptPhase::Succeeded);
        cell.world.now += 1_000;
    }
    assert_eq!(cell.live(), ["w2", "w3"]);
}

#[test]
fn the_archive_has_a_time_to_live() {
    let mut cell = Cell::new(Limits { archive_ttl_ms: 10_000, ..Limits::default() });
    cell.submit("w", simple());
    cell.end_all(AttemptPhase::Succeeded);
    cell.delete("w");
    cell.settle();
    cell.pass(9_999);
    assert_eq!(cell.archived(), ["w"]);
    cell.pass(1);
    assert!(cell.archived().is_empty() && cell.records.is_empty());
}

#[test]
fn an_archived_workflow_is_retried_under_its_name_and_uid() {
    let mut cell = Cell::new(Limits::default());
    cell.submit("w", steps(3));
    let (cluster, fence, _) = cell.world.to_run().remove(0);
    let epoch = cell.world.state.cluster(&cluster).map_or(0, |row| row.session_epoch);
    let failed = Some(world::ended(fence, AttemptPhase::Failed));
    let report = ask::ReportAttempt { cluster, session_epoch: epoch, report: failed };
    cell.command(Body::ReportAttempt(report)).unwrap();
    cell.end_all(AttemptPhase::Succeeded);
    cell.delete("w");
    let retry = || ask::RetryArchived { uid: "uid-w".into(), retry: Some(ask::RetryWorkflow::default()) };
    assert_eq!(cell.command(Body::RetryArchived(retry())).unwrap_err().code, "ARG1146", "on its way");
    cell.settle();
    cell.command(Body::RetryArchived(retry())).unwrap();
    assert!(cell.archived().is_empty() && cell.records.is_empty(), "it is in one place");
    cell.settle();
    assert_eq!(cell.world.to_run().len(), 1, "what succeeded stays");
    let loaded = State::load(cell.world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, cell.world.state, "the indexes are those of a restart");
    cell.end_all(AttemptPhase::Succeeded);
    let shown = view::workflow_json(&cell.world.state, cell.world.id("w").unwrap()).unwrap();
    assert_eq!(
        (&shown["status"]["phase"], &shown["metadata"]["uid"]),
        (&json!("Succeeded"), &json!("uid-w"))
    );
    assert_eq!(shown["status"]["progress"], "3/3");
}

#[test]
fn a_name_that_is_taken_and_a_size_that_is_too_large_are_refused() {
    let mut cell = Cell::new(Limits { batch_bytes_max: 8 * 1024, ..Limits::default() });
    cell.submit("w", steps(120));
    let fences = cell.world.to_run();
    let (cluster, fence, _) = fences[0].clone();
    let report = Some(world::ended(fence, AttemptPhase::Failed));
    let epoch = cell.world.state.cluster(&cluster).map_or(0, |row| row.session_epoch);
    cell.command(Body::ReportAttempt(ask::ReportAttempt { cluster, session_epoch: epoch, report })).unwrap();
    cell.end_all(AttemptPhase::Succeeded);
    cell.delete("w");
    cell.settle();
    let retry = || ask::RetryArchived { uid: "uid-w".into(), retry: None };
    assert_eq!(cell.command(Body::RetryArchived(retry())).unwrap_err().code, "ARG1147");
    cell.submit("w", simple());
    assert_eq!(cell.command(Body::RetryArchived(retry())).unwrap_err().code, "ARG1004");
}

#[test]
fn an_archived_workflow_is_resubmitted_memoized() {
    let mut cell = Cell::new(Limits::default());
    cell.submit("w", steps(3));
    let (cluster, fence, _) = cell.world.to_run().remove(0);
    let report = Some(world::ended(fence, AttemptPhase::Failed));
    let epoch = cell.world.state.cluster(&cluster).map_or(0, |row| row.session_epoch);
    cell.command(Body::ReportAttempt(ask::ReportAttempt { cluster, session_epoch: epoch, report })).unwrap();
    cell.end_all(AttemptPhase::Succeeded);
    cell.delete("w");
    cell.settle();
    let resubmit = ask::ResubmitWorkflow {
        new_name: "again".into(),
        new_uid: "uid-again".into(),
        memoized: true,
        ..ask::ResubmitWorkflow::default()
    };
    let command = ask::ResubmitArchived { uid: "uid-w".into(), resubmit: Some(resubmit) };
    cell.command(Body::ResubmitArchived(command)).unwrap();
    cell.settle();
    assert_eq!(cell.world.to_run().len(), 1, "two of three are taken over");
    assert_eq!(cell.archived(), ["w"], "the old one stays where it is");
    let labels = &cell.world.json("again")["metadata"]["labels"];
    assert_eq!(labels["workflows.argoproj.io/resubmitted-from-workflow"], "w");
}
