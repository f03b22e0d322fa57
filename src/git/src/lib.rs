//! A clone of a Git repository as an archive: what an input artifact of kind `git` is loaded from.
//!
//! [`clone`] speaks Git's protocol, version 2, over HTTP(S) and SSH and gives a gzipped tar with one directory: the working tree of
//! the revision, its submodules, and a `.git` with the refs and the history that were fetched. It needs no C library and no
//! `git`. It does not push, merge or run hooks.
//!
//! Invariants: nothing of the credentials is in the archive, in an error or in a log, and they are sent to the repository's own
//! origin only; no path leaves the archive's directory; what is on the disk and in memory is within [`Limits`].
//!
//! Failure model: servers are outside bytes. Whatever is wrong comes back as an [`Error`] that says whether trying again may
//! help. What was written meanwhile is gone when the future or the [`Archive`] is dropped.

mod packet;
mod remote;
mod repository;
mod ssh;
mod submodule;
#[cfg(feature = "testing")]
#[allow(clippy::unwrap_used, reason = "for tests: a helper that fails fails its test")]
pub mod testing;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// What to clone: Argo's GitArtifact, with the values of its Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The repository's URL.
    pub repo: String,
    /// Commit, tag or branch; empty: what the server's HEAD is.
    pub revision: String,
    /// Commits from each tip; 0: all.
    pub depth: u64,
    /// Refs to fetch besides, as `SOURCE:DESTINATION`.
    pub fetch: Vec<String>,
    /// Only `branch`, or the server's own one.
    pub single_branch: bool,
    /// The branch of `single_branch`.
    pub branch: String,
    /// Leave the submodules out.
    pub without_submodules: bool,
    /// Any certificate of the server is good.
    pub insecure_skip_tls: bool,
    /// Who asks by HTTP.
    pub login: Option<Login>,
    /// What is shown to the repository's own host by SSH.
    pub private_key: Option<PrivateKey>,
    /// Keys of hosts that are talked to by SSH, as OpenSSH keeps them.
    pub known_hosts: PathBuf,
    /// Any host is good.
    pub insecure_ignore_host_key: bool,
}

/// A private key as its file has it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PrivateKey(pub String);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

/// A user's name and password, or a token in place of one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login(..)")
    }
}

/// Bounds of one clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that servers send, all submodules together.
    pub pack_bytes_max: u64,
    /// Bytes of all files of the working trees.
    pub tree_bytes_max: u64,
    /// Bytes of one file, which passes through memory.
    pub object_bytes_max: usize,
    /// Bytes of a list of refs.
    pub refs_bytes_max: usize,
    /// Submodules, those of submodules included.
    pub submodules_max: usize,
    /// Milliseconds without a byte from the server.
    pub silence_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes_max: 2 << 30,
            tree_bytes_max: 8 << 30,
            object_bytes_max: 128 << 20,
            refs_bytes_max: 32 << 20,
            submodules_max: 64,
            silence_ms: 60_000,
        }
    }
}

/// A gzipped tar: a file that is gone once it is closed, at its beginning.
#[derive(Debug)]
pub struct Archive {
    /// The file.
    pub file: std::fs::File,
    /// Its bytes.
    pub bytes: u64,
}

/// Why there is no clone. Holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can't be met as it is.
    #[error("{0}")]
    Unsupported(String),
    /// The revision is not among what was fetched.
    #[error("git revision {0} was not found in the repository")]
    Revision(String),
    /// The server refused for good.
    #[error("{0}")]
    Refused(String),
    /// The server could not be reached, or broke off.
    #[error("{0}")]
    Server(String),
    /// A limit is exceeded.
    #[error("{what} of the repository are more than {max} bytes")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// The repository's contents make no sense.
    #[error("the repository can't be read: {0}")]
    Broken(String),
    /// The agent's own disk.
    #[error("cannot keep the clone: {0}")]
    Disk(#[from] std::io::Error),
}

impl Error {
    /// Trying again is of no use before somebody changes something.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unsupported(_)
            | Self::Revision(_)
            | Self::Refused(_)
            | Self::Limit { .. }
            | Self::Broken(_) => true,
            Self::Server(_) | Self::Disk(_) => false,
        }
    }
}

/// The name of the archive's directory.
pub(crate) const ROOT: &str = "repository";

/// Clones a repository into an archive; what it needs meanwhile is kept below `directory`.
///
/// # Errors
/// Why there is no clone.
pub async fn clone(request: &Request, directory: &Path, limits: &Limits) -> Result<Archive, Error> {
    let url = address(&request.repo)?;
    std::fs::create_dir_all(directory)?;
    let work = tempfile::tempdir_in(directory)?;
    let file = tempfile::tempfile_in(directory)?;
    let mut archive = tree::Builder::new(file, limits.tree_bytes_max);
    let http = remote::client(request, limits)?;
    let mut left = limits.pack_bytes_max;
    let mut jobs = vec![submodule::Job { url, path: ROOT.to_owned(), commit: None }];
    let mut done = 0;
    while let Some(job) = jobs.pop() {
        if done > limits.submodules_max {
            return Err(Error::Unsupported(format!("it has more than {} submodules", limits.submodules_max)));
        }
        done += 1;
        let mut remote = remote::Remote::new(&http, job.url.clone(), request, limits);
        let wanted = remote.wanted(request, job.commit).await?;
        let pack = work.path().join(format!("{done}.pack"));
        let fetched = remote.fetch(&wanted, request.depth, &pack, &mut left).await?;
        let (objects, object_bytes_max) = (work.path().join(done.to_string()), limits.object_bytes_max);
        let asked = request.clone();
        // Unpacking is work for the processor: not on a thread that serves others.
        let unpacked = tokio::task::spawn_blocking(move || {
            let repository = repository::Repository::index(&pack, &objects, object_bytes_max)?;
            let found = repository.put(&asked, &job, &wanted, &fetched, &mut archive)?;
            drop(repository);
            std::fs::remove_dir_all(&objects)?;
            Ok::<_, Error>((found, archive))
        });
        let (found, back) = unpacked.await.map_err(|error| Error::Broken(error.to_string()))??;
        archive = back;
        if !request.without_submodules {
            jobs.extend(found);
        }
    }
    tokio::task::spawn_blocking(move || archive.finish())
        .await
        .map_err(|error| Error::Broken(error.to_string()))?
}

/// Where a repository is: `HOST:PATH`, as SSH's own programs write it, is the path `~/PATH` of that host.
///
/// # Errors
/// When it can't be cloned from there.
pub fn address(repo: &str) -> Result<Url, Error> {
    let short = repo.split_once(':').filter(|(host, path)| {
        !repo.contains("://") && !host.is_empty() && !host.contains('/') && !path.is_empty()
    });
    let url = match short {
        Some((host, path)) if path.starts_with('/') => Url::parse(&format!("ssh://{host}{path}")),
        Some((host, path)) => Url::parse(&format!("ssh://{host}/~/{path}")),
        None => Url::parse(repo),
    };
    let url = url.ok().filter(|url| ["http", "https", "ssh"].contains(&url.scheme()) && url.has_host());
    url.ok_or_else(|| Error::Unsupported("git repositories are read by http, https and ssh alone".to_owned()))
}

fn pause(limits: &Limits) -> Duration {
    Duration::from_millis(limits.silence_ms)
}
