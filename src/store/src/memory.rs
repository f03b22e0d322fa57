use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Bound;

use imbl::OrdMap;

use crate::{Batch, Change, Checkpoint, Cursor, Error, Family, Kv, Pair, Row, Sync, in_order, rows_with};

/// Un-synced batches that are remembered one by one; older ones count as written back, as an operating system would.
const UNSYNCED_BATCHES_MAX: usize = 4096;

type Rows = OrdMap<Vec<u8>, Vec<u8>>;

/// A failure to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails and nothing of it is there.
    DiskFull,
    /// The same, with synced writes counted alone: what follows right after one.
    FullAfterSyncs,
    /// The write fails, but the batch is there: the answer was lost.
    WrittenThenFailed,
}

/// A store in memory with the failures of a disk. Cloning it is cheap and makes an independent copy.
#[derive(Clone, Default)]
pub struct MemoryKv {
    families: [Rows; Family::ALL.len()],
    /// What a crash keeps whatever happens.
    durable: [Rows; Family::ALL.len()],
    /// Batches since, oldest first.
    unsynced: VecDeque<Batch>,
    /// In a cell: the store is inside of its user when a fault is injected.
    fault: Cell<Option<(u64, Fault)>>,
    writes: u64,
    syncs: u64,
}

impl MemoryKv {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host loses power: a suffix of the un-synced batches, chosen by `seed`, is gone. Injected faults are gone too.
    pub fn crash(&mut self, seed: u64) {
        let kept = (mix(seed) % (self.unsynced.len() as u64 + 1)) as usize;
        let unsynced = std::mem::take(&mut self.unsynced);
        for batch in unsynced.into_iter().take(kept) {
            apply(&mut self.durable, &batch);
        }
        self.families = self.durable.clone();
        self.fault.set(None);
    }

    /// Makes the write after the next `after` writes fail, and every write after it, until [`MemoryKv::crash`] or
    /// [`MemoryKv::repair`].
    pub fn fail_after(&self, after: u64, fault: Fault) {
        self.fault.set(Some((self.counted(fault) + after, fault)));
    }

    fn counted(&self, fault: Fault) -> u64 {
        match fault {
            Fault::DiskFull | Fault::WrittenThenFailed => self.writes,
            Fault::FullAfterSyncs => self.syncs,
        }
    }

    /// Takes an injected failure back.
    pub fn repair(&self) {
        self.fault.set(None);
    }

    /// Batches that a crash could lose now.
    pub fn unsynced_batches(&self) -> usize {
        self.unsynced.len()
    }

    /// Synced writes so far.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// All rows of a family, for comparing stores.
    pub fn rows(&self, family: Family) -> Vec<Pair> {
        self.families[family.position()].iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn commit(&mut self, batch: Batch, sync: Sync) {
        apply(&mut self.families, &batch);
        match sync {
            Sync::Yes => {
                self.durable = self.families.clone();
                self.unsynced.clear();
                self.syncs += 1;
            }
            Sync::No => {
                self.unsynced.push_back(batch);
                if self.unsynced.len() > UNSYNCED_BATCHES_MAX
                    && let Some(oldest) = self.unsynced.pop_front()
                {
                    apply(&mut self.durable, &oldest);
                }
            }
        }
    }
}

impl Kv for MemoryKv {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.families[family.position()].get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, Error> {
        Ok(range(&self.families[family.position()], from, to).take(limit).collect())
    }

    fn last(&self, family: Family) -> Result<Option<Pair>, Error> {
        Ok(self.families[family.position()].get_max().cloned())
    }

    fn write(&mut self, batch: Batch, sync: Sync) -> Result<(), Error> {
        batch.check()?;
        if let Some((after, fault)) = self.fault.get()
            && self.counted(fault) >= after
        {
            return match fault {
                Fault::DiskFull | Fault::FullAfterSyncs => {
                    Err(Error::DiskFull { message: "injected".to_owned() })
                }
                Fault::WrittenThenFailed => {
                    self.commit(batch, Sync::No);
                    Err(Error::Disk { doing: "writing".to_owned(), message: "injected".to_owned() })
                }
            };
        }
        self.writes += 1;
        self.commit(batch, sync);
        Ok(())
    }

    fn checkpoint(&self, families: &[Family]) -> Result<Box<dyn Checkpoint>, Error> {
        Ok(Box::new(MemoryCheckpoint { families: self.families.clone(), held: in_order(families) }))
    }
}

struct MemoryCheckpoint {
    families: [Rows; Family::ALL.len()],
    held: Vec<Family>,
}

impl Checkpoint for MemoryCheckpoint {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !self.held.contains(&family) {
            return Ok(None);
        }
        Ok(self.families[family.position()].get(key).cloned())
    }

    fn rows(&self, cursor: &mut Cursor, limit_bytes: usize) -> Result<Vec<Row>, Error> {
        rows_with(&self.held, cursor, limit_bytes, |family, from, limit_bytes| {
            let mut bytes = 0;
            let mut pairs = Vec::new();
            for pair in range(&self.families[family.position()], from, None) {
                bytes += pair.0.len() + pair.1.len();
                pairs.push(pair);
                if bytes >= limit_bytes {
                    break;
                }
            }
            Ok(pairs)
        })
    }
}

fn range<'a>(rows: &'a Rows, from: &[u8], to: Option<&[u8]>) -> Box<dyn Iterator<Item = Pair> + 'a> {
    if to.is_some_and(|to| to <= from) {
        return Box::new(std::iter::empty());
    }
    let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.to_vec()));
    let found = rows.range((Bound::Included(from.to_vec()), to));
    Box::new(found.map(|(key, value)| (key.clone(), value.clone())))
}

fn apply(families: &mut [Rows; Family::ALL.len()], batch: &Batch) {
    for change in batch.changes() {
        match change {
            Change::Put { family, key, value } => {
                families[family.position()].insert(key.clone(), value.clone());
            }
            Change::Delete { family, key } => {
                families[family.position()].remove(key.as_slice());
            }
            Change::DeleteRange { family, from, to } => {
                let rows = &mut families[family.position()];
                let gone: Vec<Vec<u8>> = range(rows, from, Some(to)).map(|(key, _)| key).collect();
                for key in gone {
                    rows.remove(&key);
                }
            }
        }
    }
}

/// SplitMix64: spreads a seed over all bits.
fn mix(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
