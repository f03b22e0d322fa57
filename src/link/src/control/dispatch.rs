//! Dispatch: what state wants on a cluster, compared with what its agent holds.

use super::cluster::{Cluster, Session};
use super::{Desired, Output, Sessions};
use crate::Millis;
use argosy_proto::agent::{self, control_frame::Body as Down};
use argosy_proto::common::Fence;
use std::collections::BTreeMap;

impl Sessions {
    pub(super) fn on_desired(&mut self, now: Millis, name: String, attempts: Vec<(Fence, Desired)>) {
        let cluster = self.clusters.entry(name.clone()).or_default();
        let wanted: BTreeMap<Fence, Desired> = attempts.into_iter().collect();
        let gone: Vec<Fence> =
            cluster.desired.keys().filter(|fence| !wanted.contains_key(*fence)).copied().collect();
        for fence in gone {
            want(cluster, fence, None);
        }
        for (fence, desired) in wanted {
            if cluster.desired.get(&fence) != Some(&desired) {
                want(cluster, fence, Some(desired));
            }
        }
        self.dispatch(now, &name);
    }

    pub(super) fn on_desired_changed(
        &mut self,
        now: Millis,
        name: String,
        fence: Fence,
        desired: Option<Desired>,
    ) {
        want(self.clusters.entry(name.clone()).or_default(), fence, desired);
        self.dispatch(now, &name);
    }

    /// Plans a session anew, after its resync.
    pub(super) fn plan(&mut self, name: &str) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let Some(session) = cluster.session.as_mut() else { return };
        session.waiting.clear();
        session.stops_waiting.clear();
        session.stops_in_flight.clear();
        let held = &session.held;
        session.in_flight.retain(|fence, _| !held.contains(fence));
        for (fence, desired) in &cluster.desired {
            plan_one(session, *fence, Some(desired));
        }
    }

    /// Sends what credit and limits allow.
    pub(super) fn dispatch(&mut self, now: Millis, name: &str) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let Some(session) = cluster.session.as_mut().filter(|session| session.live) else { return };
        let (connection, epoch) = (session.connection, session.epoch);
        while u32::try_from(session.in_flight.len()).is_ok_and(|sent| sent < session.credit) {
            let Some(fence) = session.waiting.pop_first() else { break };
            session.in_flight.insert(fence, now);
            self.counters.assigns_sent += 1;
            self.outputs.push(Output::Assign { connection, session_epoch: epoch, fence });
        }
        let mut stops = Vec::new();
        while session.stops_in_flight.len() < self.limits.stops_in_flight_max {
            let Some(fence) = session.stops_waiting.pop_first() else { break };
            let (reason, grace_ms, only_if_unstarted) = match cluster.desired.get(&fence) {
                Some(Desired::Stop { reason, grace_ms, .. }) => (reason.clone(), *grace_ms, false),
                Some(Desired::Recall { reason }) => (reason.clone(), 0, true),
                Some(Desired::Run { .. }) | None => continue,
            };
            session.stops_in_flight.insert(fence, now);
            stops.push(agent::Stop { fence: Some(fence), reason, grace_ms, only_if_unstarted });
        }
        for stop in stops {
            self.counters.stops_sent += 1;
            self.send(connection, epoch, Down::Stop(stop));
        }
    }

    /// Sends again what was not answered in time.
    pub(super) fn resend(&mut self, now: Millis) {
        let (assign_ms, stop_ms) = (self.times.assign_resend_ms, self.times.stop_resend_ms);
        let mut again = Vec::new();
        for (name, cluster) in &mut self.clusters {
            let Some(session) = cluster.session.as_mut().filter(|session| session.live) else { continue };
            for (fence, sent_at) in &mut session.in_flight {
                let run = matches!(cluster.desired.get(fence), Some(Desired::Run { .. }));
                if run && now.saturating_sub(*sent_at) >= assign_ms {
                    *sent_at = now;
                    self.counters.assigns_sent += 1;
                    self.counters.assigns_resent += 1;
                    self.outputs.push(Output::Assign {
                        connection: session.connection,
                        session_epoch: session.epoch,
                        fence: *fence,
                    });
                }
            }
            let late: Vec<Fence> = session
                .stops_in_flight
                .iter()
                .filter(|(_, sent_at)| now.saturating_sub(**sent_at) >= stop_ms)
                .map(|(fence, _)| *fence)
                .collect();
            for fence in late {
                session.stops_in_flight.remove(&fence);
                session.stops_waiting.insert(fence);
            }
            if !session.stops_waiting.is_empty() {
                again.push(name.clone());
            }
        }
        for name in again {
            self.dispatch(now, &name);
        }
    }
}

fn want(cluster: &mut Cluster, fence: Fence, desired: Option<Desired>) {
    if let Some(session) = cluster.session.as_mut() {
        plan_one(session, fence, desired.as_ref());
    }
    match desired {
        Some(desired) => cluster.desired.insert(fence, desired),
        None => cluster.desired.remove(&fence),
    };
}

/// What one change means for the session. Only what the agent does not hold is sent.
fn plan_one(session: &mut Session, fence: Fence, desired: Option<&Desired>) {
    match desired {
        Some(Desired::Run { .. }) => {
            session.stops_waiting.remove(&fence);
            session.stops_in_flight.remove(&fence);
            if !session.held.contains(&fence) && !session.in_flight.contains_key(&fence) {
                session.waiting.insert(fence);
            }
        }
        Some(Desired::Recall { .. } | Desired::Stop { .. }) => {
            session.waiting.remove(&fence);
            if !session.stops_in_flight.contains_key(&fence) {
                session.stops_waiting.insert(fence);
            }
        }
        None => {
            session.waiting.remove(&fence);
            session.in_flight.remove(&fence);
            session.held.remove(&fence);
            session.stops_in_flight.remove(&fence);
            session.stops_waiting.remove(&fence);
        }
    }
}
