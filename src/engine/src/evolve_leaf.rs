//! Facts about daemons and containers of Pods to state.

use argosy_model::{NodePhase, NodeType};
use argosy_proto::fact;
use argosy_proto::state as row;

use crate::Error;
use crate::evolve::Step;
use crate::evolve_work::{agenda_item, counts_to_boundary};

impl Step<'_> {
    /// To its parent the node is over; to the limits of what runs at the same time, too.
    pub(crate) fn node_daemoned(&mut self, fact: &fact::NodeDaemoned) -> Result<(), Error> {
        let (id, index) = (fact.workflow, fact.node);
        let node = self.node(id, index)?;
        node.change_rare(|rare| rare.pod_ip.clone_from(&fact.pod_ip));
        if std::mem::replace(&mut node.daemoned, true) {
            return Ok(());
        }
        let (kind, parent, boundary) = (node.r#type, node.parent, node.boundary);
        let hooked = node.flag == i32::from(row::NodeFlag::Hooked);
        if kind == NodeType::Pod.number() {
            let workflow = self.workflow(id)?;
            workflow.pods_active = workflow.pods_active.saturating_sub(1);
        }
        if boundary == 0 {
            self.workflow(id)?.daemons.push(index);
        } else {
            let around = self.node(id, boundary)?;
            around.active_below = around.active_below.saturating_sub(u32::from(counts_to_boundary(kind)));
            around.change_rare(|rare| rare.daemons.push(index));
        }
        if hooked && parent != 0 {
            self.hook_over(id, parent)?;
        } else if parent != 0 {
            self.node(id, parent)?.children_done += 1;
        }
        self.push_agenda(id, agenda_item(row::AgendaKind::Done, index))
    }

    /// A daemon is no more: nothing has to end it.
    pub(crate) fn daemon_ended(&mut self, id: u64, boundary: u32, index: u32) -> Result<(), Error> {
        if boundary == 0 {
            self.workflow(id)?.daemons.retain(|daemon| *daemon != index);
        } else {
            self.node(id, boundary)?.change_rare(|rare| rare.daemons.retain(|daemon| *daemon != index));
        }
        Ok(())
    }

    pub(crate) fn containers_set(&mut self, fact: &fact::ContainersSet) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        let mut before = fact.containers.clone();
        node.change_rare(|rare| std::mem::swap(&mut rare.containers, &mut before));
        let workflow = self.workflow(fact.workflow)?;
        let (old, new) = (count(&before), count(&fact.containers));
        workflow.leaves_total = workflow.leaves_total.saturating_sub(old.0) + new.0;
        workflow.leaves_succeeded = workflow.leaves_succeeded.saturating_sub(old.1) + new.1;
        Ok(())
    }

    pub(crate) fn group_failed(&mut self, fact: &fact::GroupFailed) -> Result<(), Error> {
        let node = self.node(fact.workflow, fact.node)?;
        node.phase = NodePhase::Failed.number();
        node.branch_phase = NodePhase::Failed.number();
        node.message.clone_from(&fact.message);
        Ok(())
    }
}

/// Containers, and those that succeeded: what progress counts.
pub(crate) fn count(containers: &[row::ContainerNode]) -> (u32, u32) {
    let succeeded =
        containers.iter().filter(|container| container.phase == NodePhase::Succeeded.number()).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (number(containers.len()), number(succeeded))
}
