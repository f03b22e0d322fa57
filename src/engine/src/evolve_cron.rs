//! Facts of CronWorkflows and WorkflowEventBindings to state.

use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::cron;
use crate::evolve::Step;
use crate::key::Key;
use crate::state::{Child, ROW_VERSION, State};

/// A place in the index of CronWorkflows' workflows.
pub(crate) type Entry = (u64, Child, i64, u64);

impl State {
    /// Brings the index of CronWorkflows' workflows up to date after one of them changed.
    pub(crate) fn index_owned(&mut self, old: Option<Entry>, new: Option<Entry>) {
        if let Some(old) = &old {
            self.index.owned.remove(old);
        }
        if let Some(new) = new {
            self.index.owned.insert(new);
        }
        let Some(cron) = new.or(old).map(|entry| entry.0) else { return };
        if cron::children(self, cron, Child::Ended).next().is_some()
            || cron::children(self, cron, Child::BackfillEnded).next().is_some()
        {
            self.index.crons_ready.insert(cron);
        } else {
            self.index.crons_ready.remove(&cron);
        }
    }
}

impl Step<'_> {
    /// The place of a workflow in the index of CronWorkflows' workflows, as it is now.
    pub(crate) fn owned_entry(&self, id: u64) -> Option<Entry> {
        cron::entry(id, self.state.workflows.get(&id)?)
    }

    /// Moves a workflow in that index from the place it had.
    pub(crate) fn reindex_owned(&mut self, id: u64, old: Option<Entry>) {
        let new = self.owned_entry(id);
        if old != new {
            self.state.index_owned(old, new);
        }
    }

    fn cron(&mut self, id: u64) -> Result<&mut row::Cron, Error> {
        self.touch(Key::Cron(id));
        let sequence = self.state.meta.sequence + 1;
        let row = self.state.crons.get_mut(&id).ok_or(Error::Misfit { what: "cron workflow", id })?;
        let row = Arc::make_mut(row);
        row.changed_sequence = sequence;
        Ok(row)
    }

    pub(crate) fn cron_stored(&mut self, fact: &fact::CronStored) {
        let (id, now) = (fact.cron, self.time.0);
        let mut cron = self.state.crons.get(&id).map(|row| row.as_ref().clone()).unwrap_or_default();
        if cron.version == 0 {
            cron.created_at_ms = now;
            let names = (Arc::from(fact.namespace.as_str()), Arc::from(fact.name.as_str()));
            self.state.index.crons.insert(names, id);
            self.state.meta.workflow_next = self.state.meta.workflow_next.max(id + 1);
        }
        cron.version = ROW_VERSION;
        cron.namespace.clone_from(&fact.namespace);
        cron.name.clone_from(&fact.name);
        cron.uid.clone_from(&fact.uid);
        cron.json.clone_from(&fact.manifest_json);
        if !fact.creator.is_empty() {
            cron.creator.clone_from(&fact.creator);
        }
        if !fact.actor.is_empty() {
            cron.actor.clone_from(&fact.actor);
        }
        if fact.rescheduled {
            (cron.anchor_ms, cron.considered_ms) = (now, now);
        }
        cron.changed_sequence = self.state.meta.sequence + 1;
        cron.generation += 1;
        self.state.crons.insert(id, Arc::new(cron));
        self.touch(Key::Cron(id));
    }

    pub(crate) fn cron_deleted(&mut self, fact: &fact::CronDeleted) -> Result<(), Error> {
        let cron = self.cron(fact.cron)?;
        cron.deleted = true;
        cron.backfills.clear();
        let names = (Arc::from(cron.namespace.as_str()), Arc::from(cron.name.as_str()));
        self.state.index.crons.remove(&names);
        self.drop_timers(fact.cron, 0);
        Ok(())
    }

    pub(crate) fn cron_purged(&mut self, fact: &fact::CronPurged) {
        self.state.crons.remove(&fact.cron);
        self.state.index.crons_ready.remove(&fact.cron);
        self.drop_timers(fact.cron, 0);
        self.touch(Key::Cron(fact.cron));
    }

    pub(crate) fn workflow_owned(&mut self, fact: &fact::WorkflowOwned) -> Result<(), Error> {
        let owned = self.owned_entry(fact.workflow);
        let workflow = self.workflow(fact.workflow)?;
        workflow.cron = fact.cron;
        workflow.backfill = fact.backfill;
        self.reindex_owned(fact.workflow, owned);
        Ok(())
    }

    pub(crate) fn child_counted(&mut self, fact: &fact::ChildCounted) -> Result<(), Error> {
        let owned = self.owned_entry(fact.workflow);
        let workflow = self.workflow(fact.workflow)?;
        workflow.cron_counted = true;
        let cron = workflow.cron;
        self.reindex_owned(fact.workflow, owned);
        let cron = self.cron(cron)?;
        cron.succeeded += u64::from(fact.outcome == 1);
        cron.failed += u64::from(fact.outcome == 2);
        Ok(())
    }

    pub(crate) fn cron_moved(&mut self, fact: &fact::CronMoved) -> Result<(), Error> {
        self.touch(Key::Cron(fact.cron));
        // Nothing that a client sees: the object's version stays.
        let row = self.state.crons.get_mut(&fact.cron);
        let row = row.ok_or(Error::Misfit { what: "cron workflow", id: fact.cron })?;
        Arc::make_mut(row).considered_ms = fact.considered_ms;
        Ok(())
    }

    pub(crate) fn cron_status_set(&mut self, fact: &fact::CronStatusSet) -> Result<(), Error> {
        self.cron(fact.cron)?.status.clone_from(&fact.status);
        Ok(())
    }

    pub(crate) fn backfill_set(&mut self, fact: &fact::BackfillSet) -> Result<(), Error> {
        let id = fact.cron;
        let backfill = fact.backfill.clone().ok_or(Error::Misfit { what: "backfill", id })?;
        let cron = self.cron(id)?;
        match cron.backfills.iter_mut().find(|known| known.name == backfill.name) {
            Some(known) => *known = backfill,
            None => cron.backfills.push(backfill),
        }
        Ok(())
    }

    pub(crate) fn backfill_done(&mut self, fact: &fact::BackfillDone) -> Result<(), Error> {
        self.cron(fact.cron)?.backfills.retain(|backfill| backfill.name != fact.name);
        Ok(())
    }

    pub(crate) fn event_binding_stored(&mut self, fact: &fact::EventBindingStored) {
        let key = (fact.namespace.clone(), fact.name.clone());
        let mut binding =
            self.state.event_bindings.get(&key).map(|row| row.as_ref().clone()).unwrap_or_default();
        if binding.version == 0 {
            binding.created_at_ms = self.time.0;
        }
        binding.version = ROW_VERSION;
        binding.uid.clone_from(&fact.uid);
        binding.json.clone_from(&fact.manifest_json);
        binding.creator.clone_from(&fact.creator);
        binding.changed_sequence = self.state.meta.sequence + 1;
        binding.generation += 1;
        self.state.event_bindings.insert(key.clone(), Arc::new(binding));
        self.touch(Key::EventBinding(key.0, key.1));
    }

    pub(crate) fn event_binding_deleted(&mut self, fact: &fact::EventBindingDeleted) {
        self.state.event_bindings.remove(&(fact.namespace.clone(), fact.name.clone()));
        self.touch(Key::EventBinding(fact.namespace.clone(), fact.name.clone()));
    }
}
