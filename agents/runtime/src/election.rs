//! Which of several agents with one identity acts: the holder of a record that is written by compare-and-swap.
//!
//! A machine without input or output. The record lies in the cluster's API (a Lease); a shell reads and writes it.
//! Clocks of two hosts are never compared: whoever waits measures, by its own steady clock, for how long the record has
//! not changed; whoever holds it counts from when it *sent* the write that was acknowledged.
//!
//! Invariants: the right to act ends [`Times::renew_deadline_ms`] after the sending of the last acknowledged write, and
//! nobody takes the record over before it was seen unchanged for [`Times::duration_ms`] by a read sent after that time, so
//! with clocks of like speed no two act at once; terms only rise; a right that was lost never comes back to this machine.
//!
//! Failure model: reads and writes may fail, be late or be lost after their effect; the process may stand still at any
//! instant, between any two calls. A shell that acts after a standstill asks [`Election::is_leading`] first; what was under
//! way already is for fences to catch (session epochs, resource versions, ledgers of terms).

use argosy_link::Millis;

/// The longest time a record may be held without being renewed, whatever it says itself: what is longer was not written by us.
pub const DURATION_MS_MAX: Millis = 600_000;
/// A holder that waits asks at most so much later than [`Times::retry_ms`], as parts of a thousand, so that two don't ask in step.
const JITTER_PER_MILLE: Millis = 200;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// A record that was not renewed for so long may be taken over.
    pub duration_ms: Millis,
    /// A holder that could not renew for so long stops acting; less than the duration.
    pub renew_deadline_ms: Millis,
    /// Between two looks at the record, or two renewals; a request that takes longer counts as lost.
    pub retry_ms: Millis,
}

impl Default for Times {
    /// Short enough for a take-over within the lease that the control plane gives a cluster, with its margin (20 s).
    fn default() -> Self {
        Self { duration_ms: 10_000, renew_deadline_ms: 7_000, retry_ms: 1_500 }
    }
}

/// Times that can't keep the promise.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "ARG1232: the Lease's times are of no use: retry ({retry_ms} ms) must be at least 1 ms and twice as short as the renew deadline ({renew_deadline_ms} ms), and that shorter than the duration ({duration_ms} ms), which is at most {DURATION_MS_MAX} ms"
)]
pub struct Error {
    duration_ms: Millis,
    renew_deadline_ms: Millis,
    retry_ms: Millis,
}

impl Times {
    /// # Errors
    /// When one holder could act while the next one begins, or a single lost request would cost the right.
    pub fn check(self) -> Result<Self, Error> {
        let Self { duration_ms, renew_deadline_ms, retry_ms } = self;
        let fits = retry_ms > 0
            && retry_ms.saturating_mul(2) <= renew_deadline_ms
            && renew_deadline_ms < duration_ms
            && duration_ms <= DURATION_MS_MAX;
        if fits { Ok(self) } else { Err(Error { duration_ms, renew_deadline_ms, retry_ms }) }
    }
}

/// The record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// For how long without a renewal, as the holder says; 0: it does not say.
    pub duration_ms: Millis,
    /// Numbers the holders one after the other.
    pub term: u64,
    /// When it was renewed, in the holder's words: compared for being equal only.
    pub renewed: String,
    /// Of the object; a write names the one it is meant to replace.
    pub version: String,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Empty: it is given up.
    pub holder: String,
    /// See [`Record`].
    pub duration_ms: Millis,
    /// See [`Record`].
    pub term: u64,
    /// It is another holder's from here on.
    pub is_taken_over: bool,
    /// The version to be replaced; none: the object is to be made.
    pub version: Option<String>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The answer to [`Output::Read`]; no record: the object is not there.
    Read {
        /// The question.
        request: u64,
        /// `Err`: there is no answer.
        answer: Result<Option<Record>, ()>,
    },
    /// The answer to [`Output::Write`]: the new version. `Err`: conflict, refusal, or nobody knows.
    Written {
        /// The question.
        request: u64,
        /// The object's version from here on.
        answer: Result<String, ()>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the record.
    Read {
        /// Goes with the answer.
        request: u64,
    },
    /// Write it, if it has that version still.
    Write {
        /// Goes with the answer.
        request: u64,
        /// The content.
        write: Write,
    },
    /// This one acts from here on, see [`Election::leading_until`].
    Leading {
        /// Its term: higher than that of every holder before.
        term: u64,
    },
    /// The right is gone for good.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Leading { term: u64, until: Millis, version: String },
    Over,
}

