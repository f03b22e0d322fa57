//! What must survive the agent: start permits and terminal results, until the control plane's verdict.

use argosy_proto::common::{AttemptReport, Fence};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Version that new records carry.
const RECORD_VERSION: u32 = 1;
const HEADER: &[u8; 8] = b"ARGOLDG1";
/// Bytes of one record; a report holds a result and parameters of 256 KiB each.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the whole file that are read at the start.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// One line of the ledger. Tags are never reused.
#[derive(Clone, PartialEq, Message)]
pub struct LedgerRecord {
    /// 1. A higher one stops the agent: it was written by a newer version.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// What happened.
    #[prost(oneof = "LedgerEntry", tags = "2, 3, 4, 5, 220")]
    pub entry: Option<LedgerEntry>,
}

/// What happened.
#[expect(clippy::large_enum_variant, reason = "an entry is written and dropped")]
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum LedgerEntry {
    /// An attempt was bound to a holder, which may run the user's command.
    #[prost(message, tag = "2")]
    Permitted(PermitRecord),
    /// An attempt ended so.
    #[prost(message, tag = "3")]
    Ended(AttemptReport),
    /// The verdict came: nothing of this attempt is needed any more.
    #[prost(message, tag = "4")]
    Forgotten(Fence),
    /// A life of the agent began; they are numbered from 1.
    #[prost(uint64, tag = "5")]
    Started(u64),
    /// The ledger's own name, drawn when it was made: the control plane learns from it when a ledger was lost.
    #[prost(uint64, tag = "220")]
    Named(u64),
}

/// A binding.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PermitRecord {
    /// The attempt.
    #[prost(message, required, tag = "1")]
    pub fence: Fence,
    /// Who may run it.
    #[prost(string, tag = "2")]
    pub holder: String,
    /// Of an exclusive step; 0 for others.
    #[prost(int64, tag = "220")]
    pub exclusive_lease_ms: i64,
    /// Whose step it is, if it is exclusive.
    #[prost(string, tag = "300")]
    pub exclusive_workflow_uid: String,
}

impl LedgerRecord {
    /// A record of the current version.
    #[must_use]
    pub fn new(entry: LedgerEntry) -> Self {
        Self { version: RECORD_VERSION, entry: Some(entry) }
    }
}

/// Why a ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error(
        "cannot {action} the ledger {path}: {source}; the agent grants no start permits and reports nothing until it can"
    )]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Locked by another process.
    #[error("the ledger {path} is in use by another agent; give each agent a data directory of its own")]
    InUse {
        /// The file.
        path: String,
    },
    /// Not a ledger, or from a newer agent.
    #[error(
        "the ledger {path} cannot be used: {reason}; restore it, or move it away to accept that running steps of this cluster are forgotten"
    )]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A durable list of records. What `sync` returned for survives a crash; of what came after, any part may be lost.
pub trait Ledger: Send {
    /// All records that are there, in order. Called once, first.
    ///
    /// # Errors
    /// When the list cannot be read or is not one.
    fn load(&mut self) -> Result<Vec<LedgerRecord>, Error>;

    /// Adds a record; not durable before [`Self::sync`].
    fn append(&mut self, record: &LedgerRecord);

    /// Makes all appended records durable. After an error they are tried again by the next call.
    ///
    /// # Errors
    /// When the file system refuses.
    fn sync(&mut self) -> Result<(), Error>;

    /// Replaces everything by these records, durably and at once.
    ///
    /// # Errors
    /// When the file system refuses; the old list is then still there.
    fn compact(&mut self, live: &[LedgerRecord]) -> Result<(), Error>;

    /// Records since the last compaction, live or not.
    fn length(&self) -> usize;
}

/// For simulation: survives a crash of the agent without what was not synced.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    durable: Vec<LedgerRecord>,
    pending: Vec<LedgerRecord>,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine stops: what was not synced is lost.
    pub fn crash(&mut self) {
        self.pending.clear();
    }
}

