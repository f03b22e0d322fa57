//! Servers of repositories for tests: Git's own program answers.

mod ssh;

pub use ssh::{SshServer, serve_openssh, serve_ssh};

use axum::body::Bytes;
use axum::extract::{Path as Part, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `user:secret`.
const AUTHORIZATION: &str = "Basic dXNlcjpzZWNyZXQ=";

/// Runs Git in a directory; gives what it says.
///
/// # Panics
/// When it fails.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"])
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn upload_pack(repository: PathBuf, arguments: &[&str], input: Bytes) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(["-c", "safe.directory=*", "upload-pack", "--stateless-rpc"])
        .args(arguments)
        .arg(repository)
        .env("GIT_PROTOCOL", "version=2")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let answer = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap().stdout);
    stdin.write_all(&input).unwrap();
    drop(stdin);
    answer.await.unwrap()
}

fn check(repository: &str, headers: &HeaderMap) -> Result<(), StatusCode> {
    let told = headers.get("authorization").and_then(|value| value.to_str().ok());
    match (repository.starts_with("private"), told) {
        (true, told) if told != Some(AUTHORIZATION) => Err(StatusCode::UNAUTHORIZED),
        (false, Some(_)) => Err(StatusCode::BAD_REQUEST),
        _ => Ok(()),
    }
}

/// Serves the repositories below a directory, each by its name; those whose name begins with `private` to
/// `user` with the password `secret`, and to nobody who shows something else where nothing is asked for. Gives the
/// server's address.
///
/// # Panics
/// When there is no port.
pub async fn serve(root: PathBuf) -> String {
    serve_at(std::net::Ipv4Addr::LOCALHOST.into(), root).await
}

/// The same at an address.
///
/// # Panics
/// When there is no port.
pub async fn serve_at(address: std::net::IpAddr, root: PathBuf) -> String {
    let refs = async |State(root): State<PathBuf>, Part(name): Part<String>, headers: HeaderMap| {
        check(&name, &headers)?;
        let repository = root.join(&name);
        if !repository.exists() {
            return Err(StatusCode::NOT_FOUND);
        }
        let mut body = b"001e# service=git-upload-pack\n0000".to_vec();
        body.extend(upload_pack(repository, &["--advertise-refs"], Bytes::new()).await);
        Ok(body)
    };
    let pack =
        async |State(root): State<PathBuf>, Part(name): Part<String>, headers: HeaderMap, body: Bytes| {
            check(&name, &headers)?;
            Ok::<_, StatusCode>(upload_pack(root.join(name), &[], body).await)
        };
    let router = axum::Router::new()
        .route("/{name}/info/refs", get(refs))
        .route("/{name}/git-upload-pack", post(pack))
        .with_state(root);
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    server
}
