//! Facts about starts that wait for others to end, about global outputs and memoized ones, to state.

use argosy_proto::fact;
use argosy_proto::state as row;

use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::agenda_item;
use crate::key::Key;
use crate::state::ROW_VERSION;

/// Cursor of an agenda's START item of a DAG: make the tasks that were held.
pub(crate) const HELD_TASKS: u64 = 1 << 63;

/// The name of a cache's entry.
pub(crate) fn memo_entry(namespace: &str, cache: &str, key: &str) -> String {
    format!("{namespace}/{cache}/{key}")
}

impl Step<'_> {
    pub(crate) fn globals_set(&mut self, fact: &fact::GlobalsSet) -> Result<(), Error> {
        let workflow = self.workflow(fact.workflow)?;
        for output in &fact.outputs {
            match workflow.outputs.iter_mut().find(|known| known.name == output.name) {
                Some(known) => known.value.clone_from(&output.value),
                None => workflow.outputs.push(output.clone()),
            }
        }
        for artifact in &fact.artifacts {
            match workflow.artifacts.iter_mut().find(|known| known.name == artifact.name) {
                Some(known) => known.clone_from(artifact),
                None => workflow.artifacts.push(artifact.clone()),
            }
        }
        Ok(())
    }

    pub(crate) fn start_held(&mut self, fact: &fact::StartHeld) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        let was_held = std::mem::replace(&mut node.held, true);
        node.change_rare(|rare| match fact.task {
            Some(task) => {
                rare.held_cursor = HELD_TASKS;
                if !rare.held_tasks.contains(&task) {
                    rare.held_tasks.push(task);
                }
            }
            None => rare.held_cursor = fact.cursor,
        });
        if !was_held {
            self.workflow(fact.workflow)?.held.push(fact.node);
        }
        Ok(())
    }

    pub(crate) fn start_released(&mut self, fact: &fact::StartReleased) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.held = false;
        let cursor = node.rare().held_cursor;
        self.workflow(fact.workflow)?.held.retain(|held| *held != fact.node);
        let item = row::AgendaItem { cursor, ..agenda_item(row::AgendaKind::Start, fact.node) };
        self.push_agenda(fact.workflow, item)
    }

    pub(crate) fn node_memoized(&mut self, fact: &fact::NodeMemoized) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.change_rare(|rare| {
            rare.memo_cache.clone_from(&fact.cache);
            rare.memo_key.clone_from(&fact.key);
            rare.memo_hit = fact.hit;
        });
        Ok(())
    }

    pub(crate) fn memo_stored(&mut self, fact: &fact::MemoStored) {
        let entry = memo_entry(&fact.namespace, &fact.cache, &fact.key);
        let memo = row::Memo {
            version: ROW_VERSION,
            outputs: fact.outputs.clone(),
            created_at_ms: self.time.0,
            node_id: fact.node_id.clone(),
        };
        self.state.memos.insert(entry.clone(), Arc::new(memo));
        self.touch(Key::Memo(entry));
    }

    pub(crate) fn task_released(&mut self, fact: &fact::TaskReleased) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.change_rare(|rare| rare.held_tasks.retain(|task| *task != fact.task));
        Ok(())
    }
}
