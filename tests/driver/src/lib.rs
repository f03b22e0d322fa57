//! An artifact driver of Argo's, for tests: gRPC over a Unix socket, made with another stack than the executor's client, over a
//! small store that both ends of a test can reach.
//!
//! The configuration of an artifact says what it does, a line each: `endpoint: IP:PORT` where the store is (a name is one at
//! [`ENDPOINT`]), `fail: MESSAGE` refuses, `break: MESSAGE` ends the call with an error of gRPC's.

pub mod store;

use argosy_proto::artifact::artifact_service_server::{ArtifactService, ArtifactServiceServer};
use argosy_proto::artifact::{
    Artifact, DeleteArtifactRequest, DeleteArtifactResponse, IsDirectoryRequest, IsDirectoryResponse,
    ListObjectsRequest, ListObjectsResponse, LoadArtifactRequest, LoadArtifactResponse, OpenStreamRequest,
    OpenStreamResponse, SaveArtifactRequest, SaveArtifactResponse,
};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// Where the store is whose name can't be resolved: in the hub's network of the test clusters.
pub const ENDPOINT: &str = "10.200.0.1:9010";

/// Serves a driver on a socket until `stop` is done.
///
/// # Errors
/// When the socket can't be made, or serving fails.
pub async fn serve(socket: &Path, stop: impl Future<Output = ()>) -> Result<(), Box<dyn std::error::Error>> {
    // Left by an earlier run.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    let service = ArtifactServiceServer::new(Driver);
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop).await?;
    Ok(())
}

struct Driver;

/// What an artifact's configuration says.
struct Place {
    address: String,
    key: String,
}

/// Why nothing came of a call.
enum Problem {
    /// The driver says so.
    Told(String),
    /// The call fails.
    Broken(Status),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Told(error.to_string())
    }
}

impl Place {
    fn of(artifact: Option<&Artifact>) -> Result<Self, Problem> {
        let plugin = artifact.and_then(|artifact| artifact.plugin.as_ref());
        let plugin = plugin.ok_or_else(|| Problem::Told("the artifact has no plugin".to_owned()))?;
        let said = |name: &str| {
            let lines = plugin.configuration.lines().filter_map(|line| line.split_once(": "));
            lines.into_iter().find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
        };
        if let Some(message) = said("fail") {
            return Err(Problem::Told(message));
        }
        if let Some(message) = said("break") {
            return Err(Problem::Broken(Status::permission_denied(message)));
        }
        let endpoint = said("endpoint");
        let endpoint =
            endpoint.ok_or_else(|| Problem::Told("the configuration has no endpoint".to_owned()))?;
        let is_address = endpoint.parse::<std::net::SocketAddr>().is_ok();
        let address = if is_address { endpoint } else { ENDPOINT.to_owned() };
        Ok(Self { address, key: plugin.key.trim_matches('/').to_owned() })
    }

    fn get(&self, key: &str) -> std::io::Result<Option<Vec<u8>>> {
        store::call(&self.address, "GET", key, &[])
    }

    /// The keys below this one, without it.
    fn below(&self) -> std::io::Result<Vec<String>> {
        let listed = store::call(&self.address, "LIST", &format!("{}/", self.key), &[])?.unwrap_or_default();
        let text = String::from_utf8_lossy(&listed).into_owned();
        let rest =
            |key: &str| key.strip_prefix(&self.key).map(|rest| rest.trim_start_matches('/').to_owned());
        Ok(text.lines().filter_map(rest).collect())
    }
}

fn load(artifact: Option<&Artifact>, path: &Path) -> Result<(), Problem> {
    let place = Place::of(artifact)?;
    if let Some(bytes) = place.get(&place.key)? {
        return Ok(std::fs::write(path, bytes)?);
    }
    let below = place.below()?;
    if below.is_empty() {
        return Err(Problem::Told(format!("no such key: {}", place.key)));
    }
    for name in below {
        let file = path.join(&name);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(file, place.get(&format!("{}/{name}", place.key))?.unwrap_or_default())?;
    }
    Ok(())
}

