use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

/// Lines kept when the whole trace is not wanted: what led to a failure.
const TAIL_LINES_MAX: usize = 200;

/// Everything that happened in a run, line by line; its digest is the run's fingerprint.
#[derive(Debug)]
pub struct Trace {
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
    keep_all: bool,
    echo: bool,
    count: u64,
}

impl Trace {
    /// An empty trace, which keeps every line or only the last ones, and prints them at once or not.
    #[must_use]
    pub fn new(keep_all: bool, echo: bool) -> Self {
        Self { hasher: blake3::Hasher::new(), lines: VecDeque::new(), keep_all, echo, count: 0 }
    }

    /// Appends a line of that time.
    pub fn line(&mut self, at_ms: u64, text: fmt::Arguments<'_>) {
        let line = format!("{:>4}.{:03} {text}", at_ms / 1_000, at_ms % 1_000);
        self.hasher.update(line.as_bytes());
        self.hasher.update(b"\n");
        self.count += 1;
        if self.echo {
            // A reader that has seen enough may close the pipe.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        if !self.keep_all && self.lines.len() == TAIL_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Digest of all lines so far.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Lines so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lines that were kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_covers_lines_that_are_not_kept() {
        let mut long = Trace::new(true, false);
        let mut short = Trace::new(false, false);
        for number in 0..1_000_u64 {
            long.line(number, format_args!("step {number}"));
            short.line(number, format_args!("step {number}"));
        }
        assert_eq!(long.fingerprint(), short.fingerprint());
        assert_eq!((long.lines().count(), short.lines().count()), (1_000, TAIL_LINES_MAX));
        assert_eq!(long.lines().next(), Some("   0.000 step 0"));
        short.line(1_000, format_args!("one more"));
        assert_ne!(long.fingerprint(), short.fingerprint());
    }
}
