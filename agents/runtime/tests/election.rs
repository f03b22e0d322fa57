//! Elections under bad days: answers that are late, lost after their effect, conflicts, processes that stand still.

#![expect(clippy::unwrap_used, reason = "a test")]

use argosy_agent_runtime::election::{Election, Input, Output, Record, Times, Write};
use std::collections::BTreeMap;

const TIMES: Times = Times { duration_ms: 10_000, renew_deadline_ms: 7_000, retry_ms: 1_500 };

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// The cluster's API: one object, written by compare-and-swap.
#[derive(Default)]
struct Api {
    record: Option<Record>,
    writes: u64,
}

impl Api {
    fn write(&mut self, write: &Write) -> Result<String, ()> {
        if write.version.as_ref() != self.record.as_ref().map(|record| &record.version) {
            return Err(());
        }
        self.writes += 1;
        let version = self.writes.to_string();
        self.record = Some(Record {
            holder: write.holder.clone(),
            duration_ms: write.duration_ms,
            term: write.term,
            renewed: format!("at {}", self.writes),
            version: version.clone(),
        });
        Ok(version)
    }
}

struct Candidate {
    election: Election,
    term: u64,
    /// Its clock begins anywhere.
    offset: u64,
    stands_still_until: u64,
    inbox: BTreeMap<(u64, u64), Input>,
}

impl Candidate {
    fn new(life: u64, floor: u64, random: &mut Random) -> Self {
        let election = Election::new(format!("life-{life}"), TIMES, floor, random.next()).unwrap();
        Self {
            election,
            term: 0,
            offset: random.below(1 << 40),
            stands_still_until: 0,
            inbox: BTreeMap::new(),
        }
    }
}

/// Faults until `calm_at`, then none: somebody leads at the end, and never two at once. Gives the terms.
fn run(seed: u64, calm_at: u64, end_at: u64) -> Vec<u64> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut api = Api::default();
    let mut lives = 2;
    let mut candidates: Vec<Candidate> = (0..2).map(|life| Candidate::new(life, 0, &mut random)).collect();
    let mut terms: Vec<u64> = Vec::new();
    let mut away_until = 0;
    let mut number = 0;
    let mut was_deleted = false;
    for now in (0..end_at).step_by(100) {
        let is_calm = now >= calm_at;
        if !is_calm {
            if random.one_in(600) {
                away_until = now + random.below(15_000);
            }
            if seed.is_multiple_of(2) && random.one_in(900) {
                api.record = None;
                was_deleted = true;
            }
            if random.one_in(100)
                && let Some(record) = &mut api.record
            {
                // Somebody writes a label.
                api.writes += 1;
                record.version = api.writes.to_string();
            }
        }
        for candidate in &mut candidates {
            if !is_calm && random.one_in(300) {
                candidate.stands_still_until = now + random.below(30_000);
            }
            if !is_calm && random.one_in(600) {
                *candidate = Candidate::new(lives, terms.last().copied().unwrap_or(0), &mut random);
                lives += 1;
            }
            if now < candidate.stands_still_until {
                continue;
            }
            let mut inputs = vec![Input::Tick];
            let later = candidate.inbox.split_off(&(now + 1, 0));
            inputs.extend(std::mem::replace(&mut candidate.inbox, later).into_values());
            // After a standstill answers and clock come in any order.
            if random.one_in(2) {
                inputs.reverse();
            }
            for input in inputs {
                let local = now + candidate.offset;
                for output in candidate.election.step(local, input) {
                    let mut late =
                        || if !is_calm && random.one_in(5) { random.below(12_000) } else { random.below(50) };
                    let (arrives, answered) = (now + late(), now + late());
                    let is_lost = !is_calm && (now < away_until || random.one_in(10));
                    number += 1;
                    let answer = match output {
                        Output::Read { request } => {
                            let answer = if is_lost { Err(()) } else { Ok(api.record.clone()) };
                            Input::Read { request, answer }
                        }
                        Output::Write { request, write } => {
                            // Arrived at once or never; its answer may be lost all the same.
                            let done = if is_lost && random.one_in(2) { Err(()) } else { api.write(&write) };
                            Input::Written { request, answer: if is_lost { Err(()) } else { done } }
                        }
                        Output::Leading { term } => {
                            let last = terms.last().copied().unwrap_or(0);
                            if term <= last {
                                // Only where the record was deleted under a term that this one never saw: the ledger says no.
                                assert!(was_deleted, "seed {seed}: {terms:?}, {term}");
                                *candidate = Candidate::new(lives, last, &mut random);
                                lives += 1;
                                break;
                            }
                            terms.push(term);
                            candidate.term = term;
                            continue;
                        }
                        Output::Lost => {
                            *candidate =
                                Candidate::new(lives, terms.last().copied().unwrap_or(0), &mut random);
                            lives += 1;
                            break;
                        }
                    };
                    candidate.inbox.insert((arrives.max(answered), number), answer);
                }
            }
        }
        let acting = candidates.iter().filter(|one| one.election.is_leading(now + one.offset)).count();
        assert!(acting <= 1, "seed {seed}: two act at {now}");
    }
    let acts = candidates.iter().any(|one| one.election.leading_until() > 0);
    assert!(acts, "seed {seed}: nobody acts once all is calm");
    terms
}

