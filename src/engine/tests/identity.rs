//! Who a cluster's agent is: numbered certificates, copies of them, revocation, approval, and the roll of the authority.
#![allow(clippy::unwrap_used, reason = "a test")]

mod world;

use argosy_model::Limits;
use argosy_proto::command::{self as ask, IdentityAction, RollAction, command::Body, reply};
use argosy_proto::common::{Resources, Runtime};
use argosy_proto::state::{ClusterIdentity, RollPhase, Standing};
use world::World;

const OLD: u8 = 100;
const NEW: u8 = 101;

fn digest(byte: u8) -> Vec<u8> {
    vec![byte; 32]
}

/// Invites and enrols; the generation of the certificate.
fn enrol(world: &mut World, cluster: &str, key: u8) -> Result<u64, argosy_engine::Refusal> {
    let token_hash = digest(world.index as u8);
    let invite =
        ask::CreateInvite { cluster: cluster.into(), token_hash: token_hash.clone(), ttl_ms: 60_000 };
    world.command(Body::CreateInvite(invite)).unwrap();
    let redeem = ask::RedeemInvite {
        cluster: cluster.into(),
        cluster_uid: format!("uid-{cluster}"),
        token_hash,
        key: digest(key),
        authority: digest(OLD),
    };
    match world.command(Body::RedeemInvite(redeem))?.body {
        Some(reply::Body::InviteRedeemed(redeemed)) => Ok(redeemed.generation),
        other => panic!("{other:?}"),
    }
}

/// What became of a greeting: the code of a refusal, if it was one.
fn greet(world: &mut World, generation: u64, instance: u64) -> String {
    let open = ask::OpenSession {
        cluster: "eu".into(),
        cluster_uid: "uid-eu".into(),
        agent_instance: instance,
        runtime: Runtime::Simulated.into(),
        allocatable: Some(Resources { cpu_milli: 4_000, pods: 10, ..Resources::default() }),
        certificate: generation,
        trusts: vec![digest(OLD)],
        ..ask::OpenSession::default()
    };
    word(world.command(Body::OpenSession(open)))
}

fn word(answer: Result<ask::Reply, argosy_engine::Refusal>) -> String {
    match answer {
        Err(refusal) => refusal.code,
        Ok(reply) => match reply.body {
            Some(reply::Body::IdentityRefused(refused)) => refused.code,
            Some(reply::Body::IdentityRenewed(renewed)) => renewed.generation.to_string(),
            _ => "fine".to_owned(),
        },
    }
}

fn renew(world: &mut World, (shown, holds): (u64, u64), instance: u64) -> String {
    renew_from(world, (shown, holds), instance, OLD)
}

fn renew_from(world: &mut World, (shown, holds): (u64, u64), instance: u64, authority: u8) -> String {
    word(world.command(Body::RenewIdentity(ask::RenewIdentity {
        cluster: "eu".into(),
        generation: shown,
        holds,
        agent_instance: instance,
        key: digest(1),
        authority: digest(authority),
    })))
}

fn see(world: &mut World, shown: u64, holds: u64, instance: u64, trusts: &[u8]) {
    let see = ask::SeeIdentity {
        cluster: "eu".into(),
        generation: shown,
        holds,
        agent_instance: instance,
        trusts: trusts.iter().map(|byte| digest(*byte)).collect(),
    };
    world.command(Body::SeeIdentity(see)).unwrap();
}

fn change(world: &mut World, action: IdentityAction) -> String {
    let (cluster, reason, actor) = ("eu".to_owned(), "why".to_owned(), "me".to_owned());
    word(world.command(Body::ChangeIdentity(ask::ChangeIdentity {
        cluster,
        action: action.into(),
        reason,
        actor,
    })))
}

fn identity(world: &World) -> ClusterIdentity {
    world.state.cluster("eu").unwrap().identity.clone().unwrap()
}

fn enrolled() -> World {
    let mut world = World::new(Limits::default());
    assert_eq!(enrol(&mut world, "eu", 1).unwrap(), 1);
    assert_eq!(greet(&mut world, 1, 11), "fine");
    world
}