fn save(artifact: Option<&Artifact>, path: &Path) -> Result<(), Problem> {
    let place = Place::of(artifact)?;
    if !path.is_dir() {
        store::call(&place.address, "PUT", &place.key, &std::fs::read(path)?)?;
        return Ok(());
    }
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(path.join(&folder))? {
            let name = folder.join(entry?.file_name());
            if path.join(&name).is_dir() {
                open.push(name);
                continue;
            }
            let key = format!("{}/{}", place.key, name.display());
            store::call(&place.address, "PUT", &key, &std::fs::read(path.join(&name))?)?;
        }
    }
    Ok(())
}

fn delete(artifact: Option<&Artifact>) -> Result<(), Problem> {
    let place = Place::of(artifact)?;
    store::call(&place.address, "DELETE", &place.key, &[])?;
    for name in place.below()? {
        store::call(&place.address, "DELETE", &format!("{}/{name}", place.key), &[])?;
    }
    Ok(())
}

/// Success and error, as answers have them.
fn told(done: Result<(), Problem>) -> Result<(bool, String), Status> {
    match done {
        Ok(()) => Ok((true, String::new())),
        Err(Problem::Told(message)) => Ok((false, message)),
        Err(Problem::Broken(status)) => Err(status),
    }
}

#[tonic::async_trait]
impl ArtifactService for Driver {
    type OpenStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<OpenStreamResponse, Status>>>;

    async fn load(
        &self,
        request: Request<LoadArtifactRequest>,
    ) -> Result<Response<LoadArtifactResponse>, Status> {
        let LoadArtifactRequest { input_artifact, path } = request.into_inner();
        let (success, error) = told(load(input_artifact.as_ref(), Path::new(&path)))?;
        Ok(Response::new(LoadArtifactResponse { success, error }))
    }

    async fn open_stream(
        &self,
        request: Request<OpenStreamRequest>,
    ) -> Result<Response<Self::OpenStreamStream>, Status> {
        let found =
            Place::of(request.into_inner().artifact.as_ref()).and_then(|place| Ok(place.get(&place.key)?));
        let data = match found {
            Ok(found) => found.ok_or_else(|| Status::not_found("no such key"))?,
            Err(Problem::Told(message)) => return Err(Status::unknown(message)),
            Err(Problem::Broken(status)) => return Err(status),
        };
        let pieces = vec![
            Ok(OpenStreamResponse { data, ..OpenStreamResponse::default() }),
            Ok(OpenStreamResponse { is_end: true, ..OpenStreamResponse::default() }),
        ];
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn save(
        &self,
        request: Request<SaveArtifactRequest>,
    ) -> Result<Response<SaveArtifactResponse>, Status> {
        let SaveArtifactRequest { output_artifact, path } = request.into_inner();
        let (success, error) = told(save(output_artifact.as_ref(), Path::new(&path)))?;
        Ok(Response::new(SaveArtifactResponse { success, error }))
    }

    async fn delete(
        &self,
        request: Request<DeleteArtifactRequest>,
    ) -> Result<Response<DeleteArtifactResponse>, Status> {
        let (success, error) = told(delete(request.into_inner().artifact.as_ref()))?;
        Ok(Response::new(DeleteArtifactResponse { success, error }))
    }

    async fn list_objects(
        &self,
        request: Request<ListObjectsRequest>,
    ) -> Result<Response<ListObjectsResponse>, Status> {
        let found = Place::of(request.into_inner().artifact.as_ref()).and_then(|place| {
            let below = place.below()?.into_iter().map(|name| format!("{}/{name}", place.key));
            Ok(below.collect())
        });
        let (objects, error) = match found {
            Ok(objects) => (objects, String::new()),
            Err(Problem::Told(error)) => (Vec::new(), error),
            Err(Problem::Broken(status)) => return Err(status),
        };
        Ok(Response::new(ListObjectsResponse { objects, error }))
    }

    async fn is_directory(
        &self,
        request: Request<IsDirectoryRequest>,
    ) -> Result<Response<IsDirectoryResponse>, Status> {
        let found = Place::of(request.into_inner().artifact.as_ref())
            .and_then(|place| Ok(!place.below()?.is_empty()));
        let (is_directory, error) = match found {
            Ok(is_directory) => (is_directory, String::new()),
            Err(Problem::Told(error)) => (false, error),
            Err(Problem::Broken(status)) => return Err(status),
        };
        Ok(Response::new(IsDirectoryResponse { is_directory, error }))
    }
}
