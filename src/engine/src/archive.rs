//! The archive: where finished workflows are when they have left state, and what brings them back.

use argosy_proto::command::{Command, command};
use argosy_proto::fact::{self, fact::Body};
use argosy_proto::state as row;
use prost::Message;

use crate::draft::Draft;
use crate::key::Key;
use crate::state::{ROW_VERSION, State};
use crate::{Code, Error, Leader};

/// Kinds of records: the workflow's own rows, and those of some of its nodes.
pub(crate) const HEAD: u8 = 0;
pub(crate) const NODES: u8 = 1;
/// The first byte of records' keys.
const RECORDS: u8 = 1;
/// Bytes of rows in one fact, when a workflow comes back.
const RESTORED_BYTES_PER_FACT: usize = 64 * 1024;

/// The key of a record: workflow, kind, first node.
pub(crate) fn record_key(workflow: u64, kind: u8, node: u32) -> Vec<u8> {
    let mut key = vec![RECORDS];
    key.extend_from_slice(&workflow.to_be_bytes());
    key.push(kind);
    key.extend_from_slice(&node.to_be_bytes());
    key
}

/// The keys of a workflow's records: from the first to the second, which is excluded.
#[must_use]
pub fn archive_range(workflow: u64) -> (Vec<u8>, Vec<u8>) {
    let from = record_key(workflow, HEAD, 0);
    let to = record_key(workflow.saturating_add(1), HEAD, 0);
    (from, to)
}

/// The rows of records.
fn rows_of<'a>(records: impl Iterator<Item = &'a [u8]>) -> Result<Vec<row::ArchivedRow>, Error> {
    let mut rows = Vec::new();
    for record in records {
        let unreadable = || Error::Row { key: vec![RECORDS] };
        let record = row::ArchivedRows::decode(record).map_err(|_| unreadable())?;
        if record.version != ROW_VERSION {
            return Err(unreadable());
        }
        rows.extend(record.rows);
    }
    Ok(rows)
}

/// A state that holds one archived workflow, to be looked at: [`crate::view`] shows it as it was.
///
/// # Errors
/// [`Error::Row`] for a record that this version can't read.
pub fn archived_state<'a>(records: impl Iterator<Item = &'a [u8]>) -> Result<State, Error> {
    State::load(rows_of(records)?.into_iter().map(|row| (row.key, row.value)))
}

/// What a decision needs to know and state does not hold: the number of an archived workflow. The driver loads its records
/// ([`archive_range`]) and gives them to [`Leader::give_archived`] before it has the command decided.
#[must_use]
pub fn need(state: &State, command: &Command) -> Option<u64> {
    let body = command.body.as_ref()?;
    let uid = if let command::Body::RetryArchived(command) = body {
        &command.uid
    } else if let command::Body::ResubmitArchived(command) = body {
        &command.uid
    } else {
        return None;
    };
    state.archived_id(uid)
}

impl State {
    /// The archived workflow of that uid.
    #[must_use]
    pub fn archived_id(&self, uid: &str) -> Option<u64> {
        let of = |id| (std::sync::Arc::from(uid), id);
        self.index.archived_uids.range(of(0)..=of(u64::MAX)).next_back().map(|(_, id)| *id)
    }

    /// The archived workflow of that name that was made last.
    #[must_use]
    pub fn archived_named(&self, namespace: &str, name: &str) -> Option<u64> {
        let of = |id| (std::sync::Arc::from(namespace), std::sync::Arc::from(name), id);
        self.index.archived_names.range(of(0)..=of(u64::MAX)).next_back().map(|(.., id)| *id)
    }

    /// Workflows of the archive.
    #[must_use]
    pub fn archived_count(&self) -> usize {
        self.archived.len()
    }

    /// What state keeps of an archived workflow.
    #[must_use]
    pub fn archived(&self, id: u64) -> Option<&row::Workflow> {
        self.archived.get(&id).map(AsRef::as_ref)
    }

    /// All archived workflows of a namespace (empty: of all), those that ended last first.
    pub fn archived_in(&self, namespace: &str) -> impl Iterator<Item = (u64, &row::Workflow)> + '_ {
        let namespace = namespace.to_owned();
        let all = self.index.archived_age.iter().rev();
        let rows = all.filter_map(|(_, id)| Some((*id, self.archived.get(id)?.as_ref())));
        rows.filter(move |(_, row)| namespace.is_empty() || row.namespace == namespace)
    }
}

/// Brings an archived workflow back to state; its number is the same.
///
/// # Errors
/// It is not there, its name is taken, or it is too large to travel in a batch.
pub(crate) fn restore(
    draft: &mut Draft,
    leader: &mut Leader,
    workflow: u64,
) -> Result<(), argosy_proto::command::Refusal> {
    let records = leader.take_archived(workflow)?;
    let rows = rows_of(records.iter().map(Vec::as_slice))
        .map_err(|error| Code::ArchiveUnreadable.refuse(error.to_string()))?;
    let bytes: usize = rows.iter().map(|row| row.key.len() + row.value.len()).sum();
    if bytes > leader.limits.batch_bytes_max / 2 {
        return Err(Code::ArchiveTooLarge.refuse(format!(
            "the archived workflow has {bytes} bytes, and at most {} can be brought back to be retried: resubmit it",
            leader.limits.batch_bytes_max / 2
        )));
    }
    draft.spend(u32::try_from(rows.len() / 16).unwrap_or(u32::MAX));
    draft.emit(Body::ArchiveDropped(fact::ArchiveDropped { workflow }));
    let mut part = row::ArchivedRows { version: ROW_VERSION, rows: Vec::new() };
    let mut size = 0;
    let is_head = |row: &row::ArchivedRow| matches!(Key::decode(&row.key), Some(Key::Workflow(_)));
    let (head, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_head);
    for row in head.into_iter().chain(rest) {
        size += row.key.len() + row.value.len();
        part.rows.push(row);
        if size >= RESTORED_BYTES_PER_FACT {
            let rows = std::mem::take(&mut part.rows);
            let rows = Some(row::ArchivedRows { version: ROW_VERSION, rows });
            draft.emit(Body::WorkflowRestored(fact::WorkflowRestored { workflow, rows }));
            size = 0;
        }
    }
    if !part.rows.is_empty() {
        draft.emit(Body::WorkflowRestored(fact::WorkflowRestored { workflow, rows: Some(part) }));
    }
    Ok(())
}

/// The records of a workflow can't be had yet.
pub(crate) fn on_its_way() -> argosy_proto::command::Refusal {
    Code::ArchiveNotReady.refuse("the workflow is on its way to the archive: try again in a moment")
}
