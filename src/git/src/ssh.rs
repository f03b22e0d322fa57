//! Repositories over SSH: Git's program at the other end speaks as servers do over HTTP, in one conversation.

use crate::{Error, Limits, Request, pause};
use bytes::Bytes;
use russh::client::{Config, Handle, Handler, Msg};
use russh::keys::known_hosts::{check_known_hosts_path, known_host_keys_path};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key};
use russh::{Channel, ChannelMsg, Preferred};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// From the first packet until the server has let us in.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of what the server says aside that are kept.
const ASIDE_BYTES_MAX: usize = 1024;
const PORT: u16 = 22;
const USER: &str = "git";
/// How clients ask for the version of the protocol that is spoken here.
const VERSION: (&str, &str) = ("GIT_PROTOCOL", "version=2");

/// A conversation with the program that hands packs out.
pub struct Conversation {
    /// The connection ends with it.
    _handle: Handle<Host>,
    channel: Channel<Msg>,
    silence: Duration,
    aside: String,
}

/// Begins a conversation about a repository. `by_shell`: the version is asked for in the command, for servers that take no
/// variables from clients.
pub async fn open(
    request: &Request,
    url: &Url,
    limits: &Limits,
    by_shell: bool,
) -> Result<Conversation, Error> {
    let handle = tokio::time::timeout(LOGIN_TIMEOUT, login(request, url, limits)).await;
    let handle = handle.map_err(|_| Error::Server(format!("dial tcp {}: i/o timeout", place(url))))??;
    let channel = handle.channel_open_session().await.map_err(|error| told(&error))?;
    let mut command = format!("git-upload-pack {}", quoted(&path(url)));
    let (name, value) = VERSION;
    if by_shell {
        command = format!("{name}={value} {command}");
    } else {
        // Servers that do not take it say nothing of use.
        channel.set_env(false, name, value).await.map_err(|error| told(&error))?;
    }
    channel.exec(false, command).await.map_err(|error| told(&error))?;
    Ok(Conversation { _handle: handle, channel, silence: pause(limits), aside: String::new() })
}

impl Conversation {
    pub async fn say(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.channel.data_bytes(bytes).await.map_err(|error| told(&error))
    }

    /// The next bytes; `None` when the server has ended the conversation.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let next = tokio::time::timeout(self.silence, self.channel.wait()).await;
            let next = next.map_err(|_| Error::Server("the server says nothing more".to_owned()))?;
            match next {
                Some(ChannelMsg::Data { data }) => return Ok(Some(data)),
                Some(ChannelMsg::ExtendedData { data, .. }) if self.aside.len() < ASIDE_BYTES_MAX => {
                    self.aside.push_str(&String::from_utf8_lossy(&data));
                }
                Some(ChannelMsg::Close) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// Why the conversation ended early.
    pub fn broke_off(&self) -> Error {
        let words = crate::packet::shown(self.aside.trim());
        if words.is_empty() {
            Error::Server("the server broke off".to_owned())
        } else {
            Error::Refused(format!("the server says: {words}"))
        }
    }
}

async fn login(request: &Request, url: &Url, limits: &Limits) -> Result<Handle<Host>, Error> {
    let key = key(request, url)?;
    let (name, port) = (host(url), url.port().unwrap_or(PORT));
    let known_hosts = (!request.insecure_ignore_host_key).then(|| request.known_hosts.clone());
    let mut preferred = Preferred::default();
    if let Some(file) = &known_hosts {
        // A server has keys of several kinds: it is to show one that is known.
        let known = known_host_keys_path(&name, port, file).unwrap_or_default();
        let mut kinds = preferred.key.to_vec();
        kinds.sort_by_key(|kind| !known.iter().any(|(_, key)| key.algorithm() == *kind));
        preferred.key = kinds.into();
    }
    let config = Arc::new(Config { inactivity_timeout: Some(pause(limits)), preferred, ..Config::default() });
    let refusal = Arc::new(Mutex::new(String::new()));
    let judge = Host { name: name.clone(), port, known_hosts, refusal: Arc::clone(&refusal) };
    let connected = russh::client::connect(config, (name.as_str(), port), judge).await;
    let mut handle = connected.map_err(|error| {
        let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if refusal.is_empty() { told(&error) } else { Error::Refused(refusal) }
    })?;
    let user = if url.username().is_empty() { USER } else { url.username() };
    let shown = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    match handle.authenticate_publickey(user, shown).await {
        Ok(answer) if answer.success() => Ok(handle),
        Ok(_) => Err(Error::Refused(
            "ssh: handshake failed: ssh: unable to authenticate: the server does not let this key in"
                .to_owned(),
        )),
        Err(error) => Err(told(&error)),
    }
}

/// The key that is shown: to the repository's own host alone.
fn key(request: &Request, url: &Url) -> Result<PrivateKey, Error> {
    let own = crate::address(&request.repo).ok();
    let is_own = own.is_some_and(|own| own.host_str() == url.host_str() && own.port() == url.port());
    let key = request.private_key.as_ref().filter(|_| is_own);
    let key = key.ok_or_else(|| {
        Error::Unsupported(format!(
            "{} is read by SSH, which takes sshPrivateKeySecret for this host",
            host(url)
        ))
    })?;
    // The library's words could hold a part of it.
    decode_secret_key(&key.0, None).map_err(|_| {
        Error::Unsupported(
            "sshPrivateKeySecret can't be used: it takes an ed25519 or ECDSA key without a passphrase"
                .to_owned(),
        )
    })
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn place(url: &Url) -> String {
    format!("{}:{}", host(url), url.port().unwrap_or(PORT))
}

/// The path that the server is asked for: `~` stands for what is below the user's own directory.
fn path(url: &Url) -> String {
    let decoded = crate::remote::decoded(url.path());
    match decoded.strip_prefix("/~/") {
        Some(below) => below.to_owned(),
        None if decoded.starts_with("/~") => decoded[1..].to_owned(),
        None => decoded,
    }
}

/// A word for the shell at the other end.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn told(error: &russh::Error) -> Error {
    Error::Server(format!("ssh: {error}"))
}

/// Judges a server by its key.
struct Host {
    name: String,
    port: u16,
    /// None: whoever it is.
    known_hosts: Option<PathBuf>,
    refusal: Arc<Mutex<String>>,
}

impl Handler for Host {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let Some(file) = &self.known_hosts else { return Ok(true) };
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let found = check_known_hosts_path(&self.name, self.port, key, file);
        let reason = match found {
            Ok(true) => return Ok(true),
            Ok(false) => "key is unknown".to_owned(),
            Err(russh::keys::Error::KeyChanged { line }) => format!("key mismatch in line {line}"),
            Err(error) => error.to_string(),
        };
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = format!(
            "ssh: handshake failed: knownhosts: {reason} ({}: {}; the agent looks in {})",
            self.name,
            key.fingerprint(HashAlg::Sha256),
            file.display()
        );
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_for_the_other_end() {
        for (repo, word) in [
            ("git@h:team/a.git", "'team/a.git'"),
            ("ssh://git@h:2222/team/a b.git", "'/team/a b.git'"),
            ("ssh://h/~user/a", "'~user/a'"),
            ("h:it's", r"'it'\''s'"),
        ] {
            let url = crate::address(repo).unwrap();
            assert_eq!(quoted(&path(&url)), word, "{repo}");
        }
    }
}
