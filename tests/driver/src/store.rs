//! A store of whole objects in memory, and its client: one call for each connection.
//!
//! A call is a line `METHOD KEY LENGTH` and so many bytes; the answer a line `200 LENGTH` or `404 0` and its bytes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an object.
const OBJECT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a store holds.
#[derive(Clone, Debug, Default)]
pub struct Objects(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Objects {
    /// A store at an address, served by threads that end with the process.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub fn serve(address: SocketAddr) -> io::Result<(SocketAddr, Self)> {
        let listener = TcpListener::bind(address)?;
        let (address, objects) = (listener.local_addr()?, Self::default());
        let served = objects.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = served.clone();
                // A call that breaks off is its caller's to tell.
                std::thread::spawn(move || drop(objects.answer(stream)));
            }
        });
        Ok((address, objects))
    }

    /// Changes or reads all of it.
    pub fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.with(|objects| objects.keys().cloned().collect())
    }

    fn answer(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        let mut reader = BufReader::new(&stream);
        let (head, bytes) = receive(&mut reader)?;
        let [method, key] = head.as_slice() else { return Err(io::ErrorKind::InvalidData.into()) };
        let found = self.with(|objects| match method.as_str() {
            "PUT" => {
                objects.insert(key.clone(), bytes);
                Some(Vec::new())
            }
            "DELETE" => objects.remove(key).map(|_| Vec::new()),
            "LIST" => {
                let keys: Vec<&str> =
                    objects.keys().filter(|known| known.starts_with(key)).map(String::as_str).collect();
                Some(keys.join("\n").into_bytes())
            }
            _ => objects.get(key).cloned(),
        });
        send(&stream, if found.is_some() { "200" } else { "404" }, &found.unwrap_or_default())
    }
}

/// One call; `None`: there is no such object.
///
/// # Errors
/// When the store can't be reached, or breaks off.
pub fn call(address: &str, method: &str, key: &str, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    send(&stream, &format!("{method} {key}"), bytes)?;
    let (head, bytes) = receive(&mut BufReader::new(&stream))?;
    Ok((head.first().map(String::as_str) == Some("200")).then_some(bytes))
}

fn send(mut stream: &TcpStream, head: &str, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{head} {}\n", bytes.len()).as_bytes())?;
    stream.write_all(bytes)
}

/// The words of a head, its length apart, and the bytes.
fn receive(reader: &mut impl BufRead) -> io::Result<(Vec<String>, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let length = words.pop().and_then(|word| word.parse().ok()).filter(|length| *length <= OBJECT_BYTES_MAX);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok((words, bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
