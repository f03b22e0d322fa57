//! Installing a snapshot that is complete among the staged chunks. The mark `installing` is synced first and goes with
//! the last batch, so a crash anywhere between leaves a store that says what it is: opening it installs again.

use argosy_store::{Batch, Family, Kv, Sync};
use prost::Message as _;
use prost_for_raft::Message as _;
use raft::eraftpb::{ConfState, HardState, Snapshot};

use crate::log::Log;
use crate::marks::{self, Installing, Point};
use crate::wire::{Chunk, decode_rows};
use crate::{Consensus, Error, Output, StateMachine};

impl<K: Kv> Consensus<K> {
    /// Installs the received snapshot that the Raft library took.
    pub(crate) fn install<M: StateMachine>(
        &mut self,
        snapshot: &Snapshot,
        hard: Option<&HardState>,
        machine: &mut M,
        sink: &mut dyn FnMut(Output),
    ) -> Result<(), Error> {
        let metadata = snapshot.get_metadata();
        let staged = self.receiving.as_ref().and_then(crate::receive::Receiving::mark);
        let mark = staged.filter(|mark| (mark.index, mark.term) == (metadata.index, metadata.term));
        let mark = mark.ok_or_else(|| Error::Library {
            message: format!("the snapshot at {} is taken, but was not received", metadata.index),
        })?;
        // The new term and vote are kept whatever happens to the rows. The commit index stays behind until the log it
        // speaks of is there.
        let mut batch = Batch::new();
        if let Some(hard) = hard {
            let commit = self.raw.store().hard().commit;
            self.log().set_hard(&mut batch, HardState { commit, ..hard.clone() });
        }
        marks::put_installing(&mut batch, &mark);
        self.log().write(batch, Sync::Yes)?;
        if !finish(self.log(), &mark)? {
            return Err(Error::Damaged { message: "the chunks just staged cannot be read".to_owned() });
        }
        self.installing = false;
        machine.reload(self.raw.store().kv())?;
        self.counters.snapshots_installed += 1;
        tracing::info!(index = mark.index, "installed a snapshot");
        sink(Output::Installed { index: mark.index });
        Ok(())
    }
}

/// Installs the snapshot of `mark` from its staged chunks. Returns false, with nothing changed, if they are not what was
/// received: then it must be asked for again.
pub(crate) fn finish<K: Kv>(log: &mut Log<K>, mark: &Installing) -> Result<bool, Error> {
    if !staged_whole(log.kv(), mark)? {
        return Ok(false);
    }
    let Ok(conf) = ConfState::decode(mark.conf.as_slice()) else { return Ok(false) };
    let mut batch = Batch::new();
    for family in Family::DATA {
        batch.clear(family);
    }
    log.write(batch, Sync::No)?;
    for sequence in 1..mark.chunks {
        let rows = staged_chunk(log.kv(), sequence)?.and_then(|chunk| decode_rows(&chunk.rows));
        let rows =
            rows.ok_or_else(|| Error::Damaged { message: format!("staged chunk {sequence} changed") })?;
        let mut batch = Batch::new();
        for row in rows {
            batch.put(row.family, row.key, row.value);
        }
        log.write(batch, Sync::No)?;
    }
    let mut batch = Batch::new();
    marks::delete_installing(&mut batch);
    marks::clear_staged(&mut batch);
    log.reset(batch, Point { index: mark.index, term: mark.term }, conf)?;
    Ok(true)
}

fn staged_chunk<K: Kv>(kv: &K, sequence: u64) -> Result<Option<Chunk>, Error> {
    let bytes = kv.get(Family::RaftMeta, &marks::staged(sequence))?;
    Ok(bytes.and_then(|bytes| Chunk::decode(bytes.as_slice()).ok()))
}

/// Reads all chunks once before anything is removed.
fn staged_whole<K: Kv>(kv: &K, mark: &Installing) -> Result<bool, Error> {
    let mut hasher = blake3::Hasher::new();
    for sequence in 0..mark.chunks {
        let Some(chunk) = staged_chunk(kv, sequence)? else { return Ok(false) };
        let digest = chunk.digest();
        if chunk.sequence != sequence || (sequence > 0 && decode_rows(&chunk.rows).is_none()) {
            return Ok(false);
        }
        hasher.update(&digest);
    }
    Ok(hasher.finalize().as_bytes().as_slice() == mark.total)
}