#[test]
fn certificates_are_numbered_and_lost_answers_do_no_harm() {
    let mut world = enrolled();
    // Over one stream, whose handshake showed the first: the agent says what it holds.
    assert_eq!(renew(&mut world, (1, 1), 11), "2");
    assert!(!identity(&world).seen);
    see(&mut world, 1, 2, 11, &[OLD]);
    assert!(identity(&world).seen, "the agent has kept it");
    assert_eq!(renew(&mut world, (1, 2), 11), "3");
    // The answer is lost, and asked for again; that one arrives, and its confirmation is lost.
    assert_eq!(renew(&mut world, (1, 2), 11), "4");
    assert_eq!(renew(&mut world, (1, 4), 11), "5");
    // The agent is started again before it kept that one: with the fourth.
    assert_eq!(greet(&mut world, 4, 12), "fine");
    assert_eq!(renew(&mut world, (4, 4), 12), "6");
    assert_eq!(greet(&mut world, 6, 12), "fine");
    // A new leader has the first greeting of this process relayed again.
    assert_eq!(greet(&mut world, 4, 12), "fine");
    // A greeting of the process before was long on its way: it is turned away, and no more.
    assert_eq!(greet(&mut world, 4, 11), "ARG1017");
    assert_eq!(identity(&world).standing(), Standing::Active);
}

/// A question is asked over the session and then over a connection of its own. Both are answered, the earlier answer is kept,
/// and the agent is started again before it could say so.
#[test]
fn whichever_answer_of_a_question_that_was_asked_twice_arrives_is_good() {
    let mut world = enrolled();
    assert_eq!(renew(&mut world, (1, 1), 11), "2");
    assert_eq!(renew(&mut world, (1, 1), 11), "3");
    assert_eq!(greet(&mut world, 2, 12), "fine");
    // What came before the one that was kept is nobody's.
    assert_eq!(greet(&mut world, 1, 13), "ARG1184");
}

/// The question of a process that has ended arrives after the next process has taken its place.
#[test]
fn a_question_of_a_process_that_has_ended_locks_nobody_unless_it_goes_on_asking() {
    let mut world = enrolled();
    assert_eq!(renew(&mut world, (1, 1), 11), "2");
    assert_eq!(greet(&mut world, 2, 12), "fine");
    assert_eq!(renew(&mut world, (1, 1), 11), "ARG1017");
    assert_eq!(identity(&world).standing(), Standing::Active);
    world.now += Limits::default().identity_late_max_ms + 1;
    assert_eq!(greet(&mut world, 2, 12), "fine", "a new session of the same process is no new process");
    assert_eq!(renew(&mut world, (1, 1), 11), "ARG1184");
}

#[test]
fn a_stolen_key_that_is_used_by_both_is_locked_until_it_is_invited_again() {
    let mut world = enrolled();
    // The thief renews first, and uses what it got.
    assert_eq!(renew(&mut world, (1, 1), 66), "2");
    assert_eq!(greet(&mut world, 2, 66), "fine");
    // The agent comes with the certificate that it has.
    assert_eq!(renew(&mut world, (1, 1), 12), "ARG1184");
    let locked = identity(&world);
    assert_eq!((locked.standing(), locked.revoked_below), (Standing::Locked, 3));
    assert!(locked.reason.contains("two processes"), "{}", locked.reason);
    for generation in [0, 1, 2, 3] {
        assert_eq!(world.state.identity_refusal("eu", generation).unwrap().code, "ARG1184");
        assert_eq!(greet(&mut world, generation, 66), "ARG1184");
    }
    assert_eq!(renew(&mut world, (2, 2), 66), "ARG1184");
    // The key is no good any more, another one is; the thief's certificates stay refused.
    assert_eq!(enrol(&mut world, "eu", 1).unwrap_err().code, "ARG1185");
    assert_eq!(enrol(&mut world, "eu", 2).unwrap(), 3);
    assert_eq!(greet(&mut world, 2, 66), "ARG1183");
    assert_eq!(greet(&mut world, 3, 13), "fine");
}

#[test]
fn a_thief_that_comes_after_the_renewal_is_found_by_its_old_certificate() {
    let mut world = enrolled();
    assert_eq!(renew(&mut world, (1, 1), 11), "2");
    see(&mut world, 1, 2, 11, &[OLD]);
    assert_eq!(greet(&mut world, 1, 66), "ARG1184", "not even a first session");
    // A thief that renews, while the agent asks again before it used its own: whoever is left over is found.
    let mut world = enrolled();
    assert_eq!(renew(&mut world, (1, 1), 66), "2");
    assert_eq!(renew(&mut world, (1, 1), 11), "3");
    see(&mut world, 1, 3, 11, &[OLD]);
    assert_eq!(greet(&mut world, 2, 66), "ARG1184");
}

