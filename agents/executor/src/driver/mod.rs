//! Argo's artifact drivers ("artifact plugins") in a step's Pod: gRPC over a Unix socket.
//!
//! A driver runs in a container of its own, as its image says. What speaks to it runs in further containers of the same image,
//! and so as the same user, whoever the step's user is: one loads inputs before the step ([`load`]), one saves outputs after it
//! ([`save`]). The step's own containers do not see the driver's socket. In a Pod of its own one deletes artifacts ([`delete`]).

mod call;
mod gate;

use crate::artifacts::{Driver, DriverArtifact, InputFile, Packing, driver_socket};
use crate::files::{remove, set_mode, unpack};
use crate::protocol::Task;
use argosy_proto::artifact as wire;
use call::{Limits, call};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use gate::save;

/// Loads the task's inputs that its driver keeps. The error is the step's message.
pub fn load(task: &Task) -> Result<(), String> {
    let Some(driver) = &task.driver else { return Ok(()) };
    for input in &task.input_files {
        let Some(artifact) = driver.artifacts.iter().find(|artifact| artifact.name == input.name) else {
            continue;
        };
        load_one(driver, artifact, input)?;
    }
    Ok(())
}

/// Deletes what the task's driver keeps. The error is for whoever asked.
pub fn delete(task: &Task) -> Result<(), String> {
    let Some(driver) = &task.driver else { return Ok(()) };
    for artifact in &driver.artifacts {
        let request = wire::DeleteArtifactRequest { artifact: Some(told(driver, artifact)) };
        let answer: wire::DeleteArtifactResponse =
            call_driver(driver, artifact, "Delete", &request).map_err(|failure| failure.message)?;
        if !answer.success {
            return Err(format!("plugin {} delete failed: {}", driver.name, answer.error));
        }
    }
    Ok(())
}

fn load_one(driver: &Driver, artifact: &DriverArtifact, input: &InputFile) -> Result<(), String> {
    let failed = |reason: String| format!("artifact {} failed to load: {reason}", input.name);
    let own = |error: io::Error| failed(error.to_string());
    let to = PathBuf::from(&input.path);
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let loaded = to.with_file_name(name);
    if let Some(parent) = loaded.parent() {
        fs::create_dir_all(parent).map_err(own)?;
    }
    remove(&loaded).map_err(own)?;
    let request = wire::LoadArtifactRequest {
        input_artifact: Some(told(driver, artifact)),
        path: loaded.to_string_lossy().into_owned(),
    };
    let answer: wire::LoadArtifactResponse =
        call_driver(driver, artifact, "Load", &request).map_err(|error| {
            // A driver that is not there says nothing of the artifact, in Argo too.
            if error.was_ready { failed(error.message) } else { error.message }
        })?;
    if !answer.success {
        return Err(failed(format!("plugin {} load failed: {}", driver.name, answer.error)));
    }
    settle(&loaded, &to, input.packing).map_err(own)?;
    match input.mode {
        Some(_) => set_mode(input, &to).map_err(own),
        // The step may run as another user than the driver.
        None => {
            let mode = if to.is_dir() { 0o777 } else { 0o666 };
            fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(own)
        }
    }
}

/// Unpacks what the driver wrote to its place.
fn settle(loaded: &Path, to: &Path, packing: Option<Packing>) -> io::Result<()> {
    if loaded.is_dir() {
        remove(to)?;
        return fs::rename(loaded, to);
    }
    unpack(File::open(loaded)?, to, packing)?;
    remove(loaded)
}

/// An artifact in the protocol's words.
fn told(driver: &Driver, artifact: &DriverArtifact) -> wire::Artifact {
    wire::Artifact {
        name: artifact.name.clone(),
        path: artifact.path.clone(),
        mode: artifact.mode.unwrap_or_default(),
        recurse_mode: artifact.recurse_mode,
        optional: artifact.optional,
        plugin: Some(wire::PluginArtifact {
            name: driver.name.clone(),
            configuration: artifact.configuration.clone(),
            connection_timeout_seconds: i32::try_from(timeout(driver, artifact)).unwrap_or(i32::MAX),
            key: artifact.key.clone(),
        }),
        ..wire::Artifact::default()
    }
}

/// Seconds; 0 where nobody has said any.
fn timeout(driver: &Driver, artifact: &DriverArtifact) -> u32 {
    match artifact.connection_timeout_seconds {
        0 => driver.connection_timeout_seconds,
        own => own,
    }
}

fn call_driver<Answer: prost::Message + Default>(
    driver: &Driver,
    artifact: &DriverArtifact,
    method: &str,
    request: &impl prost::Message,
) -> Result<Answer, call::Failure> {
    let limits = Limits::of(timeout(driver, artifact));
    call(&driver.name, Path::new(&driver_socket(&driver.name)), limits, method, request)
}
