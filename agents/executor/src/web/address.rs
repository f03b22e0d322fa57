//! URLs, as far as a request needs them.

/// A URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// `user:password` in base64 of an `Authorization` header would say; as written.
    pub user: Option<String>,
    /// Path and query.
    pub target: String,
    /// Host and port as written.
    authority: String,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// Go's words.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| "unsupported protocol scheme \"\"".to_owned())?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(format!("unsupported protocol scheme {other:?}")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user.to_owned()), authority),
            None => (None, authority),
        };
        let (host, port) = split(authority).ok_or_else(|| format!("invalid host {authority:?}"))?;
        if host.is_empty() {
            return Err("http: no Host in request URL".to_owned());
        }
        let target = target.split('#').next().unwrap_or_default();
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        if url.chars().any(|next| next.is_ascii_control() || next == ' ') {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            user,
            target: escape(&target),
            authority: authority.to_owned(),
        })
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        if location.contains("://") {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{scheme}://{rest}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority)
        } else {
            let path = self.target.split('?').next().unwrap_or("/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{}{folder}/{location}", self.authority)
        }
    }
}

/// Host and port; an IPv6 address stands in brackets.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => match authority.rfind(':') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        },
    };
    match rest {
        "" | ":" => Some((host, None)),
        rest => Some((host, Some(rest.strip_prefix(':')?.parse().ok()?))),
    }
}

/// What is no ASCII travels in percent signs.
fn escape(target: &str) -> String {
    target
        .bytes()
        .map(|byte| if byte.is_ascii() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_parts() {
        let address = Address::parse("https://u:p@example.org:8443/a/b?c=d#e").unwrap();
        assert_eq!((address.tls, address.host.as_str(), address.port), (true, "example.org", 8443));
        assert_eq!((address.target.as_str(), address.authority()), ("/a/b?c=d", "example.org:8443"));
        assert_eq!(address.user.as_deref(), Some("u:p"));
        assert_eq!(Address::parse("http://[::1]:80").unwrap().host, "::1");
        assert_eq!(Address::parse("http://x?y").unwrap().target, "/?y");
        for bad in ["x", "http://", "http://a:b/", "http://a b/", "http://a/\r\nX: y"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_are_relative_to_where_one_is() {
        let from = Address::parse("http://h:1/a/b?c").unwrap();
        assert_eq!(from.join("d"), "http://h:1/a/d");
        assert_eq!(from.join("/d?e"), "http://h:1/d?e");
        assert_eq!(from.join("//o/d"), "http://o/d");
        assert_eq!(from.join("https://o/d"), "https://o/d");
    }
}
