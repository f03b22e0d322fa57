//! Where the key comes from that seals the CA's key: a file, the environment, or a command that asks a key service.

use crate::config::SealConfig;
use anyhow::{Context, bail, ensure};
use argosy_pki::SealKey;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_LOOK: Duration = Duration::from_millis(20);
/// Bytes of a secret.
const SECRET_BYTES_MAX: usize = 4_096;

/// The key that the configuration names; nothing if the CA's key is kept in the clear.
///
/// # Errors
/// It can't be had, or is too short.
pub fn key(config: Option<&SealConfig>) -> anyhow::Result<Option<SealKey>> {
    let Some(config) = config else { return Ok(None) };
    let secret = match config {
        SealConfig { file: Some(path), environment: None, command } if command.is_empty() => {
            std::fs::read(path).with_context(|| format!("caSeal.file {}", path.display()))?
        }
        SealConfig { file: None, environment: Some(name), command } if command.is_empty() => {
            let value = std::env::var(name);
            value.with_context(|| format!("caSeal.environment: the variable {name}"))?.into_bytes()
        }
        SealConfig { file: None, environment: None, command } if !command.is_empty() => {
            ask(command).with_context(|| format!("caSeal.command {}", command[0]))?
        }
        SealConfig { .. } => bail!("caSeal names exactly one of file, environment and command"),
    };
    ensure!(secret.len() <= SECRET_BYTES_MAX, "caSeal gives more than {SECRET_BYTES_MAX} bytes");
    Ok(Some(SealKey::new(&secret).context("caSeal")?))
}

/// What the command prints; its own words if it fails.
fn ask(command: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't be started")?;
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("gave no key within {COMMAND_TIMEOUT:?}");
        }
        std::thread::sleep(COMMAND_LOOK);
    }
    let output = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, words.trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_from_a_file_or_a_command_and_a_failure_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let of_file = SealConfig { file: Some(path.clone()), ..SealConfig::default() };
        assert!(key(None).unwrap().is_none() && key(Some(&of_file)).unwrap().is_some());
        let command = |words: &[&str]| SealConfig {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            ..SealConfig::default()
        };
        assert!(key(Some(&command(&["cat", path.to_str().unwrap()]))).unwrap().is_some());
        let error =
            format!("{:#}", key(Some(&command(&["sh", "-c", "echo no access >&2; exit 3"]))).unwrap_err());
        assert!(error.contains("no access") && error.contains("exit status: 3"), "{error}");
        let short = format!("{:#}", key(Some(&command(&["echo", "short"]))).unwrap_err());
        assert!(short.contains("at least 16"), "{short}");
        let both = SealConfig { environment: Some("X".into()), ..of_file };
        assert!(key(Some(&both)).unwrap_err().to_string().contains("exactly one"));
        let missing =
            SealConfig { environment: Some("ARGOSY_NO_SUCH_VARIABLE".into()), ..SealConfig::default() };
        assert!(format!("{:#}", key(Some(&missing)).unwrap_err()).contains("ARGOSY_NO_SUCH_VARIABLE"));
    }
}
