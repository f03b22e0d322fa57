//! The container that saves a step's outputs with a driver: it does so when the step's own executor asks, and only what the
//! template declares. It ends when the kubelet says so, after the step's containers.

use super::{call_driver, told};
use crate::artifacts::{Answer, Driver, Operation};
use crate::files::{Saving, Session, Told, gate};
use crate::process::Signals;
use argosy_proto::artifact as wire;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Bytes of a question.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;
/// How long one may take to arrive.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Saves until a signal comes. The agent is asked before each save: one that is out of touch with the control plane lets nobody
/// save, as it signs for nobody.
pub fn save(driver: &Driver, shared: &Path, session: Arc<Session>, signals: &Signals) -> io::Result<()> {
    let place = gate(shared, &driver.name);
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
        // Another driver's container may run as another user; only whoever made the folder can open it.
        let _ = fs::set_permissions(folder, Permissions::from_mode(0o777));
    }
    match fs::remove_file(&place) {
        // Left by an earlier run of this container.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&place)?;
    fs::set_permissions(&place, Permissions::from_mode(0o777))?;
    let driver = driver.clone();
    thread::spawn(move || {
        // One after the other: steps save one after the other, too.
        for stream in listener.incoming().flatten() {
            if let Err(error) = serve(&driver, &session, stream) {
                eprintln!("argosy-executor: a question could not be answered: {error}");
            }
        }
    });
    while signals.within(Duration::from_secs(3600)).is_none() {}
    Ok(())
}

fn serve(driver: &Driver, session: &Session, stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new((&stream).take(QUESTION_BYTES_MAX)).read_line(&mut line)?;
    let error = match serde_json::from_str(&line) {
        Ok(saving) => save_one(driver, session, &saving).err().unwrap_or_default(),
        Err(error) => format!("the question can't be read: {error}"),
    };
    let answer = serde_json::to_string(&Told { error })?;
    (&stream).write_all(format!("{answer}\n").as_bytes())
}

fn save_one(driver: &Driver, session: &Session, saving: &Saving) -> Result<(), String> {
    let artifact = driver.artifacts.iter().find(|artifact| artifact.name == saving.name);
    let artifact =
        artifact.ok_or_else(|| format!("the driver {} keeps no artifact {}", driver.name, saving.name))?;
    let Answer::Done = session.ask(Operation::Save { name: saving.name.clone() })? else {
        return Err("the agent's answer is not about saving".to_owned());
    };
    let request = wire::SaveArtifactRequest {
        path: saving.path.to_string_lossy().into_owned(),
        output_artifact: Some(told(driver, artifact)),
    };
    let answer: wire::SaveArtifactResponse =
        call_driver(driver, artifact, "Save", &request).map_err(|failure| failure.message)?;
    if answer.success {
        return Ok(());
    }
    Err(format!("plugin {} save failed: {}", driver.name, answer.error))
}
