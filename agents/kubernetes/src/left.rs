//! Results that executors left in an object store: read one after the other, told once, deleted when they are not needed any more.
//!
//! A Pod that says where its result is counts as running until that was read. What is read is told as if the executor had handed it
//! over, so the reconciler's rules hold: the first end of an attempt counts, in its ledger before anybody hears of it. An agent that
//! dies in between reads again.

use crate::observe::{Fetched, Seen};
use crate::runtime::Shared;
use crate::watch::{self, Held};
use argosy_agent_runtime::RuntimeEvent;
use argosy_agent_runtime::server::Unread as Failure;
use argosy_model::{Fence, display_fence};
use argosy_proto::common::AttemptPhase;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Objects that are read at one time; each may be as large as a result may be.
const READS_MAX: usize = 4;
/// How often those are looked at whose wait may be over.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a store that can't be read, doubled with every further failure.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// How long one try to delete an object may take.
const DELETE_MAX: Duration = Duration::from_secs(5);
/// How long a released Pod is held for an object that can't be deleted, milliseconds.
const HOLD_MAX_MS: i64 = 600_000;

/// Attempts whose result is in an object store and not known.
#[derive(Default)]
pub struct Unread {
    waiting: Mutex<BTreeMap<Fence, Wait>>,
    news: Notify,
}

#[derive(Clone, Copy)]
struct Wait {
    due: Instant,
    failures: u32,
    is_under_way: bool,
}

impl Unread {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Fence, Wait>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, fence: Fence) {
        let fresh = || Wait { due: Instant::now(), failures: 0, is_under_way: false };
        self.lock().entry(fence).or_insert_with(fresh);
        self.news.notify_one();
    }

    pub fn next(&self) -> Option<Fence> {
        let now = Instant::now();
        let mut waiting = self.lock();
        let (fence, wait) = waiting.iter_mut().find(|(_, wait)| !wait.is_under_way && wait.due <= now)?;
        wait.is_under_way = true;
        Some(*fence)
    }

    fn done(&self, fence: &Fence) {
        self.lock().remove(fence);
    }

    pub fn again(&self, fence: &Fence) {
        if let Some(wait) = self.lock().get_mut(fence) {
            let after = AGAIN_AFTER.saturating_mul(1 << wait.failures.min(5)).min(AGAIN_AFTER_MAX);
            *wait = Wait { due: Instant::now() + after, failures: wait.failures + 1, is_under_way: false };
        }
    }
}

/// Reads what was left, for as long as it is wanted.
pub async fn read_left(shared: Arc<Shared>) {
    shared.table.listed().await;
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < READS_MAX
            && let Some(fence) = shared.table.unread.next()
        {
            reading.spawn(read_one(Arc::clone(&shared), fence));
        }
        tokio::select! {
            () = shared.table.unread.news.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(_) = reading.join_next(), if !reading.is_empty() => {}
        }
    }
}

async fn read_one(shared: Arc<Shared>, fence: Fence) {
    let unread = &shared.table.unread;
    let Some(held) = shared.table.get(&fence).filter(Held::is_unread) else { return unread.done(&fence) };
    let (Some(left), Some(holder)) = (&held.left, &held.observation.holder) else {
        return unread.done(&fence);
    };
    let name = &held.name;
    let settled = match shared.executors.read_left(&fence, holder, left).await {
        Ok(outcome) => settle(&shared, fence, &held, Fetched::Outcome(&outcome)).await,
        Err(Failure::Never(reason)) => {
            tracing::warn!(pod = name, reason, "a result that was left in an object store is lost");
            settle(&shared, fence, &held, Fetched::Never(&reason)).await
        }
        Err(Failure::Later(reason)) => {
            tracing::warn!(pod = name, reason, "a result that was left in an object store can't be read yet");
            let mut observation = held.observation.clone();
            observation.phase = AttemptPhase::Running;
            observation.message = format!(
                "the step ended and left its result in its object store, which can't be read: {reason}"
            );
            shared.send(RuntimeEvent::Observed(observation)).await;
            false
        }
    };
    if settled { unread.done(&fence) } else { unread.again(&fence) }
}

/// Tells how a Pod ended that left its result elsewhere; says whether it could.
async fn settle(shared: &Shared, fence: Fence, held: &Held, fetched: Fetched<'_>) -> bool {
    let pod = match shared.pods(&held.namespace).get_opt(&held.name).await {
        Ok(pod) => pod.filter(|pod| pod.metadata.uid.as_deref() == Some(held.uid.as_str())),
        Err(error) => {
            tracing::warn!(fence = display_fence(&fence), %error, "a Pod that ended could not be asked for; it is tried again");
            return false;
        }
    };
    match pod.and_then(|pod| Seen::with(&pod, fetched)) {
        Some(seen) => {
            shared.table.put(&seen);
            if !seen.released {
                watch::tell(shared, seen).await;
            }
        }
        None => watch::gone(shared, fence).await,
    }
    true
}

/// Nobody waits for what a Pod left: its end is what the Pod itself says.
pub async fn give_up(shared: &Shared, fence: Fence) {
    if let Some(held) = shared.table.get(&fence).filter(Held::is_unread)
        && settle(shared, fence, &held, Fetched::Unwanted).await
    {
        shared.table.unread.done(&fence);
    }
}

/// Deletes what a Pod left, now that its attempt is committed or unwanted. Says whether the Pod may go: while the store can't be
/// reached it is held for some time, since nothing but the Pod says what is to be deleted.
pub async fn delete(shared: &Shared, fence: Fence, held: &Held) -> bool {
    let Some(left) = &held.left else { return true };
    let deleted = tokio::time::timeout(DELETE_MAX, shared.executors.delete_left(&fence, left)).await;
    let reason = match deleted {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(_) => "the store does not answer".to_owned(),
    };
    let now_ms = Timestamp::now().as_millisecond();
    let goes = held.released_at_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= HOLD_MAX_MS);
    tracing::warn!(pod = held.name, reason, goes, "a result that was taken is still in its store");
    goes
}