impl Ledger for MemoryLedger {
    fn load(&mut self) -> Result<Vec<LedgerRecord>, Error> {
        Ok(self.durable.clone())
    }

    fn append(&mut self, record: &LedgerRecord) {
        self.pending.push(record.clone());
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.durable.append(&mut self.pending);
        Ok(())
    }

    fn compact(&mut self, live: &[LedgerRecord]) -> Result<(), Error> {
        self.pending.clear();
        self.durable = live.to_vec();
        Ok(())
    }

    fn length(&self) -> usize {
        self.durable.len() + self.pending.len()
    }
}

/// A file: a header, then records of `length (u32) | CRC-32 (u32) | protobuf`, little-endian.
///
/// A tail that was cut off or never reached the disk ends the list at the last good record.
#[derive(Debug)]
pub struct FileLedger {
    path: PathBuf,
    file: File,
    /// Bytes known to be good and durable.
    durable_bytes: u64,
    pending: Vec<u8>,
    pending_records: usize,
    length: usize,
}

impl FileLedger {
    /// Opens or makes the file and locks it against a second agent.
    ///
    /// # Errors
    /// When the file system refuses, or another process has it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file =
            private().truncate(false).open(&path).map_err(|source| file_error("open", &path, source))?;
        if file.try_lock().is_err() {
            return Err(Error::InUse { path: path.display().to_string() });
        }
        Ok(Self { path, file, durable_bytes: 0, pending: Vec::new(), pending_records: 0, length: 0 })
    }

    /// The ledger of an agent that shares its directory with others, of which one acts at a time: each term has a file of its
    /// own. It begins with what the highest term before it made durable; whatever an agent of an earlier term still writes,
    /// nobody reads. Term 0 is that of an agent that shares with nobody.
    ///
    /// # Errors
    /// When the file system refuses, the earlier file is no ledger, or a term as high has begun already ([`last_term`]).
    pub fn open_term(directory: &Path, term: u64) -> Result<Self, Error> {
        let path = directory.join(term_file(term));
        let in_use = || Error::InUse { path: path.display().to_string() };
        if term > 0 {
            // Whoever makes the file has the term, should two believe that they do. Looking round comes after it: a file
            // system that is shared tells a client that has changed a directory what is in it by now.
            private().create_new(true).open(&path).map_err(|source| {
                let is_there = source.kind() == std::io::ErrorKind::AlreadyExists;
                if is_there { in_use() } else { file_error("make", &path, source) }
            })?;
        }
        let earlier: Vec<u64> = terms(directory)?.into_iter().filter(|&it| it != term).collect();
        if term > 0 && earlier.iter().any(|&it| it > term) {
            std::fs::remove_file(&path).map_err(|source| file_error("remove", &path, source))?;
            return Err(in_use());
        }
        let mut ledger = Self::open(&path)?;
        if let Some(records) = newest(directory, &earlier)? {
            ledger.compact(&records)?;
        }
        for old in earlier {
            let path = directory.join(term_file(old));
            std::fs::remove_file(&path).map_err(|source| file_error("remove", &path, source))?;
        }
        Ok(ledger)
    }

    fn read_all(&mut self) -> std::io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(0))?;
        read_bounded(&mut self.file)
    }

    fn write_at_end(&mut self) -> std::io::Result<()> {
        if self.durable_bytes == 0 {
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(HEADER)?;
            self.durable_bytes = HEADER.len() as u64;
        }
        // Over the part of an earlier try that failed, if there was one.
        self.file.seek(SeekFrom::Start(self.durable_bytes))?;
        self.file.write_all(&self.pending)?;
        self.file.sync_data()
    }

    fn replace(&mut self, live: &[LedgerRecord]) -> std::io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut bytes = HEADER.to_vec();
        live.iter().for_each(|record| frame(record, &mut bytes));
        // A left-over of a crash may have other permissions.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = private().create_new(true).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // Locked before it has the name, so that no other agent can come between.
        file.try_lock().map_err(std::io::Error::other)?;
        std::fs::rename(&temporary, &self.path)?;
        if let Some(directory) = self.path.parent().filter(|path| path.is_dir()) {
            File::open(directory)?.sync_all()?;
        }
        self.file = file;
        self.durable_bytes = bytes.len() as u64;
        Ok(())
    }
}

