//! Backups: a stream of everything that is replicated, its check, and stores that go on from it.

use crate::config::ServerConfig;
use crate::mailbox::Mailbox;
use anyhow::{Context, bail, ensure};
use argosy_engine::State;
use argosy_gateway::CommandError;
use argosy_proto::state::Meta;
use argosy_store::{
    BackupReader, BackupWriter, Batch, Checkpoint, Cursor, Family, Kv, Options, RocksKv, Row, Sync,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Rows in one frame, about so many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// Frames that wait for a slow reader.
const FRAMES_WAITING_MAX: usize = 4;
/// The key of the row of counters, by which a state tells how old it is.
const META_KEY: [u8; 1] = [1];

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

/// A backup of what this member has applied, which is at least everything that was acknowledged before the call.
///
/// # Errors
/// No quorum answers, or the disk fails.
pub async fn stream(mailbox: &Mailbox) -> Result<BoxStream<'static, std::io::Result<Bytes>>, CommandError> {
    mailbox.read().await.ok_or(CommandError::NotLeader)?;
    let checkpoint = mailbox.checkpoint().await.ok_or(CommandError::NotLeader)?;
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(checkpoint.as_ref(), &sender) {
            tracing::error!(%error, "a backup could not be made");
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

fn write(checkpoint: &dyn Checkpoint, sender: &mpsc::Sender<std::io::Result<Bytes>>) -> std::io::Result<()> {
    let meta = checkpoint.get(Family::State, &META_KEY).map_err(std::io::Error::other)?;
    let meta = meta.ok_or_else(|| std::io::Error::other("the cell has no state yet"))?;
    let header = Header::of(&Meta::decode(meta.as_slice()).map_err(std::io::Error::other)?);
    let (mut writer, begin) = BackupWriter::begin(&serde_json::to_vec(&header)?);
    let give = |bytes: Vec<u8>| sender.blocking_send(Ok(bytes.into())).is_ok();
    let mut cursor = Cursor::default();
    let mut goes_on = give(begin);
    while goes_on {
        let rows = checkpoint.rows(&mut cursor, FRAME_BYTES).map_err(std::io::Error::other)?;
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

fn open(path: &Path) -> anyhow::Result<(Header, BackupReader<BufReader<File>>)> {
    let file = File::open(path).with_context(|| format!("backup {}", path.display()))?;
    let (reader, header) =
        BackupReader::open(BufReader::new(file)).with_context(|| format!("backup {}", path.display()))?;
    let header = serde_json::from_slice(&header)
        .with_context(|| format!("backup {}: its header can't be read", path.display()))?;
    Ok((header, reader))
}

fn each_frame(path: &Path, mut take: impl FnMut(Vec<Row>) -> anyhow::Result<()>) -> anyhow::Result<Header> {
    let (header, mut reader) = open(path)?;
    while let Some(rows) = reader.next().with_context(|| format!("backup {}", path.display()))? {
        take(rows)?;
    }
    Ok(header)
}

/// Reads a whole backup: every byte is as written, and the state in it is the one that the header names.
///
/// # Errors
/// It is not whole, or this version can't read the state.
pub fn verify(path: &Path) -> anyhow::Result<Checked> {
    let (mut rows, mut state_rows) = (0, Vec::new());
    let header = each_frame(path, |frame| {
        rows += frame.len() as u64;
        let of_state = frame.into_iter().filter(|row| row.family == Family::State);
        state_rows.extend(of_state.map(|row| (row.key, row.value)));
        Ok(())
    })?;
    let state = State::load(state_rows.into_iter()).with_context(|| format!("backup {}", path.display()))?;
    ensure!(
        state.sequence() == header.sequence && hex(&state.hash()) == header.state_hash,
        "backup {}: its state is not the one that its header names",
        path.display()
    );
    Ok(Checked { header, rows, workflows_active: state.workflows_active() })
}

fn store_of(config: &ServerConfig) -> PathBuf {
    config.data_dir.join("store")
}

/// Makes the store of `config`'s member from a backup: the founder and only voter of a cell that goes on from there, under
/// the next incarnation. A crash leaves no store or a whole one.
///
/// # Errors
/// The backup is damaged or of another cell, the member has a store, or the disk fails.
pub fn restore(path: &Path, config: &ServerConfig) -> anyhow::Result<Checked> {
    let store = store_of(config);
    ensure!(
        !store.exists(),
        "{} exists: a backup is restored into an empty data directory; move the old one away first",
        store.display()
    );
    let checked = verify(path)?;
    ensure!(
        checked.header.cell == config.cell,
        "the backup is of cell {}, the configuration of cell {}",
        checked.header.cell,
        config.cell
    );
    let half = config.data_dir.join("store.restoring");
    if half.exists() {
        std::fs::remove_dir_all(&half).with_context(|| format!("{}", half.display()))?;
    }
    crate::run::make_private(&half)?;
    let mut kv = RocksKv::open(&half, &Options::default())?;
    argosy_store::claim(
        &mut kv,
        &argosy_store::Identity { cell: config.cell.clone(), member: config.member },
    )?;
    each_frame(path, |rows| {
        let mut batch = Batch::new();
        for row in rows {
            batch.put(row.family, row.key, row.value);
        }
        Ok(kv.write(batch, Sync::No)?)
    })?;
    argosy_consensus::found_restored(&mut kv, &config.cell, config.member, checked.header.incarnation)?;
    drop(kv);
    std::fs::rename(&half, &store).with_context(|| format!("{}", store.display()))?;
    Ok(checked)
}

/// Makes `config`'s member the only one of its cell, after all others were lost for good. `lost` has to name them all.
///
/// # Errors
/// It is not the survivor's store, others than `lost` take part, or the disk fails.
pub fn recover(config: &ServerConfig, lost: &[u64]) -> anyhow::Result<argosy_consensus::Outlived> {
    let store = store_of(config);
    ensure!(store.exists(), "{} does not exist: nothing survives here", store.display());
    let mut kv = RocksKv::open(&store, &Options::default())
        .with_context(|| format!("{}: stop the member first", store.display()))?;
    let found = argosy_consensus::survey(&mut kv, &config.cell, config.member)?;
    let mut named = lost.to_vec();
    named.sort_unstable();
    named.dedup();
    if named != found.others {
        let others: Vec<String> = found.others.iter().map(u64::to_string).collect();
        bail!(
            "the other members are {others}: only if all of them are lost for good, name them all with --lost {others}. \
             If one of them can be brought back, bring it back instead",
            others = others.join(",")
        );
    }
    ensure!(!found.others.is_empty(), "member {} is the only one of its cell already", config.member);
    let meta = kv.get(Family::State, &META_KEY)?;
    let incarnation = match meta {
        Some(bytes) => Meta::decode(bytes.as_slice())?.incarnation,
        None => 0,
    };
    // At least 1: a cell that was lost before its first fact has a history all the same.
    let outlived = argosy_consensus::outlive(&mut kv, &config.cell, config.member, incarnation.max(1))?;
    Ok(outlived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_engine::{Draft, Position};
    use argosy_model::LogTime;
    use argosy_store::MemoryKv;

    /// A backup of a cell that was just created.
    fn backup(directory: &Path) -> PathBuf {
        let mut draft = Draft::new(&State::new(), Position { incarnation: 1, index: 2 }, LogTime(5), 1);
        draft.create_cell("production", 1);
        let (_, state, changes) = draft.finish();
        let (mut kv, mut batch) = (MemoryKv::new(), Batch::new());
        for (key, value) in changes.rows(&state) {
            batch.put(Family::State, key, value.unwrap());
        }
        kv.write(batch, Sync::Yes).unwrap();
        let checkpoint = kv.checkpoint(&Family::DATA).unwrap();
        let (sender, mut receiver) = mpsc::channel(100);
        write(checkpoint.as_ref(), &sender).unwrap();
        drop(sender);
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let path = directory.join("argosy.backup");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn config(directory: &Path, cell: &str) -> ServerConfig {
        let text = format!(
            "cell: {cell}\nmember: 2\ndataDir: {}\npkiDir: pki\nmembers:\n  1: {{peer: 'a:1', agent: 'a:2', api: 'a:3'}}\n  \
             2: {{peer: 'b:1', agent: 'b:2', api: 'b:3'}}\n  3: {{peer: 'c:1', agent: 'c:2', api: 'c:3'}}\nlisten: {{api: \
             '127.0.0.1:1', agent: '127.0.0.1:2', peer: '127.0.0.1:3', metrics: '127.0.0.1:4'}}\n",
            directory.display()
        );
        serde_yaml::from_str(&text).unwrap()
    }

    #[test]
    fn a_backup_is_checked_and_restored_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = backup(directory.path());
        let checked = verify(&path).unwrap();
        assert_eq!((checked.header.cell.as_str(), checked.header.sequence), ("production", 1));
        let foreign = restore(&path, &config(directory.path(), "other")).unwrap_err().to_string();
        assert!(foreign.contains("of cell production"), "{foreign}");
        let config = config(directory.path(), "production");
        restore(&path, &config).unwrap();
        let again = restore(&path, &config).unwrap_err().to_string();
        assert!(again.contains("empty data directory"), "{again}");
        let kv = RocksKv::open(&store_of(&config), &Options::default()).unwrap();
        assert_eq!(argosy_consensus::history_floor(&kv).unwrap(), 1);
        let rows = kv.scan(Family::State, b"", None, 100).unwrap();
        assert_eq!(State::load(rows.into_iter()).unwrap().cell(), "production");
    }

    #[test]
    fn a_damaged_backup_is_refused_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = backup(directory.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let config = config(directory.path(), "production");
        assert!(restore(&path, &config).is_err());
        assert!(!store_of(&config).exists());
    }

    #[test]
    fn recovery_wants_every_lost_member_named() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), "production");
        assert!(recover(&config, &[1, 3]).unwrap_err().to_string().contains("nothing survives"));
        std::fs::create_dir_all(store_of(&config)).unwrap();
        let kv = RocksKv::open(&store_of(&config), &Options::default()).unwrap();
        let consensus = argosy_consensus::Config::new(2, "production", vec![1, 2, 3]);
        drop(argosy_consensus::Consensus::open(consensus, kv).unwrap());
        let partial = recover(&config, &[3]).unwrap_err().to_string();
        assert!(partial.contains("--lost 1,3"), "{partial}");
        assert_eq!(recover(&config, &[3, 1]).unwrap().others, [1, 3]);
        assert!(recover(&config, &[1, 3]).is_err(), "it is alone now");
    }
}
