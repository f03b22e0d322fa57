use argosy_consensus::MemberId;
use argosy_store::{Batch, Family, Fault, Kv, MemoryKv, Sync};
use prost_for_raft::Message;
use raft::eraftpb::HardState;

use crate::world::World;

/// A cell in which one member is far behind what the logs of the others still hold.
fn with_a_member_behind(seed: u64) -> (World, MemberId) {
    let mut world = World::new(seed, 3);
    let leader = world.elect();
    let behind = 1 + leader % 3;
    world.propose(leader, b"before".to_vec());
    world.steps(5);
    world.crash(behind);
    for number in 0..120_u32 {
        assert!(world.propose(leader, [b"entry ".as_slice(), &number.to_be_bytes()].concat()));
        world.step();
    }
    let status = world.members[&leader].consensus.status();
    assert!(status.first_index > 50, "the log is compacted");
    (world, behind)
}

fn installed(world: &World, id: MemberId) -> u64 {
    world.members[&id].consensus.status().counters.snapshots_installed
}

/// Runs until the member is up to date; it may crash on the way.
fn catch_up(world: &mut World, id: MemberId) {
    for _ in 0..600 {
        world.start(id);
        world.step();
        let last = world.committed.last_key_value().map_or(0, |(index, _)| *index);
        if world.members.get(&id).is_some_and(|member| member.consensus.status().applied >= last) {
            return;
        }
    }
    panic!("member {id} does not catch up, seed {}", world.seed);
}

#[test]
fn a_member_far_behind_catches_up() {
    for seed in 0..20 {
        let (mut world, behind) = with_a_member_behind(seed);
        world.network.drop_percent = (seed % 4) * 10;
        world.network.repeat_percent = (seed % 3) * 20;
        world.network.delay_ticks = seed % 3;
        catch_up(&mut world, behind);
        assert!(installed(&world, behind) >= 1);
        world.converge();
    }
}

#[test]
fn proposals_go_on_while_a_snapshot_is_sent() {
    let (mut world, behind) = with_a_member_behind(31);
    world.start(behind);
    for number in 0..60_u32 {
        let leader = world.elect();
        world.propose(leader, [b"later ".as_slice(), &number.to_be_bytes()].concat());
        world.step();
    }
    catch_up(&mut world, behind);
    assert!(world.acknowledged.len() >= 170);
    assert_eq!(installed(&world, behind), 1, "the log behind the snapshot was kept");
    world.converge();
}

/// Term and vote on the disk.
fn vote(kv: &MemoryKv) -> (u64, u64) {
    let bytes = kv.get(Family::RaftMeta, b"hard").unwrap().unwrap();
    let hard = HardState::decode(bytes.as_slice()).unwrap();
    (hard.term, hard.vote)
}

#[test]
fn the_receiver_may_crash_at_every_write() {
    // One in which the member behind has voted in the term that goes on.
    let voted = |seed: &u64| {
        let (world, behind) = with_a_member_behind(*seed);
        vote(&world.down[&behind]).1 != 0
    };
    let seed = (0..50).find(voted).unwrap();
    for fault in [Fault::DiskFull, Fault::WrittenThenFailed] {
        let mut failed = 0;
        let mut half_installed = 0;
        for after in 0..120 {
            let (mut world, behind) = with_a_member_behind(seed);
            world.start(behind);
            let before = vote(world.members[&behind].consensus.kv());
            world.fail_disk(behind, after, fault);
            let crashes = world.crashes;
            for _ in 0..60 {
                world.step();
                if let Some(kv) = world.down.get(&behind) {
                    half_installed += u64::from(kv.get(Family::RaftMeta, b"installing").unwrap().is_some());
                    break;
                }
            }
            if world.crashes == crashes {
                break;
            }
            failed += 1;
            let after = vote(&world.down[&behind]);
            assert!(after.0 > before.0 || after == before, "the vote is kept: {before:?}, {after:?}");
            world.start(behind);
            let status = world.members[&behind].consensus.status();
            assert!(!status.installing, "what was received is whole: it is installed to the end");
            catch_up(&mut world, behind);
            world.converge();
        }
        assert!(failed > 10, "{failed} writes failed");
        assert!(half_installed > 3, "{half_installed} crashes came while installing");
    }
}

