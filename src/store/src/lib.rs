//! The ordered key-value store under a member: families of byte rows, atomic batches, consistent checkpoints.
//!
//! Two implementations of one trait [`Kv`]: [`RocksKv`] on a disk and [`MemoryKv`] for simulation, which also models
//! what a disk does wrong (un-synced batches lost in a crash, failing writes).
//!
//! Not here: what the rows mean. The log and its marks belong to `consensus`, the tables to `engine`.
//!
//! # Invariants
//! - A [`Batch`] is written whole or not at all.
//! - Batches become durable in the order of their writing: a crash keeps a prefix of them. A write with [`Sync::Yes`]
//!   makes itself and every batch before it durable before it returns.
//! - Rows of a family are ordered by their key as unsigned bytes, in both implementations.
//! - A [`Checkpoint`] never changes, whatever is written after it was cut.
//!
//! # Failure model
//! Every call blocks, on one thread. After an error of [`Kv::write`] it is unknown whether the batch was written: the
//! owner stops and opens the store again. Bytes that come from the disk never panic.

mod backup;
mod batch;
mod error;
mod identity;
mod memory;
mod rocks;

pub use backup::{BACKUP_VERSION, BackupError, BackupReader, BackupWriter};
pub use batch::{Batch, Change, KEY_BYTES_MAX};
pub use error::Error;
pub use identity::{FORMAT_VERSION, Identity, claim};
pub use memory::{Fault, MemoryKv};
pub use rocks::{Options, RocksKv};

/// A named space of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Entries of the replicated log, by big-endian index.
    RaftLog,
    /// Marks of consensus (vote, configuration, applied index), identity of the store, staged snapshots.
    RaftMeta,
    /// Tables of the replicated state.
    State,
    /// Parameters and results too large to be kept in a row of state.
    Blobs,
    /// Facts of recent work.
    History,
    /// Finished workflows.
    Archive,
}

impl Family {
    /// Every family, in the order of checkpoints.
    pub const ALL: [Family; 6] =
        [Family::RaftLog, Family::RaftMeta, Family::State, Family::Blobs, Family::History, Family::Archive];
    /// The families that are replicated and travel in a snapshot.
    pub const DATA: [Family; 4] = [Family::State, Family::Blobs, Family::History, Family::Archive];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::RaftLog => "raft_log",
            Family::RaftMeta => "raft_meta",
            Family::State => "state",
            Family::Blobs => "blobs",
            Family::History => "history",
            Family::Archive => "archive",
        }
    }

    /// The number of the family in messages and on disk; never reused.
    pub fn number(self) -> u32 {
        match self {
            Family::RaftLog => 1,
            Family::RaftMeta => 2,
            Family::State => 3,
            Family::Blobs => 4,
            Family::History => 5,
            Family::Archive => 6,
        }
    }

    /// The family of a [`Family::number`].
    pub fn from_number(number: u32) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.number() == number)
    }

    fn position(self) -> usize {
        self as usize
    }
}

/// Whether a write waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The batch, and every batch before it, is durable when the write returns.
    Yes,
    /// The batch may be lost in a crash of the host, with all that follow it.
    No,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// One row of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it belongs.
    pub family: Family,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// An ordered key-value store with families and atomic batches.
pub trait Kv: Send + 'static {
    /// The value of `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// At most `limit` rows with `from <= key < to` in key order; `to` of `None` means to the end of the family.
    fn scan(&self, family: Family, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, Error>;
    /// The row with the greatest key.
    fn last(&self, family: Family) -> Result<Option<Pair>, Error>;
    /// Writes the whole batch or nothing of it. After an error the owner must stop and open the store again.
    fn write(&mut self, batch: Batch, sync: Sync) -> Result<(), Error>;
    /// A consistent copy of the named families as they are now; cheap to cut, whatever their size.
    fn checkpoint(&self, families: &[Family]) -> Result<Box<dyn Checkpoint>, Error>;
}

/// A consistent copy of some families, read in pieces while the store goes on.
pub trait Checkpoint: Send + std::marker::Sync {
    /// The value of `key`. A family that was not asked for is empty.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// The rows after `cursor` in the order of [`Family::ALL`], then of keys: about `limit_bytes` of them and at least
    /// one; moves the cursor behind the last. Empty at the end.
    fn rows(&self, cursor: &mut Cursor, limit_bytes: usize) -> Result<Vec<Row>, Error>;
}

/// A position in a [`Checkpoint`]. The default stands before the first row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    family: usize,
    after: Option<Vec<u8>>,
}

impl Cursor {
    /// The first key that has not been read, of the current family.
    fn from(&self) -> Vec<u8> {
        match &self.after {
            // The least key greater than `after`.
            Some(after) => [after.as_slice(), &[0]].concat(),
            None => Vec::new(),
        }
    }

    fn next_family(&mut self) {
        self.family += 1;
        self.after = None;
    }
}

/// Reads rows of a checkpoint for the two implementations: `families` are those it holds, `page` reads pairs of one.
fn rows_with(
    families: &[Family],
    cursor: &mut Cursor,
    limit_bytes: usize,
    mut page: impl FnMut(Family, &[u8], usize) -> Result<Vec<Pair>, Error>,
) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    let mut bytes = 0;
    while bytes < limit_bytes.max(1) {
        let Some(family) = families.get(cursor.family).copied() else { break };
        let pairs = page(family, &cursor.from(), limit_bytes.max(1) - bytes)?;
        if pairs.is_empty() {
            cursor.next_family();
            continue;
        }
        for (key, value) in pairs {
            bytes += key.len() + value.len();
            cursor.after = Some(key.clone());
            rows.push(Row { family, key, value });
        }
    }
    Ok(rows)
}

/// The families asked for, each once, in the order of [`Family::ALL`].
fn in_order(families: &[Family]) -> Vec<Family> {
    Family::ALL.into_iter().filter(|family| families.contains(family)).collect()
}
