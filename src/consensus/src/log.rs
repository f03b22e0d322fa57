//! The log in the store, as the Raft library reads it. Writing is done by the driver, in batches.

use std::cell::Cell;
use std::collections::VecDeque;

use argosy_model::planted::{Bug, is_planted};
use argosy_store::{Batch, Family, Kv, Sync};
use prost_for_raft::Message as RaftMessage;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use crate::marks::{self, Installing, Marks, Point};
use crate::{Config, Error};

/// Appended bytes between two remembered places of the log, for compaction by size.
const SIZE_MARK_BYTES: u64 = 1 << 20;

/// The log and the marks of a member.
pub(crate) struct Log<K> {
    kv: K,
    hard: HardState,
    conf: ConfState,
    applied: Point,
    applied_durable: u64,
    /// The entry before the first one of the log.
    compacted: Point,
    last: u64,
    /// The newest entries, up to `last`, without a gap.
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    tail_bytes_max: usize,
    /// Places about `SIZE_MARK_BYTES` apart, oldest first.
    size_marks: VecDeque<u64>,
    size_since_mark: u64,
    pub(crate) syncs: u64,
    /// Set by the driver while no further snapshot can be sent.
    pub(crate) snapshots_busy: Cell<bool>,
}

impl<K: Kv> Log<K> {
    /// Opens the log; founds the cell on an empty store. A mark of a half-installed snapshot is handed back.
    pub(crate) fn open(config: &Config, mut kv: K) -> Result<(Self, Option<Installing>, u64), Error> {
        if marks::load(&kv)?.is_none() {
            found(config, &mut kv)?;
        }
        let mut batch = Batch::new();
        let boots = marks::count_boot(&kv, &mut batch)?;
        let Some(Marks { hard, conf, applied, compacted, installing }) = marks::load(&kv)? else {
            return Err(Error::Damaged { message: "the marks just written are not there".to_owned() });
        };
        if installing.is_none() {
            // What came in before a restart is sent again from its beginning.
            marks::clear_staged(&mut batch);
        }
        kv.write(batch, Sync::Yes)?;
        let last = match kv.last(Family::RaftLog)? {
            Some((key, _)) => index_of(&key)?,
            None => compacted.index,
        };
        let log = Self {
            kv,
            hard,
            conf,
            applied,
            // The write above was synced, and with it all before it.
            applied_durable: applied.index,
            compacted,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max: config.limits.log_cache_bytes,
            size_marks: VecDeque::new(),
            size_since_mark: 0,
            syncs: 1,
            snapshots_busy: Cell::new(false),
        };
        log.check()?;
        Ok((log, installing, boots))
    }

    /// Marks that contradict each other would make the Raft library panic, or worse.
    fn check(&self) -> Result<(), Error> {
        let (applied, commit) = (self.applied.index, self.hard.commit);
        if !(self.compacted.index <= applied && applied <= commit && commit <= self.last) {
            let message = format!(
                "compacted {} <= applied {applied} <= commit {commit} <= last {} does not hold",
                self.compacted.index, self.last
            );
            return Err(Error::Damaged { message });
        }
        if let Some((key, _)) = self.kv.scan(Family::RaftLog, b"", None, 1)?.first()
            && index_of(key)? != self.compacted.index + 1
        {
            let message = format!("its first entry is not the one after {}", self.compacted.index);
            return Err(Error::Damaged { message });
        }
        Ok(())
    }

    pub(crate) fn kv(&self) -> &K {
        &self.kv
    }

    pub(crate) fn into_kv(self) -> K {
        self.kv
    }

    pub(crate) fn hard(&self) -> &HardState {
        &self.hard
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf
    }

    pub(crate) fn applied(&self) -> Point {
        self.applied
    }

    pub(crate) fn applied_durable(&self) -> u64 {
        self.applied_durable
    }

    pub(crate) fn first(&self) -> u64 {
        self.compacted.index + 1
    }

    /// Writes a batch; after a synced one everything applied so far is durable.
    pub(crate) fn write(&mut self, batch: Batch, sync: Sync) -> Result<(), Error> {
        self.kv.write(batch, sync)?;
        if sync == Sync::Yes {
            self.syncs += 1;
            self.applied_durable = self.applied.index;
        }
        Ok(())
    }

