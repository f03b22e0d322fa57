//! CronWorkflows: starts, policies, history, outages; and the time to live of workflows.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod world;

use argosy_engine::{Leader, State, view};
use argosy_model::Limits;
use argosy_proto::command::{self as ask, command::Body, reply};
use argosy_proto::common::AttemptPhase;
use serde_json::{Value, json};
use world::World;

const MINUTE: i64 = 60_000;
/// A whole minute, and a whole hour: 2023-11-14T23:00:00Z.
const START: i64 = 1_700_002_800_000;

fn world() -> World {
    let mut world = World::new(Limits::default());
    world.now = START;
    world.join("one", 1_000_000);
    world
}

fn manifest(spec: Value) -> Value {
    let mut spec = spec;
    spec["workflowSpec"] = json!({
        "entrypoint": "main",
        "templates": [{"name": "main", "container": {"image": "busybox", "args": ["{{workflow.scheduledTime}}"]}}],
    });
    json!({"kind": "CronWorkflow", "metadata": {"name": "tick"}, "spec": spec})
}

fn create(world: &mut World, spec: Value) {
    let create = ask::CreateCron {
        namespace: "argo".into(),
        name: "tick".into(),
        uid: "uid-tick".into(),
        manifest_json: manifest(spec).to_string(),
        creator: "tester".into(),
    };
    world.command(Body::CreateCron(create)).unwrap();
    world.settle();
}

fn pass(world: &mut World, span: i64) {
    world.now += span;
    world.settle();
}

fn names(world: &World) -> Vec<String> {
    world.state.workflows_in("argo").map(|(_, row)| row.name.clone()).collect()
}

fn cron(world: &World) -> Value {
    view::cron_json(&world.state, "argo", "tick").unwrap()
}

/// Ends every container.
fn end_all(world: &mut World, phase: AttemptPhase) {
    for (cluster, fence, _) in world.to_run() {
        world.end(&cluster, fence, phase);
    }
    world.settle();
}

fn child(time: i64) -> String {
    format!("tick-{}", time / 1000)
}

#[test]
fn every_time_of_the_schedule_starts_one_workflow() {
    let mut world = world();
    create(
        &mut world,
        json!({"schedules": ["* * * * *", "*/1 * * * *"], "workflowMetadata": {"labels": {"a": "b"}}}),
    );
    assert!(names(&world).is_empty());
    assert!(!view::cron_has_status(&world.state, "argo", "tick"));
    pass(&mut world, MINUTE + 3);
    pass(&mut world, 1_000);
    assert_eq!(names(&world), [child(START + MINUTE)]);
    let shown = world.json(&child(START + MINUTE));
    assert_eq!(
        shown["metadata"]["annotations"]["workflows.argoproj.io/scheduled-time"],
        "2023-11-14T23:01:00Z"
    );
    assert_eq!(shown["metadata"]["labels"]["workflows.argoproj.io/cron-workflow"], "tick");
    assert_eq!(shown["metadata"]["labels"]["a"], "b");
    assert_eq!(shown["metadata"]["ownerReferences"][0]["uid"], "uid-tick");
    let (_, fence, _) = world.to_run().remove(0);
    assert!(world.state.assignment(&fence).unwrap().template_json.contains("2023-11-14T23:01:00Z"));
    let status = cron(&world)["status"].clone();
    assert_eq!(status["active"][0]["name"], child(START + MINUTE).as_str());
    assert_eq!(status["lastScheduledTime"], "2023-11-14T23:01:00Z");
    assert_eq!(status["phase"], "Active");
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 2, "Allow: they run side by side");
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_was() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["* * * * *"]}));
    pass(&mut world, MINUTE);
    world.leader = Leader::new(Limits::default());
    world.state = State::load(world.state.rows().into_iter()).unwrap();
    world.follower = world.state.clone();
    pass(&mut world, 10);
    assert_eq!(names(&world), [child(START + MINUTE)], "nothing starts twice");
    // Nobody led at the next minute, and for ten seconds after it: the start is not lost.
    pass(&mut world, MINUTE + 10_000);
    assert_eq!(names(&world), [child(START + MINUTE), child(START + 2 * MINUTE)]);
}