impl Ledger for FileLedger {
    fn load(&mut self) -> Result<Vec<LedgerRecord>, Error> {
        let bytes = self.read_all().map_err(|source| file_error("read", &self.path, source))?;
        let (records, good) = parse(&bytes).map_err(|reason| unusable(&self.path, reason))?;
        if good < bytes.len() {
            tracing::warn!(bytes = bytes.len() - good, "the ledger's torn end is cut off");
            self.file.set_len(good as u64).map_err(|source| file_error("cut", &self.path, source))?;
        }
        self.durable_bytes = good as u64;
        self.length = records.len();
        Ok(records)
    }

    fn append(&mut self, record: &LedgerRecord) {
        frame(record, &mut self.pending);
        self.pending_records += 1;
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write_at_end().map_err(|source| file_error("write", &self.path, source))?;
        self.durable_bytes += self.pending.len() as u64;
        self.length += self.pending_records;
        self.pending.clear();
        self.pending_records = 0;
        Ok(())
    }

    fn compact(&mut self, live: &[LedgerRecord]) -> Result<(), Error> {
        self.replace(live).map_err(|source| file_error("compact", &self.path, source))?;
        self.pending.clear();
        self.pending_records = 0;
        self.length = live.len();
        Ok(())
    }

    fn length(&self) -> usize {
        self.length + self.pending_records
    }
}

/// What the highest of these terms has kept. One that ended before it had taken over what was there, right after its file was
/// made, has an empty file: then it is the one before.
fn newest(directory: &Path, terms: &[u64]) -> Result<Option<Vec<LedgerRecord>>, Error> {
    let mut falling = terms.to_vec();
    falling.sort_unstable_by(|one, other| other.cmp(one));
    for term in falling {
        let from = directory.join(term_file(term));
        let read = File::open(&from).and_then(|mut file| read_bounded(&mut file));
        let bytes = read.map_err(|source| file_error("read", &from, source))?;
        if bytes.is_empty() {
            continue;
        }
        return Ok(Some(parse(&bytes).map_err(|reason| unusable(&from, reason))?.0));
    }
    Ok(None)
}

/// The highest term of which the directory has a ledger; 0: none, or that of an agent alone.
///
/// # Errors
/// When the directory can't be read.
pub fn last_term(directory: &Path) -> Result<u64, Error> {
    Ok(terms(directory)?.into_iter().max().unwrap_or(0))
}

fn terms(directory: &Path) -> Result<Vec<u64>, Error> {
    let refused = |source| file_error("look for", directory, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(refused)? {
        let name = entry.map_err(refused)?.file_name();
        let name = name.to_string_lossy();
        match name.strip_prefix("ledger-").map(str::parse) {
            Some(Ok(term)) => found.push(term),
            Some(Err(_)) | None if name == "ledger" => found.push(0),
            Some(Err(_)) | None => {}
        }
    }
    Ok(found)
}

fn term_file(term: u64) -> String {
    if term == 0 { "ledger".to_owned() } else { format!("ledger-{term}") }
}

fn read_bounded(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Results of steps are for the agent's user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.display().to_string(), source }
}

fn unusable(path: &Path, reason: String) -> Error {
    Error::Unusable { path: path.display().to_string(), reason }
}

fn frame(record: &LedgerRecord, into: &mut Vec<u8>) {
    let bytes = record.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("reports are limited far below 4 GiB");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&crc32(&bytes).to_le_bytes());
    into.extend_from_slice(&bytes);
}

