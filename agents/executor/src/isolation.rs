//! Private mount and pid namespaces for steps that run as child processes of an agent.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use std::io::{Error, Result};
use std::path::Path;

/// Moves this process to new mount and pid namespaces; its next child is pid 1 there. Without the right to do so, a
/// user namespace is tried.
pub fn enter() -> Result<()> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if unshare(flags).is_ok() {
        return Ok(());
    }
    let (user, group) = (getuid(), getgid());
    unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(Error::from)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1\n"))
}

/// In the first process of the namespaces: an own `/proc`, and this directory as `/tmp`.
pub fn furnish(temporary: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(Error::from)?;
    mount(Some(temporary), "/tmp", none, MsFlags::MS_BIND, none).map_err(Error::from)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).map_err(Error::from)
}
