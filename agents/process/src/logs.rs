//! Reading and following the log of a step.

use crate::Running;
use crate::directory::AttemptDirectory;
use argosy_agent_runtime::{Error, LogOptions, LogStream};
use argosy_model::display_fence;
use argosy_proto::common::Fence;
use bytes::Bytes;
use futures::StreamExt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::PoisonError;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of one piece of a log.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Bytes from the end in which the last lines are looked for.
const TAIL_BYTES_MAX: u64 = 16 * 1024 * 1024;
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

struct Reader {
    file: File,
    fence: Fence,
    follow: bool,
    running: Running,
}

pub fn read(
    directory: &AttemptDirectory,
    fence: Fence,
    options: &LogOptions,
    running: Running,
) -> Result<LogStream, Error> {
    let unreadable =
        |error: std::io::Error| Error::Logs { fence: display_fence(&fence), reason: error.to_string() };
    if !matches!(options.container.as_str(), "" | "main") {
        let reason = format!("there is no container {:?}, only main", options.container);
        return Err(Error::Logs { fence: display_fence(&fence), reason });
    }
    if options.previous {
        let reason =
            "previous terminated container \"main\" not found: a process is not started again".to_owned();
        return Err(Error::Logs { fence: display_fence(&fence), reason });
    }
    let mut file = File::open(directory.log()).map_err(unreadable)?;
    // Lines have no times of their own: what was last written before is left out.
    if options.tail_lines < 0 || written_before(&file, options.since_ms).map_err(unreadable)? {
        file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    } else if options.tail_lines > 0 {
        seek_to_last_lines(&mut file, options.tail_lines.unsigned_abs()).map_err(unreadable)?;
    }
    let reader = Reader { file, fence, follow: options.follow, running };
    let pieces = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
            Ok(None) => None,
            Err(error) => {
                let error = Error::Logs { fence: display_fence(&reader.fence), reason: error.to_string() };
                Some((Err(error), None))
            }
        }
    });
    Ok(pieces.boxed())
}

impl Reader {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        loop {
            // Looked at before reading: what was written before the end is then read.
            let is_running =
                self.running.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.fence);
            let mut buffer = vec![0; PIECE_BYTES_MAX];
            let length = self.file.read(&mut buffer)?;
            if length > 0 {
                buffer.truncate(length);
                return Ok(Some(buffer.into()));
            }
            if !self.follow || !is_running {
                return Ok(None);
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

/// Nothing was written to the file since then (milliseconds since 1970).
fn written_before(file: &File, since_ms: i64) -> std::io::Result<bool> {
    let Ok(since_ms) = u64::try_from(since_ms) else { return Ok(false) };
    Ok(file.metadata()?.modified()? < UNIX_EPOCH + Duration::from_millis(since_ms))
}

fn seek_to_last_lines(file: &mut File, lines: u64) -> std::io::Result<()> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = end;
    let mut newlines = 0;
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    while at > 0 && end - at < TAIL_BYTES_MAX {
        let length = at.min(PIECE_BYTES_MAX as u64);
        at -= length;
        file.seek(SeekFrom::Start(at))?;
        let part = &mut buffer[..usize::try_from(length).unwrap_or(PIECE_BYTES_MAX)];
        file.read_exact(part)?;
        for (place, byte) in part.iter().enumerate().rev() {
            let offset = at + place as u64;
            // The newline that ends the last line does not begin another.
            if *byte == b'\n' && offset + 1 < end {
                newlines += 1;
                if newlines == lines {
                    file.seek(SeekFrom::Start(offset + 1))?;
                    return Ok(());
                }
            }
        }
    }
    file.seek(SeekFrom::Start(at))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_has_one_time() {
        let file = tempfile::tempfile().unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(10)).unwrap();
        assert!(written_before(&file, 10_001).unwrap());
        assert!(!written_before(&file, 10_000).unwrap() && !written_before(&file, 0).unwrap());
    }

    #[test]
    fn the_last_lines_are_found() {
        for (text, lines, tail) in
            [("a\nb\nc\n", 2, "b\nc\n"), ("a\nb\nc", 1, "c"), ("a\n", 5, "a\n"), ("", 1, "")]
        {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            seek_to_last_lines(&mut file, lines).unwrap();
            let mut rest = String::new();
            file.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, tail, "{text:?}");
        }
    }
}