#[test]
fn what_was_missed_is_made_up_for_once_and_within_the_deadline() {
    let missed = |deadline: Value, outage: i64| {
        let mut world = world();
        create(&mut world, json!({"schedules": ["*/5 * * * *"], "startingDeadlineSeconds": deadline}));
        pass(&mut world, 5 * MINUTE);
        assert_eq!(names(&world).len(), 1);
        pass(&mut world, outage);
        names(&world).split_off(1)
    };
    // 23:05 ran; at 23:17 the latest that was missed is 23:15, two minutes ago.
    assert!(missed(Value::Null, 12 * MINUTE).is_empty(), "Argo never makes up for it unless told to");
    assert!(missed(json!(100), 12 * MINUTE).is_empty(), "too late");
    assert_eq!(missed(json!(180), 12 * MINUTE), [child(START + 15 * MINUTE)], "the latest, once");
    // The last of many within the grace: that one alone.
    assert_eq!(missed(json!(1_000), 60 * MINUTE), [child(START + 65 * MINUTE)]);
}

#[test]
fn a_changed_schedule_does_not_make_up_for_the_old_one() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["*/5 * * * *"], "startingDeadlineSeconds": 600}));
    pass(&mut world, 5 * MINUTE);
    let version = cron(&world)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    world.now += 2 * MINUTE;
    let update = |resource_version: String| ask::UpdateCron {
        namespace: "argo".into(),
        name: "tick".into(),
        manifest_json: manifest(json!({"schedules": ["* * * * *"], "startingDeadlineSeconds": 600}))
            .to_string(),
        resource_version,
        actor: "tester".into(),
    };
    assert_eq!(world.command(Body::UpdateCron(update("1".into()))).unwrap_err().code, "ARG1142");
    world.command(Body::UpdateCron(update(version))).unwrap();
    world.settle();
    assert_eq!(names(&world).len(), 1);
    pass(&mut world, MINUTE);
    assert_eq!(names(&world), [child(START + 5 * MINUTE), child(START + 8 * MINUTE)]);
    assert_eq!(cron(&world)["metadata"]["labels"]["workflows.argoproj.io/action"], "Update");
}

#[test]
fn forbid_skips_and_replace_terminates() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["* * * * *"], "concurrencyPolicy": "Forbid"}));
    pass(&mut world, MINUTE);
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 1);
    assert_eq!(world.leader.cron_policies().values().copied().collect::<Vec<_>>(), [1]);
    end_all(&mut world, AttemptPhase::Succeeded);
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 2);

    let mut world = self::world();
    create(&mut world, json!({"schedules": ["* * * * *"], "concurrencyPolicy": "Replace"}));
    pass(&mut world, MINUTE);
    for (cluster, fence, _) in world.to_run() {
        world.running(&cluster, fence);
    }
    pass(&mut world, MINUTE);
    let first = world.json(&child(START + MINUTE));
    assert_eq!(first["spec"]["shutdown"], "Terminate");
    assert_eq!(first["metadata"]["labels"].get("workflows.argoproj.io/actor"), None);
    assert_eq!(cron(&world)["status"]["active"].as_array().unwrap().len(), 2, "until the first is over");
}

#[test]
fn a_start_that_forbid_skipped_is_made_up_for_within_the_deadline() {
    let mut world = world();
    let spec =
        json!({"schedules": ["* * * * *"], "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 45});
    create(&mut world, spec);
    pass(&mut world, MINUTE);
    pass(&mut world, MINUTE);
    pass(&mut world, 40_000);
    end_all(&mut world, AttemptPhase::Succeeded);
    assert_eq!(names(&world), [child(START + MINUTE), child(START + 2 * MINUTE)]);
}

#[test]
fn ends_are_counted_once_and_history_is_kept_short() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["* * * * *"], "successfulJobsHistoryLimit": 2}));
    for round in 0..5 {
        pass(&mut world, MINUTE);
        end_all(&mut world, if round == 1 { AttemptPhase::Failed } else { AttemptPhase::Succeeded });
    }
    let status = cron(&world)["status"].clone();
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(4), &json!(1)));
    assert_eq!(status["active"], Value::Null);
    assert_eq!(names(&world).len(), 3, "two that succeeded, one that failed");
    assert!(names(&world).contains(&child(START + 2 * MINUTE)), "the failed one");
    // One that is deleted while it runs counts nowhere.
    pass(&mut world, MINUTE);
    let name = child(START + 6 * MINUTE);
    world.command(Body::DeleteWorkflow(ask::DeleteWorkflow { namespace: "argo".into(), name })).unwrap();
    world.settle();
    assert_eq!(cron(&world)["status"]["active"], Value::Null);
    assert_eq!(cron(&world)["status"]["succeeded"], 4);
}

