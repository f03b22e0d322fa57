//! Finding the user's program and staging a script.

use crate::protocol::Task;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Writes a script where the task says; its path.
pub fn write_script(task: &Task, source: &str) -> std::io::Result<PathBuf> {
    let directory = match &task.staging_directory {
        Some(directory) => PathBuf::from(directory),
        None => env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let path = directory.join("script");
    std::fs::write(&path, source)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Finds a program as a shell does, and says in Argo's words why not.
pub fn find(name: &Path) -> Result<PathBuf, String> {
    let problem =
        |reason: &str| format!("failed to find name in PATH: exec: \"{}\": {reason}", name.display());
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 || name.is_absolute() {
        return match (name.exists(), is_program(name)) {
            (false, _) => Err(problem(&format!("stat {}: no such file or directory", name.display()))),
            (true, false) => Err(problem("permission denied")),
            (true, true) => Ok(name.to_owned()),
        };
    }
    let path = env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    let found =
        env::split_paths(&path).map(|directory| directory.join(name)).find(|program| is_program(program));
    found.ok_or_else(|| problem("executable file not found in $PATH"))
}
