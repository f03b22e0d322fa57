//! Where the Secrets that locations name are read.

use crate::Error;
use async_trait::async_trait;
use std::path::PathBuf;

/// Bytes of a Secret's value that are read.
const SECRET_BYTES_MAX: u64 = 1024 * 1024;

/// The Secrets of a cluster.
#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// A key of a Secret; `None` when one of them is not there.
    ///
    /// # Errors
    /// When it can't be said.
    async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, Error>;
}

/// A cluster without Secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn secret(&self, _: &str, _: &str, _: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }
}

/// Secrets as files `NAMESPACE/NAME/KEY` below a directory; those of the namespace `_` are everybody's.
#[derive(Clone, Debug)]
pub struct DirectorySecrets(pub PathBuf);

#[async_trait]
impl Secrets for DirectorySecrets {
    async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, Error> {
        let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\0']);
        if ![namespace, name, key].into_iter().all(is_plain) {
            return Ok(None);
        }
        for owner in [namespace, "_"] {
            let path = self.0.join(owner).join(name).join(key);
            match tokio::fs::metadata(&path).await {
                Ok(data) if data.len() <= SECRET_BYTES_MAX => {}
                Ok(_) => return Err(Error::Store(format!("secret {namespace}/{name} is too large"))),
                Err(_) => continue,
            }
            let text = tokio::fs::read_to_string(&path).await;
            let text = text.map_err(|error| Error::Store(format!("secret {namespace}/{name}: {error}")))?;
            return Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_secrets_and_nothing_outside_is() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join("secrets").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("argo/s3/key", "own\n");
        put("_/s3/key", "all");
        put("_/s3/other", "all");
        std::fs::write(root.path().join("outside"), "x").unwrap();
        let secrets = DirectorySecrets(root.path().join("secrets"));
        let read = async |namespace, name, key| secrets.secret(namespace, name, key).await.unwrap();
        assert_eq!(read("argo", "s3", "key").await.as_deref(), Some("own"));
        assert_eq!(read("other", "s3", "key").await.as_deref(), Some("all"));
        assert_eq!(read("argo", "s3", "missing").await, None);
        assert_eq!(read("argo", "..", "..").await, None);
        assert_eq!(read("..", "..", "outside").await, None);
    }
}
