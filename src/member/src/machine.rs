//! Committed state and the batches that run ahead of it.

use argosy_consensus::{Applied, LogPosition, StateMachine};
use argosy_engine::{ArchiveChange, Changes, Position, Reading, State, archive_range, evolve};
use argosy_model::Fence;
use argosy_proto::command::{Refusal, Reply};
use argosy_proto::fact::Batch;
use argosy_store::{Family, Kv};
use prost::Message;
use std::collections::{BTreeSet, VecDeque};

use crate::Error;
use crate::leading::Waiter;

/// A batch of this leader that has been proposed and not yet applied.
pub(crate) struct Pending {
    pub at: LogPosition,
    /// The state's sequence that the batch follows; anything else at apply time makes it void.
    pub follows: u64,
    /// State after the batch.
    pub state: State,
    pub changes: Changes,
    /// Who waits for the commit, with the answer decided for them.
    pub answers: Vec<(Waiter, Result<Reply, Refusal>)>,
    /// Readings of metrics that it brings about.
    pub readings: Vec<Reading>,
    /// Size of the entry.
    pub bytes: usize,
    /// Steady clock of the proposal, for the commit latency.
    pub proposed_at_ms: u64,
}

/// What applying entries brought about since the last look.
#[derive(Default)]
pub(crate) struct Happened {
    /// Own batches that are committed: their answers may leave.
    pub committed: Vec<Pending>,
    /// Waiters of own batches that turned out void: they are decided again.
    pub void: Vec<Waiter>,
    pub workflows: BTreeSet<argosy_model::WorkflowId>,
    pub attempts: BTreeSet<Fence>,
    pub clusters: BTreeSet<String>,
    /// Entries applied; batches of others among them.
    pub applied: u64,
    pub void_batches: u64,
    /// State was replaced by a snapshot.
    pub reloaded: bool,
}

/// The replicated state machine: committed state, plus the leader's pending batches so that their result is taken over
/// instead of being computed twice.
pub(crate) struct Machine {
    pub state: State,
    /// Index and term of the last applied entry.
    pub applied: LogPosition,
    pub pending: VecDeque<Pending>,
    pub happened: Happened,
    /// A batch this version can't apply: the member must halt.
    pub broken: Option<Error>,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            state: State::new(),
            applied: LogPosition { term: 0, index: 0 },
            pending: VecDeque::new(),
            happened: Happened::default(),
            broken: None,
        }
    }

    /// Takes the own pending batch at this position, if its result still holds.
    fn take_own(&mut self, at: LogPosition) -> Option<Pending> {
        if self.pending.front().is_none_or(|pending| pending.at != at) {
            return None;
        }
        let pending = self.pending.pop_front()?;
        if pending.follows == self.state.sequence() {
            return Some(pending);
        }
        self.happened.void.extend(pending.answers.into_iter().map(|(waiter, _)| waiter));
        None
    }

    fn note(&mut self, changes: &Changes) {
        self.happened.workflows.extend(changes.workflows());
        self.happened.attempts.extend(changes.attempts());
        self.happened.clusters.extend(changes.clusters().map(str::to_owned));
    }

    fn evolve_foreign(&mut self, entry: &Applied<'_>) -> Result<Option<Changes>, Error> {
        let batch = Batch::decode(entry.data)
            .map_err(|source| Error::UnreadableBatch { index: entry.index, reason: source.to_string() })?;
        let incarnation = self.state.incarnation().max(crate::leading::FIRST_INCARNATION);
        let position = Position { incarnation, index: entry.index };
        evolve(&mut self.state, position, &batch)
            .map_err(|source| Error::UnknownFact { index: entry.index, reason: source.to_string() })
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, entry: Applied<'_>, batch: &mut argosy_store::Batch) {
        self.applied = LogPosition { term: entry.term, index: entry.index };
        self.happened.applied += 1;
        if self.broken.is_some() {
            return;
        }
        let changes = match self.take_own(self.applied) {
            Some(mut pending) => {
                self.state = pending.state.clone();
                let changes = std::mem::take(&mut pending.changes);
                self.happened.committed.push(pending);
                Some(changes)
            }
            None => match self.evolve_foreign(&entry) {
                Ok(changes) => changes,
                Err(error) => {
                    self.broken = Some(error);
                    return;
                }
            },
        };
        let Some(changes) = changes else {
            self.happened.void_batches += 1;
            return;
        };
        for (key, value) in changes.rows(&self.state) {
            match value {
                Some(value) => batch.put(Family::State, key, value),
                None => batch.delete(Family::State, key),
            }
        }
        for change in changes.archive() {
            match change {
                ArchiveChange::Put(key, value) => batch.put(Family::Archive, key.clone(), value.to_vec()),
                ArchiveChange::DropRange(from, to) => {
                    batch.delete_range(Family::Archive, from.clone(), to.clone());
                }
            }
        }
        self.note(&changes);
    }

    fn reload(&mut self, kv: &dyn Kv) -> Result<(), argosy_consensus::Error> {
        self.state =
            load(kv).map_err(|error| argosy_consensus::Error::Machine { message: error.to_string() })?;
        // Whoever waits for a pending batch is told that its outcome is unknown, by the member: none may be forgotten.
        self.happened.reloaded = true;
        Ok(())
    }
}

/// Records of the archive read at a time.
const ARCHIVE_PAGE: usize = 16;

/// The records of an archived workflow; `None` when they have more bytes than allowed.
pub(crate) fn read_archived(
    kv: &dyn Kv,
    workflow: u64,
    bytes_max: usize,
) -> Result<Option<Vec<Vec<u8>>>, Error> {
    let (mut from, to) = archive_range(workflow);
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        let page = kv.scan(Family::Archive, &from, Some(&to), ARCHIVE_PAGE).map_err(Error::store)?;
        let full = page.len() == ARCHIVE_PAGE;
        for (key, value) in page {
            bytes += value.len();
            if bytes > bytes_max {
                return Ok(None);
            }
            from = key;
            from.push(0);
            records.push(value);
        }
        if !full {
            return Ok(Some(records));
        }
    }
}

/// Rows read at a time while state is loaded.
const LOAD_PAGE: usize = 1_000;

/// State from the rows of the `state` family.
pub(crate) fn load(kv: &dyn Kv) -> Result<State, Error> {
    let mut rows = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = kv.scan(Family::State, &from, None, LOAD_PAGE).map_err(Error::store)?;
        let full = page.len() == LOAD_PAGE;
        if let Some((last, _)) = page.last() {
            from.clone_from(last);
            from.push(0);
        }
        rows.extend(page);
        if !full {
            return State::load(rows.into_iter())
                .map_err(|error| Error::UnreadableState { reason: error.to_string() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argosy_store::MemoryKv;

    #[test]
    fn a_snapshot_forgets_nobody_who_waits_for_a_batch() {
        let mut machine = Machine::new();
        machine.pending.push_back(Pending {
            readings: Vec::new(),
            at: LogPosition { term: 1, index: 2 },
            follows: 0,
            state: State::new(),
            changes: Changes::default(),
            answers: Vec::new(),
            bytes: 0,
            proposed_at_ms: 0,
        });
        assert!(machine.reload(&MemoryKv::new()).is_ok());
        assert!(machine.happened.reloaded);
        assert_eq!(machine.pending.len(), 1, "the member answers them before it forgets them");
    }
}
