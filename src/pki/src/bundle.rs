//! The certificate authorities in a directory: `ca.pem` holds those that are trusted, the one that issues first; `ca.key` is
//! the key of that one, `ca-DIGEST.key` of others. Any moment of a change loads: a key is found by the certificate that it
//! belongs to, not by the name of its file. Processes that share a directory may do the same at one time.

use crate::authority::belongs;
use crate::{Authority, Error, Lifetimes, SealKey, files, fingerprint, seal};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};

const CERTIFICATES_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const KEY_SUFFIX: &str = ".key";
const OTHER_PREFIX: &str = "ca-";
/// Keys looked at in a directory: two during a roll, and left-overs of rolls that did not begin.
const KEYS_MAX: usize = 16;

/// Where a member keeps the cell's authorities.
#[derive(Debug)]
pub struct AuthorityFiles {
    directory: PathBuf,
    lifetimes: Lifetimes,
    seal: Option<SealKey>,
}

/// What was found there.
#[derive(Debug)]
pub struct Loaded {
    /// The authority that issues.
    pub issuing: Authority,
    /// Others whose key is there and whose certificate is trusted.
    pub others: Vec<Authority>,
    /// Certificates of all that are trusted, the one that issues first.
    pub trusted: Vec<CertificateDer<'static>>,
}

fn other_key(certificate: &[u8]) -> String {
    let digest: String = fingerprint(certificate).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{OTHER_PREFIX}{digest}{KEY_SUFFIX}")
}

impl AuthorityFiles {
    /// The directory, and what its keys are sealed with.
    #[must_use]
    pub fn new(directory: &Path, lifetimes: Lifetimes, seal: Option<SealKey>) -> Self {
        Self { directory: directory.to_owned(), lifetimes, seal }
    }

    fn write_key(&self, name: &str, authority: &Authority) -> Result<(), Error> {
        let pem = authority.key_pem();
        let text = match &self.seal {
            Some(seal) => seal.seal(pem.as_bytes())?,
            None => pem,
        };
        files::replace(&self.directory.join(name), text.as_bytes(), 0o600)
    }

    fn write_certificates(&self, certificates: &[CertificateDer<'static>]) -> Result<(), Error> {
        let path = self.directory.join(CERTIFICATES_FILE);
        files::replace(&path, files::to_pem(certificates).as_bytes(), 0o644)
    }

    /// Makes this the directory's only authority.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn save(&self, authority: &Authority) -> Result<(), Error> {
        files::make_directory(&self.directory)?;
        self.write_key(KEY_FILE, authority)?;
        self.write_certificates(std::slice::from_ref(authority.certificate()))
    }

