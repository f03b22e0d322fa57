//! Host names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`, as the kubelet writes them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const HOSTS: &str = "/etc/hosts";
const SETTINGS: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// How long a name server may think, and how often it is asked.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Bytes of an answer over UDP; what does not fit is cut off, and a few addresses are enough.
const ANSWER_BYTES_MAX: usize = 1232;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// The addresses of a host.
///
/// # Errors
/// Go's words.
pub fn resolve(host: &str, end: Instant) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = in_hosts(&fs::read_to_string(HOSTS).unwrap_or_default(), host);
    if !hosts.is_empty() {
        return Ok(hosts);
    }
    let settings = Settings::read(&fs::read_to_string(SETTINGS).unwrap_or_default());
    let mut last = format!("lookup {host}: no such host");
    for name in settings.names(host) {
        match ask_all(&settings, &name, end) {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(error) => last = format!("lookup {host}: {error}"),
        }
    }
    Err(last)
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect()
}

struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Settings {
    fn read(text: &str) -> Self {
        let mut found = Self { servers: Vec::new(), search: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    found.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                    found.dots = dots.unwrap_or(found.dots);
                }
                Some(_) | None => {}
            }
        }
        if found.servers.is_empty() {
            found.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        found
    }

    /// The full names to try, in order.
    fn names(&self, host: &str) -> Vec<String> {
        if let Some(full) = host.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{host}.{}", domain.trim_matches('.')));
        let plain = std::iter::once(host.to_owned());
        if host.matches('.').count() >= self.dots {
            plain.chain(searched).collect()
        } else {
            searched.chain(plain).collect()
        }
    }
}

fn ask_all(settings: &Settings, name: &str, end: Instant) -> Result<Vec<IpAddr>, String> {
    let mut last = "no name server answers".to_owned();
    for server in settings.servers.iter().cycle().take(settings.servers.len() * ROUNDS) {
        let mut found = Vec::new();
        let mut answered = true;
        for kind in [TYPE_A, TYPE_AAAA] {
            match ask(*server, name, kind, end) {
                Ok(mut addresses) => found.append(&mut addresses),
                Err(error) => {
                    last = error.to_string();
                    answered = false;
                }
            }
        }
        if answered || !found.is_empty() {
            return Ok(found);
        }
    }
    Err(last)
}

fn ask(server: SocketAddr, name: &str, kind: u16, end: Instant) -> std::io::Result<Vec<IpAddr>> {
    let local: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0))?;
    let left = end.saturating_duration_since(Instant::now()).min(ANSWER_MAX);
    socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    socket.connect(server)?;
    let mut id = [0; 2];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id)
        .map_err(|_| std::io::Error::other("no random numbers"))?;
    let question = question(u16::from_be_bytes(id), name, kind)
        .ok_or_else(|| std::io::Error::other(format!("{name}: invalid domain name")))?;
    socket.send(&question)?;
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer)?;
        if buffer.get(..2) == Some(&id[..]) {
            return read(&buffer[..length], kind)
                .ok_or_else(|| std::io::Error::other("cannot read the name server's answer"));
        }
    }
}

fn question(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // One question, with recursion.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    (message.len() <= 300).then_some(message)
}

/// The addresses of an answer; none when the name does not exist.
fn read(message: &[u8], kind: u16) -> Option<Vec<IpAddr>> {
    let number =
        |at: usize| Some(usize::from(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?])));
    let code = message.get(3)? & 0x0f;
    if code == 3 {
        return Some(Vec::new());
    }
    if code != 0 {
        return None;
    }
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(message, at)?;
        let (of, length) = (number(at)?, number(at + 8)?);
        let data = message.get(at + 10..at + 10 + length)?;
        if of == usize::from(kind) {
            let four = <[u8; 4]>::try_from(data).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
            let sixteen = <[u8; 16]>::try_from(data).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            found.extend(four.or(sixteen));
        }
        at += 10 + length;
    }
    Some(found)
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_settings_are_read_as_the_c_library_does() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 a.b c # d\n::1 localhost";
        assert_eq!(in_hosts(hosts, "C"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(in_hosts(hosts, "localhost").len(), 2);
        assert!(in_hosts(hosts, "d").is_empty());
        let settings = Settings::read(
            "nameserver 10.96.0.10\nsearch n.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1\n",
        );
        assert_eq!(settings.servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(settings.names("a.b"), ["a.b.n.svc.cluster.local", "a.b.svc.cluster.local", "a.b"]);
        assert_eq!(settings.names("a.b."), ["a.b"]);
    }

    #[test]
    fn answers_of_name_servers_are_read_and_broken_ones_are_not() {
        let mut answer = question(7, "a.b", TYPE_A).unwrap();
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
        assert_eq!(read(&answer, TYPE_A).unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        for length in 0..answer.len() {
            assert_ne!(read(&answer[..length], TYPE_A).map(|found| found.len()), Some(1), "{length}");
        }
        answer[3] = 0x83;
        assert_eq!(read(&answer, TYPE_A), Some(Vec::new()));
        assert!(question(1, "a..b", TYPE_A).is_none());
    }
}
