//! Facts of the archive to state, and to the records of the archive family.
//!
//! A finished workflow leaves state bit by bit, as a deleted one does; on the way its rows are written to the archive family.
//! State keeps the workflow's own row, so that the archive is listed and searched like what is live. Every member computes
//! the records from its own state: they do not travel in the log.

use argosy_proto::fact;
use argosy_proto::state as row;
use prost::Message;
use std::sync::Arc;

use crate::Error;
use crate::archive::{HEAD, NODES, archive_range, record_key};
use crate::evolve::{ArchiveChange, Step};
use crate::key::Key;
use crate::state::{ROW_VERSION, State};

impl State {
    /// Puts an archived workflow in the indexes, or takes it out.
    pub(crate) fn index_archived(&mut self, id: u64, row: &row::Workflow, present: bool) {
        let uid: Arc<str> = Arc::from(row.uid.as_str());
        let name = (Arc::from(row.namespace.as_str()), Arc::from(row.name.as_str()), id);
        let index = &mut self.index;
        if present {
            index.archived_uids.insert((uid, id));
            index.archived_names.insert(name);
            index.archived_age.insert((row.finished_at_ms, id));
        } else {
            index.archived_uids.remove(&(uid, id));
            index.archived_names.remove(&name);
            index.archived_age.remove(&(row.finished_at_ms, id));
        }
    }
}

impl Step<'_> {
    /// A workflow no longer counts as finished: it runs again, or it is gone.
    pub(crate) fn not_finished(&mut self, id: u64, phase: i32, finished_at_ms: i64) {
        let index = &mut self.state.index;
        index.finished.remove(&(finished_at_ms, id));
        index.finished_as.remove(&(phase, finished_at_ms, id));
        let nodes = index.finished_sizes.remove(&id).unwrap_or(0);
        index.finished_nodes = index.finished_nodes.saturating_sub(nodes);
    }

    pub(crate) fn workflow_retired(&mut self, fact: &fact::WorkflowRetired) -> Result<(), Error> {
        let id = fact.workflow;
        self.leaves(id)?;
        let workflow = self.workflow(id)?;
        if workflow.finished_at_ms == 0 {
            return Err(Error::Misfit { what: "finished workflow", id });
        }
        workflow.archiving = true;
        // What shapes its pods is in the record.
        let kept = row::Workflow { pod_json: String::new(), ..workflow.clone() };
        self.state.index_archived(id, &kept, true);
        self.state.archived.insert(id, Arc::new(kept));
        self.touch(Key::Archived(id));
        Ok(())
    }

    /// The rows of nodes that are about to leave.
    pub(crate) fn archive_nodes(&mut self, id: u64, nodes: &[u32]) {
        let Some(first) = nodes.first() else { return };
        let mut keys: Vec<Key> = Vec::new();
        for node in nodes {
            keys.push(Key::Node(id, *node));
            let expansions = self.state.expansions.range((id, *node, 0)..=(id, *node, u32::MAX));
            keys.extend(expansions.map(|(key, _)| Key::Expansion(key.0, key.1, key.2)));
            let waits = self.state.waits.range((id, *node, 0)..=(id, *node, u32::MAX));
            keys.extend(waits.map(|(key, _)| Key::Wait(key.0, key.1, key.2)));
            let fences = self.state.fences_of(argosy_model::WorkflowId(id), *node);
            let closed =
                |fence: &argosy_model::Fence| self.state.attempts.get(fence).is_some_and(|row| row.closed);
            keys.extend(fences.into_iter().filter(closed).map(Key::Attempt));
        }
        let rows = keys
            .iter()
            .filter_map(|key| Some(row::ArchivedRow { key: key.encode(), value: self.state.row(key)? }));
        let record = row::ArchivedRows { version: ROW_VERSION, rows: rows.collect() };
        let change = ArchiveChange::Put(record_key(id, NODES, *first), record.encode_to_vec().into());
        self.archive(change);
    }

    /// The last of its rows: those of the workflow itself.
    pub(crate) fn archive_head(&mut self, id: u64) {
        let Some(workflow) = self.state.workflows.get(&id) else { return };
        let live = row::Workflow { deleted: false, archiving: false, ..workflow.as_ref().clone() };
        let mut rows =
            vec![row::ArchivedRow { key: Key::Workflow(id).encode(), value: live.encode_to_vec() }];
        if let Some(value) = self.state.row(&Key::Manifest(id)) {
            rows.push(row::ArchivedRow { key: Key::Manifest(id).encode(), value });
        }
        let record = row::ArchivedRows { version: ROW_VERSION, rows };
        self.archive(ArchiveChange::Put(record_key(id, HEAD, 0), record.encode_to_vec().into()));
        self.state.manifests.remove(&id);
        self.touch(Key::Manifest(id));
        if let Some(kept) = self.state.archived.get_mut(&id) {
            let kept = Arc::make_mut(kept);
            (kept.archiving, kept.deleted) = (false, false);
            self.touch(Key::Archived(id));
        }
    }

    pub(crate) fn archive_dropped(&mut self, fact: &fact::ArchiveDropped) {
        let id = fact.workflow;
        if let Some(row) = self.state.archived.remove(&id) {
            self.state.index_archived(id, &row, false);
        }
        self.drop_timers(id, 0);
        self.touch(Key::Archived(id));
        let (from, to) = archive_range(id);
        self.archive(ArchiveChange::DropRange(from, to));
        // One that is still on its way goes on as a deleted one.
        if let Some(workflow) = self.state.workflows.get_mut(&id) {
            Arc::make_mut(workflow).archiving = false;
            self.touch(Key::Workflow(id));
            self.state.manifests.remove(&id);
            self.touch(Key::Manifest(id));
        }
    }

    pub(crate) fn workflow_restored(&mut self, fact: &fact::WorkflowRestored) -> Result<(), Error> {
        let id = fact.workflow;
        for row in fact.rows.iter().flat_map(|rows| &rows.rows) {
            let unreadable = || Error::Row { key: row.key.clone() };
            let key = Key::decode(&row.key).ok_or_else(unreadable)?;
            self.state.load_row(key.clone(), &row.value).ok_or_else(unreadable)?;
            if let Key::Workflow(_) = &key {
                self.index_restored(id)?;
            } else if let Key::Node(_, node) = &key {
                let node_row = self.state.nodes.get(&(id, *node)).cloned();
                let node_row = node_row.ok_or(Error::Misfit { what: "node", id })?;
                self.state.index.children.insert((id, node_row.parent, node_row.ordinal), *node);
            } else if let Key::Attempt(fence) = &key {
                let node = self.state.attempts.get(fence).map(|row| row.node).unwrap_or_default();
                self.state.index.of_node.insert((id, node, *fence));
            }
            self.touch(key);
        }
        Ok(())
    }

    fn index_restored(&mut self, id: u64) -> Result<(), Error> {
        let row = self.state.workflows.get(&id).cloned().ok_or(Error::Misfit { what: "workflow", id })?;
        let names = (Arc::from(row.namespace.as_str()), Arc::from(row.name.as_str()));
        self.state.index.names.insert(names, id);
        self.state.index.finished.insert((row.finished_at_ms, id));
        self.state.index.finished_as.insert((row.phase, row.finished_at_ms, id));
        self.state.index.finished_sizes.insert(id, u64::from(row.node_next));
        self.state.index.finished_nodes += u64::from(row.node_next);
        self.reindex_owned(id, None);
        self.touch_workflow(id);
        Ok(())
    }
}
