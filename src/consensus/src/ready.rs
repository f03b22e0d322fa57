//! The order in which a change of the Raft library's state becomes durable, visible and applied. Broken orders are
//! found by `tests/cluster.rs`, whose members lose what was not synced.

use argosy_store::{Batch, Kv, Sync};
use prost_for_raft::Message as RaftMessage;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, HardState, Message, MessageType};
use raft::{Ready, StateRole};

use crate::driver::library_error;
use crate::marks::Point;
use crate::wire::{self, Body};
use crate::{Applied, Consensus, Error, Output, RoleChange, StateMachine};

impl<K: Kv> Consensus<K> {
    /// Does what the inputs since the last call ask for: persists, applies, and returns what is to be sent and told.
    /// After an error the member stops.
    pub fn process<M: StateMachine>(&mut self, machine: &mut M) -> Result<Vec<Output>, Error> {
        let mut outputs = Vec::new();
        self.process_into(machine, &mut |output| outputs.push(output))?;
        Ok(outputs)
    }

    /// Like [`Consensus::process`], with each output handed over as soon as it is safe: a leader's messages go out
    /// before its own disk has synced.
    pub fn process_into<M: StateMachine>(
        &mut self,
        machine: &mut M,
        sink: &mut dyn FnMut(Output),
    ) -> Result<(), Error> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        let done = self.process_all(machine, sink);
        self.stopped = done.is_err();
        done
    }

    fn process_all<M: StateMachine>(
        &mut self,
        machine: &mut M,
        sink: &mut dyn FnMut(Output),
    ) -> Result<(), Error> {
        self.stage_received()?;
        self.settle(sink);
        while self.raw.has_ready() {
            self.process_ready(machine, sink)?;
            self.steady_timeout();
            self.settle(sink);
        }
        self.finish_received(sink)?;
        self.pump_snapshots()?;
        for (to, body) in std::mem::take(&mut self.outbox) {
            self.send(to, body, sink);
        }
        self.answer_reads(sink);
        let (entries, bytes) = (self.config.limits.log_entries_kept, self.config.limits.log_bytes_kept);
        let needed = self.sending.values().map(|sending| sending.index).min();
        if self.log().compact(entries, bytes, needed)? {
            self.counters.compactions += 1;
        }
        self.counters.syncs = self.raw.store().syncs;
        Ok(())
    }

    fn process_ready<M: StateMachine>(
        &mut self,
        machine: &mut M,
        sink: &mut dyn FnMut(Output),
    ) -> Result<(), Error> {
        let mut ready = self.raw.ready();
        // A leader's messages promise nothing of its own disk: they go out while it syncs.
        self.emit(ready.take_messages(), sink)?;
        for read in ready.take_read_states() {
            self.read_confirmed(read.index, &read.request_ctx);
        }
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot(), ready.hs(), machine, sink)?;
        }
        let unsynced = self.persist(&mut ready)?;
        // Votes and acknowledgements: only now is what they promise on the disk.
        self.emit(ready.take_persisted_messages(), sink)?;
        let committed = ready.take_committed_entries();
        self.apply(committed, unsynced, machine)?;

        let mut light = self.raw.advance(ready);
        let mut batch = Batch::new();
        if let Some(commit) = light.commit_index() {
            let hard = HardState { commit, ..self.raw.store().hard().clone() };
            self.log().set_hard(&mut batch, hard);
        }
        self.emit(light.take_messages(), sink)?;
        self.apply(light.take_committed_entries(), batch, machine)?;
        self.raw.advance_apply();
        Ok(())
    }

    /// Writes new entries and votes with one sync. What needs no sync is returned, to be written with the next rows.
    fn persist(&mut self, ready: &mut Ready) -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let sync = ready.must_sync();
        if let Some(hard) = ready.hs() {
            let hard = hard.clone();
            self.log().set_hard(&mut batch, hard);
        }
        let entries = ready.take_entries();
        self.log().append(&mut batch, entries);
        if !sync || batch.is_empty() {
            return Ok(batch);
        }
        self.log().write(batch, Sync::Yes)?;
        Ok(Batch::new())
    }

    /// Applies committed entries; their rows, the applied index and a changed configuration go in one batch.
    fn apply<M: StateMachine>(
        &mut self,
        entries: Vec<Entry>,
        mut batch: Batch,
        machine: &mut M,
    ) -> Result<(), Error> {
        // The rows of a half-installed snapshot take no entries: the snapshot asked for will hold their effect.
        if !self.installing {
            for entry in &entries {
                self.apply_one(entry, &mut batch, machine)?;
            }
            if let Some(last) = entries.last() {
                let applied = Point { index: last.index, term: last.term };
                self.log().set_applied(&mut batch, applied);
            }
        }
        if !batch.is_empty() {
            self.log().write(batch, Sync::No)?;
        }
        Ok(())
    }

    fn apply_one<M: StateMachine>(
        &mut self,
        entry: &Entry,
        batch: &mut Batch,
        machine: &mut M,
    ) -> Result<(), Error> {
        let damaged = |what: &str| Error::Damaged { message: format!("entry {} has {what}", entry.index) };
        match EntryType::from_i32(entry.entry_type).ok_or_else(|| damaged("an unknown kind"))? {
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => {
                machine.apply(Applied { index: entry.index, term: entry.term, data: &entry.data }, batch);
                self.counters.entries_applied += 1;
            }
            EntryType::EntryConfChange => {
                let change = ConfChange::decode(entry.data.as_slice())
                    .map_err(|_| damaged("a configuration that cannot be read"))?;
                let conf = self.raw.apply_conf_change(&change).map_err(library_error)?;
                self.log().set_conf(batch, conf);
            }
            EntryType::EntryConfChangeV2 => {
                let change = ConfChangeV2::decode(entry.data.as_slice())
                    .map_err(|_| damaged("a configuration that cannot be read"))?;
                let conf = self.raw.apply_conf_change(&change).map_err(library_error)?;
                self.log().set_conf(batch, conf);
            }
        }
        // Own proposals are applied in log order. One that another entry replaced stays, and is reported as lost.
        if self.pending.front().is_some_and(|own| (own.index, own.term) == (entry.index, entry.term)) {
            self.pending.pop_front();
        }
        Ok(())
    }

    fn emit(&mut self, messages: Vec<Message>, sink: &mut dyn FnMut(Output)) -> Result<(), Error> {
        for message in messages {
            if MessageType::from_i32(message.msg_type) == Some(MessageType::MsgSnapshot) {
                self.begin_sending(message)?;
            } else {
                self.send(message.to, Body::Raft(message.encode_to_vec()), sink);
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, to: u64, body: Body, sink: &mut dyn FnMut(Output)) {
        self.counters.messages_sent += 1;
        let message = wire::encode(self.cell, self.config.member, to, body);
        sink(Output::Send { to, message });
    }

    /// Tells of lost proposals and of changed parts, in this order.
    fn settle(&mut self, sink: &mut dyn FnMut(Output)) {
        let raft = &self.raw.raft;
        let (term, leads) = (raft.term, raft.state == StateRole::Leader);
        let ready = leads && raft.apply_to_current_term();
        let lost: Vec<_> = self.pending.iter().filter(|own| !leads || own.term != term).copied().collect();
        self.pending.retain(|own| leads && own.term == term);
        for position in lost {
            self.counters.proposals_lost += 1;
            sink(Output::ProposalLost(position));
        }
        if !leads {
            self.sending.clear();
        }
        let leader = self.leader().filter(|_| !leads);
        let following = RoleChange::Following { term, leader };
        if let RoleChange::Leading { term: led } = self.announced
            && (!ready || led != term)
        {
            self.announce(following, sink);
        }
        self.announce(if ready { RoleChange::Leading { term } } else { following }, sink);
    }

    fn announce(&mut self, change: RoleChange, sink: &mut dyn FnMut(Output)) {
        if change != self.announced {
            self.announced = change;
            sink(Output::Role(change));
        }
    }

    fn answer_reads(&mut self, sink: &mut dyn FnMut(Output)) {
        if self.installing {
            return;
        }
        let applied = self.raw.store().applied().index;
        self.reads_confirmed.retain(|(context, index)| {
            if *index <= applied {
                sink(Output::ReadReady { context: *context, index: *index });
            }
            *index > applied
        });
    }
}
