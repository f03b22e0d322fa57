//! A member's own record of certificates that have ended, beside the authority's key: a backup that is restored is older than
//! the revocations made since, and the key that it needs lies beside this file.
//!
//! The record counts at every handshake, whatever state says. What state does not know of it, state is told.

use crate::cell::carry_out;
use crate::core::Published;
use crate::mailbox::Mailbox;
use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use argosy_engine::State;
use argosy_pki::Revocations;
use argosy_proto::command::{Command, ImportRevocations, Revocation, command};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const FILE: &str = "revocations.json";
const VERSION: u32 = 1;
/// Between two looks at state, and two tries to tell it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The file.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    version: u32,
    clusters: BTreeMap<String, KeptCluster>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeptCluster {
    /// Certificates of smaller numbers have ended.
    revoked_below: u64,
    /// Nobody was enrolled since.
    ended: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    /// SHA-256 of public keys, in hexadecimal.
    refused_keys: Vec<String>,
}

/// What one member knows to have ended.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    clusters: ArcSwap<BTreeMap<String, KeptCluster>>,
}

fn kept(revocation: &Revocation) -> KeptCluster {
    let Revocation { cluster: _, revoked_below, ended, reason, refused_keys } = revocation;
    let refused_keys = refused_keys.iter().map(|key| hex(key)).collect();
    KeptCluster { revoked_below: *revoked_below, ended: *ended, reason: reason.clone(), refused_keys }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl Record {
    /// Reads the record of the directory in which the authority's key is.
    ///
    /// # Errors
    /// It can't be read, or is damaged: to go on without it would let in who was turned away.
    pub fn open(directory: &Path) -> anyhow::Result<Arc<Self>> {
        let path = directory.join(FILE);
        let clusters = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).with_context(|| {
                format!(
                    "{} is damaged: take another member's copy, or move it away if no agent was revoked since the newest backup",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Arc::new(Self { path, clusters: ArcSwap::from_pointee(clusters) }))
    }

    fn is_revoked(&self, cluster: &str, generation: u64) -> bool {
        generation != 0
            && self.clusters.load().get(cluster).is_some_and(|kept| generation < kept.revoked_below)
    }

    /// What state has to be told: it was restored from before this was decided.
    fn unknown_to(&self, state: &State) -> Vec<Revocation> {
        let known: BTreeMap<String, u64> =
            state.revocations().into_iter().map(|one| (one.cluster, one.revoked_below)).collect();
        let clusters = self.clusters.load();
        let is_behind = |cluster: &str, kept: &KeptCluster| {
            known.get(cluster).copied().unwrap_or_default() < kept.revoked_below
        };
        clusters
            .iter()
            .filter(|(cluster, kept)| is_behind(cluster, kept))
            .map(|(cluster, kept)| Revocation {
                cluster: cluster.clone(),
                revoked_below: kept.revoked_below,
                ended: kept.ended,
                reason: kept.reason.clone(),
                refused_keys: kept.refused_keys.iter().filter_map(|key| unhex(key)).collect(),
            })
            .collect()
    }

    /// Takes over what state says, unless it says less.
    fn take(&self, state: &State) -> std::io::Result<()> {
        let mut clusters = self.clusters.load().as_ref().clone();
        for revocation in state.revocations() {
            let kept = kept(&revocation);
            if clusters.get(&revocation.cluster).is_none_or(|own| own.revoked_below <= kept.revoked_below) {
                clusters.insert(revocation.cluster, kept);
            }
        }
        if clusters == **self.clusters.load() {
            return Ok(());
        }
        self.write(&clusters)?;
        self.clusters.store(Arc::new(clusters));
        Ok(())
    }

    fn write(&self, clusters: &BTreeMap<String, KeptCluster>) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(&Kept { version: VERSION, clusters: clusters.clone() })?;
        // Members on one host may share the directory.
        let temporary = self.path.with_extension(format!("new-{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)
    }

    /// Keeps the record and state in step until `stop`.
    pub async fn keep(
        self: Arc<Self>,
        mailbox: Mailbox,
        published: watch::Receiver<Published>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let state = published.borrow().state.clone();
            // Nothing is committed yet, or nothing has been read.
            if state.cell().is_empty() {
                continue;
            }
            let revocations = self.unknown_to(&state);
            if !revocations.is_empty() {
                let clusters: Vec<&str> = revocations.iter().map(|one| one.cluster.as_str()).collect();
                tracing::warn!(
                    clusters = clusters.join(", "),
                    "the cell does not know of revocations that this member has on record: it is told of them"
                );
                let body = command::Body::ImportRevocations(ImportRevocations { revocations });
                let command = Command { version: 1, idempotency_key: None, body: Some(body) };
                if let Err(error) = carry_out(&mailbox, command).await {
                    tracing::warn!(%error, "the cell was not told of revocations yet, trying again");
                }
            }
            if let Err(error) = self.take(&state) {
                tracing::error!(%error, path = %self.path.display(), "the record of revocations can't be written");
            }
        }
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, KeptCluster>> {
    let kept: Kept = serde_json::from_slice(bytes)?;
    ensure!(kept.version == VERSION, "it has version {}, and this program knows {VERSION}", kept.version);
    let keys = kept.clusters.values().flat_map(|cluster| &cluster.refused_keys);
    for key in keys {
        ensure!(unhex(key).is_some_and(|bytes| bytes.len() == 32), "{key:?} is no SHA-256 in hexadecimal");
    }
    Ok(kept.clusters)
}

/// What committed state and the member's own record say of agents' certificates, for the handshakes of this member.
pub struct Revoked {
    /// Committed state.
    pub published: watch::Receiver<Published>,
    /// The record.
    pub record: Arc<Record>,
}

impl fmt::Debug for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Revoked")
    }
}

impl Revocations for Revoked {
    fn is_revoked(&self, cluster: &str, generation: u64) -> bool {
        self.record.is_revoked(cluster, generation)
            || self.published.borrow().state.identity_refusal(cluster, generation).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: the file outlives the program that wrote it.
    const GOLDEN: &str = r#"{
  "version": 1,
  "clusters": {
    "eu": {
      "revokedBelow": 5,
      "ended": true,
      "reason": "sold",
      "refusedKeys": [
        "abababababababababababababababababababababababababababababababab"
      ]
    }
  }
}"#;

    fn record(text: &str) -> anyhow::Result<(tempfile::TempDir, Arc<Record>)> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join(FILE), text)?;
        let record = Record::open(directory.path())?;
        Ok((directory, record))
    }

    #[test]
    fn the_record_reads_back_and_counts_at_handshakes() -> anyhow::Result<()> {
        let (directory, record) = record(GOLDEN)?;
        assert!(record.is_revoked("eu", 4));
        assert!(!record.is_revoked("eu", 5) && !record.is_revoked("eu", 0) && !record.is_revoked("us", 1));
        record.write(&record.clusters.load())?;
        assert_eq!(std::fs::read_to_string(directory.path().join(FILE))?, GOLDEN);
        let told = record.unknown_to(&State::new());
        assert_eq!((told[0].cluster.as_str(), told[0].refused_keys[0].as_slice()), ("eu", &[0xab; 32][..]));
        Ok(())
    }

    #[test]
    fn a_damaged_record_is_no_empty_one() {
        for text in ["", "{", r#"{"version": 2, "clusters": {}}"#, &GOLDEN.replace("abab", "xyab")] {
            let error = record(text).err().map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(error.contains("revocations.json is damaged"), "{text}: {error}");
        }
    }
}
