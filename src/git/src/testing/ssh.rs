//! Repositories by SSH: a server in this process, and OpenSSH's own where it is installed.

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey, run_stream};
use russh::{Channel, ChannelId};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A server; ended with the value.
pub struct SshServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its line among the known hosts.
    pub known_host: String,
    /// The private key that lets its one user in, as its file has it.
    pub user_key: String,
    process: Option<Child>,
}

impl Drop for SshServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

fn text(key: &PrivateKey) -> String {
    key.to_openssh(LineEnding::LF).unwrap().to_string()
}

fn described(address: SocketAddr, host: &PublicKey, user: &PrivateKey, process: Option<Child>) -> SshServer {
    let known_host = format!("[{}]:{} {}\n", address.ip(), address.port(), host.to_openssh().unwrap());
    SshServer { address, known_host, user_key: text(user), process }
}

/// Serves the repositories below a directory, which is the user's own; variables of clients count only if it `takes_variables`.
///
/// # Panics
/// When there is no port.
pub async fn serve_ssh(address: IpAddr, root: PathBuf, takes_variables: bool) -> SshServer {
    let (host, user) = (new_key(), new_key());
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let server = described(listener.local_addr().unwrap(), host.public_key(), &user, None);
    let config =
        Arc::new(Config { keys: vec![host], auth_rejection_time: Duration::ZERO, ..Config::default() });
    let allowed = user.public_key().clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let client = Client {
                root: root.clone(),
                allowed: allowed.clone(),
                takes_variables,
                variables: Vec::new(),
                channels: BTreeMap::new(),
            };
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                // A client that goes early is no failure of the server's.
                if let Ok(session) = run_stream(config, socket, client).await {
                    let _ = session.await;
                }
            });
        }
    });
    server
}

struct Client {
    root: PathBuf,
    allowed: PublicKey,
    takes_variables: bool,
    variables: Vec<(String, String)>,
    channels: BTreeMap<ChannelId, Channel<Msg>>,
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let is_known = user == "git" && key.public_key.key_data() == self.allowed.key_data();
        Ok(if is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        _: ChannelId,
        name: &str,
        value: &str,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.takes_variables {
            self.variables.push((name.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        let channel = self.channels.remove(&channel).unwrap();
        let child = tokio::process::Command::new("sh")
            .arg("-c")
            .arg(String::from_utf8_lossy(command).into_owned())
            .current_dir(&self.root)
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .envs(self.variables.clone())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tokio::spawn(async move {
            // Whole, or what is not named here would end it.
            let mut child = child;
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut stderr = child.stderr.take().unwrap();
            let (mut heard, said) = channel.split();
            let (mut to_client, mut aside) = (said.make_writer(), said.make_writer_ext(Some(1)));
            let listening = tokio::spawn(async move {
                let _ = tokio::io::copy(&mut heard.make_reader(), &mut stdin).await;
            });
            let _ = tokio::join!(
                tokio::io::copy(&mut stdout, &mut to_client),
                tokio::io::copy(&mut stderr, &mut aside)
            );
            listening.abort();
            let _ = child.wait().await;
            let _ = said.close().await;
        });
        Ok(())
    }
}

/// OpenSSH's server for the user of this process, with the settings of a plain installation; none where there is no `sshd`.
///
/// # Panics
/// When it does not start.
pub async fn serve_openssh(directory: &Path, takes_variables: bool) -> Option<SshServer> {
    let program = std::env::split_paths(&format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
        .map(|folder| folder.join("sshd"))
        .find(|file| file.exists())?;
    let (host, user) = (new_key(), new_key());
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let host_file = write("host", &text(&host));
    let users_file = write("users", &user.public_key().to_openssh().unwrap());
    // As root it wants this to be there.
    let _ = fs::create_dir_all("/run/sshd");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let accepted = if takes_variables { "AcceptEnv GIT_PROTOCOL\n" } else { "" };
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {}\nHostKey {host_file}\nAuthorizedKeysFile {users_file}\nStrictModes no\n\
         PasswordAuthentication no\nUsePAM no\nPidFile none\n{accepted}",
        address.port()
    );
    let config = write("config", &config);
    let process =
        Command::new(program).args(["-D", "-e", "-f", &config]).stderr(Stdio::null()).spawn().unwrap();
    let server = described(address, host.public_key(), &user, Some(process));
    let listens = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listens).await.unwrap();
    Some(server)
}
