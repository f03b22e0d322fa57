//! Parts of one object, several under way at a time.
//!
//! Whoever makes the parts waits for a free slot before each of them, so there is a bound on what is under way; each is sent,
//! and sent again, by a thread of its own straight from a file: memory holds none of them.

use super::content::{CHANGED, Range, Summing};
use super::transfer::{Failure, Session, tries};
use crate::artifacts::{Answer, Operation, Signed};
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

/// Parts of one object, which S3 allows.
pub const PARTS_MAX: u64 = 10_000;

/// An object of an output artifact, which the agent knows the key of.
#[derive(Clone)]
pub struct Object<'a> {
    pub session: &'a Session,
    /// The artifact.
    pub name: String,
    /// The file in it; empty for an artifact that is one object.
    pub file: String,
}

impl Object<'_> {
    fn asked(&self, operation: Operation) -> Result<Answer, Failure> {
        self.session.ask(operation).map_err(|message| Failure { message, again: false })
    }

    /// A request that stores it whole, and whether its store takes parts.
    pub fn signed(&self) -> Result<(Signed, bool), Failure> {
        let asked = self.asked(Operation::Put { name: self.name.clone(), file: self.file.clone() })?;
        let Answer::Signed { request, parts } = asked else { return Err(unexpected()) };
        Ok((request, parts))
    }

    fn begin(&self) -> Result<String, Failure> {
        let asked = self.asked(Operation::Begin { name: self.name.clone(), file: self.file.clone() })?;
        let Answer::Upload { upload } = asked else { return Err(unexpected()) };
        Ok(upload)
    }

    /// One part, once; its tag.
    fn send_part(&self, upload: &str, job: &Job) -> Result<String, Failure> {
        let (name, file) = (self.name.clone(), self.file.clone());
        let operation = Operation::Part { name, file, upload: upload.to_owned(), number: job.number };
        let Answer::Signed { request, .. } = self.asked(operation)? else { return Err(unexpected()) };
        let mut bytes = Summing::new(Range::new(&job.file, job.part.offset, job.part.length));
        let tag = self.session.put(&request, &mut bytes)?;
        if bytes.sum() != job.part.checksum {
            return Err(Failure { message: CHANGED.to_owned(), again: false });
        }
        Ok(tag)
    }

    fn complete(&self, upload: String, tags: Vec<String>) -> Result<(), String> {
        let (name, file) = (self.name.clone(), self.file.clone());
        self.session.ask(Operation::Complete { name, file, upload, tags }).map(drop)
    }

    fn abort(&self, upload: String) {
        let (name, file) = (self.name.clone(), self.file.clone());
        // What is left is the store's to collect.
        let _ = self.session.ask(Operation::Abort { name, file, upload });
    }
}

fn unexpected() -> Failure {
    Failure { message: "the agent gave the answer to another question".to_owned(), again: false }
}

/// Where the bytes of a part are.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// See [`Parts::slot`].
    pub slot: usize,
    pub offset: u64,
    pub length: u64,
    /// Of the bytes that were digested: no others are stored.
    pub checksum: u32,
}

struct Job {
    number: u16,
    file: Arc<File>,
    part: Part,
}

struct Sent {
    number: u16,
    slot: usize,
    tag: Result<String, String>,
}

/// Sends the parts of an object.
pub struct Parts<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    object: Object<'env>,
    at_once: usize,
    upload: Option<Arc<str>>,
    threads: usize,
    given: u64,
    under_way: usize,
    free: Vec<usize>,
    tags: BTreeMap<u16, String>,
    problem: Option<String>,
    is_over: Arc<AtomicBool>,
    jobs: SyncSender<Job>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    done: SyncSender<Sent>,
    sent: Receiver<Sent>,
}

