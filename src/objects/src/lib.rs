//! The embedded object store: an S3-compatible server over a directory, for `argosy dev` and small installations.
//!
//! It runs as a process of its own (`argosy store`), so that artifact traffic never competes with Raft for the disk's
//! queue of the control plane. Requests are signed, by header or by URL, with the one pair of keys that it was given.
//! It does not replicate: lose the directory, and the artifacts are lost. Larger installations name a store of their own.
//!
//! Objects are files below the directory, so of the keys `a` and `a/b` only one can be an object; asked for the other one, the
//! store says that there is no such key, as any store does.
//!
//! Invariants: an object is seen whole or not at all (it is written aside and renamed); nothing outside the directory is
//! read or written.
//!
//! Failure model: it may be killed at any instant; what was being written is then left aside and not seen. A full disk
//! fails the upload, which executors try again.

use async_trait::async_trait;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use s3s::access::S3Access;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    CreateMultipartUploadInput, DeleteObjectInput, DeleteObjectsInput, GetObjectInput, HeadObjectInput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3Request, S3Result, s3_error};
use s3s_fs::FileSystem;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the objects lie; made if need be.
    pub directory: PathBuf,
    /// The bucket that is there from the beginning.
    pub bucket: String,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: String,
    /// Connections at one time; more wait in the kernel.
    pub connections_max: usize,
}

impl Options {
    /// Defaults for an address and a directory, with these keys.
    #[must_use]
    pub fn new(
        listen: SocketAddr,
        directory: impl Into<PathBuf>,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        Self {
            listen,
            directory: directory.into(),
            bucket: "argosy".to_owned(),
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            connections_max: 1_024,
        }
    }
}

/// Why the store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error("cannot use {directory} for objects: {reason}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The address is taken or not ours.
    #[error("cannot listen for store requests on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Requests that are signed may do everything; what is a directory on disk is no object.
struct Access {
    root: PathBuf,
}

impl Access {
    fn is_directory(&self, bucket: &str, key: &str) -> bool {
        let inside = Path::new(bucket).join(key);
        let is_plain = inside.components().all(|part| matches!(part, Component::Normal(_)));
        is_plain && self.root.join(inside).is_dir()
    }

    fn is_object(&self, bucket: &str, key: &str) -> S3Result<()> {
        if self.is_directory(bucket, key) { Err(s3_error!(NoSuchKey)) } else { Ok(()) }
    }

    /// Deleting what is not there succeeds; a directory is named as one, so that it goes if it is empty.
    fn name_directory(&self, bucket: &str, key: &mut String) {
        if !key.ends_with('/') && self.is_directory(bucket, key) {
            key.push('/');
        }
    }
}

#[async_trait]
impl S3Access for Access {
    async fn get_object(&self, request: &mut S3Request<GetObjectInput>) -> S3Result<()> {
        self.is_object(&request.input.bucket, &request.input.key)
    }

    /// Else the upload would end well, in a bucket that nobody made.
    async fn create_multipart_upload(
        &self,
        request: &mut S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<()> {
        if self.root.join(&request.input.bucket).is_dir() { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    async fn delete_object(&self, request: &mut S3Request<DeleteObjectInput>) -> S3Result<()> {
        let input = &mut request.input;
        self.name_directory(&input.bucket, &mut input.key);
        Ok(())
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let input = &mut request.input;
        for object in &mut input.delete.objects {
            self.name_directory(&input.bucket, &mut object.key);
        }
        Ok(())
    }

    async fn head_object(&self, request: &mut S3Request<HeadObjectInput>) -> S3Result<()> {
        self.is_object(&request.input.bucket, &request.input.key)
    }
}

/// What a request began goes on when whoever sent it is gone: half a join of an upload's parts would lose the upload.
fn detached(
    service: s3s::service::S3Service,
) -> impl hyper::service::Service<
    hyper::Request<Incoming>,
    Response = hyper::Response<s3s::Body>,
    Error = std::io::Error,
    Future: Send,
> + Clone
+ Send {
    hyper::service::service_fn(move |request| {
        let service = service.clone();
        async move {
            let answer = tokio::spawn(async move { hyper::service::Service::call(&service, request).await });
            answer.await.map_err(std::io::Error::other)?.map_err(std::io::Error::other)
        }
    })
}

/// A store that listens; see [`Server::run`].
pub struct Server {
    listener: TcpListener,
    service: s3s::service::S3Service,
    connections: Arc<Semaphore>,
    address: SocketAddr,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and makes the directory and the bucket.
    ///
    /// # Errors
    /// When one of them cannot be had.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let refused = |reason: String| Error::Directory { directory: options.directory.clone(), reason };
        let bucket = options.directory.join(&options.bucket);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&bucket);
        made.map_err(|error| refused(error.to_string()))?;
        let files = FileSystem::new(&options.directory).map_err(|error| refused(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(options.access_key, options.secret_key));
        builder.set_access(Access { root: options.directory.clone() });
        let listener = TcpListener::bind(options.listen).await;
        let listener = listener.map_err(|source| Error::Listen { address: options.listen, source })?;
        let address =
            listener.local_addr().map_err(|source| Error::Listen { address: options.listen, source })?;
        Ok(Self {
            listener,
            service: builder.build(),
            connections: Arc::new(Semaphore::new(options.connections_max)),
            address,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        let http = Arc::new(http);
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let (service, http) = (detached(self.service.clone()), Arc::clone(&http));
                    tasks.spawn(async move {
                        if let Err(error) = http.serve_connection(TokioIo::new(socket), service).await {
                            tracing::debug!(%error, "a connection to the store broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the store");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
