use std::collections::BTreeMap;

use argosy_consensus::{Output, ProposeError, Role};
use argosy_store::Fault;

use crate::world::{Member, World, seeds};

const TICKS: u64 = 300;

/// Runs a cell through faults drawn from the seed; returns it before healing.
fn faulty(seed: u64) -> World {
    let size = [3, 3, 5][(seed % 3) as usize];
    let mut world = World::new(seed, size);
    world.network.drop_percent = world.dice.below(3) * 5;
    world.network.repeat_percent = world.dice.below(3) * 10;
    world.network.delay_ticks = world.dice.below(4);
    for tick in 0..TICKS {
        world.step();
        let id = 1 + world.dice.below(size);
        match world.dice.below(100) {
            0..=1 => world.crash(id),
            2..=5 => world.start(id),
            6 => {
                let sides = (1..=size).map(|id| (id, world.dice.below(2))).collect();
                world.network.sides = sides;
            }
            7..=9 => world.network.sides = BTreeMap::new(),
            10 => fail_disk(&mut world, id),
            11..=14 => world.read(id, tick),
            _ => {}
        }
        for copy in 0..world.dice.below(3) {
            let id = world.leader().unwrap_or(id);
            let size = world.dice.below(40) as usize;
            let data = [format!("{tick}.{copy}.").into_bytes(), vec![b'.'; size]].concat();
            world.propose(id, data);
        }
    }
    world
}

fn fail_disk(world: &mut World, id: u64) {
    let fault = [Fault::DiskFull, Fault::WrittenThenFailed][world.dice.below(2) as usize];
    let after = world.dice.below(6);
    world.fail_disk(id, after, fault);
}

#[test]
fn nothing_committed_is_lost_in_any_of_many_seeds() {
    let (mut crashes, mut lost, mut acknowledged, mut installed, mut reads) = (0, 0, 0, 0, 0);
    for seed in 0..seeds() {
        let mut world = faulty(seed);
        world.converge();
        crashes += world.crashes;
        lost += world.lost;
        acknowledged += world.acknowledged.len() as u64;
        reads += world.reads.len();
        installed += world
            .members
            .values()
            .map(|member| member.consensus.status().counters.snapshots_installed)
            .sum::<u64>();
    }
    // The seeds must reach what they are for.
    println!(
        "crashes {crashes}, lost {lost}, acknowledged {acknowledged}, installed {installed}, reads {reads}"
    );
    let seeds = seeds();
    assert!(crashes > seeds && lost > seeds && installed > seeds && reads > 2 * seeds as usize);
    assert!(acknowledged > 50 * seeds);
}

#[test]
fn a_seed_replays() {
    for seed in [3, 77, 1234] {
        let first = faulty(seed).trace.finalize();
        assert_eq!(first, faulty(seed).trace.finalize(), "seed {seed}");
        assert_ne!(first, faulty(seed + 1).trace.finalize());
    }
}

#[test]
fn a_fresh_leader_does_not_propose_yet() {
    let mut world = World::new(1, 1);
    let member = &mut world.members.get_mut(&1).unwrap().consensus;
    while member.status().role != Role::Leader {
        member.tick();
    }
    assert_eq!(member.propose(b"early".to_vec()), Err(ProposeError::NotReady));
    world.process(1);
    assert!(world.propose(1, b"now".to_vec()));
}

#[test]
fn a_lone_member_commits() {
    let mut world = World::new(1, 1);
    let leader = world.elect();
    assert!(world.propose(leader, b"alone".to_vec()));
    world.read(leader, 5);
    world.process(leader);
    assert_eq!(world.acknowledged.len(), 1);
    assert_eq!(world.reads.len(), 1);
}

#[test]
fn the_loss_of_the_leader_costs_one_election() {
    let mut world = World::new(5, 3);
    let leader = world.elect();
    assert!(world.propose(leader, b"before".to_vec()));
    world.steps(2);
    assert!(world.propose(leader, b"unknown".to_vec()));
    world.crash(leader);
    let before = world.tick;
    let next = world.elect();
    assert_ne!(next, leader);
    assert!(world.tick - before <= 40, "{} ticks", world.tick - before);
    world.converge();
    assert!(world.acknowledged.contains(b"before".as_slice()));
}

