//! Inputs that the agent reads itself: one small file, as a resource template's manifest is.

use crate::Error;
use crate::clone::archive;
use crate::executor::{Refusal, artifact, located, refused};
use crate::operation::entries;
use crate::s3::http_client;
use crate::store::{Store, Stores};
use argosy_executor::artifacts::Ticket;
use flate2::read::GzDecoder;
use futures::TryStreamExt;
use serde_json::Value;
use std::io::Read;

/// How a gzipped file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How a zip file begins.
const ZIP: [u8; 4] = [b'P', b'K', 3, 4];
/// Where a tar's first header has its mark.
const TAR_MARK: std::ops::Range<usize> = 257..262;

/// The bytes of an input of a ticket that is one file, unpacked; the caller has checked that the ticket is the attempt's.
///
/// # Errors
/// Why it can't be read, in Argo's words where it has some.
pub async fn read_file(
    stores: &Stores,
    ticket: &Ticket,
    name: &str,
    bytes_max: u64,
) -> Result<Vec<u8>, Refusal> {
    let failed = |refusal: Refusal| Refusal {
        message: format!("artifact {name} failed to load: {}", refusal.message),
        ..refusal
    };
    let mut inputs = ticket.inputs.iter();
    let input = inputs.find(|input| input.get("name").and_then(Value::as_str) == Some(name));
    let input = input.ok_or_else(|| refused(&format!("the step has no input artifact {name}")))?;
    let packed = packed(stores, ticket, name, input, bytes_max).await.map_err(failed)?;
    let is_plain = input.pointer("/archive/none").is_some_and(Value::is_object);
    if is_plain {
        return Ok(packed);
    }
    let unpacked = tokio::task::spawn_blocking(move || unpack(packed, bytes_max)).await;
    let unpacked = unpacked.map_err(|_| "its bytes can't be unpacked".to_owned()).and_then(|bytes| bytes);
    unpacked.map_err(|message| failed(refused(&message)))
}

async fn packed(
    stores: &Stores,
    ticket: &Ticket,
    name: &str,
    input: &Value,
    bytes_max: u64,
) -> Result<Vec<u8>, Refusal> {
    let mut artifact = artifact(input)?;
    let keys = located(&mut artifact, ticket);
    match artifact.kind() {
        None => return Err(Error::NotFound.into()),
        Some(("git", _)) => {
            let cloned = archive(stores, ticket, name).await?;
            let read = tokio::task::spawn_blocking(move || bounded(cloned.file, bytes_max)).await;
            let read = read.unwrap_or_else(|_| Err("the clone can't be read".to_owned()));
            return read.map_err(|message| refused(&message));
        }
        Some(_) => {}
    }
    let store = stores.open(&ticket.namespace, &artifact.location).await?;
    if !store.is_store() {
        return Ok(of_url(&store, stores, bytes_max).await?);
    }
    let found = entries(&store, stores.limits.files_max, &keys).await?;
    let [entry] = found.as_slice() else { return Err(refused("it is a directory, and one file is wanted")) };
    check_size(entry.size, bytes_max)?;
    if entry.size == 0 {
        return Ok(Vec::new());
    }
    let parts: Vec<bytes::Bytes> = store.read(&entry.key, 0..entry.size).await?.try_collect().await?;
    Ok(parts.concat())
}

fn check_size(found: u64, max: u64) -> Result<(), Error> {
    if found > max { Err(Error::Limit { what: "the number of bytes", found, max }) } else { Ok(()) }
}

async fn of_url(store: &Store, stores: &Stores, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let signed = store.sign_get("").await?;
    let mut request = http_client(signed.ca.as_deref(), &stores.limits)?.get(&signed.url);
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    // The URL may be a credential: no message holds it.
    let told = |error: reqwest::Error| Error::Store(error.without_url().to_string());
    let mut answer = request.send().await.map_err(told)?;
    let status = answer.status();
    if status == reqwest::StatusCode::NOT_FOUND {
        return Err(Error::NotFound);
    }
    if !status.is_success() {
        return Err(Error::Store(format!("the server answered {status}")));
    }
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(told)? {
        bytes.extend_from_slice(&part);
        check_size(bytes.len() as u64, bytes_max)?;
    }
    Ok(bytes)
}

fn bounded(from: impl Read, bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    check_size(bytes.len() as u64, bytes_max).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// What is in a gzipped file, and in a tar its one file; anything else as it is.
fn unpack(packed: Vec<u8>, bytes_max: u64) -> Result<Vec<u8>, String> {
    if packed.starts_with(&ZIP) {
        return Err("it is a zip archive: store it as a tar, or with archive.none".to_owned());
    }
    if !packed.starts_with(&GZIP) {
        return Ok(packed);
    }
    let bytes = bounded(GzDecoder::new(packed.as_slice()), bytes_max)?;
    if bytes.get(TAR_MARK) != Some(b"ustar") {
        return Ok(bytes);
    }
    let mut found = None;
    let mut archive = tar::Archive::new(bytes.as_slice());
    for entry in archive.entries().map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if found.is_some() {
            return Err("it holds several files, and one is wanted".to_owned());
        }
        found = Some(bounded(entry, bytes_max)?);
    }
    found.ok_or_else(|| "it holds no file".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn one_file_comes_out_however_it_is_packed() {
        for packed in [b"text".to_vec(), gzipped(b"text"), gzipped(&tar_of(&[("f", "text")]))] {
            assert_eq!(unpack(packed, 10_000).unwrap(), b"text");
        }
    }

    #[test]
    fn what_is_not_one_small_file_is_refused() {
        assert!(
            unpack(gzipped(&tar_of(&[("f", "a"), ("g", "b")])), 10_000)
                .unwrap_err()
                .contains("several files")
        );
        assert!(unpack(gzipped(&tar_of(&[])), 10_000).is_ok(), "an empty tar has no mark");
        assert!(unpack(gzipped(&[b'x'; 1_000]), 999).unwrap_err().contains("the limit is 999"), "a bomb");
        assert!(unpack(b"PK\x03\x04..".to_vec(), 10_000).unwrap_err().contains("zip"));
    }
}