#[test]
fn conditions_of_a_start() {
    let mut world = world();
    let when = "{{= cronworkflow.lastScheduledTime == nil || (now() - cronworkflow.lastScheduledTime).Seconds() > 90 }}";
    create(&mut world, json!({"schedules": ["* * * * *"], "when": when}));
    for _ in 0..4 {
        pass(&mut world, MINUTE);
    }
    assert_eq!(names(&world), [child(START + MINUTE), child(START + 3 * MINUTE)]);

    let mut world = self::world();
    create(&mut world, json!({"schedules": ["* * * * *"], "when": "{{cronworkflow.failed}} == 0 && a"}));
    pass(&mut world, MINUTE);
    assert!(names(&world).is_empty());
    let condition = &cron(&world)["status"]["conditions"][0];
    assert_eq!(condition["type"], "SubmissionError");
    assert!(condition["message"].as_str().unwrap().starts_with("run policy error: "), "{condition}");
}

#[test]
fn a_stop_strategy_ends_it_for_good() {
    let mut world = world();
    create(
        &mut world,
        json!({"schedules": ["* * * * *"], "stopStrategy": {"expression": "cronworkflow.failed >= 1"}}),
    );
    pass(&mut world, MINUTE);
    end_all(&mut world, AttemptPhase::Failed);
    let shown = cron(&world);
    assert_eq!(shown["status"]["phase"], "Stopped");
    assert_eq!(shown["metadata"]["labels"]["cronworkflows.argoproj.io/completed"], "true");
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 1);
}

#[test]
fn a_suspended_one_starts_nothing() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["* * * * *"], "suspend": true}));
    pass(&mut world, MINUTE);
    assert!(names(&world).is_empty());
    let suspend = |suspend| ask::SuspendCron { namespace: "argo".into(), name: "tick".into(), suspend };
    world.command(Body::SuspendCron(suspend(false))).unwrap();
    assert_eq!(cron(&world)["spec"].get("suspend"), None);
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 1);
    world.command(Body::SuspendCron(suspend(true))).unwrap();
    assert_eq!(cron(&world)["spec"]["suspend"], true);
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 1);
}

#[test]
fn one_that_is_not_valid_starts_nothing_and_says_nothing() {
    for spec in [json!({"schedules": ["* * * * *"], "timezone": "Moon/Base"}), json!({"schedules": ["x"]})] {
        let mut world = world();
        create(&mut world, spec);
        pass(&mut world, 2 * MINUTE);
        assert!(names(&world).is_empty());
        assert!(!view::cron_has_status(&world.state, "argo", "tick"));
    }
}

#[test]
fn what_a_deleted_one_owns_goes_with_it() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["* * * * *"]}));
    pass(&mut world, MINUTE);
    pass(&mut world, MINUTE);
    let delete = || ask::DeleteCron { namespace: "argo".into(), name: "tick".into() };
    world.command(Body::DeleteCron(delete())).unwrap();
    assert_eq!(world.command(Body::DeleteCron(delete())).unwrap_err().code, "ARG1141");
    world.settle();
    assert!(names(&world).is_empty());
    assert_eq!(view::cron_json(&world.state, "argo", "tick"), None);
    assert_eq!(world.state.next_timer(), None);
    // The name is free, and the new one counts from now.
    create(&mut world, json!({"schedules": ["* * * * *"]}));
    pass(&mut world, MINUTE);
    assert_eq!(names(&world).len(), 1);
}

fn backfill(world: &mut World, parallel: bool) -> Result<usize, String> {
    let backfill = ask::BackfillCron {
        namespace: "argo".into(),
        cron: "tick".into(),
        name: "June".into(),
        start_ms: START - 5 * 3_600_000,
        end_ms: START - 2 * 3_600_000,
        argument: "at".into(),
        parallel,
        workflows_max: 10,
    };
    let reply = world.command(Body::BackfillCron(backfill)).map_err(|refusal| refusal.code)?;
    world.settle();
    match reply.body {
        Some(reply::Body::BackfillAccepted(accepted)) => Ok(accepted.times_ms.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backfill_makes_each_of_its_workflows_once() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["@hourly"], "concurrencyPolicy": "Forbid"}));
    assert_eq!(backfill(&mut world, false), Ok(3));
    let name = |hours: i64| format!("tick-backfill-june-{}", START / 1000 - hours * 3600);
    assert_eq!(names(&world), [name(4)], "one after the other");
    assert_eq!(backfill(&mut world, false), Ok(3), "asked again");
    assert_eq!(names(&world).len(), 1);
    assert_eq!(
        world.json(&name(4))["spec"]["arguments"]["parameters"][0]["value"],
        "2023-11-14 19:00:00 +0000 UTC"
    );
    for _ in 0..3 {
        end_all(&mut world, AttemptPhase::Succeeded);
    }
    assert_eq!(names(&world), [name(4), name(3), name(2)]);
    // It is over: the same again finds every name taken.
    assert_eq!(backfill(&mut world, true), Ok(3));
    assert_eq!(names(&world).len(), 3);
    let status = cron(&world)["status"].clone();
    assert_eq!(
        (&status["active"], &status["succeeded"]),
        (&Value::Null, &json!(0)),
        "not the schedule's own"
    );
    // At once, with another name's worth of times beyond the limit refused.
    let mut world = self::world();
    create(&mut world, json!({"schedules": ["@hourly"]}));
    assert_eq!(backfill(&mut world, true), Ok(3));
    assert_eq!(names(&world).len(), 3);
    let mut world = self::world();
    create(&mut world, json!({"schedules": ["* * * * *"]}));
    assert_eq!(backfill(&mut world, true), Err("ARG1144".into()));
}