#[test]
fn two_processes_with_one_certificate_are_found_by_taking_turns() {
    let mut world = enrolled();
    assert_eq!(greet(&mut world, 1, 66), "fine", "it may be the agent, started again");
    let turns: Vec<String> = [11, 66, 11].iter().map(|instance| greet(&mut world, 1, *instance)).collect();
    assert_eq!(turns, ["fine", "fine", "ARG1184"]);
    // Starts of an agent are no turns, however many.
    let mut world = enrolled();
    assert!((20..60).all(|instance| greet(&mut world, 1, instance) == "fine"));
    // And late ones once in a while are none either.
    let mut world = enrolled();
    for instance in [12, 11, 12, 11, 12, 11, 12] {
        world.now += Limits::default().identity_returns_window_ms + 1;
        assert_eq!(greet(&mut world, 1, instance), "fine");
    }
}

#[test]
fn a_revoked_cluster_is_turned_away_and_may_be_invited_again() {
    let mut world = enrolled();
    assert_eq!(change(&mut world, IdentityAction::Revoke), "fine");
    assert_eq!(identity(&world).actor, "me");
    assert_eq!(
        (greet(&mut world, 1, 11), renew(&mut world, (1, 1), 11)),
        ("ARG1183".into(), "ARG1183".into())
    );
    assert_eq!(change(&mut world, IdentityAction::Approve), "ARG1186");
    assert_eq!(enrol(&mut world, "eu", 2).unwrap(), 2);
    assert_eq!((greet(&mut world, 1, 11), greet(&mut world, 2, 12)), ("ARG1183".into(), "fine".into()));
}

#[test]
fn certificates_of_a_lost_part_of_history_are_taken_as_they_are() {
    let mut world = enrolled();
    assert_eq!(greet(&mut world, 9, 12), "fine", "the cell was restored from before the ninth");
    assert_eq!(renew(&mut world, (9, 9), 12), "10");
}

/// A member has on record what was revoked after the backup was made.
#[test]
fn revocations_of_a_lost_part_of_history_are_taken_over() {
    let mut world = enrolled();
    let kept = |cluster: &str, revoked_below, ended| ask::Revocation {
        cluster: cluster.into(),
        revoked_below,
        ended,
        reason: "sold".into(),
        refused_keys: vec![digest(7)],
    };
    let import = |world: &mut World, kept: Vec<ask::Revocation>| {
        word(world.command(Body::ImportRevocations(ask::ImportRevocations { revocations: kept })))
    };
    assert_eq!(import(&mut world, vec![kept("eu", 5, true)]), "fine");
    let ended = identity(&world);
    assert_eq!(
        (ended.standing(), ended.revoked_below, ended.reason.as_str()),
        (Standing::Revoked, 5, "sold")
    );
    for generation in [1, 4] {
        assert_eq!(greet(&mut world, generation, 12), "ARG1183");
    }
    assert_eq!(
        world.state.revocations(),
        [ask::Revocation { refused_keys: vec![digest(1), digest(7)], ..kept("eu", 5, true) }]
    );
    // What it holds already changes nothing, and nothing that has ended begins again.
    let before = world.state.hash();
    assert_eq!(import(&mut world, vec![kept("eu", 5, false), kept("eu", 2, false)]), "fine");
    assert_eq!(world.state.hash(), before);
    // Refused keys stay refused; with another one the next certificate counts.
    assert_eq!(enrol(&mut world, "eu", 7).unwrap_err().code, "ARG1185");
    assert_eq!(enrol(&mut world, "eu", 2).unwrap(), 5);
    assert_eq!(greet(&mut world, 5, 13), "fine");
    // Of a cluster that the backup did not have: its numbers go on where they were.
    assert_eq!(import(&mut world, vec![kept("us", 3, false)]), "fine");
    assert!(world.state.cluster("us").unwrap().removed);
    assert_eq!(enrol(&mut world, "us", 3).unwrap(), 3);
    assert!(!world.state.cluster("us").unwrap().removed);
}

/// The agent was enrolled anew after the backup was made: its certificate is good, those before are not.
#[test]
fn an_agent_that_was_enrolled_anew_in_a_lost_part_of_history_stays() {
    let mut world = enrolled();
    let kept = ask::Revocation { cluster: "eu".into(), revoked_below: 4, ..ask::Revocation::default() };
    let import = ask::ImportRevocations { revocations: vec![kept] };
    assert_eq!(word(world.command(Body::ImportRevocations(import))), "fine");
    assert_eq!((greet(&mut world, 3, 66), greet(&mut world, 4, 12)), ("ARG1183".into(), "fine".into()));
}

