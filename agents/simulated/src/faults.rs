//! What befalls a cluster: its owner calls these.

use crate::pod::{Pod, Stage, observe};
use crate::{Execution, ExecutionKind, Millis, SECOND, Simulated};
use argosy_agent_runtime::RuntimeEvent;
use argosy_proto::common::Fence;

impl Simulated {
    /// From now on the pods' clocks run at this rate.
    pub fn set_drift(&mut self, drift_ppm: i64) {
        self.drift_ppm = drift_ppm;
    }

    /// The cluster's API server does not answer, or does again: no pod is made, what there is goes on.
    pub fn set_healthy(&mut self, healthy: bool) {
        self.healthy = healthy;
        self.events.push(RuntimeEvent::Capacity { allocatable: self.options.allocatable.clone(), healthy });
    }

    /// The executor of one pod is killed, and with it what it runs; the pod has failed.
    pub fn kill_executor(&mut self, now: Millis) -> Option<Fence> {
        let has_one = |pod: &Pod| {
            matches!(pod.stage, Stage::Asking | Stage::Running | Stage::HandingOver(_))
                && pod.frozen_until.is_none()
        };
        let up: Vec<Fence> =
            self.pods.iter().filter(|(_, pod)| has_one(pod)).map(|(fence, _)| *fence).collect();
        let drawn = usize::try_from(self.draw()).unwrap_or_default();
        let fence = *up.get(drawn.checked_rem(up.len())?)?;
        self.kill(now, fence);
        let pod = self.pods.get_mut(&fence)?;
        pod.stage = Stage::Killed;
        let seen = observe(fence, pod);
        self.events.push(RuntimeEvent::Observed(seen));
        Some(fence)
    }

    /// Images come slowly: pods made before that time start at some time up to it.
    pub fn hold_starts(&mut self, until: Millis) {
        self.starts_held_until = self.starts_held_until.max(until);
    }

    /// From now on every pod starts soon.
    pub fn start_soon(&mut self) {
        self.options.slow_start_per_mille = 0;
        self.starts_held_until = 0;
    }

    /// What runs is started a second time, as where a host comes back from an image of itself. The second process asks for a
    /// permit of its own, once; with one it runs the command.
    pub fn start_again(&mut self, now: Millis) {
        let is_free =
            |pod: &&Pod| pod.stage == Stage::Running && pod.frozen_until.is_none_or(|until| until <= now);
        let asks = self.pods.iter().filter(|(_, pod)| is_free(pod)).map(|(fence, pod)| {
            let holder = format!("{}{SECOND}", pod.holder);
            RuntimeEvent::PermitAsked { fence: *fence, holder }
        });
        self.events.extend(asks);
    }

    /// Pods do nothing for a time, as a machine that sleeps; their clocks go on.
    pub fn freeze(&mut self, now: Millis, until: Millis) {
        let frozen: Vec<Fence> = self.pods.keys().copied().collect();
        for fence in frozen {
            let Some(pod) = self.pods.get_mut(&fence) else { continue };
            if pod.frozen_until.is_none_or(|before| before < until) {
                if pod.stage == Stage::Running && pod.frozen_until.is_none() {
                    let holder = pod.holder.clone();
                    self.executions.push(Execution { at: now, fence, holder, kind: ExecutionKind::Frozen });
                }
                pod.frozen_until = Some(until);
                self.plan_at(until, fence);
            }
        }
    }

    /// A pod goes on. Its executor looks at the clock before the command does anything.
    pub(crate) fn thaw(&mut self, now: Millis, fence: Fence) {
        let Some(pod) = self.pods.get_mut(&fence) else { return };
        pod.frozen_until = None;
        let is_out = pod.lease.as_ref().is_some_and(|lease| now >= lease.ends_at);
        if pod.stage == Stage::Running && !is_out {
            let holder = pod.holder.clone();
            self.executions.push(Execution { at: now, fence, holder, kind: ExecutionKind::Thawed });
        }
    }

    /// All pods vanish with what they ran.
    pub fn lose_pods(&mut self, now: Millis) {
        let fences: Vec<Fence> = self.pods.keys().copied().collect();
        for fence in fences {
            self.kill(now, fence);
        }
        self.pods.clear();
        self.plan.clear();
        self.events.clear();
    }

    /// All hosts are cut off for good and their pods' records deleted. What runs goes on to its end, or to the end of its
    /// lease, and nobody is told of it.
    pub fn lose_hosts(&mut self, now: Millis) {
        self.plan.clear();
        for (fence, pod) in std::mem::take(&mut self.pods) {
            self.events.push(RuntimeEvent::Gone(fence));
            if pod.stage != Stage::Running || pod.frozen_until.is_some() {
                continue;
            }
            let (ends_at, kind) = match &pod.lease {
                Some(lease) if lease.ends_at < pod.started_at + pod.duration_ms => {
                    (lease.ends_at, ExecutionKind::Killed)
                }
                Some(_) | None => (pod.started_at + pod.duration_ms, ExecutionKind::Completed),
            };
            self.unseen.insert((ends_at.max(now), fence), (pod.holder, kind));
        }
    }
}