    /// Puts new entries in `batch` and drops the tail they replace. To be followed by writing the batch.
    pub(crate) fn append(&mut self, batch: &mut Batch, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        debug_assert!(first > self.compacted.index && first <= self.last + 1, "entries leave a gap");
        if first <= self.last {
            batch.delete_range(Family::RaftLog, first.to_be_bytes(), (self.last + 1).to_be_bytes());
            self.drop_tail_from(first);
        }
        for entry in entries {
            let bytes = entry.encode_to_vec();
            self.last = entry.index;
            self.size_since_mark += bytes.len() as u64;
            if self.size_since_mark >= SIZE_MARK_BYTES {
                self.size_marks.push_back(entry.index);
                self.size_since_mark = 0;
            }
            self.tail_bytes += bytes.len();
            batch.put(Family::RaftLog, entry.index.to_be_bytes(), bytes);
            self.tail.push_back(entry);
        }
        while self.tail_bytes > self.tail_bytes_max
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_bytes -= oldest.encoded_len();
        }
    }

    fn drop_tail_from(&mut self, first: u64) {
        while let Some(entry) = self.tail.back()
            && entry.index >= first
        {
            self.tail_bytes -= entry.encoded_len();
            self.tail.pop_back();
        }
        while self.size_marks.back().is_some_and(|index| *index >= first) {
            self.size_marks.pop_back();
        }
    }

    pub(crate) fn set_hard(&mut self, batch: &mut Batch, hard: HardState) {
        marks::put_hard(batch, &hard);
        self.hard = hard;
    }

    pub(crate) fn set_conf(&mut self, batch: &mut Batch, conf: ConfState) {
        marks::put_conf(batch, &conf);
        self.conf = conf;
    }

    /// Marks entries as applied, in the batch of their rows. The commit index goes with it: a crash must not leave
    /// one that is behind the applied index.
    pub(crate) fn set_applied(&mut self, batch: &mut Batch, applied: Point) {
        if self.hard.commit < applied.index {
            let hard = HardState { commit: applied.index, ..self.hard.clone() };
            self.set_hard(batch, hard);
        }
        marks::put_applied(batch, applied);
        self.applied = applied;
    }

    /// Drops old entries when enough have come together: never past what is durably applied, nor past `needed`.
    pub(crate) fn compact(
        &mut self,
        entries_kept: u64,
        bytes_kept: u64,
        needed: Option<u64>,
    ) -> Result<bool, Error> {
        let by_count = self.last.saturating_sub(entries_kept);
        let marks_kept = (bytes_kept / SIZE_MARK_BYTES).max(1) as usize;
        let by_size = self
            .size_marks
            .len()
            .checked_sub(marks_kept + 1)
            .and_then(|place| self.size_marks.get(place))
            .copied()
            .unwrap_or(0);
        let limit = self.applied_durable.min(needed.unwrap_or(u64::MAX));
        let target = by_count.max(by_size).min(limit);
        // Not for every entry: each compaction leaves a range tombstone in the store.
        let enough = entries_kept / 8 + 1;
        if target <= self.compacted.index || (target - self.compacted.index < enough && by_size < target) {
            return Ok(false);
        }
        let term = raft::Storage::term(self, target)
            .map_err(|error| Error::Damaged { message: format!("entry {target} cannot be read: {error}") })?;
        let compacted = Point { index: target, term };
        let mut batch = Batch::new();
        marks::put_compacted(&mut batch, compacted);
        batch.delete_range(Family::RaftLog, self.first().to_be_bytes(), (target + 1).to_be_bytes());
        self.write(batch, Sync::No)?;
        self.compacted = compacted;
        while let Some(entry) = self.tail.front()
            && entry.index <= target
        {
            self.tail_bytes -= entry.encoded_len();
            self.tail.pop_front();
        }
        while self.size_marks.front().is_some_and(|index| *index <= target) {
            self.size_marks.pop_front();
        }
        Ok(true)
    }

    /// The last batch of an installed snapshot: an empty log behind `point`, everything up to it committed and applied.
    /// Term and vote stay.
    pub(crate) fn reset(&mut self, mut batch: Batch, point: Point, conf: ConfState) -> Result<(), Error> {
        batch.clear(Family::RaftLog);
        marks::put_compacted(&mut batch, point);
        let mut hard = HardState { commit: point.index, ..self.hard.clone() };
        if is_planted(Bug::VoteOverwritten) {
            (hard.term, hard.vote) = (point.term, 0);
        }
        self.set_hard(&mut batch, hard);
        self.set_conf(&mut batch, conf);
        marks::put_applied(&mut batch, point);
        self.applied = point;
        self.write(batch, Sync::Yes)?;
        self.compacted = point;
        self.last = point.index;
        self.tail.clear();
        self.tail_bytes = 0;
        self.size_marks.clear();
        Ok(())
    }

    fn entry(&self, index: u64) -> raft::Result<Entry> {
        let newest = self.tail.front().map(|entry| entry.index).filter(|first| index >= *first);
        if let Some(first) = newest
            && let Some(entry) = self.tail.get((index - first) as usize)
        {
            return Ok(entry.clone());
        }
        let bytes = self.kv.get(Family::RaftLog, &index.to_be_bytes()).map_err(read_error)?;
        let bytes = bytes.ok_or(raft::Error::Store(StorageError::Unavailable))?;
        let entry = Entry::decode(bytes.as_slice()).map_err(read_error)?;
        if entry.index != index || EntryType::from_i32(entry.entry_type).is_none() {
            return Err(read_error(Error::Damaged {
                message: format!("entry {index} is not what it should be"),
            }));
        }
        Ok(entry)
    }
}