#[derive(Clone, Debug)]
enum Asked {
    Read,
    Write { term: u64 },
}

#[derive(Clone, Debug)]
struct Pending {
    request: u64,
    sent: Millis,
    asked: Asked,
}

/// One candidate.
#[derive(Debug)]
pub struct Election {
    identity: String,
    times: Times,
    /// Terms up to this one were given already, whatever the record says.
    floor: u64,
    standing: Standing,
    pending: Option<Pending>,
    requests: u64,
    next_look: Millis,
    /// The record of another holder as it was last seen (or that there is none), and since when.
    seen: Option<(Option<Record>, Millis)>,
    /// What became of the last write is not known.
    is_in_doubt: bool,
    spread: u64,
}

impl Election {
    /// A candidate; `identity` is no other process's, before or after. Terms up to `floor` are known to have been given.
    ///
    /// # Errors
    /// [`Error`] for times that can't keep the promise.
    pub fn new(identity: String, times: Times, floor: u64, seed: u64) -> Result<Self, Error> {
        Ok(Self {
            identity,
            times: times.check()?,
            floor,
            standing: Standing::Waiting,
            pending: None,
            requests: 0,
            next_look: 0,
            seen: None,
            is_in_doubt: false,
            spread: seed,
        })
    }

    /// Until when this one may act; 0 when it may not.
    #[must_use]
    pub fn leading_until(&self) -> Millis {
        match self.standing {
            Standing::Leading { until, .. } => until,
            Standing::Waiting | Standing::Over => 0,
        }
    }

    /// Whether this one may act now.
    #[must_use]
    pub fn is_leading(&self, now: Millis) -> bool {
        now < self.leading_until()
    }

    /// Who held the record when it was last read; for people.
    #[must_use]
    pub fn other_holder(&self) -> Option<&str> {
        self.seen.as_ref().and_then(|(record, _)| record.as_ref()).map(|record| record.holder.as_str())
    }