#[test]
fn a_repetition_of_its_workflow_belongs_to_it() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["@hourly"]}));
    pass(&mut world, 60 * MINUTE);
    end_all(&mut world, AttemptPhase::Failed);
    let resubmit = ask::ResubmitWorkflow {
        namespace: "argo".into(),
        name: child(START + 60 * MINUTE),
        new_name: "again".into(),
        new_uid: "uid-again".into(),
        ..ask::ResubmitWorkflow::default()
    };
    world.command(Body::ResubmitWorkflow(resubmit)).unwrap();
    world.settle();
    assert_eq!(cron(&world)["status"]["active"][0]["name"], "again");
}

#[test]
fn a_finished_workflow_leaves_when_its_time_to_live_is_over() {
    let mut world = world();
    let with = |strategy: Value| {
        json!({"spec": {
            "entrypoint": "main",
            "ttlStrategy": strategy,
            "templates": [{"name": "main", "container": {"image": "busybox"}}],
        }})
    };
    world.submit("short", &with(json!({"secondsAfterSuccess": 3}))).unwrap();
    world.submit("other", &with(json!({"secondsAfterFailure": 0}))).unwrap();
    world.submit("now", &with(json!({"secondsAfterCompletion": 0}))).unwrap();
    world.settle();
    end_all(&mut world, AttemptPhase::Succeeded);
    assert_eq!(names(&world), ["other", "short"]);
    pass(&mut world, 2_999);
    assert_eq!(names(&world).len(), 2);
    pass(&mut world, 1);
    assert_eq!(names(&world), ["other"]);
    pass(&mut world, 3_600_000);
    assert_eq!(names(&world), ["other"]);
}

#[test]
fn a_retried_workflow_keeps_living() {
    let mut world = world();
    let manifest = json!({"spec": {
        "entrypoint": "main",
        "ttlStrategy": {"secondsAfterCompletion": 10},
        "templates": [{"name": "main", "container": {"image": "busybox"}}],
    }});
    world.submit("w", &manifest).unwrap();
    world.settle();
    end_all(&mut world, AttemptPhase::Failed);
    pass(&mut world, 5_000);
    let retry =
        ask::RetryWorkflow { namespace: "argo".into(), name: "w".into(), ..ask::RetryWorkflow::default() };
    world.command(Body::RetryWorkflow(retry)).unwrap();
    pass(&mut world, 60_000);
    assert_eq!(names(&world), ["w"], "it runs");
    end_all(&mut world, AttemptPhase::Succeeded);
    pass(&mut world, 10_000);
    assert!(names(&world).is_empty());
}

#[test]
fn rows_read_back() {
    let mut world = world();
    create(&mut world, json!({"schedules": ["@hourly"]}));
    let binding = ask::StoreEventBinding {
        namespace: "argo".into(),
        name: "b".into(),
        uid: "u".into(),
        manifest_json: json!({"spec": {"event": {"selector": "true"}}}).to_string(),
        creator: "tester".into(),
    };
    world.command(Body::StoreEventBinding(binding.clone())).unwrap();
    assert_eq!(world.command(Body::StoreEventBinding(binding)).unwrap_err().code, "ARG1140");
    pass(&mut world, 60 * MINUTE);
    let loaded = State::load(world.state.rows().into_iter()).unwrap();
    assert_eq!(loaded, world.state);
    assert_eq!(view::event_bindings_json(&loaded, "").len(), 1);
    let delete = || ask::DeleteEventBinding { namespace: "argo".into(), name: "b".into() };
    world.command(Body::DeleteEventBinding(delete())).unwrap();
    assert_eq!(world.command(Body::DeleteEventBinding(delete())).unwrap_err().code, "ARG1141");
}
