//! A small HTTP client: blocking, HTTP/1.1, TLS, names resolved without the C library (a static program crashes there).
//! Messages are those of Go's client, which Argo's users know.

mod address;
mod exchange;
mod names;
mod trust;

pub use address::Address;
pub use exchange::{Answer, canonical};

use std::time::{Duration, Instant};

/// Redirects that are followed; Go's bound.
pub const REDIRECTS_MAX: usize = 10;
/// Headers that another host is not told.
pub const PRIVATE_HEADERS: [&str; 4] = ["authorization", "cookie", "host", "www-authenticate"];
/// How long a request may take that says nothing itself. Argo's waits for ever.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub url: String,
    /// In order; `Host` names another host than the URL's to the server.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The server's certificate is not checked.
    pub insecure: bool,
    /// Bytes of an answer's body that are kept; a longer one is an error.
    pub body_bytes_max: usize,
}

/// Sends a request and follows redirects as Go does.
///
/// # Errors
/// Go's words.
pub fn send(request: &Request, time_max: Duration) -> Result<Answer, String> {
    let end = Instant::now() + time_max;
    let mut request = request.clone();
    let mut verb = title(&request.method);
    for _ in 0..=REDIRECTS_MAX {
        let failed = |url: &str, reason: String| format!("{verb} \"{url}\": {reason}");
        let address = Address::parse(&request.url).map_err(|reason| failed(&request.url, reason))?;
        let answer =
            exchange::exchange(&request, &address, end).map_err(|reason| failed(&request.url, reason))?;
        let target =
            answer.header("Location").filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308));
        let Some(target) = target else { return Ok(answer) };
        let url = address.join(target);
        let next = Address::parse(&url).map_err(|reason| failed(&url, reason))?;
        if matches!(answer.status, 301..=303) {
            // The body and what describes it stay behind, as every browser does it.
            if request.method != "HEAD" {
                "GET".clone_into(&mut request.method);
            }
            request.body.clear();
            request.headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("content-"));
        }
        if next.host != address.host {
            request
                .headers
                .retain(|(name, _)| !PRIVATE_HEADERS.contains(&name.to_ascii_lowercase().as_str()));
        }
        verb = title(&request.method);
        request.url = url;
    }
    Err(format!("{verb} \"{}\": stopped after {REDIRECTS_MAX} redirects", request.url))
}

/// `GET` as Go's errors write it.
fn title(method: &str) -> String {
    let method = if method.is_empty() { "GET" } else { method };
    let (first, rest) = method.split_at(method.chars().next().map_or(0, char::len_utf8));
    format!("{}{}", first.to_uppercase(), rest.to_lowercase())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// A server that gives these answers, one per connection; what it was asked comes back.
    pub(crate) fn serve(answers: Vec<String>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, asked) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut socket, _) = listener.accept().unwrap();
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let length = socket.read(&mut buffer).unwrap();
                    seen.extend_from_slice(&buffer[..length]);
                    let text = String::from_utf8_lossy(&seen).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                        sender.send(text).unwrap();
                        break;
                    }
                }
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        (format!("http://{address}"), asked)
    }

    fn request(url: String) -> Request {
        Request {
            method: String::new(),
            url,
            headers: vec![("X-A".into(), "1".into())],
            body: Vec::new(),
            insecure: false,
            body_bytes_max: 1_000,
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn bodies_are_read_whole_however_they_are_framed() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-answer: 42\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-ANSWER: 42\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nX-Answer: 42\r\n\r\nhello",
        ] {
            let (url, asked) = serve(vec![answer.to_owned()]);
            let got = send(&request(format!("{url}/a?b=c")), MINUTE).unwrap();
            assert_eq!(
                (got.status, got.body.as_slice(), got.header("X-Answer")),
                (200, &b"hello"[..], Some("42"))
            );
            let asked = asked.recv().unwrap();
            assert!(
                asked.starts_with("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:") && asked.contains("X-A: 1\r\n"),
                "{asked}"
            );
        }
    }

    #[test]
    fn redirects_are_followed_as_go_does() {
        let moved =
            |code: u16, to: &str| format!("HTTP/1.1 {code} X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        let done = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
        let (url, asked) = serve(vec![moved(307, "/next"), moved(302, "last"), done]);
        let mut post = request(format!("{url}/first"));
        "POST".clone_into(&mut post.method);
        post.body = b"body".to_vec();
        assert_eq!(send(&post, MINUTE).unwrap().status, 200);
        let asked: Vec<String> = asked.iter().collect();
        assert!(asked[1].starts_with("POST /next ") && asked[1].ends_with("body"));
        assert!(asked[2].starts_with("GET /last ") && !asked[2].contains("body"));
    }

    #[test]
    fn failures_are_told_in_gos_words() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = send(&request(format!("http://{free}/")), MINUTE).unwrap_err();
        assert_eq!(error, format!("Get \"http://{free}/\": dial tcp {free}: connect: connection refused"));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let error = send(&request(url.clone()), Duration::from_millis(200)).unwrap_err();
        assert_eq!(error, format!("Get \"{url}\": context deadline exceeded"));
        assert!(
            send(&request("ftp://x/".into()), MINUTE).unwrap_err().contains("unsupported protocol scheme")
        );
    }

    #[test]
    fn an_endless_body_ends_at_its_bound() {
        let (url, _asked) = serve(vec![format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5_000))]);
        assert!(send(&request(url), MINUTE).unwrap_err().contains("1000 bytes"));
    }
}
