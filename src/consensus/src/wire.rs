//! What members send to each other. Messages of the Raft library travel as bytes inside our own envelope.

use argosy_store::{Family, Row};
use prost::Message;

use crate::{MemberId, Refused};

/// Version of the envelope.
pub(crate) const VERSION: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Envelope {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(fixed64, tag = "2")]
    pub cell: u64,
    #[prost(uint64, tag = "3")]
    pub from: MemberId,
    #[prost(uint64, tag = "4")]
    pub to: MemberId,
    #[prost(oneof = "Body", tags = "5, 6, 7")]
    pub body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Body {
    #[prost(bytes = "vec", tag = "5")]
    Raft(Vec<u8>),
    #[prost(message, tag = "6")]
    Chunk(Chunk),
    #[prost(message, tag = "7")]
    Ack(Ack),
}

/// A piece of a snapshot. The first has the Raft message and no rows.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Chunk {
    /// Which snapshot of the sender.
    #[prost(fixed64, tag = "1")]
    pub snapshot: u64,
    /// 0 for the first.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub raft: Vec<u8>,
    /// [`Rows`].
    #[prost(bytes = "vec", tag = "4")]
    pub rows: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub last: bool,
    /// [`Chunk::digest`].
    #[prost(bytes = "vec", tag = "6")]
    pub digest: Vec<u8>,
    /// In the last one: hash of all digests, this one's too.
    #[prost(bytes = "vec", tag = "7")]
    pub total: Vec<u8>,
}

impl Chunk {
    /// Hash of what the chunk says, without `total`.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.snapshot.to_be_bytes());
        hasher.update(&self.sequence.to_be_bytes());
        hasher.update(&[u8::from(self.last)]);
        hasher.update(&(self.raft.len() as u64).to_be_bytes());
        hasher.update(&self.raft);
        hasher.update(&self.rows);
        *hasher.finalize().as_bytes()
    }
}

/// How far the receiver of a snapshot is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ack {
    #[prost(fixed64, tag = "1")]
    pub snapshot: u64,
    /// The chunk that is expected next; 0 when nothing of the snapshot is held.
    #[prost(uint64, tag = "2")]
    pub next: u64,
    #[prost(enumeration = "AckState", tag = "3")]
    pub state: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum AckState {
    Receiving = 0,
    /// Installed, or not needed.
    Done = 1,
    /// It will not be taken.
    Refused = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Rows {
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<WireRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WireRow {
    /// [`Family::number`].
    #[prost(uint32, tag = "1")]
    pub family: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub value: Vec<u8>,
}

pub(crate) fn encode_rows(rows: Vec<Row>) -> Vec<u8> {
    let rows = rows
        .into_iter()
        .map(|row| WireRow { family: row.family.number(), key: row.key, value: row.value })
        .collect();
    Rows { rows }.encode_to_vec()
}

/// The rows of a chunk, if all are of families that travel in snapshots and have keys that the store takes.
pub(crate) fn decode_rows(bytes: &[u8]) -> Option<Vec<Row>> {
    let rows = Rows::decode(bytes).ok()?;
    let row = |row: WireRow| {
        let family = Family::from_number(row.family).filter(|family| Family::DATA.contains(family))?;
        let fits = (1..=argosy_store::KEY_BYTES_MAX).contains(&row.key.len()) && row.key[0] != 0xff;
        fits.then_some(Row { family, key: row.key, value: row.value })
    };
    rows.rows.into_iter().map(row).collect()
}

/// A short name of the cell for envelopes.
pub(crate) fn fingerprint(cell: &str) -> u64 {
    let hash = blake3::hash(cell.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

pub(crate) fn encode(cell: u64, from: MemberId, to: MemberId, body: Body) -> Vec<u8> {
    Envelope { version: VERSION, cell, from, to, body: Some(body) }.encode_to_vec()
}

/// Opens an envelope that the authenticated peer `from` sent to `to`.
pub(crate) fn open(bytes: &[u8], cell: u64, from: MemberId, to: MemberId) -> Result<Body, Refused> {
    let envelope = Envelope::decode(bytes).map_err(|_| Refused::Malformed)?;
    if envelope.version != VERSION {
        return Err(Refused::Version);
    }
    if envelope.cell != cell {
        return Err(Refused::Cell);
    }
    if envelope.from != from {
        return Err(Refused::Sender);
    }
    if envelope.to != to {
        return Err(Refused::Recipient);
    }
    envelope.body.ok_or(Refused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_messages_stay() {
        let bytes = encode(0x0102_0304_0506_0708, 1, 2, Body::Raft(vec![9]));
        assert_eq!(bytes, [8, 1, 0x11, 8, 7, 6, 5, 4, 3, 2, 1, 0x18, 1, 0x20, 2, 0x2a, 1, 9]);
        let ack = Ack { snapshot: 1, next: 2, state: AckState::Done as i32 };
        assert_eq!(ack.encode_to_vec(), [9, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 2, 0x18, 1]);
        let mut chunk = Chunk {
            snapshot: 1,
            sequence: 2,
            raft: vec![3],
            rows: encode_rows(vec![Row { family: Family::State, key: vec![4], value: vec![5] }]),
            last: true,
            digest: Vec::new(),
            total: vec![7],
        };
        let golden = [
            9, 1, 0, 0, 0, 0, 0, 0, 0, 0x10, 2, 0x1a, 1, 3, 0x22, 10, 10, 8, 8, 3, 0x12, 1, 4, 0x1a, 1, 5,
            0x28, 1, 0x3a, 1, 7,
        ];
        assert_eq!(chunk.encode_to_vec(), golden);
        let digest = chunk.digest();
        assert_eq!(blake3::Hash::from(digest).to_hex()[..16], *"3ebebdba421baa6e");
        chunk.last = false;
        assert_ne!(chunk.digest(), digest);
        assert_eq!(fingerprint("cell"), 12_379_713_585_224_397_856);
    }

    #[test]
    fn rows_of_other_families_are_refused() {
        for (family, key, fits) in [
            (3, vec![1], true),
            (1, vec![1], false),
            (2, vec![1], false),
            (99, vec![1], false),
            (3, vec![], false),
            (3, vec![255], false),
        ] {
            let rows = Rows { rows: vec![WireRow { family, key, value: Vec::new() }] };
            assert_eq!(decode_rows(&rows.encode_to_vec()).is_some(), fits);
        }
        assert!(decode_rows(&[0xff]).is_none());
    }
}
