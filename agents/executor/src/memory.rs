//! Whether the kernel killed something of this container for want of memory.

use std::path::Path;

/// Where the count is, in control groups of both versions, as a container sees its own.
const FILES: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// Processes of this container that the kernel has killed so far; 0 where it does not tell.
pub fn kills() -> u64 {
    FILES.into_iter().find_map(|file| count(Path::new(file))).unwrap_or(0)
}

fn count(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.lines().filter_map(|line| line.split_once(' '));
    words.find(|(name, _)| *name == "oom_kill").and_then(|(_, number)| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_both_kinds_of_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        for (text, number) in [
            ("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n", Some(2)),
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", Some(3)),
            ("under_oom 0\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(count(&file), number, "{text}");
        }
    }
}
