//! The progress that a command tells in a file.

use crate::client::Client;
use crate::protocol::{ProgressRequest, is_progress};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How often the file is looked at, as Argo does.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Bytes at the file's end in which the last line is looked for.
const TAIL_BYTES_MAX: u64 = 4096;

/// The last line of the file that is a progress; empty if there is none.
pub fn last(path: &str) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().map(str::trim).find(|line| is_progress(line)).unwrap_or_default().to_owned()
}

/// Tells what is new until the other end of `over` is gone. What does not arrive is not repeated: the outcome holds the last.
pub fn tell(path: &str, client: &Client, fence: &str, holder: &str, over: &Receiver<()>) {
    let mut told = String::new();
    while over.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = last(path);
        if now.is_empty() || now == told {
            continue;
        }
        let request =
            ProgressRequest { fence: fence.to_owned(), holder: holder.to_owned(), progress: now.clone() };
        if client.post("/v1/progress", &request).is_ok_and(|answer| answer.status == 200) {
            told = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_is_a_progress_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p").display().to_string();
        assert_eq!(last(&path), "");
        for (text, found) in [("1/10\n2/10\n", "2/10"), ("5/5", "5/5"), ("1/2\nsoon\n", "1/2"), ("x\n", "")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last(&path), found, "{text}");
        }
    }
}
