//! One call of a driver: gRPC's unary call by HTTP/2 over a Unix socket.

use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, RecvStream};
use http::{HeaderMap, Request, StatusCode};
use prost::bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

/// Argo's name of the service.
const SERVICE: &str = "artifact.ArtifactService";
/// How long Argo waits for a driver's socket.
const SOCKET_WAIT_SECONDS: u32 = 120;
/// How long Argo lets a connection take that nobody has set a limit for.
const CONNECTION_SECONDS: u32 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes of an answer: gRPC's usual limit.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// gRPC's codes, as Go writes them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How long a driver may take to be there. What it then does may take as long as the step may.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    socket_seconds: u32,
    connection_seconds: u32,
}

impl Limits {
    /// With this many seconds for either; 0: Argo's.
    pub fn of(seconds: u32) -> Self {
        match seconds {
            0 => Self { socket_seconds: SOCKET_WAIT_SECONDS, connection_seconds: CONNECTION_SECONDS },
            seconds => Self { socket_seconds: seconds, connection_seconds: seconds },
        }
    }
}

/// Why a call came to nothing. In Argo's words.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// The driver was there.
    pub was_ready: bool,
}

/// Calls a method of a driver, and waits for its answer.
pub fn call<Answer: prost::Message + Default>(
    driver: &str,
    socket: &Path,
    limits: Limits,
    method: &str,
    request: &impl prost::Message,
) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let absent = |reason: String| Failure {
        message: format!("failed to create plugin driver for {driver}: {reason}"),
        was_ready: false,
    };
    let runtime = runtime.map_err(|error| absent(error.to_string()))?;
    runtime.block_on(async {
        let sender = ready(driver, socket, limits).await.map_err(absent)?;
        let answer = exchange(sender, method, request).await.and_then(|message| {
            Answer::decode(message)
                .map_err(|error| rpc_error(13, &format!("the answer can't be read: {error}")))
        });
        answer.map_err(|reason| Failure {
            message: format!("plugin {driver} {} failed: {reason}", method.to_lowercase()),
            was_ready: true,
        })
    })
}

/// A connection whose other end speaks HTTP/2.
async fn ready(driver: &str, socket: &Path, limits: Limits) -> Result<SendRequest<Bytes>, String> {
    let shown = socket.display();
    let until = Instant::now() + Duration::from_secs(limits.socket_seconds.into());
    while let Err(error) = tokio::fs::symlink_metadata(socket).await {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(format!("plugin {driver} cannot stat unix socket at \"{shown}\": {error}"));
        }
        if Instant::now() >= until {
            let seconds = limits.socket_seconds;
            return Err(format!(
                "plugin {driver} expected unix socket at \"{shown}\" but it does not exist after waiting for {seconds} seconds"
            ));
        }
        sleep(LOOK_EVERY).await;
    }
    let until = Instant::now() + Duration::from_secs(limits.connection_seconds.into());
    loop {
        let problem = match timeout_at(until, connected(socket)).await {
            Ok(Ok(sender)) => return Ok(sender),
            Ok(Err(error)) => error,
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() + LOOK_EVERY >= until {
            return Err(format!(
                "timeout waiting for plugin {driver} connection to become ready, last state: TRANSIENT_FAILURE \
                 (socket=\"{shown}\"): {problem}"
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn connected(socket: &Path) -> Result<SendRequest<Bytes>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (sender, mut connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    let pings = connection.ping_pong();
    // Ends with its last user.
    tokio::spawn(connection);
    if let Some(mut pings) = pings {
        pings.ping(Ping::opaque()).await.map_err(|error| error.to_string())?;
    }
    sender.ready().await.map_err(|error| error.to_string())
}

async fn exchange(
    mut sender: SendRequest<Bytes>,
    method: &str,
    request: &impl prost::Message,
) -> Result<Bytes, String> {
    let broken = |error: h2::Error| rpc_error(14, &error.to_string());
    let head = Request::post(format!("http://localhost/{SERVICE}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("argosy-executor/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(|error| error.to_string())?;
    let length = u32::try_from(request.encoded_len()).map_err(|_| rpc_error(8, "the request is too long"))?;
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + request.encoded_len());
    body.put_u8(0);
    body.put_u32(length);
    request.encode(&mut body).map_err(|error| error.to_string())?;
    let (answer, mut stream) = sender.send_request(head, false).map_err(broken)?;
    stream.send_data(body.freeze(), true).map_err(broken)?;
    answered(answer).await
}

async fn answered(answer: ResponseFuture) -> Result<Bytes, String> {
    let broken = |error: h2::Error| rpc_error(14, &error.to_string());
    let (head, body) = answer.await.map_err(broken)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(rpc_error(
            2,
            &format!("unexpected HTTP status code received from server: {}", head.status),
        ));
    }
    // An answer without a message may have its status at once.
    check(&head.headers)?;
    let (bytes, trailers) = read(body).await?;
    check(&trailers.unwrap_or_default())?;
    let mut bytes = Bytes::from(bytes);
    if bytes.len() < PREFIX_BYTES {
        return Err(rpc_error(13, "the answer has no message"));
    }
    let prefix = bytes.split_to(PREFIX_BYTES);
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 {
        return Err(rpc_error(12, "the answer is compressed, which was not asked for"));
    }
    if usize::try_from(length).ok() != Some(bytes.len()) {
        return Err(rpc_error(13, "the answer has another length than it says"));
    }
    Ok(bytes)
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), String> {
    let broken = |error: h2::Error| rpc_error(14, &error.to_string());
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broken)?;
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX + PREFIX_BYTES {
            return Err(rpc_error(8, &format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(broken)?;
    }
    Ok((bytes, body.trailers().await.map_err(broken)?))
}

/// The status in headers or trailers, if there is one, is good.
fn check(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(status) = text("grpc-status").filter(|status| *status != "0") else { return Ok(()) };
    Err(rpc_error(status.parse().unwrap_or(2), &decoded(text("grpc-message").unwrap_or_default())))
}

/// Go's words for a failed call.
fn rpc_error(code: usize, reason: &str) -> String {
    let code = CODES.get(code).map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
    format!("rpc error: code = {code} desc = {reason}")
}

/// Without percent signs, as messages travel.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let coded = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match coded.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded_as_far_as_they_are_coded() {
        assert_eq!(decoded("no space%3A 100%25"), "no space: 100%");
        assert_eq!(decoded("50% of %zz%e"), "50% of %zz%e");
    }

    #[test]
    fn statuses_are_told_in_gos_words() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers).is_ok());
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(check(&headers).is_ok());
        headers.insert("grpc-status", "7".parse().unwrap());
        headers.insert("grpc-message", "not%20yours".parse().unwrap());
        assert_eq!(check(&headers).unwrap_err(), "rpc error: code = PermissionDenied desc = not yours");
        headers.insert("grpc-status", "99".parse().unwrap());
        assert_eq!(check(&headers).unwrap_err(), "rpc error: code = Code(99) desc = not yours");
    }
}
