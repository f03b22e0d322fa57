//! Which object a resource step is about, and where the cluster's API has it.

use kube::Client;
use serde_json::Value;

use super::api::{self, Failure};
use super::flags::Flags;

/// The file of Argo's `kubectl`, which its messages name.
pub const FILE: &str = "/tmp/manifest.yaml";
/// Characters of generated names: Kubernetes'.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Of a generated name's end.
const SUFFIX_LENGTH: usize = 5;
/// Longest start of a generated name.
const PREFIX_LENGTH_MAX: usize = 58;

/// A type of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    pub base: String,
    pub plural: String,
    pub namespaced: bool,
}

impl Kind {
    /// Where objects of the type are made.
    pub fn collection(&self, namespace: &str) -> String {
        if self.namespaced {
            format!("{}/namespaces/{namespace}/{}", self.base, self.plural)
        } else {
            format!("{}/{}", self.base, self.plural)
        }
    }

    /// Where one is.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(namespace))
    }
}

/// The manifest as an object, in kubectl's words when it is none.
pub fn read_manifest(text: &str) -> Result<Value, String> {
    let invalid = |what: &str| {
        format!(
            "error: error validating \"{FILE}\": error validating data: {what}; if you choose to ignore these errors, turn \
             validation off with --validate=false"
        )
    };
    let value = read_yaml(text)?;
    let Some(fields) = value.as_object() else { return Err(invalid("invalid object to validate")) };
    let missing: Vec<String> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| fields.get(*field).and_then(Value::as_str).is_none_or(str::is_empty))
        .map(|field| format!("{field} not set"))
        .collect();
    let is_map = |value: Option<&Value>| value.is_none_or(|value| value.is_object() || value.is_null());
    let maps = ["/metadata", "/metadata/annotations", "/metadata/labels"];
    if let Some(other) = maps.into_iter().find(|path| !is_map(value.pointer(path))) {
        return Err(invalid(&format!("invalid type for {}: expected map", other[1..].replace('/', "."))));
    }
    match missing.as_slice() {
        [] => Ok(value),
        [one] => Err(invalid(one)),
        many => Err(invalid(&format!("[{}]", many.join(", ")))),
    }
}

/// YAML or JSON; one document.
pub fn read_yaml(text: &str) -> Result<Value, String> {
    use serde::Deserialize;
    let mut found = Value::Null;
    let mut documents = 0;
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| {
            format!("error: error parsing {FILE}: error converting YAML to JSON: yaml: {error}")
        })?;
        if !value.is_null() {
            documents += 1;
            found = value;
        }
    }
    if documents > 1 {
        return Err(format!("error: {FILE} holds {documents} objects, and a resource step manages one"));
    }
    Ok(found)
}

/// A text of the manifest's metadata.
pub fn metadata<'a>(manifest: &'a Value, field: &str) -> &'a str {
    manifest.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default()
}

/// The end that a generated name gets: always the same for one attempt, so that making it again finds it.
pub fn generated(prefix: &str, seed: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut end = prefix.len().min(PREFIX_LENGTH_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let digest = Sha256::digest(seed.as_bytes());
    let letters =
        digest.iter().take(SUFFIX_LENGTH).map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
    letters.fold(prefix[..end].to_owned(), |mut name, letter| {
        name.push(letter);
        name
    })
}

/// A name that can be part of a path as it is.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |next: char| next.is_ascii_alphanumeric() || matches!(next, '-' | '.' | '_' | ':');
    let dots = name == "." || name == "..";
    if name.is_empty() || dots || !name.chars().all(fits) {
        return Err(format!("error: the name {name:?} is not one of an object"));
    }
    Ok(())
}

/// The type of a manifest.
pub async fn by_manifest(client: &Client, manifest: &Value) -> Result<Kind, Problem> {
    let text = |field: &str| manifest.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let missing = || {
        Problem::Told(format!(
            "error: resource mapping not found for name: \"{}\" namespace: \"{}\" from \"{FILE}\": no matches for kind \
             \"{kind}\" in version \"{version}\"\nensure CRDs are installed first",
            metadata(manifest, "name"),
            metadata(manifest, "namespace"),
        ))
    };
    if !version.split('/').all(|part| check_name(part).is_ok()) {
        return Err(missing());
    }
    let types = match api::read(client, &base).await {
        Ok(types) => types,
        Err(failure) if failure.is_missing() => return Err(missing()),
        Err(failure) => return Err(Problem::Api(failure)),
    };
    let found = listed(&types).find(|one| one.get("kind").and_then(Value::as_str) == Some(kind));
    found.and_then(|found| kind_of(&base, found)).ok_or_else(missing)
}