#[test]
fn the_sender_may_be_lost() {
    for ticks in 1..12 {
        let (mut world, behind) = with_a_member_behind(ticks);
        let leader = world.leader().unwrap();
        world.start(behind);
        world.steps(ticks);
        world.crash(leader);
        world.start(leader);
        catch_up(&mut world, behind);
        world.converge();
    }
}

/// A member whose half-installed snapshot is damaged.
fn with_half_a_snapshot() -> (World, MemberId) {
    for after in 0..100 {
        let (mut world, behind) = with_a_member_behind(2);
        world.start(behind);
        world.fail_disk(behind, after, Fault::DiskFull);
        world.steps(60);
        let mut kv = world.down.remove(&behind).expect("a write fails");
        if kv.get(Family::RaftMeta, b"installing").unwrap().is_none() {
            continue;
        }
        let staged = kv.scan(Family::RaftMeta, b"staged/", Some(b"staged0"), usize::MAX).unwrap();
        assert!(staged.len() > 3);
        let mut batch = Batch::new();
        batch.put(Family::RaftMeta, staged[2].0.clone(), b"rubbish".to_vec());
        kv.write(batch, Sync::Yes).unwrap();
        world.down.insert(behind, kv);
        world.start(behind);
        let status = world.members[&behind].consensus.status();
        assert!(status.installing);
        assert!(status.term >= 2, "the term is kept");
        return (world, behind);
    }
    panic!("no write fails while installing");
}

#[test]
fn damaged_chunks_are_asked_for_again() {
    let (mut world, behind) = with_half_a_snapshot();
    let leader = world.elect();
    assert_ne!(leader, behind, "it does not lead");
    world.propose(leader, b"meanwhile".to_vec());
    catch_up(&mut world, behind);
    assert!(!world.members[&behind].consensus.status().installing);
    assert_eq!(installed(&world, behind), 1);
    world.converge();
}

#[test]
fn half_a_snapshot_is_not_served_and_does_not_campaign() {
    let (mut world, behind) = with_half_a_snapshot();
    world.network.sides.insert(behind, 1);
    let term = world.members[&behind].consensus.status().term;
    world.read(behind, 1);
    world.steps(100);
    let status = world.members[&behind].consensus.status();
    assert_eq!((status.term, status.installing), (term, true));
    assert!(world.reads.is_empty());
    world.converge();
}

#[test]
fn entries_are_not_applied_to_half_a_snapshot() {
    let (mut world, behind) = with_half_a_snapshot();
    // As if its log went on where it stopped: entries that the others sent before they compacted theirs.
    let last = world.members[&behind].consensus.status().last_index;
    let newest = *world.committed.last_key_value().unwrap().0;
    world.crash(behind);
    let mut kv = world.down.remove(&behind).unwrap();
    let mut batch = Batch::new();
    for index in last + 1..=newest {
        let (term, data) = world.committed.get(&index).cloned().unwrap_or((2, Vec::new()));
        let entry = raft::eraftpb::Entry { index, term, data, ..Default::default() };
        batch.put(Family::RaftLog, index.to_be_bytes(), entry.encode_to_vec());
    }
    let (term, vote) = vote(&kv);
    batch.put(Family::RaftMeta, b"hard", HardState { term, vote, commit: last + 1 }.encode_to_vec());
    kv.write(batch, Sync::Yes).unwrap();
    world.down.insert(behind, kv);
    world.start(behind);
    catch_up(&mut world, behind);
    assert_eq!(installed(&world, behind), 1);
    world.converge();
}
