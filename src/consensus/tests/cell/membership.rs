use argosy_consensus::{MembershipChange, ProposeError};
use argosy_store::MemoryKv;

use crate::world::{World, config};

#[test]
fn a_member_is_added_promoted_and_another_removed() {
    let mut world = World::new(11, 3);
    let leader = world.elect();
    for number in 0..60_u8 {
        world.propose(leader, vec![b'e', number]);
        world.step();
    }
    let change = |world: &mut World, change| {
        let leader = world.elect();
        world.members.get_mut(&leader).unwrap().consensus.change_membership(change)
    };
    assert!(matches!(change(&mut world, MembershipChange::Promote(4)), Err(ProposeError::Change { .. })));
    change(&mut world, MembershipChange::AddLearner(4)).unwrap();
    let pending = change(&mut world, MembershipChange::AddLearner(5));
    assert_eq!(pending, Err(ProposeError::ChangePending));
    world.steps(3);
    let again = change(&mut world, MembershipChange::AddLearner(4));
    assert!(matches!(again, Err(ProposeError::Change { .. })));

    let mut joining = config(4, &[], 11);
    joining.known_peers = vec![1, 2, 3];
    world.configs.insert(4, joining);
    world.down.insert(4, MemoryKv::new());
    world.start(4);
    world.steps(60);
    change(&mut world, MembershipChange::Promote(4)).unwrap();
    world.steps(5);
    let removed = 1 + leader % 3;
    change(&mut world, MembershipChange::Remove(removed)).unwrap();
    world.steps(10);
    let status = world.members[&4].consensus.status();
    assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
    assert!(status.voters.contains(&4) && !status.voters.contains(&removed));

    // The configuration is there after a restart, and a removed member disturbs nobody.
    let term = world.members[&4].consensus.status().term;
    world.crash(4);
    world.start(4);
    world.steps(60);
    let status = world.members[&4].consensus.status();
    assert_eq!((status.term, status.voters.len()), (term, 3));
    world.crash(removed);
    world.down.clear();
    let leader = world.elect();
    world.propose(leader, b"goes on".to_vec());
    world.converge();
}

#[test]
fn leadership_is_handed_over() {
    let mut world = World::new(12, 3);
    let leader = world.elect();
    world.steps(5);
    let next = 1 + leader % 3;
    world.members.get_mut(&leader).unwrap().consensus.transfer_leadership(next).unwrap();
    world.steps(5);
    assert_eq!(world.elect(), next);
    world.converge();
}

#[test]
fn the_last_voter_stays() {
    let mut world = World::new(13, 1);
    let leader = world.elect();
    let refused =
        world.members.get_mut(&leader).unwrap().consensus.change_membership(MembershipChange::Remove(1));
    assert!(matches!(refused, Err(ProposeError::Change { .. })));
}
