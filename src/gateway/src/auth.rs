use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

use crate::Error;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reading.
    Reader,
    /// Reading, and making, changing and deleting workflows.
    Writer,
    /// Everything, clusters and members included.
    Admin,
}

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Becomes the creator label of workflows and the tenant of idempotency keys.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// The tokens that are accepted, by hash: the file that holds them can't be used to log in.
///
/// The file is JSON: `{"version":1,"tokens":[{"name":"admin","role":"admin","sha256":"<hex of the token's SHA-256>"}]}`.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    by_hash: BTreeMap<String, Identity>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    tokens: Vec<Entry>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    sha256: String,
}

/// SHA-256 in lower-case hexadecimal: what a tokens file holds of a token.
#[must_use]
pub fn hash_token(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Tokens {
    /// Reads a tokens file.
    ///
    /// # Errors
    /// [`Error::Tokens`] when it can't be read or understood, or holds no token.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Tokens { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.version != 1 {
            return Err(format!("version {} is not known", file.version));
        }
        let mut tokens = Self::default();
        for entry in file.tokens {
            let hash = entry.sha256.to_ascii_lowercase();
            if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("sha256 of token {:?} is not 64 hexadecimal digits", entry.name));
            }
            if entry.name.is_empty() {
                return Err("a token has no name".to_owned());
            }
            tokens.by_hash.insert(hash, Identity { name: entry.name, role: entry.role });
        }
        if tokens.by_hash.is_empty() { Err("it holds no token".to_owned()) } else { Ok(tokens) }
    }

    /// Adds one token, as `argosy dev` does for the local user.
    #[must_use]
    pub fn with(mut self, token: &str, identity: Identity) -> Self {
        self.by_hash.insert(hash_token(token), identity);
        self
    }

    /// The file's text for these tokens.
    #[must_use]
    pub fn file_text(&self) -> String {
        let tokens = self.by_hash.iter().map(|(hash, identity)| Entry {
            name: identity.name.clone(),
            role: identity.role,
            sha256: hash.clone(),
        });
        let file = File { version: 1, tokens: tokens.collect() };
        serde_json::to_string_pretty(&file).expect("a map of strings can always be written as JSON")
    }

    /// Who bears the token. Looking a hash up tells a guesser nothing of the tokens through timing.
    #[must_use]
    pub fn identify(&self, token: &str) -> Option<&Identity> {
        self.by_hash.get(&hash_token(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_and_never_holds_the_token() {
        let tokens = Tokens::default().with("secret", Identity { name: "admin".into(), role: Role::Admin });
        let text = tokens.file_text();
        assert!(!text.contains("secret"));
        let read = Tokens::parse(&text).unwrap();
        assert_eq!(read.identify("secret").map(|identity| identity.role), Some(Role::Admin));
        assert_eq!(read.identify("Secret"), None);
    }

    #[test]
    fn bad_files_are_refused_with_the_reason() {
        for bad in [
            "",
            "{}",
            r#"{"version":2,"tokens":[]}"#,
            r#"{"version":1,"tokens":[]}"#,
            r#"{"version":1,"tokens":[{"name":"a","role":"admin","sha256":"zz"}]}"#,
        ] {
            assert!(Tokens::parse(bad).is_err(), "{bad}");
        }
    }
}
