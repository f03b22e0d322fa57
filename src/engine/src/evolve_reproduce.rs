//! Facts about steps that run again for their artifacts, to state.

use argosy_proto::fact;
use argosy_proto::state as row;
use std::sync::Arc;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::required;
use crate::key::Key;
use crate::state::ROW_VERSION;

impl Step<'_> {
    pub(crate) fn reproduction_queued(&mut self, fact: &fact::ReproductionQueued) -> Result<(), Error> {
        let (id, node, now) = (fact.workflow, fact.node, self.time.0);
        let misfit = || Error::Misfit { what: "reproduction", id };
        let work = fact.work.clone().ok_or_else(misfit)?;
        let mut reproduction = fact.reproduction.clone().ok_or_else(misfit)?;
        reproduction.begun_at_ms = now;
        self.node(id, node)?.change_rare(|rare| rare.reproductions.push(reproduction));
        self.workflow(id)?.reproductions += 1;
        self.queue_work(id, node, work);
        Ok(())
    }

    pub(crate) fn reproduction_ended(&mut self, fact: &fact::ReproductionEnded) -> Result<(), Error> {
        let (id, now) = (fact.workflow, self.time.0);
        let cluster = fact.artifacts.first().map(|artifact| artifact.cluster.clone()).unwrap_or_default();
        self.withdraw_reproduction(id, fact.node)?;
        let node = self.node(id, fact.node)?;
        node.change_rare(|rare| {
            if let Some(last) = rare.reproductions.last_mut() {
                last.ended_at_ms = now;
                last.end = fact.end;
                last.cluster = cluster;
                last.message.clone_from(&fact.message);
                last.outputs_differ = fact.outputs_differ;
            }
        });
        let known = node.outputs.iter_mut().flat_map(|outputs| &mut outputs.artifacts);
        for artifact in known {
            if let Some(made) = fact.artifacts.iter().find(|made| made.name == artifact.name) {
                // It may be in another store.
                artifact.json.clone_from(&made.json);
                artifact.stored_key.clone_from(&made.stored_key);
                artifact.digest.clone_from(&made.digest);
                artifact.size = made.size;
                artifact.cluster.clone_from(&made.cluster);
            }
        }
        // Whoever waits for it is looked at again.
        self.capacity_grew();
        Ok(())
    }

    /// Nothing runs again any more of what a workflow made: it is over.
    pub(crate) fn withdraw_reproductions(&mut self, id: u64) -> Result<(), Error> {
        let works = self.state.works.range((id, 0)..=(id, u32::MAX));
        let running: Vec<u32> =
            works.filter(|(_, work)| work.reproduces).map(|((_, node), _)| *node).collect();
        let now = self.time.0;
        for node in running {
            self.withdraw_reproduction(id, node)?;
            self.node(id, node)?.change_rare(|rare| {
                if let Some(last) = rare.reproductions.last_mut() {
                    last.ended_at_ms = now;
                    last.end = row::ReproductionEnd::NotNeeded.into();
                }
            });
        }
        Ok(())
    }

    /// The work goes; what still runs of it is to end, and gives nothing.
    fn withdraw_reproduction(&mut self, id: u64, node: u32) -> Result<(), Error> {
        let Some(work) = self.state.works.get(&(id, node)).filter(|work| work.reproduces).cloned() else {
            return Err(Error::Misfit { what: "reproduction", id });
        };
        self.drop_work(id, node);
        let Some(fence) = work.fence else { return Ok(()) };
        let attempt = self.attempt(fence)?;
        if attempt.closed || attempt.fenced {
            return Ok(());
        }
        attempt.fenced = true;
        attempt.stopping = true;
        "nobody needs its artifacts again".clone_into(&mut attempt.stop_reason);
        let (cluster, requests) = (attempt.cluster.clone(), attempt.requests.take());
        self.release(&cluster, requests.as_deref())
    }

    pub(crate) fn reader_returned(&mut self, fact: &fact::ReaderReturned) -> Result<(), Error> {
        let fence = required(fact.fence)?;
        let attempt = self.attempt(fence)?;
        // It is over and came to nothing.
        attempt.fenced = true;
        attempt.stop_reason.clone_from(&fact.reason);
        let (id, node) = (attempt.workflow, attempt.node);
        let work = self.state.works.get(&(id, node)).ok_or(Error::Misfit { what: "work", id })?;
        let mut work = work.as_ref().clone();
        work.fence = None;
        work.shape.clone_from(&fact.shape);
        work.bound.extend(fact.bound.iter().cloned());
        self.queue_work(id, node, work);
        self.wait_for_placement(id, node)
    }

    /// Puts a leaf's work at the end of the placement queue.
    pub(crate) fn queue_work(&mut self, id: u64, node: u32, mut work: row::Work) {
        work.version = ROW_VERSION;
        work.queue = self.take_queue_number();
        self.state.index_queued(&work.shape, work.queue, (id, node));
        self.state.works.insert((id, node), Arc::new(work));
        self.touch(Key::Work(id, node));
        self.touch_workflow(id);
    }
}
