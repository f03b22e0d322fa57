//! The directory of one attempt.

use argosy_executor::protocol::TaskOutcome;
use argosy_model::{display_fence, parse_fence};
use argosy_proto::common::Fence;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

const STATE_VERSION: u32 = 1;
/// Bytes of a state or outcome file that are read.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is recorded of the attempt's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of this record.
    pub version: u32,
    /// Who asks for the permit.
    pub holder: String,
    /// The executor's process; 0 = it was not started, or the agent died while starting it.
    pub process: i32,
    /// When it started, in the kernel's ticks: tells it from a later process of the same id.
    pub process_start: u64,
    /// Of the host: after a reboot nothing recorded lives.
    pub boot: String,
}

impl State {
    pub fn new(holder: String) -> Self {
        Self { version: STATE_VERSION, holder, process: 0, process_start: 0, boot: boot_id() }
    }

    /// The process that was recorded still is there (a process that ended and was not waited for is not).
    pub fn is_alive(&self) -> bool {
        self.process > 0 && self.boot == boot_id() && process_start(self.process) == Some(self.process_start)
    }

    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal: then there is nobody to tell.
            let _ = kill(Pid::from_raw(self.process), signal);
        }
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Start time of a process that has not ended.
pub fn process_start(process: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold spaces and parentheses: fields count from the last one on.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Where everything of one attempt lies.
#[derive(Clone, Debug)]
pub struct AttemptDirectory {
    path: PathBuf,
}

impl AttemptDirectory {
    pub fn new(attempts: &Path, fence: Fence) -> Self {
        Self { path: attempts.join(display_fence(&fence)) }
    }

    /// All directories that are there, oldest fence first; the flag says whether it was released.
    pub fn list(attempts: &Path) -> Vec<(Fence, Self, bool)> {
        let entries = std::fs::read_dir(attempts).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let fence = parse_fence(entry.file_name().to_str()?)?;
                let directory = Self { path: entry.path() };
                let is_released = directory.is_released();
                Some((fence, directory, is_released))
            })
            .collect();
        found.sort_by_key(|(fence, _, _)| *fence);
        found
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }
    pub fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }
    pub fn outcome(&self) -> PathBuf {
        self.path.join("outcome.json")
    }
    pub fn root(&self) -> &Path {
        &self.path
    }
    pub fn is_released(&self) -> bool {
        self.released().exists()
    }
    fn released(&self) -> PathBuf {
        self.path.join("released")
    }

    /// Makes the directory with what a process needs.
    pub fn make(&self, state: &State) -> std::io::Result<()> {
        for directory in [self.work(), self.temporary()] {
            std::fs::create_dir_all(directory)?;
        }
        self.write_state(state)
    }

    pub fn write_state(&self, state: &State) -> std::io::Result<()> {
        let path = self.path.join("state.json");
        let temporary = self.path.join("state.new");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        std::fs::rename(temporary, path)
    }

    /// `None` when the directory was not made, or not whole.
    pub fn state(&self) -> Option<State> {
        let state: State = read_json(&self.path.join("state.json"))?;
        (state.version == STATE_VERSION).then_some(state)
    }

    pub fn read_outcome(&self) -> Option<TaskOutcome> {
        read_json(&self.outcome())
    }

    /// Keeps the log, and a mark that nobody asks for the rest.
    pub fn release(&self) {
        if !self.path.is_dir() {
            return;
        }
        for directory in [self.work(), self.temporary()] {
            let _ = std::fs::remove_dir_all(directory);
        }
        if let Err(error) = std::fs::write(self.released(), "") {
            tracing::warn!(%error, directory = %self.path.display(), "cannot mark a directory as released");
        }
    }

    pub fn remove(&self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %self.path.display(), "cannot remove a directory");
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_id_and_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut state = State::new("h".to_owned());
        assert!(!state.is_alive(), "not started");
        state.process = own;
        state.process_start = process_start(own).unwrap();
        assert!(state.is_alive());
        assert!(
            !State { process_start: state.process_start + 1, ..state.clone() }.is_alive(),
            "another process"
        );
        assert!(!State { boot: "other".to_owned(), ..state }.is_alive(), "another boot");
    }

    #[test]
    fn directories_are_listed_with_their_state() {
        let root = tempfile::tempdir().unwrap();
        let fence = |index| Fence { incarnation: 1, index, ordinal: 0 };
        let state = State::new("h".to_owned());
        for index in [10, 9] {
            AttemptDirectory::new(root.path(), fence(index)).make(&state).unwrap();
        }
        std::fs::create_dir(root.path().join("lost+found")).unwrap();
        AttemptDirectory::new(root.path(), fence(10)).release();
        let listed = AttemptDirectory::list(root.path());
        let shape: Vec<_> = listed.iter().map(|(fence, _, released)| (fence.index, *released)).collect();
        assert_eq!(shape, [(9, false), (10, true)]);
        assert_eq!(listed[0].1.state(), Some(state));
        std::fs::write(root.path().join("1.9.0/state.json"), "{").unwrap();
        assert_eq!(listed[0].1.state(), None);
    }
}
