//! The losses of drills: a cluster whose frames no member passes on, and what the agent of a drilled cluster is told.

use argosy_link::control::{self, ConnectionRef};
use argosy_proto::command::{AbortDrill, Command, command};
use argosy_proto::state::DrillMode;
use argosy_store::Kv;

use crate::leading::Waiter;
use crate::{Member, Now};

/// Why a frame of a cut-off cluster was dropped, for the counters.
pub(crate) const DROPPED: &str = "drill";
/// Log time stands still while nobody leads: by the own wall clock a cut ends so long after its end at the latest.
const OVERRUN_MS_MAX: i64 = 30_000;
/// Between two orders to the same agent.
const ORDER_EVERY_MS: u64 = 1_000;
/// Attempts in one round of orders.
const KILLS_PER_ROUND_MAX: usize = 1_000;

impl<K: Kv> Member<K> {
    /// A drill keeps this cluster's frames from passing, by committed state.
    pub(crate) fn is_cut_off(&self, cluster: &str) -> bool {
        self.machine.state.cluster_cut_off().is_some_and(|(name, ends_at_ms)| {
            name == cluster && self.wall_ms < ends_at_ms.saturating_add(OVERRUN_MS_MAX)
        })
    }

    /// As [`Self::is_cut_off`], of the cluster at the other end of a connection, here or at another member.
    pub(crate) fn is_of_cut_off(&self, connection: ConnectionRef) -> bool {
        let Some((cluster, _)) = self.machine.state.cluster_cut_off() else { return false };
        let here = connection.member == self.config.member;
        let known = self.connections.get(&connection.connection).filter(|_| here);
        let sessions = self.leading.as_ref().map(|leading| &leading.sessions);
        let session = sessions.and_then(|sessions| sessions.connection(cluster));
        let theirs = known.is_some_and(|entry| entry.cluster == cluster)
            || session.is_some_and(|(found, _)| found == connection);
        theirs && self.is_cut_off(cluster)
    }

    /// As leader, ends the loss under way: something real is going on.
    pub(crate) fn abort_drill(&mut self, reason: &str) {
        let Some((drill, _)) = self.machine.state.drill_loss() else { return };
        let abort = AbortDrill { drill, reason: reason.to_owned(), actor: String::new() };
        let command =
            Command { version: 1, idempotency_key: None, body: Some(command::Body::AbortDrill(abort)) };
        if let Some(leading) = &mut self.leading {
            leading.queue.push_back(Waiter::Own(command));
        }
    }

    /// As leader, tells the agent of a drilled cluster what the drill wants of it, again and again: a frame may be lost, and
    /// an agent that was started anew knows nothing of a drill.
    pub(crate) fn drill_orders(&mut self, now: Now) {
        let Some(leading) = &mut self.leading else { return };
        if now.steady_ms < leading.order_again_ms {
            return;
        }
        leading.order_again_ms = now.steady_ms + ORDER_EVERY_MS;
        let log_time_ms = leading.log_time(now).0;
        let Some((drill, row)) = self.machine.state.drill_loss() else { return };
        let Some((connection, epoch)) = leading.sessions.connection(&row.cluster) else { return };
        let frames: Vec<_> = match row.mode() {
            DrillMode::Block | DrillMode::Unspecified => return,
            DrillMode::KillAgent => {
                let for_ms = u64::try_from(row.ends_at_ms - log_time_ms).unwrap_or(0);
                (for_ms > 0).then(|| control::fall_silent_frame(epoch, drill, for_ms)).into_iter().collect()
            }
            DrillMode::KillPods => {
                let fences = self.machine.state.attempts_to_kill().take(KILLS_PER_ROUND_MAX);
                fences.map(|fence| control::kill_frame(epoch, fence)).collect()
            }
        };
        frames.into_iter().for_each(|frame| self.send_agent(connection, frame));
    }
}