impl<'scope, 'env> Parts<'scope, 'env> {
    /// Nothing is asked or sent before the first part.
    pub fn new(scope: &'scope Scope<'scope, 'env>, object: Object<'env>) -> Self {
        let at_once = object.session.parts_at_once();
        // One is made while the others are sent.
        let slots = at_once + 1;
        let (jobs, waiting) = sync_channel(slots);
        let (done, sent) = sync_channel(slots);
        Self {
            scope,
            object,
            at_once,
            upload: None,
            threads: 0,
            given: 0,
            under_way: 0,
            free: (0..slots).rev().collect(),
            tags: BTreeMap::new(),
            problem: None,
            is_over: Arc::default(),
            jobs,
            waiting: Arc::new(Mutex::new(waiting)),
            done,
            sent,
        }
    }

    /// Parts that were given to be sent.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Waits until another part may be made.
    pub fn slot(&mut self) -> Result<usize, String> {
        while let Ok(sent) = self.sent.try_recv() {
            self.take(sent);
        }
        loop {
            if let Some(problem) = &self.problem {
                return Err(problem.clone());
            }
            match self.free.pop() {
                Some(slot) => return Ok(slot),
                None => self.wait(),
            }
        }
    }

    /// Has a part sent; its slot is free again once that is done.
    pub fn send(&mut self, file: &Arc<File>, part: Part) -> Result<(), String> {
        if self.given >= PARTS_MAX {
            return Err(format!("artifact {} needs more than {PARTS_MAX} parts", self.object.name));
        }
        self.given += 1;
        let upload = match &self.upload {
            Some(upload) => Arc::clone(upload),
            None => {
                let begun = self.object.begin().map_err(|failure| failure.message)?;
                Arc::clone(self.upload.insert(begun.into()))
            }
        };
        if self.threads < self.at_once && self.under_way >= self.threads {
            self.threads += 1;
            self.start(upload);
        }
        self.under_way += 1;
        let number = u16::try_from(self.given).unwrap_or(u16::MAX);
        let job = Job { number, file: Arc::clone(file), part };
        self.jobs.send(job).map_err(|_| "nobody sends parts any more".to_owned())
    }

    fn start(&self, upload: Arc<str>) {
        let (object, waiting, done) = (self.object.clone(), Arc::clone(&self.waiting), self.done.clone());
        let is_over = Arc::clone(&self.is_over);
        self.scope.spawn(move || {
            loop {
                let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = next else { return };
                let tag = tries(|| {
                    if is_over.load(Ordering::Relaxed) {
                        return Err(Failure { message: "given up".to_owned(), again: false });
                    }
                    object.send_part(&upload, &job)
                });
                if done.send(Sent { number: job.number, slot: job.part.slot, tag }).is_err() {
                    return;
                }
            }
        });
    }

    fn take(&mut self, sent: Sent) {
        self.under_way -= 1;
        self.free.push(sent.slot);
        match sent.tag {
            Ok(tag) => drop(self.tags.insert(sent.number, tag)),
            Err(problem) => {
                self.is_over.store(true, Ordering::Relaxed);
                self.problem.get_or_insert(problem);
            }
        }
    }

    fn wait(&mut self) {
        match self.sent.recv() {
            Ok(sent) => self.take(sent),
            // Not while this holds a sender itself.
            Err(_) => drop(self.problem.get_or_insert_with(|| "nobody sends parts any more".to_owned())),
        }
    }

    /// Waits for all parts and has the store join them.
    pub fn finish(mut self) -> Result<(), String> {
        while self.under_way > 0 {
            self.wait();
        }
        let upload = self.upload.take().ok_or("no part was sent")?.to_string();
        let joined = match self.problem.take() {
            Some(problem) => Err(problem),
            None => {
                self.object.complete(upload.clone(), std::mem::take(&mut self.tags).into_values().collect())
            }
        };
        if joined.is_err() {
            self.object.abort(upload);
        }
        joined
    }

    /// Nothing of it stays; gives why, if sending is why.
    pub fn give_up(mut self) -> Option<String> {
        self.is_over.store(true, Ordering::Relaxed);
        let problem = self.problem.take();
        while self.under_way > 0 {
            self.wait();
        }
        if let Some(upload) = self.upload.take() {
            self.object.abort(upload.to_string());
        }
        problem
    }
}