    /// Takes an input.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.end_if_late(now, &mut outputs);
        match input {
            Input::Tick => {}
            Input::Read { request, answer } => {
                if let Some(Pending { sent, asked: Asked::Read, .. }) = self.answered(request) {
                    self.read(now, sent, answer, &mut outputs);
                }
            }
            Input::Written { request, answer } => {
                if let Some(Pending { sent, asked: Asked::Write { term }, .. }) = self.answered(request) {
                    self.written(now, sent, term, answer, &mut outputs);
                }
            }
        }
        self.look(now, &mut outputs);
        outputs
    }

    /// What gives the record up, if this one holds it: to be written after acting has ended. The machine is over.
    pub fn give_up(&mut self) -> Option<Write> {
        self.pending = None;
        let standing = std::mem::replace(&mut self.standing, Standing::Over);
        let Standing::Leading { term, version, .. } = standing else { return None };
        Some(Write {
            holder: String::new(),
            duration_ms: self.times.duration_ms,
            term,
            is_taken_over: false,
            version: Some(version),
        })
    }

    fn end_if_late(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        if let Standing::Leading { until, .. } = self.standing
            && now >= until
        {
            self.lose(outputs);
        }
    }

    fn lose(&mut self, outputs: &mut Vec<Output>) {
        self.standing = Standing::Over;
        self.pending = None;
        outputs.push(Output::Lost);
    }

    /// The question that this answers, if it is the one that waits: a late answer changes nothing, the next read tells.
    fn answered(&mut self, request: u64) -> Option<Pending> {
        self.pending.take_if(|pending| pending.request == request)
    }

    fn read(
        &mut self,
        now: Millis,
        sent: Millis,
        answer: Result<Option<Record>, ()>,
        outputs: &mut Vec<Output>,
    ) {
        let Ok(found) = answer else { return };
        let version = found.as_ref().map(|record| record.version.clone());
        self.floor = self.floor.max(found.as_ref().map_or(0, |record| record.term));
        match (&self.standing, &found) {
            (Standing::Over, _) => {}
            // A write whose answer was lost, or ours as it should be.
            (Standing::Leading { .. } | Standing::Waiting, Some(record))
                if record.holder == self.identity =>
            {
                self.write(now, record.term, version, outputs);
            }
            // Deleted by somebody: made anew under the same term.
            (Standing::Leading { term, .. }, None) => self.write(now, *term, None, outputs),
            (Standing::Leading { .. }, Some(_)) => self.lose(outputs),
            (Standing::Waiting, Some(record)) if record.holder.is_empty() => {
                self.write(now, self.floor + 1, version, outputs);
            }
            (Standing::Waiting, _) => self.wait_for(now, sent, found, outputs),
        }
    }

    /// Takes the record over once it was seen unchanged for long enough. One that is not there may have been deleted under a
    /// holder that still acts: it is waited for as well.
    fn wait_for(&mut self, now: Millis, sent: Millis, found: Option<Record>, outputs: &mut Vec<Output>) {
        let version = found.as_ref().map(|record| record.version.clone());
        let says = found.as_ref().map_or(0, |record| record.duration_ms);
        let lasts = says.clamp(self.times.duration_ms, DURATION_MS_MAX);
        let since = match &self.seen {
            Some((before, since)) if is_same(before.as_ref(), found.as_ref()) => *since,
            Some(_) | None => now,
        };
        self.seen = Some((found, since));
        // The question, not the answer, must be old enough: an answer may have lain about while the holder renewed.
        if sent >= since.saturating_add(lasts) {
            self.write(now, self.floor + 1, version, outputs);
        }
    }

    fn write(&mut self, now: Millis, term: u64, version: Option<String>, outputs: &mut Vec<Output>) {
        let is_taken_over = !matches!(self.standing, Standing::Leading { .. });
        let holder = self.identity.clone();
        let write = Write { holder, duration_ms: self.times.duration_ms, term, is_taken_over, version };
        let request = self.ask(now, Asked::Write { term });
        outputs.push(Output::Write { request, write });
    }

    fn written(
        &mut self,
        now: Millis,
        sent: Millis,
        term: u64,
        answer: Result<String, ()>,
        outputs: &mut Vec<Output>,
    ) {
        let Ok(version) = answer else {
            self.is_in_doubt = true;
            return;
        };
        self.is_in_doubt = false;
        let until = sent.saturating_add(self.times.renew_deadline_ms);
        match &self.standing {
            Standing::Over => {}
            Standing::Leading { .. } => self.standing = Standing::Leading { term, until, version },
            // Held, but too late to act on it: the next renewal is counted from its own sending.
            Standing::Waiting if now >= until => {}
            Standing::Waiting => {
                self.standing = Standing::Leading { term, until, version };
                outputs.push(Output::Leading { term });
            }
        }
    }

    /// The next question, when it is time.
    fn look(&mut self, now: Millis, outputs: &mut Vec<Output>) {
        if self.standing == Standing::Over || now < self.next_look {
            return;
        }
        if let Some(pending) = &self.pending
            && now < pending.sent.saturating_add(self.times.retry_ms)
        {
            return;
        }
        self.is_in_doubt |= self.pending.take().is_some();
        match &self.standing {
            // As long as all is well a renewal needs no read before it.
            Standing::Leading { term, version, .. } if !self.is_in_doubt => {
                let (term, version) = (*term, version.clone());
                self.write(now, term, Some(version), outputs);
            }
            Standing::Leading { .. } | Standing::Waiting => {
                let request = self.ask(now, Asked::Read);
                outputs.push(Output::Read { request });
            }
            Standing::Over => {}
        }
    }

    fn ask(&mut self, now: Millis, asked: Asked) -> u64 {
        self.requests += 1;
        self.spread =
            self.spread.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let jitter = self.times.retry_ms * ((self.spread >> 33) % (JITTER_PER_MILLE + 1)) / 1_000;
        self.next_look = now.saturating_add(self.times.retry_ms).saturating_add(jitter);
        self.pending = Some(Pending { request: self.requests, sent: now, asked });
        self.requests
    }
}

/// Whether nothing was heard of the holder between two looks: others may write labels, which only changes the version.
fn is_same(before: Option<&Record>, found: Option<&Record>) -> bool {
    match (before, found) {
        (None, None) => true,
        (Some(before), Some(found)) => {
            let Record { holder, duration_ms, term, renewed, version: _ } = before;
            (holder, duration_ms, term, renewed)
                == (&found.holder, &found.duration_ms, &found.term, &found.renewed)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}
