//! Backups: a stream of everything that is replicated, its check, and stores that go on from it.

use crate::config::ServerConfig;
use crate::mailbox::Mailbox;
use anyhow::{Context, bail, ensure};
use argosy_gateway::CommandError;
pub use argosy_member::backup::{Checked, Header};
use argosy_store::{Checkpoint, Options, RocksKv};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Frames that wait for a slow reader.
const FRAMES_WAITING_MAX: usize = 4;

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
    let mut give = |bytes: Vec<u8>| sender.blocking_send(Ok(bytes.into())).is_ok();
    argosy_member::backup::write(checkpoint, &mut give).map_err(std::io::Error::other)
}

fn open(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("backup {}", path.display()))?;
    Ok(BufReader::new(file))
}

/// Reads a whole backup: every byte is as written, and the state in it is the one that the header names.
///
/// # Errors
/// It is not whole, or this version can't read the state.
pub fn verify(path: &Path) -> anyhow::Result<Checked> {
    argosy_member::backup::verify(open(path)?).with_context(|| format!("backup {}", path.display()))
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
    argosy_member::backup::restore(&mut kv, open(path)?, config.member, &checked)
        .with_context(|| format!("backup {}", path.display()))?;
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
    let incarnation = argosy_member::backup::incarnation_of(&kv)?;
    // At least 1: a cell that was lost before its first fact has a history all the same.
    let outlived = argosy_consensus::outlive(&mut kv, &config.cell, config.member, incarnation.max(1))?;
    Ok(outlived)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_engine::{Draft, Position, State};
    use argosy_model::LogTime;
    use argosy_store::{Batch, Family, Kv, MemoryKv, Sync};

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