/// What `kubectl` means by a type's name: plural, singular, short name or kind, maybe with its group.
pub async fn by_word(client: &Client, word: &str) -> Result<Kind, Problem> {
    let (name, group) = word.split_once('.').map_or((word, ""), |(name, group)| (name, group));
    let mut bases = vec!["/api/v1".to_owned()];
    let groups = api::read(client, "/apis").await.map_err(Problem::Api)?;
    for one in groups.get("groups").and_then(Value::as_array).into_iter().flatten() {
        let version = one.pointer("/preferredVersion/groupVersion").and_then(Value::as_str);
        let is_wanted = group.is_empty()
            || one.get("name").and_then(Value::as_str).is_some_and(|name| {
                name == group || group.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
            });
        bases.extend(version.filter(|_| is_wanted).map(|version| format!("/apis/{version}")));
    }
    for base in bases.into_iter().filter(|base| group.is_empty() || base != "/api/v1") {
        // A group whose server is away has nothing to say.
        let Ok(types) = api::read(client, &base).await else { continue };
        let named = |one: &&Value| {
            let is = |field: &str| {
                one.get(field).and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(name))
            };
            let short = one.get("shortNames").and_then(Value::as_array).into_iter().flatten();
            is("name") || is("singularName") || is("kind") || short.clone().any(|text| text == name)
        };
        if let Some(kind) = listed(&types).find(named).and_then(|found| kind_of(&base, found)) {
            return Ok(kind);
        }
    }
    Err(Problem::Told(format!("error: the server doesn't have a resource type \"{word}\"")))
}

/// Types, without their parts (`pods/log`).
fn listed(types: &Value) -> impl Iterator<Item = &Value> {
    let all = types.get("resources").and_then(Value::as_array).into_iter().flatten();
    all.filter(|one| one.get("name").and_then(Value::as_str).is_some_and(|name| !name.contains('/')))
}

fn kind_of(base: &str, found: &Value) -> Option<Kind> {
    Some(Kind {
        base: base.to_owned(),
        plural: found.get("name")?.as_str()?.to_owned(),
        namespaced: found.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// The type and name that flags give: `TYPE NAME` or `TYPE/NAME`.
pub fn words_of(flags: &Flags) -> Result<Option<(String, String)>, String> {
    match flags.words.as_slice() {
        [] => Ok(None),
        [one] => one
            .split_once('/')
            .map(|(kind, name)| Some((kind.to_owned(), name.to_owned())))
            .ok_or_else(|| format!("error: you must specify the name of the {one}")),
        [kind, name] => Ok(Some((kind.clone(), name.clone()))),
        _ => Err("error: a resource step manages one object".to_owned()),
    }
}

/// Why something can't be done.
#[derive(Debug)]
pub enum Problem {
    /// In words for the node.
    Told(String),
    /// The API's.
    Api(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_refused_in_kubectls_words() {
        let words = read_manifest("just text").unwrap_err();
        assert_eq!(
            words,
            "error: error validating \"/tmp/manifest.yaml\": error validating data: invalid object to validate; if you choose \
             to ignore these errors, turn validation off with --validate=false"
        );
        assert!(read_manifest("kind: X").unwrap_err().contains("data: apiVersion not set;"));
        assert!(read_manifest("{}").unwrap_err().contains("data: [apiVersion not set, kind not set];"));
        assert!(read_manifest("apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B").is_err());
        let object = read_manifest("---\napiVersion: v1\nkind: A\nmetadata: {name: n}\n").unwrap();
        assert_eq!(metadata(&object, "name"), "n");
    }

    #[test]
    fn a_generated_name_is_the_same_for_one_attempt() {
        assert_eq!(generated("a-", "1.2.3"), generated("a-", "1.2.3"));
        assert_ne!(generated("a-", "1.2.3"), generated("a-", "1.2.4"));
        assert_eq!(generated("a-", "1.2.3").len(), 7);
    }

    #[test]
    fn names_stay_within_their_part_of_a_path() {
        assert!(check_name("a-b.c").is_ok());
        for bad in ["", "..", "a/b", "a?b", "a%2f", "a b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
