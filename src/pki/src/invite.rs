use crate::{Error, identity};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt;

/// Starts every invite; the digit is its version.
const PREFIX: &str = "argosy1.";
const SECRET_BYTES: usize = 32;
const FINGERPRINT_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// Member addresses in one invite.
const ADDRESSES_MAX: usize = 16;
/// Longest invite in characters.
const TEXT_MAX: usize = 8 * 1024;

/// A single-use right to enrol one cluster: what an operator copies from the control plane to the agent.
///
/// It names the cluster, pins the cell's CA, so that the agent knows the right server at first contact, and lists where
/// to find members. It is a secret: the control plane keeps its hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The cluster that may enrol.
    pub cluster: String,
    /// SHA-256 of the cell's CA certificate.
    pub authority_fingerprint: [u8; FINGERPRINT_BYTES],
    /// `host:port` of the members' agent listeners.
    pub member_addresses: Vec<String>,
    secret: [u8; SECRET_BYTES],
}

impl fmt::Debug for Invite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Invite")
            .field("cluster", &self.cluster)
            .field("member_addresses", &self.member_addresses)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of an invite as text: the only thing of it that is stored.
#[must_use]
pub fn invite_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.trim().as_bytes()).into()
}

impl Invite {
    /// A new invite. `secret` are 32 bytes from a cryptographic source, used for nothing else.
    ///
    /// # Errors
    /// [`Error::BadName`]: the cluster's name is no DNS label, or there are too many or too long addresses.
    pub fn new(
        cluster: &str,
        authority_fingerprint: [u8; FINGERPRINT_BYTES],
        member_addresses: Vec<String>,
        secret: [u8; SECRET_BYTES],
    ) -> Result<Self, Error> {
        identity::check_label("cluster", cluster)?;
        let what = "member address";
        if member_addresses.len() > ADDRESSES_MAX {
            let name = format!("{} addresses", member_addresses.len());
            return Err(Error::BadName { what, name, reason: "an invite lists at most 16" });
        }
        if let Some(bad) = member_addresses.iter().find(|address| !is_address(address)) {
            return Err(Error::BadName {
                what,
                name: bad.clone(),
                reason: "use host:port, at most 255 characters",
            });
        }
        Ok(Self { cluster: cluster.to_owned(), authority_fingerprint, member_addresses, secret })
    }

    /// The token to copy.
    #[must_use]
    pub fn token(&self) -> String {
        let mut payload = Vec::new();
        payload.extend_from_slice(&self.secret);
        payload.extend_from_slice(&self.authority_fingerprint);
        // `new` and `parse` admit no text beyond 255 bytes and no list beyond 16.
        put_text(&mut payload, &self.cluster);
        payload.push(u8::try_from(self.member_addresses.len()).unwrap_or(u8::MAX));
        for address in &self.member_addresses {
            put_text(&mut payload, address);
        }
        let checksum = Sha256::digest(&payload);
        payload.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload))
    }

    /// Hash of the token: what `CreateInvite` and `RedeemInvite` carry.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        invite_hash(&self.token())
    }

    /// Reads a token. White space around it is ignored.
    ///
    /// # Errors
    /// [`Error::BadInvite`] with the reason.
    pub fn parse(token: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadInvite { reason };
        let token = token.trim();
        if token.is_empty() {
            return Err(bad("it is empty"));
        }
        if token.len() > TEXT_MAX {
            return Err(bad("it is too long"));
        }
        let encoded = token.strip_prefix(PREFIX).ok_or_else(|| {
            bad(if token.starts_with("argosy") {
                "it was made by another version: upgrade the agent"
            } else {
                "it does not start with \"argosy1.\""
            })
        })?;
        let payload =
            URL_SAFE_NO_PAD.decode(encoded).map_err(|_| bad("it is cut off or has stray characters"))?;
        let split = payload.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| bad("it is cut off"))?;
        let (payload, checksum) = payload.split_at(split);
        if Sha256::digest(payload)[..CHECKSUM_BYTES] != *checksum {
            return Err(bad("its checksum is wrong: it is cut off or mistyped"));
        }
        let mut rest = payload;
        let invite = read_payload(&mut rest).ok_or_else(|| bad("its content is incomplete"))?;
        if !rest.is_empty() {
            return Err(bad("bytes follow its content"));
        }
        Self::new(&invite.cluster, invite.authority_fingerprint, invite.member_addresses, invite.secret)
            .map_err(|_| bad("it names an impossible cluster or address"))
    }
}

fn is_address(address: &str) -> bool {
    let has_port =
        address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    has_port && address.len() <= 255 && address.bytes().all(|byte| byte.is_ascii_graphic())
}

fn put_text(payload: &mut Vec<u8>, text: &str) {
    let length = text.len().min(usize::from(u8::MAX));
    payload.push(u8::try_from(length).unwrap_or(u8::MAX));
    payload.extend_from_slice(&text.as_bytes()[..length]);
}

fn read_payload(rest: &mut &[u8]) -> Option<Invite> {
    let secret = *rest.split_off(..SECRET_BYTES)?.first_chunk()?;
    let authority_fingerprint = *rest.split_off(..FINGERPRINT_BYTES)?.first_chunk()?;
    let cluster = read_text(rest)?;
    let addresses = *rest.split_off_first()?;
    let member_addresses = (0..addresses).map(|_| read_text(rest)).collect::<Option<Vec<_>>>()?;
    Some(Invite { cluster, authority_fingerprint, member_addresses, secret })
}

fn read_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::from(*rest.split_off_first()?);
    let bytes = rest.split_off(..length)?;
    String::from_utf8(bytes.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        let addresses = vec!["10.0.0.1:2747".to_owned(), "[::1]:2747".to_owned()];
        Invite::new("eu-1", [7; 32], addresses, [9; 32]).unwrap()
    }

    #[test]
    fn a_token_reads_back() {
        let token = invite().token();
        assert_eq!(Invite::parse(&format!("  {token}\n")).unwrap(), invite());
        assert_eq!(invite().hash(), invite_hash(&format!("{token}\n")));
    }

    #[test]
    fn a_token_keeps_its_spelling() {
        let token = Invite::new("a", [1; 32], vec!["h:1".to_owned()], [2; 32]).unwrap().token();
        assert_eq!(
            token,
            "argosy1.AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQFhAQNoOjGkQkEl"
        );
    }

    #[test]
    fn every_cut_and_every_changed_character_is_noticed() {
        let token = invite().token();
        for length in 0..token.len() {
            assert!(Invite::parse(&token[..length]).is_err(), "cut to {length}");
        }
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] = if changed[position] == b'x' { b'y' } else { b'x' };
            assert!(Invite::parse(&String::from_utf8(changed).unwrap()).is_err(), "changed at {position}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let message = |token: &str| Invite::parse(token).unwrap_err().to_string();
        assert!(message("").contains("empty"));
        assert!(message("hello").contains("does not start with"));
        assert!(message("argosy2.abc").contains("another version"));
        assert!(message("argosy1.!!").contains("stray characters"));
        let token = invite().token();
        assert!(message(&token[..token.len() - 8]).contains("checksum"));
    }

    #[test]
    fn impossible_names_are_refused() {
        assert!(Invite::new("Not A Label", [0; 32], vec![], [0; 32]).is_err());
        assert!(Invite::new("a", [0; 32], vec!["no-port".to_owned()], [0; 32]).is_err());
        assert!(Invite::new("a", [0; 32], vec!["h:1".to_owned(); 17], [0; 32]).is_err());
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", invite()).contains("9, 9"));
    }
}
