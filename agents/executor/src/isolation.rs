//! Private mount and pid namespaces for steps that run as child processes of an agent.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Moves this process to a mount namespace of its own; without the right to do so, in a user namespace. Must run before
/// the first thread starts.
pub fn leave_mounts() -> Result<()> {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        return Ok(());
    }
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER).map_err(Error::from)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1\n"))
}

/// The next child is the first process of a pid namespace. No thread can be started after it.
pub fn leave_processes() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(Error::from)
}

/// In the first process of the namespaces: an own `/proc`, and this directory as `/tmp`. Its parent, where the attempt's
/// files lie, stays visible even if it lies under `/tmp` itself.
pub fn furnish(temporary: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(Error::from)?;
    let files = temporary.parent().filter(|files| files.starts_with("/tmp"));
    let opened = files.map(File::open).transpose()?;
    mount(Some(temporary), "/tmp", none, MsFlags::MS_BIND, none).map_err(Error::from)?;
    if let (Some(files), Some(opened)) = (files, &opened) {
        std::fs::create_dir_all(files)?;
        let hidden = format!("/proc/self/fd/{}", opened.as_raw_fd());
        mount(Some(hidden.as_str()), files, none, MsFlags::MS_BIND, none).map_err(Error::from)?;
    }
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).map_err(Error::from)
}