impl<K: Kv> raft::Storage for Log<K> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.compacted.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let entry = self.entry(index)?;
            bytes += entry.encoded_len() as u64;
            // At least one, however large: the library waits for ever otherwise.
            if bytes > limit && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.compacted.index {
            return Ok(self.compacted.term);
        }
        if index < self.compacted.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let first = self.tail.front().map_or(u64::MAX, |entry| entry.index);
        if index >= first
            && let Some(entry) = self.tail.get((index - first) as usize)
        {
            return Ok(entry.term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// A snapshot without contents: the driver cuts the checkpoint when the message leaves, and names that one's index.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshots_busy.get() || self.applied.index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied.index;
        metadata.term = self.applied.term;
        metadata.conf_state = Some(self.conf.clone());
        Ok(snapshot)
    }
}

/// Begins the history of a cell, equal on each of its founders: entry 1 of term 1 is the list of voters.
pub(crate) fn found<K: Kv>(config: &Config, kv: &mut K) -> Result<(), Error> {
    let (index, term) = if config.voters.is_empty() { (0, 0) } else { (1, 1) };
    let mut voters = config.voters.clone();
    voters.sort_unstable();
    let mut batch = Batch::new();
    marks::put_hard(&mut batch, &HardState { term, vote: 0, commit: index });
    marks::put_conf(&mut batch, &ConfState { voters, ..ConfState::default() });
    marks::put_applied(&mut batch, Point { index, term });
    marks::put_compacted(&mut batch, Point { index, term });
    kv.write(batch, Sync::Yes)?;
    Ok(())
}

