//! Artifacts in a step's container: loaded before its command, saved after it.
//!
//! Everything streams, whatever the artifact's size: a part of an upload is sent from the file that it is in, or from a spool
//! file if it is packed. The executor has no credentials; it asks its agent for signed requests and for the addresses of hosts.

mod content;
mod drivers;
mod load;
mod pack;
mod parts;
mod save;
mod spool;
mod stage;
mod transfer;
mod unpack;

pub use stage::{LogKeeper, load_inputs, save_outputs, session};

pub use drivers::{Saving, Told, gate};
pub use load::set_mode;
pub use unpack::{remove, unpack};

use load::load;
use save::{log_output, save};
pub use transfer::Session;

use ring::digest::{Context, SHA256};
use std::io::{Read, Write};

/// Counts and digests what passes.
pub(crate) struct Digesting<T> {
    inner: T,
    context: Context,
    size: u64,
}

impl<T> Digesting<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, context: Context::new(&SHA256), size: 0 }
    }

    /// The digest in hex, the number of bytes, and what was inside.
    pub(crate) fn finish(self) -> (String, u64, T) {
        (hex(self.context.finish().as_ref()), self.size, self.inner)
    }

    fn start_anew(&mut self) {
        (self.context, self.size) = (Context::new(&SHA256), 0);
    }

    fn saw(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<T: Write> Write for Digesting<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.saw(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Digesting<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let (seen, _) = buffer.split_at(length);
        self.context.update(seen);
        self.size += length as u64;
        Ok(length)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a directory: of the list of its files and their digests, in order.
pub(crate) fn digest_of_files(mut files: Vec<(String, String)>) -> String {
    files.sort();
    let mut context = Context::new(&SHA256);
    for (path, digest) in files {
        context.update(path.as_bytes());
        context.update(&[0]);
        context.update(digest.as_bytes());
        context.update(b"\n");
    }
    hex(context.finish().as_ref())
}
