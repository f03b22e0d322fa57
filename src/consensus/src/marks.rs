//! Rows of `raft_meta`: everything a member must know of itself after a restart.

use argosy_store::{Batch, Family, Kv};
use prost::Message;
use prost_for_raft::Message as RaftMessage;
use raft::eraftpb::{ConfState, HardState};

use crate::Error;

const HARD: &[u8] = b"hard";
const CONF: &[u8] = b"conf";
const APPLIED: &[u8] = b"applied";
const COMPACTED: &[u8] = b"compacted";
const BOOTS: &[u8] = b"boots";
const HISTORY: &[u8] = b"history";
const INSTALLING: &[u8] = b"installing";
const STAGED: &[u8] = b"staged/";
/// Behind every key that begins with [`STAGED`].
const STAGED_END: &[u8] = b"staged0";

/// A place in the log.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Point {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// A snapshot that is complete among the staged chunks and is being installed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Installing {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Encoded configuration at that index.
    #[prost(bytes = "vec", tag = "3")]
    pub conf: Vec<u8>,
    /// Number of staged chunks, the first included.
    #[prost(uint64, tag = "4")]
    pub chunks: u64,
    /// Hash of the digests of all chunks.
    #[prost(bytes = "vec", tag = "5")]
    pub total: Vec<u8>,
}

/// The marks as they are in the store.
pub(crate) struct Marks {
    pub hard: HardState,
    pub conf: ConfState,
    pub applied: Point,
    pub compacted: Point,
    pub installing: Option<Installing>,
}

/// Reads the marks; `None` when the store has never been used.
pub(crate) fn load<K: Kv>(kv: &K) -> Result<Option<Marks>, Error> {
    let Some(hard) = kv.get(Family::RaftMeta, HARD)? else { return Ok(None) };
    let installing = match kv.get(Family::RaftMeta, INSTALLING)? {
        Some(bytes) => Some(Installing::decode(bytes.as_slice()).map_err(|_| damaged("installing"))?),
        None => None,
    };
    Ok(Some(Marks {
        hard: HardState::decode(hard.as_slice()).map_err(|_| damaged("hard"))?,
        conf: ConfState::decode(required(kv, CONF, "conf")?.as_slice()).map_err(|_| damaged("conf"))?,
        applied: Point::decode(required(kv, APPLIED, "applied")?.as_slice())
            .map_err(|_| damaged("applied"))?,
        compacted: Point::decode(required(kv, COMPACTED, "compacted")?.as_slice())
            .map_err(|_| damaged("compacted"))?,
        installing,
    }))
}

fn required<K: Kv>(kv: &K, key: &[u8], name: &str) -> Result<Vec<u8>, Error> {
    kv.get(Family::RaftMeta, key)?.ok_or_else(|| damaged(name))
}

fn damaged(name: &str) -> Error {
    Error::Damaged { message: format!("its mark {name:?} is missing or cannot be read") }
}

pub(crate) fn put_hard(batch: &mut Batch, hard: &HardState) {
    batch.put(Family::RaftMeta, HARD, hard.encode_to_vec());
}

pub(crate) fn put_conf(batch: &mut Batch, conf: &ConfState) {
    batch.put(Family::RaftMeta, CONF, conf.encode_to_vec());
}

pub(crate) fn put_applied(batch: &mut Batch, applied: Point) {
    batch.put(Family::RaftMeta, APPLIED, applied.encode_to_vec());
}

pub(crate) fn put_compacted(batch: &mut Batch, compacted: Point) {
    batch.put(Family::RaftMeta, COMPACTED, compacted.encode_to_vec());
}

pub(crate) fn put_installing(batch: &mut Batch, installing: &Installing) {
    batch.put(Family::RaftMeta, INSTALLING, installing.encode_to_vec());
}

pub(crate) fn delete_installing(batch: &mut Batch) {
    batch.delete(Family::RaftMeta, INSTALLING);
}

/// The applied index and the configuration of a checkpoint that holds `raft_meta`.
pub(crate) fn of_checkpoint(checkpoint: &dyn argosy_store::Checkpoint) -> Result<(Point, ConfState), Error> {
    let applied = checkpoint.get(Family::RaftMeta, APPLIED)?.ok_or_else(|| damaged("applied"))?;
    let conf = checkpoint.get(Family::RaftMeta, CONF)?.ok_or_else(|| damaged("conf"))?;
    Ok((
        Point::decode(applied.as_slice()).map_err(|_| damaged("applied"))?,
        ConfState::decode(conf.as_slice()).map_err(|_| damaged("conf"))?,
    ))
}

/// How often the store has been opened, this time included; counted in the store.
pub(crate) fn count_boot<K: Kv>(kv: &K, batch: &mut Batch) -> Result<u64, Error> {
    let boots = match kv.get(Family::RaftMeta, BOOTS)? {
        Some(bytes) => u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| damaged("boots"))?),
        None => 0,
    };
    let boots = boots.wrapping_add(1);
    batch.put(Family::RaftMeta, BOOTS, boots.to_be_bytes());
    Ok(boots)
}

/// The incarnation that the cell's must exceed; 0 if there is none.
pub(crate) fn history_floor<K: Kv + ?Sized>(kv: &K) -> Result<u64, Error> {
    match kv.get(Family::RaftMeta, HISTORY)? {
        Some(bytes) => Ok(u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| damaged("history"))?)),
        None => Ok(0),
    }
}

pub(crate) fn put_history_floor(batch: &mut Batch, floor: u64) {
    batch.put(Family::RaftMeta, HISTORY, floor.to_be_bytes());
}

/// Key of a staged chunk.
pub(crate) fn staged(sequence: u64) -> Vec<u8> {
    [STAGED, &sequence.to_be_bytes()].concat()
}

pub(crate) fn clear_staged(batch: &mut Batch) {
    batch.delete_range(Family::RaftMeta, STAGED, STAGED_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_marks_stay() {
        assert_eq!(Point { index: 300, term: 2 }.encode_to_vec(), [8, 0xac, 2, 0x10, 2]);
        let installing = Installing { index: 1, term: 2, conf: vec![3], chunks: 4, total: vec![5] };
        assert_eq!(installing.encode_to_vec(), [8, 1, 0x10, 2, 0x1a, 1, 3, 0x20, 4, 0x2a, 1, 5]);
        let hard = HardState { term: 1, vote: 2, commit: 3 };
        assert_eq!(hard.encode_to_vec(), [8, 1, 0x10, 2, 0x18, 3]);
        let conf = ConfState { voters: vec![1, 2], ..ConfState::default() };
        assert_eq!(conf.encode_to_vec(), [10, 2, 1, 2]);
        assert_eq!(staged(1), b"staged/\0\0\0\0\0\0\0\x01");
        assert!(staged(u64::MAX).as_slice() < STAGED_END);
    }
}