#[test]
fn a_cluster_is_not_used_before_it_is_approved_where_the_policy_says_so() {
    let mut world = World::new(Limits { approve_clusters: true, ..Limits::default() });
    enrol(&mut world, "eu", 1).unwrap();
    assert_eq!(greet(&mut world, 1, 11), "fine", "it may connect, so that one sees who it is");
    let manifest = serde_json::json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"},
        "spec": {"entrypoint": "m", "templates": [{"name": "m", "container": {"image": "i", "command": ["x"]}}]},
    });
    world.submit("w", &manifest).unwrap();
    world.settle();
    assert_eq!(world.state.attempts_on("eu").count(), 0);
    assert!(world.json("w").to_string().contains("it is not approved yet"), "{}", world.json("w"));
    assert_eq!(change(&mut world, IdentityAction::Approve), "fine");
    world.settle();
    assert_eq!(world.state.attempts_on("eu").count(), 1);
}

fn roll(world: &mut World, action: RollAction, force: bool) -> String {
    let (certificate, present) = (digest(NEW), digest(OLD));
    word(world.command(Body::RollAuthority(ask::RollAuthority {
        action: action.into(),
        certificate_der: vec![2; 500],
        present_der: vec![1; 500],
        members: vec![1, 2],
        force,
        actor: "me".into(),
        certificate,
        present,
    })))
}

fn member(world: &mut World, member: u64, holds: &[u8], issues: u8) {
    let digests = |bytes: &[u8]| bytes.iter().map(|byte| digest(*byte)).collect::<Vec<_>>();
    let report = ask::ReportAuthority {
        member,
        trusts: digests(&[OLD, NEW]),
        holds: digests(holds),
        issues: digest(issues),
    };
    world.command(Body::ReportAuthority(report)).unwrap();
}

fn names(world: &World) -> Vec<String> {
    world.state.authority_behind().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_authority_is_rolled_once_everybody_trusts_the_new_one() {
    let mut world = enrolled();
    assert_eq!(roll(&mut world, RollAction::Finish, false), "ARG1187", "nothing is under way");
    assert_eq!(roll(&mut world, RollAction::Begin, false), "fine");
    assert_eq!(roll(&mut world, RollAction::Begin, false), "ARG1187");
    assert_eq!(names(&world), ["member 1", "member 2", "cluster eu"]);
    let phase = |world: &World| world.state.authorities().unwrap().phase();
    member(&mut world, 1, &[OLD, NEW], OLD);
    member(&mut world, 2, &[OLD], OLD);
    see(&mut world, 1, 1, 11, &[OLD, NEW]);
    assert_eq!(names(&world), ["member 2"], "it has no key of the new one");
    assert_eq!(phase(&world), RollPhase::Trust);
    assert_eq!(roll(&mut world, RollAction::Finish, false), "ARG1187");
    member(&mut world, 2, &[OLD, NEW], OLD);
    assert_eq!(phase(&world), RollPhase::Issue);
    assert_eq!(names(&world), ["member 1", "member 2", "cluster eu"], "they have old certificates");
    member(&mut world, 1, &[OLD, NEW], NEW);
    member(&mut world, 2, &[OLD, NEW], NEW);
    assert_eq!(roll(&mut world, RollAction::Finish, false), "ARG1187", "the agent's is old");
    assert_eq!(renew_from(&mut world, (1, 1), 11, NEW), "2");
    assert_eq!(roll(&mut world, RollAction::Finish, false), "fine");
    let row = world.state.authorities().unwrap().clone();
    assert_eq!((row.phase(), row.present, row.removed), (RollPhase::Unspecified, digest(NEW), digest(OLD)));
    assert!(names(&world).is_empty());
}

#[test]
fn a_roll_waits_for_nobody_who_is_revoked_and_can_be_forced() {
    let mut world = enrolled();
    roll(&mut world, RollAction::Begin, false);
    member(&mut world, 1, &[OLD, NEW], OLD);
    member(&mut world, 2, &[OLD, NEW], OLD);
    assert_eq!(names(&world), ["cluster eu"]);
    change(&mut world, IdentityAction::Revoke);
    assert_eq!(world.state.authorities().unwrap().phase(), RollPhase::Issue, "nobody is left to wait for");
    assert_eq!(roll(&mut world, RollAction::Finish, false), "ARG1187");
    assert_eq!(roll(&mut world, RollAction::Finish, true), "fine");
    // The row reads back as it was.
    let rows = world.state.rows();
    let again = argosy_engine::State::load(rows.into_iter()).unwrap();
    assert_eq!(again.authorities(), world.state.authorities());
}
