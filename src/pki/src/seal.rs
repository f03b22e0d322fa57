//! The CA's key at rest: sealed with a key that is kept elsewhere.

use crate::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::path::Path;

const BEGIN: &str = "-----BEGIN ARGOSY SEALED KEY-----";
const END: &str = "-----END ARGOSY SEALED KEY-----";
const VERSION: u8 = 1;
const SALT_LENGTH: usize = 16;
/// Characters in a line.
const LINE: usize = 64;
/// A shorter secret could be guessed.
const SECRET_LENGTH_MIN: usize = 16;

/// What the CA's key is sealed with at rest. Never printed.
pub struct SealKey(Vec<u8>);

impl fmt::Debug for SealKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SealKey")
    }
}

impl SealKey {
    /// A key from a secret of at least 16 bytes; space around it does not count.
    ///
    /// # Errors
    /// The secret is too short.
    pub fn new(secret: &[u8]) -> Result<Self, Error> {
        let secret = secret.trim_ascii();
        if secret.len() < SECRET_LENGTH_MIN {
            return Err(Error::SealTooShort { length: secret.len(), least: SECRET_LENGTH_MIN });
        }
        Ok(Self(secret.to_vec()))
    }

    fn cipher(&self, salt: &[u8]) -> Result<LessSafeKey, Error> {
        let refused = |_| Error::Crypto { reason: "the seal's key can't be derived".to_owned() };
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let okm = prk.expand(&[b"argosy ca key"], &AES_256_GCM).map_err(refused)?;
        Ok(LessSafeKey::new(UnboundKey::from(okm)))
    }

    /// The text of a file that only this key opens.
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<String, Error> {
        let refused = |_| Error::Crypto { reason: "the key can't be sealed".to_owned() };
        let (mut salt, mut nonce) = ([0; SALT_LENGTH], [0; NONCE_LEN]);
        let random = SystemRandom::new();
        random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(refused)?;
        let mut sealed = plain.to_vec();
        self.cipher(&salt)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([VERSION]), &mut sealed)
            .map_err(refused)?;
        let bytes = [&[VERSION][..], &salt, &nonce, &sealed].concat();
        let encoded = STANDARD.encode(bytes);
        let mut text = format!("{BEGIN}\n");
        for line in encoded.as_bytes().chunks(LINE) {
            text.extend(line.iter().copied().map(char::from));
            text.push('\n');
        }
        Ok(text + END + "\n")
    }

    fn open(&self, path: &Path, text: &str) -> Result<Vec<u8>, Error> {
        let bad = || Error::BadFile { path: path.display().to_string(), what: "sealed key" };
        let body = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END)).ok_or_else(bad)?;
        let body: String = body.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(body).map_err(|_| bad())?;
        let (version, rest) = bytes.split_first().ok_or_else(bad)?;
        let (salt, rest) = rest.split_at_checked(SALT_LENGTH).ok_or_else(bad)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(bad)?;
        if *version != VERSION {
            return Err(bad());
        }
        let mut sealed = sealed.to_vec();
        let opened = self.cipher(salt)?.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from([VERSION]),
            &mut sealed,
        );
        let wrong = || Error::WrongSeal { path: path.display().to_string() };
        opened.map(|plain| plain.to_vec()).map_err(|_| wrong())
    }
}

/// The PEM of a key in a file, which is sealed if and only if there is something to seal with.
pub(crate) fn read(path: &Path, text: String, seal: Option<&SealKey>) -> Result<String, Error> {
    let named = path.display().to_string();
    match (text.trim_start().starts_with(BEGIN), seal) {
        (false, None) => Ok(text),
        (false, Some(_)) => Err(Error::NotSealed { path: named }),
        (true, None) => Err(Error::Sealed { path: named }),
        (true, Some(seal)) => {
            let plain = seal.open(path, &text)?;
            String::from_utf8(plain).map_err(|_| Error::BadFile { path: named, what: "private key" })
        }
    }
}