    /// Keeps the key of an authority that is not trusted yet, or does not issue.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn keep_key(&self, authority: &Authority) -> Result<(), Error> {
        self.write_key(&other_key(authority.certificate()), authority)
    }

    /// The authority of this certificate, if its key is there.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn find(&self, certificate: &[u8]) -> Result<Option<Authority>, Error> {
        for name in [KEY_FILE.to_owned(), other_key(certificate)] {
            let path = self.directory.join(&name);
            let Some(text) = files::read(&path)? else { continue };
            let pem = seal::read(&path, text, self.seal.as_ref())?;
            let bad = |_| Error::BadFile { path: path.display().to_string(), what: "private key" };
            let key = KeyPair::from_pem(&pem).map_err(bad)?;
            if belongs(certificate, &key)? {
                return Authority::new(CertificateDer::from(certificate.to_vec()), key, self.lifetimes)
                    .map(Some);
            }
        }
        Ok(None)
    }

    /// What is there; `None` if the directory holds no authority.
    ///
    /// # Errors
    /// A file can't be read or opened, holds something else, or the key of the authority that issues is not there.
    pub fn load(&self) -> Result<Option<Loaded>, Error> {
        let path = self.directory.join(CERTIFICATES_FILE);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let trusted = files::from_pem(&path, &text)?;
        let bad = || Error::BadFile { path: path.display().to_string(), what: "PEM certificate" };
        let (first, rest) = trusted.split_first().ok_or_else(bad)?;
        let key_path = self.directory.join(KEY_FILE);
        let named = key_path.display().to_string();
        if files::read(&key_path)?.is_none() && self.find(first)?.is_none() {
            return Err(Error::BadFile { path: named, what: "private key" });
        }
        let issuing = self.find(first)?.ok_or(Error::KeyMismatch { path: named })?;
        let mut others = Vec::new();
        for certificate in rest.iter().take(KEYS_MAX) {
            others.extend(self.find(certificate)?);
        }
        Ok(Some(Loaded { issuing, others, trusted }))
    }

    /// Trusts these certificates from here on; the first one issues, whose key has to be there.
    ///
    /// # Errors
    /// The key is missing, or a file can't be read or written.
    pub fn trust(&self, certificates: &[CertificateDer<'static>]) -> Result<(), Error> {
        let path = self.directory.join(KEY_FILE);
        let missing = || Error::BadFile { path: path.display().to_string(), what: "private key" };
        let first = certificates.first().ok_or_else(missing)?;
        let issuing = self.find(first)?.ok_or_else(missing)?;
        // The key that is going to be replaced, first: whatever is trusted stays at hand.
        for certificate in certificates {
            if let Some(authority) = self.find(certificate)? {
                self.keep_key(&authority)?;
            }
        }
        let listed = self.directory.join(CERTIFICATES_FILE);
        let before = match files::read(&listed)? {
            Some(text) => files::from_pem(&listed, &text)?,
            None => Vec::new(),
        };
        self.write_certificates(certificates)?;
        self.write_key(KEY_FILE, &issuing)?;
        self.forget_keys(&before, certificates)
    }

    /// Removes keys of authorities that were trusted and are not any more. Others stay: the next roll may just be beginning.
    fn forget_keys(
        &self,
        before: &[CertificateDer<'static>],
        now: &[CertificateDer<'static>],
    ) -> Result<(), Error> {
        let kept: Vec<String> = now.iter().skip(1).map(|certificate| other_key(certificate)).collect();
        for name in before.iter().chain(now.first()).map(|certificate| other_key(certificate)) {
            if !kept.contains(&name) {
                files::remove(&self.directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Writes all keys again, sealed with another key, or with none.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn seal_again(&self, seal: Option<SealKey>) -> Result<(), Error> {
        let Some(loaded) = self.load()? else {
            let path = self.directory.join(CERTIFICATES_FILE).display().to_string();
            return Err(Error::BadFile { path, what: "PEM certificate" });
        };
        let again = Self::new(&self.directory, self.lifetimes, seal);
        for authority in &loaded.others {
            again.keep_key(authority)?;
        }
        again.write_key(KEY_FILE, &loaded.issuing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        Authority::create("cell", 1_700_000_000_000, Lifetimes::default()).unwrap()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_roll_loads_at_every_moment_and_leaves_no_old_key() {
        let directory = tempfile::tempdir().unwrap();
        let files = AuthorityFiles::new(directory.path(), Lifetimes::default(), None);
        assert!(files.load().unwrap().is_none());
        let (old, new) = (authority(), authority());
        files.save(&old).unwrap();
        files.keep_key(&new).unwrap();
        let (old_der, new_der) = (old.certificate().clone(), new.certificate().clone());
        files.trust(&[old_der.clone(), new_der.clone()]).unwrap();
        let loaded = files.load().unwrap().unwrap();
        assert_eq!((loaded.issuing.certificate(), loaded.others.len()), (&old_der, 1));
        // A crash after the certificates were written and before the key was.
        files.write_certificates(&[new_der.clone(), old_der.clone()]).unwrap();
        assert_eq!(files.load().unwrap().unwrap().issuing.certificate(), &new_der);
        files.trust(&[new_der.clone(), old_der.clone()]).unwrap();
        assert_eq!(files.load().unwrap().unwrap().others[0].certificate(), &old_der);
        // Again, as another process of the same directory would.
        files.trust(&[new_der.clone(), old_der.clone()]).unwrap();
        // A member that is late must not take the key of a roll that begins.
        let third = authority();
        files.keep_key(&third).unwrap();
        files.trust(std::slice::from_ref(&new_der)).unwrap();
        assert!(files.find(third.certificate()).unwrap().is_some());
        files::remove(&directory.path().join(other_key(third.certificate()))).unwrap();
        let loaded = files.load().unwrap().unwrap();
        assert_eq!((loaded.issuing.certificate(), loaded.trusted.len()), (&new_der, 1));
        assert_eq!(names(directory.path()), ["ca.key", "ca.pem"]);
        assert!(files.trust(&[old_der]).is_err(), "its key is gone");
    }

    #[test]
    fn a_sealed_key_opens_with_its_key_alone_and_says_what_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let seal = || Some(SealKey::new(b" a secret of enough bytes\n").unwrap());
        let files = |seal| AuthorityFiles::new(directory.path(), Lifetimes::default(), seal);
        files(None).save(&authority()).unwrap();
        assert!(matches!(files(seal()).load().unwrap_err(), Error::NotSealed { .. }));
        files(None).seal_again(seal()).unwrap();
        let text = std::fs::read_to_string(directory.path().join("ca.key")).unwrap();
        assert!(text.contains("SEALED") && !text.contains("PRIVATE KEY"), "{text}");
        assert!(files(seal()).load().unwrap().is_some());
        assert!(matches!(files(None).load().unwrap_err(), Error::Sealed { .. }));
        let other = SealKey::new(b"another secret, long enough").unwrap();
        assert!(matches!(files(Some(other)).load().unwrap_err(), Error::WrongSeal { .. }));
        std::fs::write(directory.path().join("ca.key"), text.replace('e', "f")).unwrap();
        assert!(matches!(files(seal()).load().unwrap_err(), Error::WrongSeal { .. } | Error::BadFile { .. }));
        assert!(matches!(SealKey::new(b"short").unwrap_err(), Error::SealTooShort { .. }));
        assert_eq!(format!("{:?}", seal().unwrap()), "SealKey");
    }
}
