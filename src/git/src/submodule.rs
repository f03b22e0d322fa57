//! `.gitmodules`: where submodules are.

use crate::Error;
use gix_hash::ObjectId;
use std::collections::BTreeMap;
use url::Url;

/// A repository to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub url: Url,
    /// Where it is in the archive.
    pub path: String,
    /// What the repository around it says; `None`: it is the outermost one.
    pub commit: Option<ObjectId>,
}

/// The addresses of submodules by path, as Git's configuration has them.
pub fn addresses(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let (mut path, mut url) = (None, None);
    let mut keep = |path: &mut Option<String>, url: &mut Option<String>| {
        if let (Some(path), Some(url)) = (path.take(), url.take()) {
            found.insert(path.trim_end_matches('/').to_owned(), url);
        }
    };
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            keep(&mut path, &mut url);
            (path, url) = (None, None);
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_owned();
            match key.trim().to_ascii_lowercase().as_str() {
                "path" => path = Some(value),
                "url" => url = Some(value),
                _ => {}
            }
        }
    }
    keep(&mut path, &mut url);
    found
}

/// A submodule's address; one that begins with a dot is beside the repository around it.
pub fn resolve(around: &Url, address: &str) -> Result<Url, Error> {
    if !address.starts_with("./") && !address.starts_with("../") {
        return crate::address(address);
    }
    let mut parts: Vec<&str> = around.path().trim_matches('/').split('/').collect();
    for part in address.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::Broken(format!("the submodule {address} is outside its server")));
                }
            }
            part => parts.push(part),
        }
    }
    let mut url = around.clone();
    url.set_path(&format!("/{}", parts.join("/")));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_resolved() {
        let text = "[submodule \"a\"]\n\tpath = lib/a\n\turl = ../a.git\n[submodule \"b\"]\n url=\"https://h/b\"\n path=b\n";
        let found = addresses(text);
        assert_eq!(found["lib/a"], "../a.git");
        assert_eq!(found["b"], "https://h/b");
        let around = Url::parse("https://h/team/main.git").unwrap();
        assert_eq!(resolve(&around, "../a.git").unwrap().as_str(), "https://h/team/a.git");
        assert_eq!(resolve(&around, "https://o/b").unwrap().as_str(), "https://o/b");
        assert_eq!(resolve(&around, "git@h:b").unwrap().as_str(), "ssh://git@h/~/b");
        let around = resolve(&around, "git@h:team/b").unwrap();
        assert_eq!(resolve(&around, "../a").unwrap().as_str(), "ssh://git@h/~/team/a");
        for bad in ["../../../../x", "/etc/passwd", "file:///etc"] {
            assert!(resolve(&around, bad).is_err(), "{bad}");
        }
    }
}