pub(crate) fn index_of(key: &[u8]) -> Result<u64, Error> {
    let bytes: [u8; 8] = key
        .try_into()
        .map_err(|_| Error::Damaged { message: format!("its log has a key of {} bytes", key.len()) })?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_error(error: impl std::error::Error + Send + std::marker::Sync + 'static) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_store::MemoryKv;
    use raft::Storage;

    fn entry(index: u64, term: u64, size: usize) -> Entry {
        Entry { index, term, data: vec![7; size], ..Entry::default() }
    }

    fn log(entries: std::ops::RangeInclusive<u64>, cache_bytes: usize) -> Log<MemoryKv> {
        let mut config = Config::new(1, "cell", vec![1]);
        config.limits.log_cache_bytes = cache_bytes;
        let (mut log, _, _) = Log::open(&config, MemoryKv::new()).unwrap();
        let mut batch = Batch::new();
        log.append(&mut batch, entries.map(|index| entry(index, 1, 100)).collect());
        let last = Point { index: log.last, term: 1 };
        log.set_applied(&mut batch, last);
        log.write(batch, Sync::Yes).unwrap();
        log
    }

    fn indexes(log: &Log<MemoryKv>, low: u64, high: u64, size: u64) -> Vec<u64> {
        let entries = log.entries(low, high, size, GetEntriesContext::empty(false)).unwrap();
        entries.into_iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn the_bytes_of_an_entry_stay() {
        let bytes =
            Entry { entry_type: 1, term: 2, index: 3, data: vec![4], ..Entry::default() }.encode_to_vec();
        assert_eq!(bytes, [8, 1, 0x10, 2, 0x18, 3, 0x22, 1, 4]);
    }

    #[test]
    fn entries_are_read_within_limits_with_and_without_cache() {
        for cache_bytes in [0, 500, 1 << 20] {
            let log = log(2..=21, cache_bytes);
            assert_eq!(indexes(&log, 2, 22, u64::MAX), (2..=21).collect::<Vec<_>>());
            assert_eq!(indexes(&log, 5, 9, 0), [5], "at least one");
            assert_eq!(indexes(&log, 5, 9, 250), [5, 6]);
            assert_eq!(log.term(1).unwrap(), 1, "the entry before the first has a term");
            assert_eq!(log.term(0).unwrap_err(), raft::Error::Store(StorageError::Compacted));
            assert_eq!(log.term(22).unwrap_err(), raft::Error::Store(StorageError::Unavailable));
        }
    }

    #[test]
    fn a_new_tail_replaces_the_old_one() {
        for cache_bytes in [0, 1 << 20] {
            let mut log = log(2..=10, cache_bytes);
            let mut batch = Batch::new();
            log.append(&mut batch, vec![entry(6, 3, 1), entry(7, 3, 1)]);
            log.write(batch, Sync::Yes).unwrap();
            assert_eq!(log.last_index().unwrap(), 7);
            assert_eq!((log.term(5).unwrap(), log.term(6).unwrap()), (1, 3));
            assert_eq!(log.kv.rows(Family::RaftLog).len(), 6);
        }
    }

    #[test]
    fn compaction_keeps_what_followers_and_snapshots_need() {
        let mut log = log(2..=101, 0);
        assert!(!log.compact(1000, u64::MAX, None).unwrap());
        assert!(!log.compact(10, u64::MAX, Some(1)).unwrap());
        assert!(log.compact(10, u64::MAX, Some(50)).unwrap());
        assert_eq!((log.first(), log.term(50).unwrap()), (51, 1));
        assert_eq!(
            log.entries(50, 60, None, GetEntriesContext::empty(false)).unwrap_err(),
            raft::Error::Store(StorageError::Compacted)
        );
        assert!(log.compact(10, u64::MAX, None).unwrap());
        assert_eq!(log.first(), 92);
        log.applied_durable = 91;
        assert!(!log.compact(0, u64::MAX, None).unwrap(), "never past what is durably applied");
        let config = Config::new(1, "cell", vec![1]);
        let (log, _, boots) = Log::open(&config, log.into_kv()).unwrap();
        assert_eq!((log.first(), log.last, boots), (92, 101, 2));
    }

    #[test]
    fn compaction_by_size() {
        let mut log = log(2..=2, 0);
        for index in 3..=12 {
            let mut batch = Batch::new();
            log.append(&mut batch, vec![entry(index, 1, 1 << 20)]);
            log.set_applied(&mut batch, Point { index, term: 1 });
            log.write(batch, Sync::Yes).unwrap();
        }
        assert!(log.compact(1000, 4 << 20, None).unwrap());
        assert_eq!(log.first(), 9, "four are kept");
    }

    #[test]
    fn contradicting_marks_are_damage() {
        let log = log(2..=5, 0);
        let mut kv = log.into_kv();
        let mut batch = Batch::new();
        marks::put_applied(&mut batch, Point { index: 6, term: 1 });
        kv.write(batch, Sync::Yes).unwrap();
        let opened = Log::open(&Config::new(1, "cell", vec![1]), kv);
        assert!(matches!(opened.err(), Some(Error::Damaged { .. })));
    }
}
