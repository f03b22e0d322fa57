//! Sending a snapshot: the message of the Raft library is held back, a checkpoint is cut, and its rows follow the message
//! in chunks, a window of them ahead of the acknowledgements.

use std::collections::VecDeque;

use argosy_store::{Checkpoint, Cursor, Family, Kv, Row};
use prost_for_raft::Message as RaftMessage;
use raft::SnapshotStatus;
use raft::eraftpb::Message;

use crate::wire::{Ack, AckState, Body, Chunk, encode_rows};
use crate::{Consensus, Error, MemberId, Refused, marks};

/// A snapshot on its way to a member.
pub(crate) struct Sending {
    id: u64,
    /// Index of the state that is sent. The log behind it is kept until it has arrived.
    pub(crate) index: u64,
    message: Vec<u8>,
    checkpoint: Box<dyn Checkpoint>,
    /// Where the next chunk begins, and its number.
    cursor: Cursor,
    next: u64,
    hasher: blake3::Hasher,
    finished: bool,
    /// Chunks that are not acknowledged, oldest first.
    window: VecDeque<Chunk>,
    /// The chunk that the receiver expects.
    acknowledged: u64,
    /// Chunks of the window that have been sent.
    sent: usize,
    ticks_silent: u64,
    ticks_stuck: u64,
}

impl Sending {
    fn restart(&mut self) {
        self.cursor = Cursor::default();
        self.next = 0;
        self.hasher = blake3::Hasher::new();
        self.finished = false;
        self.window.clear();
        self.acknowledged = 0;
        self.sent = 0;
    }

    /// The next rows, without those of the member itself.
    fn data_rows(&mut self, chunk_bytes: usize) -> Result<Vec<Row>, Error> {
        loop {
            let mut rows = self.checkpoint.rows(&mut self.cursor, chunk_bytes)?;
            let at_end = rows.is_empty();
            rows.retain(|row| Family::DATA.contains(&row.family));
            if at_end || !rows.is_empty() {
                return Ok(rows);
            }
        }
    }

    /// Makes the next chunk; the same one again after a restart, since the checkpoint does not change.
    fn make(&mut self, chunk_bytes: usize) -> Result<Chunk, Error> {
        let mut chunk = Chunk { snapshot: self.id, sequence: self.next, ..Chunk::default() };
        if self.next == 0 {
            chunk.raft = self.message.clone();
        } else {
            // Never empty but at the end: the receiver learns of the end by an empty last chunk.
            let rows = self.data_rows(chunk_bytes)?;
            chunk.last = rows.is_empty();
            chunk.rows = encode_rows(rows);
        }
        let digest = chunk.digest();
        self.hasher.update(&digest);
        chunk.digest = digest.to_vec();
        if chunk.last {
            chunk.total = self.hasher.finalize().as_bytes().to_vec();
        }
        self.finished = chunk.last;
        self.next += 1;
        Ok(chunk)
    }
}

impl<K: Kv> Consensus<K> {
    /// Takes a snapshot message that the library wants to send.
    pub(crate) fn begin_sending(&mut self, mut message: Message) -> Result<(), Error> {
        let to = message.to;
        if !self.sending.contains_key(&to) && self.sending.len() >= self.config.limits.snapshots_sending_max {
            self.raw.report_snapshot(to, SnapshotStatus::Failure);
            return Ok(());
        }
        let mut families = Family::DATA.to_vec();
        // The marks tell the index and configuration of exactly these rows; they are read here, not sent.
        families.push(Family::RaftMeta);
        let checkpoint = self.raw.store().kv().checkpoint(&families)?;
        let (applied, conf) = marks::of_checkpoint(checkpoint.as_ref())?;
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = applied.index;
        metadata.term = applied.term;
        metadata.conf_state = Some(conf);
        self.snapshot_count += 1;
        self.counters.snapshots_begun += 1;
        let sending = Sending {
            id: (self.boots << 24) | (self.snapshot_count & 0xff_ffff),
            index: applied.index,
            message: message.encode_to_vec(),
            checkpoint,
            cursor: Cursor::default(),
            next: 0,
            hasher: blake3::Hasher::new(),
            finished: false,
            window: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            ticks_silent: 0,
            ticks_stuck: 0,
        };
        tracing::info!(to, index = applied.index, "sending a snapshot");
        self.sending.insert(to, sending);
        Ok(())
    }

    pub(crate) fn receive_ack(&mut self, from: MemberId, ack: &Ack) -> Result<(), Refused> {
        let state = AckState::try_from(ack.state).map_err(|_| Refused::Malformed)?;
        let Some(sending) = self.sending.get_mut(&from).filter(|sending| sending.id == ack.snapshot) else {
            return Err(Refused::Stale);
        };
        match state {
            AckState::Done => self.end_sending(from, SnapshotStatus::Finish),
            AckState::Refused => self.end_sending(from, SnapshotStatus::Failure),
            AckState::Receiving if ack.next == 0 => {
                // It lost what it had. The first chunk may still be on its way: then nothing is lost by it.
                if sending.acknowledged > 0 {
                    sending.restart();
                }
            }
            AckState::Receiving if ack.next > sending.acknowledged => {
                sending.acknowledged = ack.next;
                sending.ticks_silent = 0;
                sending.ticks_stuck = 0;
            }
            AckState::Receiving => {}
        }
        Ok(())
    }

    fn end_sending(&mut self, to: MemberId, status: SnapshotStatus) {
        if self.sending.remove(&to).is_some() {
            if status == SnapshotStatus::Failure {
                self.counters.snapshots_failed += 1;
            }
            self.raw.report_snapshot(to, status);
        }
    }

    /// Counts the time since the receivers were heard of.
    pub(crate) fn tick_snapshots(&mut self) {
        let limits = &self.config.limits;
        let mut given_up = Vec::new();
        for (to, sending) in &mut self.sending {
            sending.ticks_silent += 1;
            sending.ticks_stuck += 1;
            if sending.ticks_stuck >= limits.snapshot_timeout_ticks {
                given_up.push(*to);
            } else if sending.ticks_silent >= limits.snapshot_resend_ticks {
                sending.ticks_silent = 0;
                sending.sent = 0;
            }
        }
        for to in given_up {
            tracing::warn!(to, "gave up sending a snapshot: no acknowledgement");
            self.end_sending(to, SnapshotStatus::Failure);
        }
    }

    /// Sends what the windows allow.
    pub(crate) fn pump_snapshots(&mut self) -> Result<(), Error> {
        let limits = self.config.limits.clone();
        let mut chunks = Vec::new();
        for (to, sending) in &mut self.sending {
            while sending.window.front().is_some_and(|chunk| chunk.sequence < sending.acknowledged) {
                sending.window.pop_front();
                sending.sent = sending.sent.saturating_sub(1);
            }
            while !sending.finished && sending.window.len() < limits.snapshot_window_chunks.max(1) {
                let chunk = sending.make(limits.snapshot_chunk_bytes)?;
                // After a restart the receiver may turn out to hold it.
                if chunk.sequence >= sending.acknowledged {
                    sending.window.push_back(chunk);
                }
            }
            for chunk in sending.window.iter().skip(sending.sent) {
                chunks.push((*to, Body::Chunk(chunk.clone())));
            }
            sending.sent = sending.window.len();
        }
        self.counters.snapshot_chunks_sent += chunks.len() as u64;
        self.outbox.extend(chunks);
        let busy = self.sending.len() >= limits.snapshots_sending_max;
        self.raw.store().snapshots_busy.set(busy);
        Ok(())
    }
}
