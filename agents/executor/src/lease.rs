//! The lease of an exclusive step: renewed with the agent, enforced on the command.
//!
//! Two threads: one asks, which may take long; one watches the clock and ends the command in time, whatever the other one
//! waits for. Time is CLOCK_BOOTTIME, which goes on while the machine sleeps, counted from the sending of the renewal that
//! was acknowledged.

use crate::client::Client;
use crate::protocol::RenewRequest;
use nix::sys::signal::{Signal, kill, killpg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getpid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Between two looks at the clock.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Renewals in the part of a lease before the command would be asked to end.
const RENEWALS_PER_LEASE: u64 = 5;
/// A command is asked to end this part of its lease before the end, if its own grace is longer.
const GRACE_PART_OF_LEASE: u64 = 3;
/// Longest time between two renewals.
const RENEW_EVERY_MS_MAX: u64 = 10_000;
/// After a renewal that was not acknowledged.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Milliseconds of a clock that never goes back and goes on while the machine sleeps.
pub fn boot_time_ms() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every supported kernel has this clock");
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    u64::try_from(seconds).unwrap_or(0) * 1_000 + u64::try_from(nanoseconds).unwrap_or(0) / 1_000_000
}

/// The right of a command to run.
pub struct Lease {
    shared: Arc<Shared>,
}

struct Shared {
    /// Nothing of the command runs after this moment.
    ends_at_ms: AtomicU64,
    grace_ms: u64,
    /// The command was ended because of the lease.
    lost: AtomicBool,
    /// The command is over: there is nothing to renew or to end any more.
    over: AtomicBool,
}

impl Lease {
    /// A lease that began with the question for the start permit, and its renewals from now on.
    pub fn begin(
        asked_at_ms: u64,
        lease_ms: u64,
        grace_ms: u64,
        client: Arc<Client>,
        request: RenewRequest,
    ) -> Self {
        let shared = Arc::new(Shared {
            ends_at_ms: AtomicU64::new(asked_at_ms.saturating_add(lease_ms)),
            grace_ms: grace_ms.min(lease_ms / GRACE_PART_OF_LEASE),
            lost: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let renewing = Arc::clone(&shared);
        thread::spawn(move || renewing.renew(lease_ms, &client, &request));
        Self { shared }
    }

    /// Ends the process group when the lease does.
    pub fn enforce(&self, group: Pid) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || shared.enforce(group));
    }

    /// The command is over.
    pub fn release(&self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }

    /// The command was ended because of the lease.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn renew(&self, lease_ms: u64, client: &Client, request: &RenewRequest) {
        let every_ms = ((lease_ms - self.grace_ms) / RENEWALS_PER_LEASE).clamp(1, RENEW_EVERY_MS_MAX);
        thread::sleep(Duration::from_millis(every_ms));
        while !self.over.load(Ordering::SeqCst) {
            let asked_at_ms = boot_time_ms();
            match client.post("/v1/renew", request) {
                Ok(answer) if answer.status == 200 => {
                    self.ends_at_ms.fetch_max(asked_at_ms.saturating_add(lease_ms), Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(every_ms));
                }
                Ok(answer) if answer.status == 403 => {
                    eprintln!("argosy-executor: the exclusive lease is taken away: {}", answer.body);
                    // As if it ended after the grace: the command is asked to end now.
                    self.ends_at_ms.fetch_min(boot_time_ms().saturating_add(self.grace_ms), Ordering::SeqCst);
                    return;
                }
                Ok(answer) => {
                    eprintln!("argosy-executor: the exclusive lease was not renewed: {}", answer.body);
                    thread::sleep(RETRY_AFTER);
                }
                Err(error) => {
                    eprintln!("argosy-executor: the exclusive lease was not renewed: {error}");
                    thread::sleep(RETRY_AFTER);
                }
            }
        }
    }

    fn enforce(&self, group: Pid) {
        while !self.over.load(Ordering::SeqCst) {
            let (now_ms, ends_at_ms) = (boot_time_ms(), self.ends_at_ms.load(Ordering::SeqCst));
            if now_ms >= ends_at_ms {
                self.lost.store(true, Ordering::SeqCst);
                eprintln!("argosy-executor: the exclusive lease ran out: the step is ended");
                return end_everything(group);
            }
            if now_ms.saturating_add(self.grace_ms) >= ends_at_ms && !self.lost.swap(true, Ordering::SeqCst) {
                eprintln!("argosy-executor: the exclusive lease runs out: the step is asked to end");
                // It may have ended just now.
                let _ = killpg(group, Signal::SIGTERM);
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// As the first process of a pid namespace: every other process in it. Else the command's group.
fn end_everything(group: Pid) {
    if getpid().as_raw() == 1 {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
    let _ = killpg(group, Signal::SIGKILL);
}
