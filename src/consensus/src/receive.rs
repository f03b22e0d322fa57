//! Receiving a snapshot: its chunks are staged in the store until they are complete; only then does the Raft library see
//! the message they belong to.

use argosy_store::{Batch, Family, Kv, Sync};
use raft::eraftpb::{Message, MessageType};

use crate::marks::{self, Installing};
use crate::wire::{Ack, AckState, Body, Chunk, decode_rows};
use crate::{Consensus, Error, MemberId, Output, Refused, guard};
use prost::Message as _;
use prost_for_raft::Message as _;

/// Chunks taken between two calls of [`Consensus::process`].
const STAGED_BYTES_MAX: usize = 32 << 20;

/// A snapshot that is coming in.
pub(crate) struct Receiving {
    from: MemberId,
    id: u64,
    message: Message,
    /// The chunk that is expected.
    next: u64,
    hasher: blake3::Hasher,
    bytes: u64,
    /// Rows to be staged by the next [`Consensus::process`].
    staged: Batch,
    /// All chunks have come.
    complete: bool,
}

impl Receiving {
    /// The mark of installing this snapshot.
    pub(crate) fn mark(&self) -> Option<Installing> {
        let metadata = self.message.snapshot.as_ref()?.metadata.as_ref()?;
        Some(Installing {
            index: metadata.index,
            term: metadata.term,
            conf: metadata.conf_state.as_ref()?.encode_to_vec(),
            chunks: self.next,
            total: self.hasher.finalize().as_bytes().to_vec(),
        })
    }
}

impl<K: Kv> Consensus<K> {
    pub(crate) fn receive_chunk(&mut self, from: MemberId, chunk: Chunk) -> Result<(), Refused> {
        if chunk.digest != chunk.digest() {
            return Err(Refused::Checksum);
        }
        if self.received == Some((from, chunk.snapshot)) {
            self.acknowledge(from, chunk.snapshot, 0, AckState::Done);
            return Ok(());
        }
        let current = self.receiving.as_ref().is_some_and(|now| (now.from, now.id) == (from, chunk.snapshot));
        if let Some(now) = &self.receiving
            && (now.complete || now.staged.bytes() > STAGED_BYTES_MAX)
        {
            // Only until the next `process`; the sender repeats it.
            return Err(Refused::Busy);
        }
        if !current {
            if chunk.sequence != 0 {
                self.acknowledge(from, chunk.snapshot, 0, AckState::Receiving);
                return Err(Refused::Stale);
            }
            return self.begin_receiving(from, &chunk);
        }
        self.take_chunk(from, chunk)
    }

    fn begin_receiving(&mut self, from: MemberId, chunk: &Chunk) -> Result<(), Refused> {
        let (message, kind) = guard::decode(&chunk.raft, from, self.config.member)?;
        if kind != MessageType::MsgSnapshot || chunk.last || !chunk.rows.is_empty() {
            return Err(Refused::Kind);
        }
        // A deposed leader must not push aside what its successor sends.
        if message.term < self.raw.raft.term {
            self.acknowledge(from, chunk.snapshot, 0, AckState::Refused);
            return Err(Refused::Stale);
        }
        let index = message.get_snapshot().get_metadata().index;
        if index <= self.raw.raft.raft_log.committed && !self.installing {
            self.step(message, kind)?;
            self.received = Some((from, chunk.snapshot));
            self.acknowledge(from, chunk.snapshot, 0, AckState::Done);
            return Ok(());
        }
        let mut staged = Batch::new();
        marks::clear_staged(&mut staged);
        staged.put(Family::RaftMeta, marks::staged(0), chunk.encode_to_vec());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&chunk.digest);
        tracing::info!(from, index, "receiving a snapshot");
        self.receiving = Some(Receiving {
            from,
            id: chunk.snapshot,
            message,
            next: 1,
            hasher,
            bytes: 0,
            staged,
            complete: false,
        });
        self.acknowledge(from, chunk.snapshot, 1, AckState::Receiving);
        Ok(())
    }

    fn take_chunk(&mut self, from: MemberId, chunk: Chunk) -> Result<(), Refused> {
        let Some(now) = &mut self.receiving else { return Err(Refused::Stale) };
        if chunk.sequence != now.next {
            let next = now.next;
            self.acknowledge(from, chunk.snapshot, next, AckState::Receiving);
            return Ok(());
        }
        if decode_rows(&chunk.rows).is_none() || !chunk.raft.is_empty() {
            return Err(Refused::Malformed);
        }
        now.bytes += chunk.rows.len() as u64;
        if now.bytes > self.config.limits.snapshot_bytes_max {
            self.receiving = None;
            self.acknowledge(from, chunk.snapshot, 0, AckState::Refused);
            return Err(Refused::TooLarge);
        }
        let mut hasher = now.hasher.clone();
        hasher.update(&chunk.digest);
        if chunk.last && hasher.finalize().as_bytes().as_slice() != chunk.total {
            self.receiving = None;
            self.acknowledge(from, chunk.snapshot, 0, AckState::Refused);
            return Err(Refused::Checksum);
        }
        now.hasher = hasher;
        now.next += 1;
        now.complete = chunk.last;
        now.staged.put(Family::RaftMeta, marks::staged(chunk.sequence), chunk.encode_to_vec());
        if now.complete {
            let message = now.message.clone();
            // Stale when the term went on meanwhile: then it ends as not needed.
            let _ = self.step(message, MessageType::MsgSnapshot);
        } else {
            let next = now.next;
            self.acknowledge(from, chunk.snapshot, next, AckState::Receiving);
        }
        Ok(())
    }

    fn acknowledge(&mut self, to: MemberId, snapshot: u64, next: u64, state: AckState) {
        self.outbox.push((to, Body::Ack(Ack { snapshot, next, state: state as i32 })));
    }

    /// Writes the chunks that came in. They need no sync: nothing but a repetition depends on them until the snapshot
    /// is complete.
    pub(crate) fn stage_received(&mut self) -> Result<(), Error> {
        let staged = match &mut self.receiving {
            Some(receiving) => std::mem::take(&mut receiving.staged),
            None => return Ok(()),
        };
        if !staged.is_empty() {
            self.log().write(staged, Sync::No)?;
        }
        Ok(())
    }

    /// Ends a complete snapshot after the Raft library took it, or did not want it.
    pub(crate) fn finish_received(&mut self, sink: &mut dyn FnMut(Output)) -> Result<(), Error> {
        let Some(done) = self.receiving.take_if(|receiving| receiving.complete) else { return Ok(()) };
        let mut batch = Batch::new();
        marks::clear_staged(&mut batch);
        self.log().write(batch, Sync::No)?;
        self.received = Some((done.from, done.id));
        let ack = Ack { snapshot: done.id, next: done.next, state: AckState::Done as i32 };
        self.send(done.from, Body::Ack(ack), sink);
        Ok(())
    }
}
