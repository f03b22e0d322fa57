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