#[test]
fn never_two_at_once_and_terms_rise_whatever_goes_wrong() {
    let changes: usize = (1..=400).map(|seed| run(seed, 200_000, 240_000).len()).sum();
    assert!(changes > 800, "only {changes} holders: the faults do nothing");
}

#[test]
fn without_faults_the_first_holder_stays() {
    for seed in 1..=20 {
        assert_eq!(run(seed, 0, 120_000).len(), 1, "seed {seed}");
    }
}

fn election(identity: &str) -> Election {
    Election::new(identity.to_owned(), TIMES, 0, 7).unwrap()
}

fn held_by(holder: &str, renewed: &str, version: &str) -> Record {
    Record {
        holder: holder.to_owned(),
        duration_ms: 10_000,
        term: 4,
        renewed: renewed.to_owned(),
        version: version.to_owned(),
    }
}

fn reads(outputs: &[Output]) -> Option<u64> {
    outputs.iter().find_map(|output| match output {
        Output::Read { request } => Some(*request),
        Output::Write { .. } | Output::Leading { .. } | Output::Lost => None,
    })
}

fn writes(outputs: &[Output]) -> Option<(u64, Write)> {
    outputs.iter().find_map(|output| match output {
        Output::Write { request, write } => Some((*request, write.clone())),
        Output::Read { .. } | Output::Leading { .. } | Output::Lost => None,
    })
}

#[test]
fn a_label_is_no_sign_of_life_and_an_old_answer_proves_nothing() {
    let mut one = election("b");
    let request = reads(&one.step(0, Input::Tick)).unwrap();
    one.step(10, Input::Read { request, answer: Ok(Some(held_by("a", "x", "1"))) });
    let request = reads(&one.step(9_000, Input::Tick)).unwrap();
    // The process stands still with the answer in its hands: it says how things were when it was asked for.
    let answer = Ok(Some(held_by("a", "x", "2")));
    assert_eq!(writes(&one.step(10_400, Input::Read { request, answer })), None);
    let request = reads(&one.step(12_000, Input::Tick)).unwrap();
    let outputs = one.step(12_010, Input::Read { request, answer: Ok(Some(held_by("a", "x", "3"))) });
    let (request, write) = writes(&outputs).unwrap();
    assert_eq!((write.holder.as_str(), write.term, write.version.as_deref()), ("b", 5, Some("3")));
    assert!(write.is_taken_over);
    let outputs = one.step(12_050, Input::Written { request, answer: Ok("4".to_owned()) });
    assert_eq!(outputs, [Output::Leading { term: 5 }]);
    assert_eq!(one.leading_until(), 12_010 + TIMES.renew_deadline_ms, "counted from the sending");
}

#[test]
fn a_holder_that_stood_still_ends_before_it_does_anything() {
    let mut one = election("a");
    let request = reads(&one.step(0, Input::Tick)).unwrap();
    let outputs = one.step(1, Input::Read { request, answer: Ok(Some(Record::default())) });
    let (request, _) = writes(&outputs).unwrap();
    one.step(2, Input::Written { request, answer: Ok("2".to_owned()) });
    let (request, write) = writes(&one.step(2_000, Input::Tick)).unwrap();
    assert!(!write.is_taken_over);
    // The answer lay in the socket while the process stood still.
    assert!(!one.is_leading(60_000));
    let outputs = one.step(60_000, Input::Written { request, answer: Ok("3".to_owned()) });
    assert_eq!(outputs, [Output::Lost]);
    assert_eq!(one.step(60_100, Input::Tick), [], "over for good");
}

#[test]
fn who_gives_up_is_followed_at_once() {
    let mut one = election("a");
    let request = reads(&one.step(0, Input::Tick)).unwrap();
    let outputs = one.step(1, Input::Read { request, answer: Ok(Some(held_by("", "x", "8"))) });
    let (request, write) = writes(&outputs).unwrap();
    assert_eq!(write.term, 5, "terms go on");
    one.step(2, Input::Written { request, answer: Ok("9".to_owned()) });
    let last = one.give_up().unwrap();
    assert_eq!((last.holder.as_str(), last.term, last.version.as_deref()), ("", 5, Some("9")));
    assert_eq!(one.leading_until(), 0);
    assert_eq!(one.give_up(), None);
    assert_eq!(one.step(9_000, Input::Tick), []);
}

#[test]
fn times_that_promise_nothing_are_refused() {
    for (duration_ms, renew_deadline_ms, retry_ms) in
        [(10, 10, 1), (10, 9, 5), (10, 9, 0), (600_001, 10_000, 1_000)]
    {
        let refused = Times { duration_ms, renew_deadline_ms, retry_ms }.check().unwrap_err();
        assert!(refused.to_string().starts_with("ARG1232: "), "{refused}");
    }
}