#[test]
fn a_deposed_leader_reports_its_proposals_as_unknown_and_reads_nothing() {
    let mut world = World::new(6, 3);
    let old = world.elect();
    world.network.sides.insert(old, 1);
    assert!(world.propose(old, b"cut off".to_vec()));
    world.read(old, 9);
    world.steps(1);
    assert!(world.reads.is_empty(), "a cut-off leader cannot confirm a read");
    world.steps(60);
    assert_eq!(world.lost, 1, "it stepped down by itself: no quorum answered");
    let refused = world.members.get_mut(&old).unwrap().consensus.propose(b"x".to_vec());
    assert!(refused.is_err());
    world.converge();
    assert!(!world.acknowledged.contains(b"cut off".as_slice()));
}

#[test]
fn a_follower_reads_after_what_was_committed_before() {
    let mut world = World::new(7, 3);
    let leader = world.elect();
    world.propose(leader, b"first".to_vec());
    world.steps(3);
    let follower = 1 + leader % 3;
    world.read(follower, 42);
    world.steps(3);
    let floor = *world.committed.last_key_value().unwrap().0;
    assert!(
        world.reads.iter().any(|(id, context, index)| (*id, *context) == (follower, 42) && *index >= floor)
    );
}

/// Outputs of a member until its failing disk stops it.
fn outputs_until_failure(world: &mut World, id: u64, input: impl Fn(&mut Member)) -> Vec<Output> {
    let member = world.members.get_mut(&id).unwrap();
    for _ in 0..100 {
        input(member);
        let mut outputs = Vec::new();
        let sink = &mut |output| outputs.push(output);
        if member.consensus.process_into(&mut member.machine, sink).is_err() {
            return outputs;
        }
    }
    panic!("the disk should have failed");
}

fn sends(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Send { .. })).count()
}

#[test]
fn an_acknowledgement_leaves_after_the_entry_is_on_the_disk() {
    let mut world = World::new(21, 3);
    let leader = world.elect();
    world.steps(5);
    let follower = 1 + leader % 3;
    world.propose(leader, b"entry".to_vec());
    world.process(leader);
    let under_way = world.under_way();
    let append = under_way.iter().find(|(_, to, _)| *to == follower).unwrap().2.clone();
    world.fail_disk(follower, 0, Fault::DiskFull);
    let outputs = outputs_until_failure(&mut world, follower, |member| {
        member.consensus.receive(leader, &append).unwrap();
    });
    assert_eq!(sends(&outputs), 0);
    let stopped = &mut world.members.get_mut(&follower).unwrap().consensus;
    assert!(stopped.status().stopped && stopped.receive(leader, &append).is_err());
}

#[test]
fn a_vote_leaves_after_it_is_on_the_disk() {
    let mut world = World::new(22, 3);
    let leader = world.elect();
    world.steps(5);
    world.crash(leader);
    // Until one of the two asks for votes of the next term.
    let asks = |world: &World| {
        let candidate = |id: &u64| world.members[id].consensus.status().role == Role::Candidate;
        world.members.keys().copied().find(candidate)
    };
    let candidate = loop {
        if let Some(candidate) = asks(&world) {
            break candidate;
        }
        if !world.deliver_one() {
            world.tick_all();
        }
    };
    let wanted = |(from, to, _): &(u64, u64, Vec<u8>)| *from == candidate && *to != leader;
    let request = world.under_way().into_iter().rfind(wanted).unwrap().2;
    let voter = world.members.keys().copied().find(|id| *id != candidate).unwrap();
    world.fail_disk(voter, 0, Fault::DiskFull);
    let outputs = outputs_until_failure(&mut world, voter, |member| {
        let _ = member.consensus.receive(candidate, &request);
    });
    assert_eq!(sends(&outputs), 0);
}
