//! Offline changes of a member's store after a disaster: a history that goes on from a backup, or with one survivor.
//! Either way the history's number rises ([`history_floor`]), so that nothing of the old one can be taken for the new.

use argosy_store::{Batch, Family, Identity, Kv, Sync, claim};
use raft::eraftpb::ConfState;

use crate::log::found;
use crate::{Config, Error, MemberId, marks};

/// What a survivor knew of its cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlived {
    /// Everybody else who voted or learned: all of them count as lost from now on.
    pub others: Vec<MemberId>,
    /// The last entry it holds, and how far it knew entries to be committed: what lies between may or may not have been
    /// acknowledged, and is kept.
    pub last_index: u64,
    /// See `last_index`.
    pub commit_index: u64,
}

/// The incarnation that the cell's must exceed before anything is decided; 0 where no disaster was.
///
/// # Errors
/// The store can't be read.
pub fn history_floor<K: Kv + ?Sized>(kv: &K) -> Result<u64, Error> {
    marks::history_floor(kv)
}

/// Makes this member the founder and only voter of a cell whose rows `kv` holds already (those of a backup, written after
/// the store was claimed). `floor` is the incarnation of the backup.
///
/// # Errors
/// The store belongs to somebody, or has a log already.
pub fn found_restored<K: Kv>(kv: &mut K, cell: &str, member: MemberId, floor: u64) -> Result<(), Error> {
    claim(kv, &Identity { cell: cell.to_owned(), member })?;
    if marks::load(kv)?.is_some() {
        return Err(Error::Config {
            message: "this store has a log already: restore into an empty data directory".to_owned(),
        });
    }
    let config = Config::new(member, cell, vec![member]);
    found(&config, kv)?;
    let mut batch = Batch::new();
    marks::put_history_floor(&mut batch, floor);
    kv.write(batch, Sync::Yes)?;
    Ok(())
}

/// Looks at what a survivor knows, without changing anything.
///
/// # Errors
/// The store belongs to somebody else, has no log, or a half-installed snapshot.
pub fn survey<K: Kv>(kv: &mut K, cell: &str, member: MemberId) -> Result<Outlived, Error> {
    claim(kv, &Identity { cell: cell.to_owned(), member })?;
    let refuse = |message: &str| Err(Error::Config { message: message.to_owned() });
    let Some(marks) = marks::load(kv)? else { return refuse("this store has no log: nothing survives here") };
    if marks.installing.is_some() {
        return refuse(
            "this store holds half a snapshot: another member's is the better one, or restore a backup",
        );
    }
    let last_index = match kv.last(Family::RaftLog)? {
        Some((key, _)) => crate::log::index_of(&key)?,
        None => marks.compacted.index,
    };
    let all = marks.conf.voters.iter().chain(&marks.conf.learners).chain(&marks.conf.voters_outgoing);
    let mut others: Vec<MemberId> = all.copied().filter(|other| *other != member).collect();
    others.sort_unstable();
    others.dedup();
    Ok(Outlived { others, last_index, commit_index: marks.hard.commit })
}

/// Makes this member the only voter: the others are lost for good. Entries that it holds beyond its commit index are
/// kept: some of them may have been acknowledged. What only the others had is lost.
///
/// # Errors
/// As [`survey`].
pub fn outlive<K: Kv>(kv: &mut K, cell: &str, member: MemberId, floor: u64) -> Result<Outlived, Error> {
    let outlived = survey(kv, cell, member)?;
    let mut batch = Batch::new();
    marks::put_conf(&mut batch, &ConfState { voters: vec![member], ..ConfState::default() });
    marks::put_history_floor(&mut batch, floor);
    kv.write(batch, Sync::Yes)?;
    Ok(outlived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Applied, Consensus, LogTarget, Output, Role, RoleChange, StateMachine};
    use argosy_store::MemoryKv;

    #[derive(Default)]
    struct Seen(Vec<Vec<u8>>);

    impl StateMachine for Seen {
        fn apply(&mut self, entry: Applied<'_>, _: &mut Batch) {
            self.0.push(entry.data.to_vec());
        }

        fn reload(&mut self, _: &dyn Kv) -> Result<(), Error> {
            Ok(())
        }
    }

    fn config(member: MemberId, voters: &[MemberId]) -> Config {
        let mut config = Config::new(member, "cell", voters.to_vec());
        config.log = LogTarget::Discard;
        config
    }

    fn leads_within(consensus: &mut Consensus<MemoryKv>, seen: &mut Seen, ticks: u32) -> bool {
        (0..ticks).any(|_| {
            consensus.tick();
            let outputs = consensus.process(seen).unwrap();
            outputs.iter().any(|output| matches!(output, Output::Role(RoleChange::Leading { .. })))
        })
    }

    #[test]
    fn a_survivor_leads_alone_and_keeps_what_it_holds() {
        // Alone of three it gets nowhere.
        let mut seen = Seen::default();
        let mut consensus = Consensus::open(config(1, &[1, 2, 3]), MemoryKv::new()).unwrap();
        assert!(!leads_within(&mut consensus, &mut seen, 100));
        let mut kv = consensus.into_kv();
        assert_eq!(survey(&mut kv, "cell", 1).unwrap().others, [2, 3]);
        assert_eq!(outlive(&mut kv, "cell", 1, 4).unwrap().others, [2, 3]);
        assert_eq!(history_floor(&kv).unwrap(), 4);
        let mut consensus = Consensus::open(config(1, &[1, 2, 3]), kv).unwrap();
        assert!(leads_within(&mut consensus, &mut seen, 100));
        consensus.propose(b"after".to_vec()).unwrap();
        consensus.process(&mut seen).unwrap();
        assert_eq!(seen.0, [b"after".to_vec()]);
        assert_eq!(consensus.status().role, Role::Leader);
        assert_eq!(consensus.status().voters, [1]);
    }

    #[test]
    fn a_restored_store_founds_a_cell_of_one_and_only_once() {
        let mut kv = MemoryKv::new();
        claim(&mut kv, &Identity { cell: "cell".to_owned(), member: 2 }).unwrap();
        let mut batch = Batch::new();
        batch.put(Family::State, b"row", b"value".to_vec());
        kv.write(batch, Sync::Yes).unwrap();
        assert_eq!(history_floor(&kv).unwrap(), 0);
        found_restored(&mut kv, "cell", 2, 7).unwrap();
        assert!(found_restored(&mut kv, "cell", 2, 7).is_err(), "it has a log");
        assert!(survey(&mut kv, "cell", 3).is_err(), "it is member 2's");
        let mut seen = Seen::default();
        let mut consensus = Consensus::open(config(2, &[1, 2, 3]), kv).unwrap();
        assert!(leads_within(&mut consensus, &mut seen, 100));
        assert_eq!(history_floor(consensus.kv()).unwrap(), 7);
        assert_eq!(consensus.kv().get(Family::State, b"row").unwrap().as_deref(), Some(b"value".as_slice()));
    }
}
