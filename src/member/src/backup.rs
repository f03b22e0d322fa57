//! Backups: everything that is replicated as one stream of bytes, its check, and a store that goes on from it. Whoever owns
//! the member carries the bytes.

use argosy_engine::State;
use argosy_model::MemberId;
use argosy_proto::state::Meta;
use argosy_store::{
    BackupError, BackupReader, BackupWriter, Batch, Checkpoint, Cursor, Family, Identity, Kv, Row, Sync,
};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// Rows in one frame, about so many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// The key of the row of counters, by which a state tells how old it is.
const META_KEY: [u8; 1] = [1];

/// Why a backup can't be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] argosy_store::Error),
    /// The stream can't be read.
    #[error(transparent)]
    Stream(#[from] BackupError),
    /// Nothing was ever decided.
    #[error("the cell has no state yet")]
    NoState,
    /// The row of counters can't be read.
    #[error("the state's counters can't be read: {0}")]
    Counters(#[from] prost::DecodeError),
    /// The header can't be read.
    #[error("its header can't be read: {0}")]
    Header(#[from] serde_json::Error),
    /// This version can't read the state.
    #[error(transparent)]
    State(#[from] argosy_engine::Error),
    /// The rows are not those that the header speaks of.
    #[error("its state is not the one that its header names")]
    OtherState,
    /// No log can begin there.
    #[error(transparent)]
    Consensus(#[from] argosy_consensus::Error),
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The cell.
    pub cell: String,
    /// Number of its history.
    pub incarnation: u64,
    /// Batches that its state holds.
    pub sequence: u64,
    /// Log time of the last one, milliseconds since 1970.
    pub log_time_ms: i64,
    /// Hash of its state, hexadecimal.
    pub state_hash: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Header {
    fn of(meta: &Meta) -> Self {
        Self {
            cell: meta.cell.clone(),
            incarnation: meta.incarnation,
            sequence: meta.sequence,
            log_time_ms: meta.log_time_ms,
            state_hash: hex(&meta.hash),
        }
    }
}

/// Number of a store's history; 0 before its first fact.
///
/// # Errors
/// The store can't be read.
pub fn incarnation_of(kv: &dyn Kv) -> Result<u64, Error> {
    Ok(match kv.get(Family::State, &META_KEY)? {
        Some(bytes) => Meta::decode(bytes.as_slice())?.incarnation,
        None => 0,
    })
}

/// Gives a backup of a checkpoint away in pieces, as long as they are taken: `give` says whether it goes on.
///
/// # Errors
/// There is nothing to back up yet, or the store fails.
pub fn write(checkpoint: &dyn Checkpoint, give: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), Error> {
    let meta = checkpoint.get(Family::State, &META_KEY)?.ok_or(Error::NoState)?;
    let header = Header::of(&Meta::decode(meta.as_slice())?);
    let (mut writer, begin) = BackupWriter::begin(&serde_json::to_vec(&header)?);
    let mut cursor = Cursor::default();
    let mut goes_on = give(begin);
    while goes_on {
        let rows = checkpoint.rows(&mut cursor, FRAME_BYTES)?;
        if rows.is_empty() {
            give(writer.finish());
            break;
        }
        // Nobody reads any more: it is theirs to end.
        goes_on = give(writer.rows(&rows));
    }
    Ok(())
}

/// What a check of a backup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says of itself; the state in it agrees.
    pub header: Header,
    /// Rows in all.
    pub rows: u64,
    /// Workflows that are not over.
    pub workflows_active: usize,
}

fn each_frame(
    source: impl Read,
    mut take: impl FnMut(Vec<Row>) -> Result<(), Error>,
) -> Result<Header, Error> {
    let (mut reader, header) = BackupReader::open(source)?;
    let header = serde_json::from_slice(&header)?;
    while let Some(rows) = reader.next()? {
        take(rows)?;
    }
    Ok(header)
}

/// Reads a whole backup: every byte is as written, and the state in it is the one that the header names.
///
/// # Errors
/// It is not whole, or this version can't read the state.
pub fn verify(source: impl Read) -> Result<Checked, Error> {
    let (mut rows, mut state_rows) = (0, Vec::new());
    let header = each_frame(source, |frame| {
        rows += frame.len() as u64;
        let of_state = frame.into_iter().filter(|row| row.family == Family::State);
        state_rows.extend(of_state.map(|row| (row.key, row.value)));
        Ok(())
    })?;
    let state = State::load(state_rows.into_iter())?;
    if state.sequence() != header.sequence || hex(&state.hash()) != header.state_hash {
        return Err(Error::OtherState);
    }
    Ok(Checked { header, rows, workflows_active: state.workflows_active() })
}

/// Makes an empty store one from a backup that was checked: of the founder and only voter of the backup's cell, which goes on
/// from there under the next incarnation.
///
/// # Errors
/// The backup is damaged, the store is in use, or it fails: it is of no use then.
pub fn restore<K: Kv>(
    kv: &mut K,
    source: impl Read,
    member: MemberId,
    checked: &Checked,
) -> Result<(), Error> {
    let Header { cell, incarnation, .. } = &checked.header;
    argosy_store::claim(kv, &Identity { cell: cell.clone(), member })?;
    each_frame(source, |rows| {
        let mut batch = Batch::new();
        for row in rows {
            batch.put(row.family, row.key, row.value);
        }
        Ok(kv.write(batch, Sync::No)?)
    })?;
    Ok(argosy_consensus::found_restored(kv, cell, member, *incarnation)?)
}