/// The records, and how many bytes of the file they and the header fill.
fn parse(bytes: &[u8]) -> Result<(Vec<LedgerRecord>, usize), String> {
    if bytes.len() < HEADER.len() {
        return if HEADER.starts_with(bytes) {
            Ok((Vec::new(), 0))
        } else {
            Err("it is no ledger".to_owned())
        };
    }
    if !bytes.starts_with(HEADER) {
        return Err("it is no ledger, or of a newer version of the agent".to_owned());
    }
    let mut records = Vec::new();
    let mut at = HEADER.len();
    while let Some((record, length)) = parse_record(&bytes[at..]) {
        if record.version != RECORD_VERSION || record.entry.is_none() {
            return Err(format!(
                "a record has version {}; this agent knows {RECORD_VERSION}",
                record.version
            ));
        }
        records.push(record);
        at += length;
    }
    Ok((records, at))
}

fn parse_record(bytes: &[u8]) -> Option<(LedgerRecord, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    // Zeros, as a file system may leave where a write was cut off, look like an empty record; there is none.
    let length = usize::try_from(u32::from_le_bytes(*length))
        .ok()
        .filter(|length| (1..=RECORD_BYTES_MAX).contains(length))?;
    let body = rest.get(..length)?;
    if crc32(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((LedgerRecord::decode(body).ok()?, 8 + length))
}

/// CRC-32 as in zip and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(index: u64) -> LedgerRecord {
        let fence = Fence { incarnation: 1, index, ordinal: 0 };
        LedgerRecord::new(LedgerEntry::Permitted(PermitRecord {
            fence,
            holder: "pod-a".to_owned(),
            exclusive_lease_ms: 0,
            exclusive_workflow_uid: String::new(),
        }))
    }

    #[test]
    fn the_file_keeps_its_bytes() {
        let mut bytes = Vec::new();
        frame(&permit(300), &mut bytes);
        let body = [8, 1, 0x12, 14, 0x0a, 5, 8, 1, 16, 0xac, 2, 0x12, 5, b'p', b'o', b'd', b'-', b'a'];
        assert_eq!(bytes[..4], [18, 0, 0, 0]);
        assert_eq!(bytes[8..], body);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let ended =
            LedgerRecord::new(LedgerEntry::Ended(AttemptReport { revision: 7, ..Default::default() }));
        assert_eq!(ended.encode_to_vec(), [8, 1, 0x1a, 2, 16, 7]);
        let forgotten =
            LedgerRecord::new(LedgerEntry::Forgotten(Fence { incarnation: 1, index: 2, ordinal: 3 }));
        assert_eq!(forgotten.encode_to_vec(), [8, 1, 0x22, 6, 8, 1, 16, 2, 24, 3]);
        assert_eq!(LedgerRecord::new(LedgerEntry::Started(4)).encode_to_vec(), [8, 1, 0x28, 4]);
        assert_eq!(LedgerRecord::new(LedgerEntry::Named(9)).encode_to_vec(), [8, 1, 0xe0, 0x0d, 9]);
        let permit = PermitRecord { exclusive_lease_ms: 5, ..PermitRecord::default() };
        assert_eq!(permit.encode_to_vec(), [0x0a, 0, 0xe0, 0x0d, 5]);
        let permit = PermitRecord { exclusive_workflow_uid: "u".to_owned(), ..PermitRecord::default() };
        assert_eq!(permit.encode_to_vec(), [0x0a, 0, 0xe2, 0x12, 1, b'u']);
    }

    #[test]
    fn records_survive_and_a_torn_end_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = FileLedger::open(&path).unwrap();
        assert_eq!(ledger.load().unwrap(), []);
        ledger.append(&permit(1));
        ledger.append(&permit(2));
        ledger.sync().unwrap();
        ledger.append(&permit(3));
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..20 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut ledger = FileLedger::open(&path).unwrap();
            assert_eq!(ledger.load().unwrap(), [permit(1)], "cut {cut}");
            ledger.append(&permit(9));
            ledger.sync().unwrap();
            drop(ledger);
            assert_eq!(FileLedger::open(&path).unwrap().load().unwrap(), [permit(1), permit(9)]);
        }
    }

    #[test]
    fn zeros_at_the_end_are_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = FileLedger::open(&path).unwrap();
        ledger.load().unwrap();
        ledger.append(&permit(1));
        ledger.sync().unwrap();
        drop(ledger);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), &[0; 4096]].concat()).unwrap();
        let mut ledger = FileLedger::open(&path).unwrap();
        assert_eq!(ledger.load().unwrap(), [permit(1)]);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn the_file_is_its_owners_before_and_after_compaction() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let mut ledger = FileLedger::open(&path).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::write(path.with_extension("new"), "left over").unwrap();
        ledger.compact(&[permit(1)]).unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn compaction_keeps_what_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = FileLedger::open(&path).unwrap();
        ledger.load().unwrap();
        (0..100).for_each(|index| ledger.append(&permit(index)));
        ledger.sync().unwrap();
        ledger.compact(&[permit(5)]).unwrap();
        ledger.append(&permit(6));
        ledger.sync().unwrap();
        assert_eq!(ledger.length(), 2);
        assert!(FileLedger::open(&path).unwrap_err().to_string().contains("another agent"), "still locked");
        drop(ledger);
        assert_eq!(FileLedger::open(&path).unwrap().load().unwrap(), [permit(5), permit(6)]);
    }

    #[test]
    fn a_term_begins_with_what_the_last_one_kept_and_late_writes_of_that_reach_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let open = |term| {
            let mut ledger = FileLedger::open_term(directory.path(), term).unwrap();
            let records = ledger.load().unwrap();
            (ledger, records)
        };
        let (mut alone, _) = open(0);
        alone.append(&permit(1));
        alone.sync().unwrap();
        drop(alone);
        assert_eq!(last_term(directory.path()).unwrap(), 0);
        let (mut stalled, found) = open(3);
        assert_eq!(found, [permit(1)]);
        stalled.append(&permit(2));
        stalled.sync().unwrap();
        // It stands still and is taken for dead; nobody ended it.
        let (mut next, found) = open(4);
        assert_eq!(found, [permit(1), permit(2)]);
        stalled.append(&permit(66));
        stalled.sync().unwrap();
        stalled.compact(&[permit(67)]).unwrap();
        next.append(&permit(5));
        next.sync().unwrap();
        drop(next);
        assert_eq!(last_term(directory.path()).unwrap(), 4);
        for late in [3, 4] {
            let refused = FileLedger::open_term(directory.path(), late).unwrap_err();
            assert!(matches!(refused, Error::InUse { .. }), "{refused}");
        }
        // One dies on the line after its file was made.
        drop(private().create_new(true).open(directory.path().join(term_file(5))).unwrap());
        let (next, found) = open(6);
        assert_eq!(found, [permit(1), permit(2), permit(5)]);
        drop((next, stalled));
        let (_alone, found) = open(0);
        assert_eq!(found, [permit(1), permit(2), permit(5)], "back to one agent");
        assert_eq!(terms(directory.path()).unwrap(), [0]);
    }

    #[test]
    fn foreign_files_and_newer_records_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        std::fs::write(&path, "not a ledger").unwrap();
        assert!(FileLedger::open(&path).unwrap().load().unwrap_err().to_string().contains("no ledger"));
        let mut bytes = HEADER.to_vec();
        frame(&LedgerRecord { version: 2, ..permit(1) }, &mut bytes);
        std::fs::write(&path, bytes).unwrap();
        assert!(FileLedger::open(&path).unwrap().load().unwrap_err().to_string().contains("version 2"));
    }
}
