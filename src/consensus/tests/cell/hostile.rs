use argosy_consensus::{Consensus, Output, ProposeError, Refused};
use argosy_store::MemoryKv;

use crate::world::{Dice, Machine, World, config};

use crate::world::seeds;

/// Every message that members of a busy cell exchange.
fn real_messages(seed: u64) -> Vec<(u64, u64, Vec<u8>)> {
    let mut world = World::new(seed, 3);
    world.network.delay_ticks = 2;
    let mut messages = Vec::new();
    for tick in 0..200_u64 {
        world.step();
        if let Some(leader) = world.leader() {
            world.propose(leader, tick.to_be_bytes().to_vec());
            world.read(1 + leader % 3, tick);
            if tick == 60 {
                world.crash(1 + leader % 3);
            }
            if tick == 160 {
                world.start(1 + leader % 3);
            }
        }
        messages.extend(world.under_way());
    }
    messages.sort();
    messages.dedup();
    messages
}

#[test]
fn bytes_that_are_no_messages_are_refused() {
    let mut member = Consensus::open(config(1, &[1, 2, 3], 0), MemoryKv::new()).unwrap();
    let mut dice = Dice::new(1);
    for _ in 0..5000 {
        let bytes: Vec<u8> = (0..dice.below(60)).map(|_| dice.below(256) as u8).collect();
        assert!(member.receive(2, &bytes).is_err());
    }
    assert_eq!(member.receive(2, &vec![0; 9 << 20]), Err(Refused::TooLarge));
    let counters = member.status().counters;
    assert_eq!(counters.refused.values().sum::<u64>(), 5001);
    assert_eq!((counters.messages_received, member.status().term), (0, 1));
}

#[test]
fn messages_of_others_are_refused() {
    let messages = real_messages(1);
    let mut mine = Consensus::open(config(1, &[1, 2, 3], 0), MemoryKv::new()).unwrap();
    let (_, _, message) = messages.iter().find(|(from, to, _)| (*from, *to) == (2, 1)).unwrap();
    assert_eq!(mine.receive(3, message), Err(Refused::Sender));
    let (_, _, other) = messages.iter().find(|(from, to, _)| (*from, *to) == (2, 3)).unwrap();
    assert_eq!(mine.receive(2, other), Err(Refused::Recipient));

    let mut elsewhere = config(1, &[1, 2, 3], 0);
    elsewhere.cell = "elsewhere".to_owned();
    let mut elsewhere = Consensus::open(elsewhere, MemoryKv::new()).unwrap();
    assert_eq!(elsewhere.receive(2, message), Err(Refused::Cell));

    let mut without = Consensus::open(config(1, &[1, 3], 0), MemoryKv::new()).unwrap();
    let mut machine = Machine::default();
    for (_, _, message) in messages.iter().filter(|(from, to, _)| (*from, *to) == (2, 1)) {
        assert_eq!(without.receive(2, message), Err(Refused::NotMember));
        without.process(&mut machine).unwrap();
    }
    assert_eq!(without.status().term, 1, "a stranger's votes and entries have no effect");
    assert!(without.status().counters.refused[&Refused::NotMember] > 0);
}

fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let place = dice.below(bytes.len() as u64) as usize;
        match dice.below(5) {
            0 => bytes[place] = dice.below(256) as u8,
            1 => bytes[place] = bytes[place].wrapping_add(1),
            2 => bytes[place] = bytes[place].wrapping_sub(1),
            3 => bytes[place] ^= 1 << dice.below(8),
            _ => bytes.truncate(place.max(1)),
        }
    }
}

/// Three members that talk to each other while a part of what they say is changed on the way. A member that lies can
/// break promises, but it must not make another one panic or stop.
fn talk(seed: u64, recorded: &[(u64, u64, Vec<u8>)]) -> u64 {
    let dice = &mut Dice::new(seed);
    let mut members: Vec<(Consensus<MemoryKv>, Machine)> = (1..=3)
        .map(|id| {
            let consensus = Consensus::open(config(id, &[1, 2, 3], seed), MemoryKv::new()).unwrap();
            (consensus, Machine::default())
        })
        .collect();
    let mut queue: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    for round in 0..600 {
        let id = 1 + dice.below(3);
        let (consensus, machine) = &mut members[id as usize - 1];
        if dice.percent(40) {
            consensus.tick();
        }
        let _ = consensus.propose(vec![b'p'; 1 + dice.below(50) as usize]);
        consensus.read_index(round);
        let sink = &mut |output| {
            if let Output::Send { to, message } = output {
                queue.push((id, to, message));
            }
        };
        consensus.process_into(machine, sink).unwrap();
        if dice.percent(10) {
            queue.push(recorded[dice.below(recorded.len() as u64) as usize].clone());
        }
        while queue.len() > 6 || (!queue.is_empty() && dice.percent(70)) {
            let (from, to, mut bytes) = queue.swap_remove(dice.below(queue.len() as u64) as usize);
            if dice.percent(10) {
                change(&mut bytes, dice);
            }
            let _ = members[to as usize - 1].0.receive(from, &bytes);
        }
    }
    members.iter().map(|(consensus, _)| consensus.status().counters.entries_applied).sum()
}

#[test]
fn changed_messages_never_panic() {
    let recorded = real_messages(2);
    let seeds = seeds();
    let applied: u64 = (0..seeds / 4).map(|seed| talk(seed, &recorded)).sum();
    assert!(applied > 25 * seeds, "{applied}: most of the talk must be of a working cell");
}

#[test]
fn proposals_have_limits() {
    let mut world = World::new(3, 3);
    let leader = world.elect();
    let member = &mut world.members.get_mut(&leader).unwrap().consensus;
    assert!(matches!(member.propose(Vec::new()), Err(ProposeError::Size { .. })));
    assert!(matches!(member.propose(vec![0; (2 << 20) + 1]), Err(ProposeError::Size { .. })));
    let mut taken = 0;
    let busy = loop {
        match member.propose(vec![1; 1 << 20]) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(busy, ProposeError::Busy);
    assert!((30..=33).contains(&taken), "{taken}");
    let follower = &mut world.members.get_mut(&(1 + leader % 3)).unwrap().consensus;
    assert_eq!(follower.propose(b"x".to_vec()), Err(ProposeError::NotLeader { leader: Some(leader) }));
}
