//! Quorum rounds: who waits for one, and when to ask again.
//!
//! One ReadIndex serves everything that waits when it begins. A fresh leader drops them silently, and messages get
//! lost, so each is asked again until it is answered or given up.

use crate::leading::Answer;
use std::collections::BTreeMap;

/// What waits for a quorum round.
pub(crate) enum Waiting {
    /// A client's read.
    Client { request: u64 },
    /// Answers without facts, decided by the leader of this term.
    Answers { term: u64, answers: Vec<Answer> },
    /// Lease renewals received before the round began.
    Renewals { round: u64 },
}

struct Round {
    waiting: Vec<Waiting>,
    asked_at_ms: u64,
    began_at_ms: u64,
    /// Set by the answer: the applied index that must be reached.
    index: Option<u64>,
}

/// The rounds under way.
#[derive(Default)]
pub(crate) struct Reads {
    /// Waits for the next round to begin.
    next: Vec<Waiting>,
    rounds: BTreeMap<u64, Round>,
    last_context: u64,
}

impl Reads {
    /// Contexts are unique in the cell: the member's id is in the upper bits.
    pub fn new(member: u64) -> Self {
        Self { last_context: member << 40, ..Self::default() }
    }

    pub fn add(&mut self, waiting: Waiting) {
        self.next.push(waiting);
    }

    pub fn len(&self) -> usize {
        self.next.len() + self.rounds.values().map(|round| round.waiting.len()).sum::<usize>()
    }

    fn context(&mut self) -> u64 {
        self.last_context += 1;
        self.last_context
    }

    /// Begins a round for what waits, and repeats those without an answer. Returns the contexts to ask the quorum
    /// with, and what is given up.
    pub fn poll(&mut self, now_ms: u64, retry_ms: u64, timeout_ms: u64) -> (Vec<u64>, Vec<Waiting>) {
        let (mut ask, mut given_up) = (Vec::new(), Vec::new());
        if !self.next.is_empty() {
            let (context, waiting) = (self.context(), std::mem::take(&mut self.next));
            self.rounds
                .insert(context, Round { waiting, asked_at_ms: now_ms, began_at_ms: now_ms, index: None });
            ask.push(context);
        }
        let stale = |round: &Round| round.index.is_none() && now_ms >= round.asked_at_ms + retry_ms;
        let due: Vec<u64> =
            self.rounds.iter().filter(|(_, round)| stale(round)).map(|(context, _)| *context).collect();
        for old in due {
            let Some(mut round) = self.rounds.remove(&old) else { continue };
            if now_ms >= round.began_at_ms + timeout_ms {
                given_up.append(&mut round.waiting);
                continue;
            }
            let context = self.context();
            round.asked_at_ms = now_ms;
            self.rounds.insert(context, round);
            ask.push(context);
        }
        (ask, given_up)
    }

    /// A quorum confirmed the round: it is served once `index` is applied.
    pub fn confirmed(&mut self, context: u64, index: u64) {
        if let Some(round) = self.rounds.get_mut(&context) {
            round.index.get_or_insert(index);
        }
    }

    /// Takes what can be served.
    pub fn served(&mut self, applied_index: u64) -> Vec<Waiting> {
        let ready = |round: &Round| round.index.is_some_and(|index| index <= applied_index);
        let due: Vec<u64> =
            self.rounds.iter().filter(|(_, round)| ready(round)).map(|(context, _)| *context).collect();
        due.into_iter()
            .filter_map(|context| self.rounds.remove(&context))
            .flat_map(|round| round.waiting)
            .collect()
    }

    /// Takes the answers that wait, as a leader that steps down must.
    pub fn drain_answers(&mut self) -> Vec<Answer> {
        let mut drained = Vec::new();
        let all =
            std::iter::once(&mut self.next).chain(self.rounds.values_mut().map(|round| &mut round.waiting));
        for waiting in all {
            let (answers, rest): (Vec<_>, Vec<_>) =
                std::mem::take(waiting).into_iter().partition(|one| matches!(one, Waiting::Answers { .. }));
            *waiting = rest;
            for one in answers {
                if let Waiting::Answers { answers, .. } = one {
                    drained.extend(answers);
                }
            }
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(waiting: &[Waiting]) -> Vec<u64> {
        waiting
            .iter()
            .filter_map(|one| if let Waiting::Client { request } = one { Some(*request) } else { None })
            .collect()
    }

    #[test]
    fn one_round_serves_all_that_waited_when_it_began() {
        let mut reads = Reads::new(1);
        reads.add(Waiting::Client { request: 1 });
        reads.add(Waiting::Client { request: 2 });
        let (ask, _) = reads.poll(0, 10, 100);
        reads.add(Waiting::Client { request: 3 });
        assert_eq!(ask.len(), 1);
        reads.confirmed(ask[0], 7);
        assert!(reads.served(6).is_empty());
        assert_eq!(requests(&reads.served(7)), [1, 2]);
        assert_eq!(reads.len(), 1, "the third waits for a round of its own");
    }

    #[test]
    fn an_unanswered_round_is_asked_again_under_a_new_name_and_given_up_at_last() {
        let mut reads = Reads::new(1);
        reads.add(Waiting::Client { request: 1 });
        let (first, _) = reads.poll(0, 10, 25);
        let (second, _) = reads.poll(10, 10, 25);
        assert_eq!((first.len(), second.len()), (1, 1));
        reads.confirmed(first[0], 1);
        assert!(reads.served(9).is_empty(), "an answer to the first asking comes too late");
        assert!(reads.poll(20, 10, 25).1.is_empty());
        assert_eq!(requests(&reads.poll(30, 10, 25).1), [1]);
    }
}
