//! The user's command as a child process: signals, output, end.

use crate::protocol::RESULT_BYTES_MAX;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

/// How long output is read that processes left behind by the command hold open.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Signals kept while nobody looks.
const SIGNALS_WAITING_MAX: usize = 64;
/// How often a sidecar looks whether the main containers are over.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Signals that are passed on to the command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Signal>>,
    changed: Condvar,
}

/// The signals of [`PASSED_ON`], taken from this process: they wait until somebody looks.
pub struct Signals(Arc<Queue>);

impl Signals {
    /// Must run before any other thread starts: threads inherit the mask.
    pub fn block() -> Self {
        let set: SigSet = PASSED_ON.into_iter().collect();
        if let Err(error) = set.thread_block() {
            eprintln!("argosy-executor: signals will not be passed on: {error}");
        }
        let queue = Arc::new(Queue::default());
        let filled = Arc::clone(&queue);
        thread::spawn(move || {
            while let Ok(signal) = set.wait() {
                let mut waiting = filled.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                // Only a storm of signals overflows; the first ones count.
                if waiting.len() < SIGNALS_WAITING_MAX {
                    waiting.push_back(signal);
                }
                filled.changed.notify_all();
            }
        });
        Self(queue)
    }

    /// A signal that arrives within this time, or nothing: the time is over, or [`Self::wake`] was called.
    pub fn within(&self, span: Duration) -> Option<Signal> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            waiting = self.0.changed.wait_timeout(waiting, span).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.pop_front()
    }

    fn wake(&self) {
        let _waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.changed.notify_all();
    }
}

/// How a child ended.
pub enum Ended {
    Code(i32),
    Signal(i32),
}

/// A command that was run to its end.
pub struct Finished {
    pub ended: Ended,
    /// The signal by which it was asked to end; 0 if it was not.
    pub asked_to_stop: i32,
    /// The end of its standard output, where it is kept.
    pub output: Vec<u8>,
}

/// A running child.
pub struct Child {
    pub pid: Pid,
    stdout: Option<ChildStdout>,
}

impl Child {
    #[expect(
        unsafe_code,
        reason = "between fork and exec: resets the signal mask, asks to die with the executor"
    )]
    pub fn start(mut command: Command, is_user: bool) -> std::io::Result<Self> {
        if is_user {
            command.process_group(0);
        }
        // SAFETY: both calls are async-signal-safe system calls without allocation.
        unsafe {
            command.pre_exec(move || {
                // An executor keeps the mask, so that no signal is lost before it looks.
                if is_user {
                    SigSet::empty().thread_set_mask()?;
                }
                // What the executor started must not outlive it: nobody else would end it or report on it.
                set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        Ok(Self {
            pid: Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?),
            stdout: child.stdout.take(),
        })
    }

    /// Waits for the child; reaps whatever else ends meanwhile, as the first process of a container must.
    pub fn wait(&self) -> Ended {
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => return Ended::Code(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => {
                    return Ended::Signal(signal as i32);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // The child cannot be waited for any more: it was there a moment ago.
                Err(_) => return Ended::Signal(Signal::SIGKILL as i32),
            }
        }
    }

    /// Runs to the end: passes signals on, keeps standard output. With `mains_over` it is a sidecar: signals to end wait until
    /// the main containers are over, and their end is one.
    pub fn supervise(
        mut self,
        grace: Duration,
        signals: &Signals,
        mains_over: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Finished {
        let group = Group { pid: self.pid, grace, asked: Arc::default(), over: Arc::default() };
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, drained) = mpsc::sync_channel(1);
        if let Some(stdout) = self.stdout.take() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || {
                tee(stdout, &kept);
                sender.send(())
            });
        } else {
            drop(sender);
        }
        let ended = thread::scope(|scope| {
            scope.spawn(|| match mains_over {
                None => group.pass_on(signals),
                Some(mains_over) => group.follow(signals, mains_over),
            });
            let ended = self.wait();
            group.over.store(true, Ordering::SeqCst);
            signals.wake();
            ended
        });
        // As a container's: what the command left running ends with it.
        let _ = killpg(group.pid, Signal::SIGKILL);
        let _ = drained.recv_timeout(DRAIN_MAX);
        let output = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
        Finished { ended, asked_to_stop: group.asked.load(Ordering::SeqCst), output: output.into() }
    }
}

/// The command's process group.
struct Group {
    pid: Pid,
    grace: Duration,
    asked: Arc<AtomicI32>,
    over: Arc<AtomicBool>,
}

impl Group {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn pass_on(&self, signals: &Signals) {
        while !self.is_over() {
            if let Some(signal) = signals.within(Duration::MAX.min(Duration::from_secs(3600))) {
                self.send(signal);
            }
        }
    }

    fn follow(&self, signals: &Signals, mains_over: &dyn Fn() -> bool) {
        while !self.is_over() {
            match signals.within(LOOK_EVERY) {
                // The main containers got it as well; their end will show.
                Some(signal) if is_stop(signal) => {}
                Some(signal) => self.send(signal),
                None if mains_over() && self.asked.load(Ordering::SeqCst) == 0 => self.send(Signal::SIGTERM),
                None => {}
            }
        }
    }

    fn send(&self, signal: Signal) {
        if is_stop(signal) && self.asked.load(Ordering::SeqCst) == 0 {
            self.asked.store(signal as i32, Ordering::SeqCst);
            let (over, grace, group) = (Arc::clone(&self.over), self.grace, self.pid);
            thread::spawn(move || {
                thread::sleep(grace);
                if !over.load(Ordering::SeqCst) {
                    let _ = killpg(group, Signal::SIGKILL);
                }
            });
        }
        // The group may not be there yet or no more: then the process itself.
        if killpg(self.pid, signal).is_err() {
            let _ = kill(self.pid, signal);
        }
    }
}

fn is_stop(signal: Signal) -> bool {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT].contains(&signal)
}

/// Copies to the executor's own standard output; keeps the last part, as Argo does.
fn tee(mut from: ChildStdout, kept: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 16 * 1024];
    let mut stdout = std::io::stdout().lock();
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let part = &buffer[..length];
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(part);
            let surplus = kept.len().saturating_sub(RESULT_BYTES_MAX);
            kept.drain(..surplus);
        }
        // A log that cannot be written must not stop the command.
        let _ = stdout.write_all(part);
        let _ = stdout.flush();
    }
}
