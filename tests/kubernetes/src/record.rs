//! What a run made, and how it is taken away: by recorded process, control group, namespace and folder.

use crate::network;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PREFIX: &str = "argosy-test";
const GONE_TIMEOUT: Duration = Duration::from_secs(10);

/// Below it, one folder a run.
pub fn runs_folder() -> PathBuf {
    std::env::var_os("ARGOSY_RUNS").map_or_else(|| "/var/tmp/argosy-runs".into(), PathBuf::from)
}

/// Name of a namespace and control group of a run.
pub fn namespace(run: &str, name: &str) -> String {
    format!("{PREFIX}-{run}-{name}")
}

/// When a process started, in ticks since boot: with the id it names a process for ever. Zombies count as gone.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if state == "Z" || state == "X" { None } else { fields.nth(18)?.parse().ok() }
}

/// Notes that this process owns the run.
pub fn write_owner(folder: &Path) -> Result<()> {
    let pid = i32::try_from(std::process::id()).context("process ids are small")?;
    let started = start_time(pid).context("this process has a start time")?;
    Ok(std::fs::write(folder.join("owner"), format!("{pid} {started}\n"))?)
}

fn owner_lives(folder: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(folder.join("owner")).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some(start_time(pid.parse().ok()?) == started.parse().ok())
}

/// Removes runs whose owner is dead; with `unowned`, also those that never had one.
pub fn clear_dead_runs(unowned: bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(runs_folder()) else { return Ok(()) };
    for entry in entries.flatten() {
        let dead = match owner_lives(&entry.path()) {
            Some(lives) => !lives,
            None => unowned,
        };
        if dead && let Ok(run) = entry.file_name().into_string() {
            remove_run(&run)?;
        }
    }
    Ok(())
}

/// Starts a program and records it in `folder/processes`. Its output goes to the end of `log`.
pub fn spawn(command: &mut Command, folder: &Path, log: &Path) -> Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("open {}", log.display()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let pid = i32::try_from(child.id()).context("process ids are small")?;
    let name = command.get_args().chain([command.get_program()]).find_map(|word| {
        let word = word.to_str().filter(|word| !word.starts_with("--"))?;
        Some(Path::new(word).file_name()?.to_str()?.to_owned())
    });
    if let Some(started) = start_time(pid) {
        let mut processes = OpenOptions::new().create(true).append(true).open(folder.join("processes"))?;
        writeln!(processes, "{pid} {started} {}", name.unwrap_or_default())?;
    }
    Ok(child)
}

/// Whether a recorded process of that name runs.
pub fn lives(folder: &Path, name: &str) -> bool {
    recorded(folder)
        .iter()
        .any(|process| process.name == name && start_time(process.pid) == Some(process.started))
}

/// A signal to the recorded process of that name that runs.
pub fn signal(folder: &Path, name: &str, signal: Signal) -> Result<()> {
    let is_it = |process: &Recorded| process.name == name && start_time(process.pid) == Some(process.started);
    let found = recorded(folder).into_iter().find(is_it).with_context(|| format!("{name} does not run"))?;
    Ok(kill(Pid::from_raw(found.pid), signal)?)
}

struct Recorded {
    pid: i32,
    started: u64,
    name: String,
}

fn recorded(folder: &Path) -> Vec<Recorded> {
    let text = std::fs::read_to_string(folder.join("processes")).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        Some(Recorded {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            name: words.next()?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

fn kill_and_wait(processes: &[Recorded]) -> Result<()> {
    let lives = |process: &&Recorded| start_time(process.pid) == Some(process.started);
    for process in processes.iter().filter(lives) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    crate::wait_until("killed processes to end", GONE_TIMEOUT, || {
        for process in processes {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
        !processes.iter().any(|process| lives(&process))
    })
}

/// Kills the recorded processes of these names; with no names all of them.
pub fn kill_recorded(folder: &Path, names: &[&str]) -> Result<()> {
    let chosen = |process: &Recorded| names.is_empty() || names.contains(&process.name.as_str());
    let processes: Vec<_> = recorded(folder).into_iter().filter(chosen).collect();
    kill_and_wait(&processes)
}

/// Every control group of a cluster: one per hierarchy with version 1, one with version 2.
pub fn control_groups(namespace: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.join(namespace)];
    }
    let Ok(entries) = std::fs::read_dir(base) else { return Vec::new() };
    let hierarchies =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists());
    // The links cpu, cpuacct and the like may name one hierarchy twice, which does no harm.
    hierarchies.map(|path| path.join(namespace)).collect()
}

/// Makes the root control groups of a cluster's kubelet: with one of its own it can't take another's Pods for orphans.
pub fn make_control_groups(namespace: &str) -> Result<()> {
    for group in control_groups(namespace) {
        std::fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
        let parent = group.parent().context("a group lies in a hierarchy")?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if parent.join("cgroup.controllers").exists() {
                break;
            }
            if let Ok(value) = std::fs::read_to_string(parent.join(file)) {
                std::fs::write(group.join(file), value.trim())?;
            }
        }
        if let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) {
            let all: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), all.join(" "));
            let _ = std::fs::write(group.join("cgroup.subtree_control"), all.join(" "));
        }
    }
    Ok(())
}

fn below(group: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(group) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found);
        }
    }
    found.push(group.to_owned());
}

fn all_control_groups(namespace: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for group in control_groups(namespace) {
        below(&group, &mut found);
    }
    found
}

/// Kills containerd's shims of the cluster (they name its socket) and every process in its control groups.
pub fn kill_pods(folder: &Path, namespace: &str) -> Result<()> {
    let socket = folder.join("containerd.sock").display().to_string();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        if words[0].contains("containerd-shim") && words.iter().any(|word| **word == socket) {
            pids.push(pid);
        }
    }
    for group in all_control_groups(namespace) {
        let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    let processes: Vec<_> = pids
        .into_iter()
        .filter_map(|pid| Some(Recorded { pid, started: start_time(pid)?, name: String::new() }))
        .collect();
    kill_and_wait(&processes)
}

fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let prefix = format!("{}/", folder.display());
    let mut points: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|point| point.starts_with(&prefix))
        .collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        let _ = Command::new("umount").arg("-l").arg(point).output();
    }
}

/// Ends a cluster and removes all of it.
pub fn remove_cluster(folder: &Path, namespace: &str) -> Result<()> {
    kill_recorded(folder, &[])?;
    kill_pods(folder, namespace)?;
    let inside = network::processes(namespace);
    let inside: Vec<_> = inside
        .into_iter()
        .filter_map(|pid| Some(Recorded { pid, started: start_time(pid)?, name: String::new() }))
        .collect();
    kill_and_wait(&inside)?;
    unmount_below(folder);
    network::remove(namespace)?;
    for group in all_control_groups(namespace) {
        let _ = std::fs::remove_dir(group);
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// Ends a run and removes all of it: its clusters, the hub and what was started there. Two removers take turns.
pub fn remove_run(run: &str) -> Result<()> {
    let folder = runs_folder().join(run);
    let lock = File::create(runs_folder().join(format!(".{run}.lock")));
    if let Ok(lock) = &lock {
        lock.lock()?;
    }
    let prefix = namespace(run, "");
    let hub = namespace(run, "hub");
    for found in network::all().into_iter().filter(|found| found.starts_with(&prefix) && *found != hub) {
        remove_cluster(&folder.join(&found[prefix.len()..]), &found)?;
    }
    remove_cluster(&folder, &hub)?;
    let _ = std::fs::remove_file(runs_folder().join(format!(".{run}.lock")));
    Ok(())
}
