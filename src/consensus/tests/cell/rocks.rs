use std::collections::VecDeque;

use argosy_consensus::{Consensus, Error, Output, RoleChange};
use argosy_store::{Options, RocksKv};

use crate::world::{Machine, config};

#[test]
fn a_member_on_a_disk_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || RocksKv::open(directory.path(), &Options::default()).unwrap();
    let lead = |consensus: &mut Consensus<RocksKv>, machine: &mut Machine| {
        for _ in 0..100 {
            consensus.tick();
            let outputs = consensus.process(machine).unwrap();
            if outputs.iter().any(|output| matches!(output, Output::Role(RoleChange::Leading { .. }))) {
                return;
            }
        }
        panic!("a lone member must lead");
    };
    let mut consensus = Consensus::open(config(1, &[1], 1), open()).unwrap();
    let mut machine = Machine::load(consensus.kv());
    lead(&mut consensus, &mut machine);
    for number in 0..100_u8 {
        consensus.propose(vec![b'e', number]).unwrap();
        consensus.process(&mut machine).unwrap();
    }
    let before = consensus.status();
    assert!(before.first_index > 50 && machine.entries.len() == 100);
    drop(consensus);

    let mut consensus = Consensus::open(config(1, &[1], 1), open()).unwrap();
    let mut again = Machine::load(consensus.kv());
    assert_eq!(again.entries, machine.entries);
    assert_eq!(consensus.status().applied, before.applied);
    lead(&mut consensus, &mut again);
    consensus.propose(b"after".to_vec()).unwrap();
    consensus.process(&mut again).unwrap();
    assert_eq!(again.entries.len(), 101);
    assert!(consensus.status().term > before.term);
    drop(consensus);

    let other = Consensus::open(config(2, &[2], 1), open());
    assert!(matches!(other.err(), Some(Error::Store(argosy_store::Error::WrongIdentity { .. }))));
}

/// Members on disks, in one thread, with a network that loses nothing.
struct Disks {
    members: Vec<Option<(Consensus<RocksKv>, Machine)>>,
    directories: Vec<tempfile::TempDir>,
}

impl Disks {
    fn start(&mut self, id: u64) {
        let kv = RocksKv::open(self.directories[id as usize - 1].path(), &Options::default()).unwrap();
        let consensus = Consensus::open(config(id, &[1, 2, 3], 1), kv).unwrap();
        let machine = Machine::load(consensus.kv());
        self.members[id as usize - 1] = Some((consensus, machine));
    }

    fn tick(&mut self) {
        let mut queue = VecDeque::new();
        for place in 0..self.members.len() {
            if let Some((consensus, _)) = &mut self.members[place] {
                consensus.tick();
            }
            self.process(place, &mut queue);
        }
        while let Some((from, to, message)) = queue.pop_front() {
            if let Some((consensus, _)) = &mut self.members[to as usize - 1] {
                let _ = consensus.receive(from, &message);
                self.process(to as usize - 1, &mut queue);
            }
        }
    }

    fn process(&mut self, place: usize, queue: &mut VecDeque<(u64, u64, Vec<u8>)>) {
        let Some((consensus, machine)) = &mut self.members[place] else { return };
        for output in consensus.process(machine).unwrap() {
            if let Output::Send { to, message } = output {
                queue.push_back((place as u64 + 1, to, message));
            }
        }
    }

    fn propose(&mut self, data: &[u8]) -> bool {
        self.members.iter_mut().flatten().any(|(consensus, _)| consensus.propose(data.to_vec()).is_ok())
    }
}

#[test]
fn a_snapshot_goes_from_disk_to_disk() {
    let directories = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut disks = Disks { members: vec![None, None, None], directories };
    disks.start(1);
    disks.start(2);
    let mut proposed = 0_u8;
    for _ in 0..400 {
        disks.tick();
        if proposed < 100 && disks.propose(&[b'e', proposed]) {
            proposed += 1;
        }
    }
    assert_eq!(proposed, 100);
    disks.start(3);
    for _ in 0..40 {
        disks.tick();
    }
    let (late, machine) = disks.members[2].as_ref().unwrap();
    assert_eq!(late.status().counters.snapshots_installed, 1);
    assert_eq!(machine.entries, disks.members[0].as_ref().unwrap().1.entries);
    let rows = machine.entries.clone();
    // What was installed is on the disk, and checkpoints leave nothing behind.
    disks.members[2] = None;
    disks.start(3);
    assert_eq!(disks.members[2].as_ref().unwrap().1.entries, rows);
    for directory in &disks.directories {
        let left = std::fs::read_dir(directory.path().join("checkpoints")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    }
}
