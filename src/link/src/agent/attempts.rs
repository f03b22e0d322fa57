//! The newest report of every attempt that the agent holds, and what of it is acknowledged.

use crate::{Limits, Millis, is_terminal};
use argosy_proto::common::{AttemptPhase, AttemptReport, Fence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug)]
pub(super) struct Attempt {
    pub report: AttemptReport,
    /// Newest revision with a verdict.
    pub acknowledged: Option<u64>,
    /// The control plane has no use for it: nothing is reported.
    pub discarded: bool,
}

/// What to do with an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    New,
    Held,
    Released,
    Full,
}

#[derive(Debug)]
pub(super) struct Attempts {
    limits: Limits,
    held: BTreeMap<Fence, Attempt>,
    /// Reports to send.
    dirty: BTreeSet<Fence>,
    /// Reports without a verdict, and when they were sent.
    in_flight: BTreeMap<Fence, Millis>,
    /// Released attempts, so that a late copy of their assignment starts nothing; the oldest is forgotten first.
    released: BTreeSet<Fence>,
    released_order: VecDeque<Fence>,
}

impl Attempts {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            dirty: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            released: BTreeSet::new(),
            released_order: VecDeque::new(),
        }
    }

    pub fn get_mut(&mut self, fence: &Fence) -> Option<&mut Attempt> {
        self.held.get_mut(fence)
    }

    pub fn admit(&mut self, fence: Fence) -> Admission {
        if self.held.contains_key(&fence) {
            return Admission::Held;
        }
        if self.released.contains(&fence) {
            return Admission::Released;
        }
        if self.held.len() >= self.limits.held_max {
            return Admission::Full;
        }
        // Held from now on, whatever comes before its first record does.
        let report = AttemptReport {
            fence: Some(fence),
            phase: AttemptPhase::Received.into(),
            ..AttemptReport::default()
        };
        self.held.insert(fence, Attempt { report, acknowledged: None, discarded: false });
        Admission::New
    }

    pub fn changed(&mut self, report: AttemptReport) {
        let Some(fence) = report.fence else { return };
        match self.held.get_mut(&fence) {
            Some(attempt) if report.revision > attempt.report.revision => {
                attempt.report = report;
                if !attempt.discarded {
                    self.dirty.insert(fence);
                }
            }
            Some(_) => {}
            None => {
                self.held.insert(fence, Attempt { report, acknowledged: None, discarded: false });
                self.dirty.insert(fence);
            }
        }
    }

    pub fn released(&mut self, fence: Fence) {
        self.held.remove(&fence);
        self.dirty.remove(&fence);
        self.in_flight.remove(&fence);
        if self.released.insert(fence) {
            self.released_order.push_back(fence);
        }
        if self.released_order.len() > self.limits.released_max
            && let Some(oldest) = self.released_order.pop_front()
        {
            self.released.remove(&oldest);
        }
    }

    /// Reports the attempt again, although nothing changed.
    pub fn report_again(&mut self, fence: Fence) {
        if self.held.get(&fence).is_some_and(|attempt| !attempt.discarded && attempt.report.revision > 0) {
            self.dirty.insert(fence);
        }
    }

    pub fn discard(&mut self, fence: &Fence) -> bool {
        self.dirty.remove(fence);
        self.in_flight.remove(fence);
        self.held.get_mut(fence).is_some_and(|attempt| !std::mem::replace(&mut attempt.discarded, true))
    }

    /// The verdict on the newest report came.
    pub fn settled(&mut self, fence: &Fence) {
        self.in_flight.remove(fence);
    }

    /// Every attempt, without what is long or final and at the revision that has its verdict: what is new follows as a
    /// report of its own, which an equal revision in the list would make old news.
    pub fn listing(&self) -> Vec<AttemptReport> {
        self.held
            .values()
            .map(|attempt| {
                let AttemptReport { fence, permitted, started_at_ms, .. } = attempt.report;
                let phase = match attempt.report.phase() {
                    AttemptPhase::Succeeded
                    | AttemptPhase::Failed
                    | AttemptPhase::Error
                    | AttemptPhase::Stopped => {
                        if permitted {
                            AttemptPhase::Running
                        } else {
                            AttemptPhase::Pending
                        }
                    }
                    held @ (AttemptPhase::Unspecified
                    | AttemptPhase::Received
                    | AttemptPhase::Pending
                    | AttemptPhase::Running) => held,
                };
                AttemptReport {
                    fence,
                    revision: attempt.acknowledged.unwrap_or(0),
                    permitted,
                    started_at_ms,
                    phase: phase.into(),
                    ..AttemptReport::default()
                }
            })
            .collect()
    }

    /// Whether the attempt's end has no verdict yet: it is reported whatever a list says of the attempt.
    pub fn has_news_of_its_end(&self, fence: &Fence) -> bool {
        self.held.get(fence).is_some_and(|attempt| {
            is_terminal(attempt.report.phase()) && attempt.acknowledged < Some(attempt.report.revision)
        })
    }

    pub fn fences(&self) -> BTreeSet<Fence> {
        self.held.keys().copied().collect()
    }

    /// In a new session everything without a verdict is reported anew.
    pub fn report_all(&mut self) {
        self.in_flight.clear();
        self.dirty = self
            .held
            .iter()
            .filter(|(_, attempt)| !attempt.discarded && attempt.acknowledged < Some(attempt.report.revision))
            .map(|(fence, _)| *fence)
            .collect();
    }

    /// Another history of the cell: what was acknowledged there counts for nothing.
    pub fn forget_verdicts(&mut self) {
        for attempt in self.held.values_mut() {
            attempt.acknowledged = None;
            attempt.discarded = false;
        }
    }

    /// Reports that had no verdict in time are sent again; how many.
    pub fn retry(&mut self, now: Millis, resend_ms: Millis) -> u64 {
        let late: Vec<Fence> = self
            .in_flight
            .iter()
            .filter(|(_, sent_at)| now.saturating_sub(**sent_at) >= resend_ms)
            .map(|(fence, _)| *fence)
            .collect();
        for fence in &late {
            self.in_flight.remove(fence);
            self.dirty.insert(*fence);
        }
        late.len() as u64
    }

    /// The next report to send, while fewer than the limit are without verdict.
    pub fn next_report(&mut self, now: Millis) -> Option<AttemptReport> {
        loop {
            let fence = if self.in_flight.len() < self.limits.reports_in_flight_max {
                *self.dirty.first()?
            } else {
                // Only what is in flight may be sent anew.
                *self.in_flight.keys().find(|fence| self.dirty.contains(*fence))?
            };
            self.dirty.remove(&fence);
            if let Some(attempt) = self.held.get(&fence) {
                self.in_flight.insert(fence, now);
                return Some(attempt.report.clone());
            }
        }
    }
}
