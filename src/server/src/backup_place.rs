//! Where backups lie: a directory, or below a prefix of a bucket of an S3-compatible store.
//!
//! The store is the one that `AWS_*` names in the environment: `AWS_ENDPOINT_URL` (Amazon's own without it), `AWS_REGION`,
//! `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` or the identity of the host, `AWS_CA_BUNDLE`.

use crate::backup::{Checked, verify};
use anyhow::{Context, ensure};
use argosy_artifacts::{Error, Limits, Secrets, Store, Stores};
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const SCHEME: &str = "s3://";
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The only secret that a store's location names here: the file of authorities to trust.
struct CaBundle;

#[async_trait::async_trait]
impl Secrets for CaBundle {
    async fn secret(&self, _namespace: &str, _name: &str, _key: &str) -> Result<Option<String>, Error> {
        let Some(path) = std::env::var_os(CA_BUNDLE).map(PathBuf::from) else { return Ok(None) };
        let text = std::fs::read_to_string(&path);
        text.map(Some).map_err(|error| Error::Location(format!("{CA_BUNDLE} {}: {error}", path.display())))
    }
}

/// A store, and a key or prefix in it.
struct Object {
    store: Store,
    key: String,
    url: String,
}

impl Object {
    /// What a URL like `s3://BUCKET/KEY` names; `None` for what is no such URL.
    async fn named(url: &str) -> anyhow::Result<Option<Self>> {
        let Some(rest) = url.strip_prefix(SCHEME) else { return Ok(None) };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!bucket.is_empty(), "{url}: no bucket; a place in a store is s3://BUCKET/PREFIX");
        let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
        let region =
            ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
        let location = json!({"s3": {
            "bucket": bucket,
            "endpoint": endpoint,
            "insecure": endpoint.starts_with("http://"),
            "region": region.unwrap_or_default(),
            "useSDKCreds": true,
            "caSecret": {"name": "environment", "key": CA_BUNDLE, "optional": true},
        }});
        let location: Map<String, Value> = location.as_object().cloned().unwrap_or_default();
        let stores = Stores::new(Arc::new(CaBundle), Limits::default());
        let store = stores.open("", &location).await.with_context(|| url.to_owned())?;
        Ok(Some(Self { store, key: key.trim_end_matches('/').to_owned(), url: url.to_owned() }))
    }

    async fn fetch(&self, path: &Path) -> anyhow::Result<()> {
        let context = || self.url.clone();
        let size = self.store.head(&self.key).await.with_context(context)?;
        let size = size.with_context(|| format!("{}: there is no such backup", self.url))?.size;
        let mut pieces = self.store.read(&self.key, 0..size).await.with_context(context)?;
        let mut file = tokio::fs::File::from_std(private_file(path)?);
        while let Some(piece) = pieces.try_next().await.with_context(context)? {
            file.write_all(&piece).await?;
        }
        Ok(file.flush().await?)
    }
}

fn private_file(path: &Path) -> anyhow::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).with_context(|| format!("{}", path.display()))
}

fn name(checked: &Checked) -> String {
    let header = &checked.header;
    format!("{}-{}-{}.backup", header.cell, header.incarnation, header.sequence)
}

/// Writes a backup of the running cell to `place` and reads it back: its name there, and what the check found. On the way to
/// a store it lies in the directory for temporary files, readable for its owner alone.
///
/// # Errors
/// The cell does not answer, a disk or the store fails, or what was read back is not whole.
pub async fn create(place: &str, client: &argosy_cli::client::Client) -> anyhow::Result<(String, Checked)> {
    let Some(object) = Object::named(place).await? else {
        let directory = Path::new(place);
        std::fs::create_dir_all(directory).with_context(|| place.to_owned())?;
        let partial = directory.join(".partial.backup");
        let checked = receive(&partial, client).await?;
        let path = directory.join(name(&checked));
        std::fs::rename(&partial, &path)?;
        return Ok((path.display().to_string(), checked));
    };
    let spool = tempfile::tempdir()?;
    let path = spool.path().join("argosy.backup");
    let sent = receive(&path, client).await?;
    let key = [object.key.as_str(), &name(&sent)].join("/");
    let bucket = object.url.strip_suffix('/').unwrap_or(&object.url);
    let stored = Object { url: format!("{bucket}/{}", name(&sent)), key, store: object.store };
    let file = tokio::fs::File::open(&path).await?;
    stored.store.write_from(&stored.key, file).await.with_context(|| stored.url.clone())?;
    stored.fetch(&path).await?;
    let checked = verify(&path).with_context(|| format!("{} as read back", stored.url))?;
    ensure!(checked == sent, "{}: what the store gives back is another backup", stored.url);
    Ok((stored.url, checked))
}

async fn receive(path: &Path, client: &argosy_cli::client::Client) -> anyhow::Result<Checked> {
    let mut file = private_file(path)?;
    client.backup(&mut file).await?;
    file.sync_all()?;
    verify(path)
}

/// A backup as a file of this machine: the one that is named, or one fetched from a store.
#[derive(Debug)]
pub struct LocalBackup {
    /// Where it is.
    pub path: PathBuf,
    /// Goes with this.
    _fetched: Option<tempfile::TempDir>,
}

/// Fetches what a URL names; a path is taken as it is.
///
/// # Errors
/// The store has no such object or does not answer, or the disk is full.
pub async fn local(backup: &str) -> anyhow::Result<LocalBackup> {
    let Some(object) = Object::named(backup).await? else {
        return Ok(LocalBackup { path: PathBuf::from(backup), _fetched: None });
    };
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("argosy.backup");
    object.fetch(&path).await?;
    Ok(LocalBackup { path, _fetched: Some(directory) })
}
