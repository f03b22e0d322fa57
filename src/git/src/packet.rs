//! Git's lines: four digits of length, and bytes.

use crate::Error;

/// Most bytes of a line.
const LINE_BYTES_MAX: usize = 65_520;

/// A line, or one of the marks between lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Flush,
    Delimiter,
    End,
    Line(Vec<u8>),
}

/// Lines of a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Packets {
    buffer: Vec<u8>,
    at: usize,
}

impl Packets {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next one; `None` when more bytes are needed.
    pub fn next(&mut self) -> Result<Option<Packet>, Error> {
        let rest = &self.buffer[self.at..];
        let Some(digits) = rest.get(..4) else { return Ok(None) };
        let length =
            std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let (packet, used) = match length {
            Some(0) => (Packet::Flush, 4),
            Some(1) => (Packet::Delimiter, 4),
            Some(2) => (Packet::End, 4),
            Some(length) if (4..=LINE_BYTES_MAX).contains(&length) => match rest.get(4..length) {
                Some(line) => (Packet::Line(line.to_vec()), length),
                None => return Ok(None),
            },
            Some(_) | None => {
                return Err(Error::Refused("the server does not speak Git's protocol".to_owned()));
            }
        };
        self.at += used;
        Ok(Some(packet))
    }

    /// Nothing is left over.
    pub fn is_empty(&self) -> bool {
        self.at == self.buffer.len()
    }
}

/// Appends a line of text.
pub fn line(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

pub fn delimiter(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0001");
}

pub fn flush(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0000");
}

/// A line's text without its end; an error that the server tells in one is an error.
pub fn text(line: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\n');
    match text.strip_prefix("ERR ") {
        Some(reason) => Err(Error::Refused(format!("the server says: {}", shown(reason)))),
        None => Ok(text.to_owned()),
    }
}

/// A server's words as they may be shown.
pub fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let mut bytes = Vec::new();
        line(&mut bytes, "want x");
        delimiter(&mut bytes);
        line(&mut bytes, "done");
        flush(&mut bytes);
        for size in 1..bytes.len() {
            let (mut packets, mut found) = (Packets::default(), Vec::new());
            for piece in bytes.chunks(size) {
                packets.feed(piece);
                while let Some(packet) = packets.next().unwrap() {
                    found.push(packet);
                }
            }
            let wanted = [
                Packet::Line(b"want x\n".to_vec()),
                Packet::Delimiter,
                Packet::Line(b"done\n".to_vec()),
                Packet::Flush,
            ];
            assert_eq!((found.as_slice(), packets.is_empty()), (wanted.as_slice(), true));
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bytes in ["<htm", "0003", "ffff", "fff1"] {
            let mut packets = Packets::default();
            packets.feed(bytes.as_bytes());
            assert!(packets.next().is_err(), "{bytes}");
        }
        assert!(text(b"ERR no \x1b[2J such\n").unwrap_err().to_string().ends_with("no  [2J such"));
    }
}
