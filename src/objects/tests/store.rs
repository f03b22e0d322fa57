//! The embedded store as agents use it: signed requests over HTTP.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use argosy_artifacts::{DirectorySecrets, Limits, Store, Stores, answer};
use argosy_executor::artifacts::{Answer, Operation, Ticket};
use argosy_model::Fence;
use argosy_objects::{Options, Server};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

const PART_BYTES: usize = 6 << 20;

async fn start(directory: &Path, secret_key: &str) -> (Store, tokio::task::JoinSet<()>) {
    start_with(directory, secret_key, &json!({})).await
}

/// As [`start`], with encryption options.
async fn start_with(
    directory: &Path,
    secret_key: &str,
    encryption: &Value,
) -> (Store, tokio::task::JoinSet<()>) {
    let (stores, location, serving) = serve(directory, secret_key, encryption).await;
    (stores.open("default", &location).await.unwrap(), serving)
}

async fn serve(
    directory: &Path,
    secret_key: &str,
    encryption: &Value,
) -> (Stores, Map<String, Value>, tokio::task::JoinSet<()>) {
    let options = Options::new("127.0.0.1:0".parse().unwrap(), directory.join("objects"), "access", "secret");
    let server = Server::start(options).await.unwrap();
    let keys = directory.join("secrets/_/keys");
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::write(keys.join("access"), "access").unwrap();
    std::fs::write(keys.join("secret"), secret_key).unwrap();
    let location = json!({"s3": {
        "endpoint": server.address().to_string(), "insecure": true, "bucket": "argosy", "region": "us-east-1",
        "encryptionOptions": encryption,
        "accessKeySecret": {"name": "keys", "key": "access"}, "secretKeySecret": {"name": "keys", "key": "secret"},
    }});
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(server.run());
    let stores = Stores::new(Arc::new(DirectorySecrets(directory.join("secrets"))), Limits::default());
    (stores, location.as_object().unwrap().clone(), serving)
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix, 100).await.unwrap().into_iter().map(|found| found.key).collect()
}

#[tokio::test]
async fn a_directory_is_no_object() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _serving) = start(directory.path(), "secret").await;
    store.write("a/b/c", Bytes::from_static(b"text")).await.unwrap();
    assert!(store.head("a/b").await.unwrap().is_none(), "as any store says of a key that only begins others");
    assert!(store.read("a/b", 0..10).await.is_err());
    assert_eq!(store.head("a/b/c").await.unwrap().map(|found| found.size), Some(4));
    let read: Vec<Bytes> = store.read("a/b/c", 0..10).await.unwrap().try_collect().await.unwrap();
    assert_eq!(read.concat(), b"text");
    assert_eq!(keys(&store, "a/b").await, ["a/b/c"]);
    store.delete("a/b").await.unwrap();
    assert_eq!(keys(&store, "a/b").await, ["a/b/c"], "deleting what is not there changes nothing");
    store.copy("a/b/c", "d", 4).await.unwrap();
    store.delete("a/b/c").await.unwrap();
    assert_eq!(keys(&store, "").await, ["d"]);
}

/// Parts of an upload to a key, sent as an executor sends them; their tags.
async fn send_parts(store: &Store, key: &str, upload: &str, parts: u16) -> Vec<String> {
    let (client, mut tags) = (reqwest::Client::new(), Vec::new());
    for number in 1..=parts {
        let request = store.sign_part(key, upload, number).await.unwrap();
        let sent = client.put(request.url).body(vec![number as u8; PART_BYTES]).send().await.unwrap();
        tags.push(sent.error_for_status().unwrap().headers()["etag"].to_str().unwrap().to_owned());
    }
    tags
}

/// Whoever asked for the join may be gone, or wait no longer: the parts are joined once, and asking again is answered.
#[tokio::test(flavor = "multi_thread")]
async fn parts_are_joined_even_if_nobody_waits_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, location, _serving) = serve(directory.path(), "secret", &json!({})).await;
    let store = stores.open("default", &location).await.unwrap();
    let fence = Fence { incarnation: 1, index: 2, ordinal: 0 };
    let output = json!({"name": "x", "s3": location["s3"].clone()});
    let mut ticket =
        Ticket { prefix: "attempts/".to_owned(), namespace: "default".to_owned(), ..Ticket::default() };
    ticket.outputs = vec![output];
    ticket.outputs[0]["s3"]["key"] = "x".into();
    let key = argosy_model::artifact_key(&ticket.prefix, &fence, "x");
    let upload = store.begin(&key).await.unwrap();
    let tags = send_parts(&store, &key, &upload, 4).await;
    let complete = || Operation::Complete {
        name: "x".to_owned(),
        file: String::new(),
        upload: upload.clone(),
        tags: tags.clone(),
    };
    let asking = {
        let (stores, ticket, operation) = (Arc::new(stores), ticket.clone(), complete());
        let asking = Arc::clone(&stores);
        let task = tokio::spawn(async move { answer(&asking, &fence, &ticket, operation).await });
        let is_joining = || {
            let files = std::fs::read_dir(directory.path().join("objects")).unwrap();
            files.flatten().any(|file| file.file_name().to_string_lossy().starts_with(".tmp."))
        };
        while !is_joining() && !task.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        task.abort();
        stores
    };
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while store.head(&key).await.unwrap().is_none() {
        assert!(std::time::Instant::now() < limit, "the parts were never joined");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(store.head(&key).await.unwrap().unwrap().size, 4 * PART_BYTES as u64);
    assert_eq!(answer(&asking, &fence, &ticket, complete()).await, Ok(Answer::Done));
    store.delete(&key).await.unwrap();
    assert!(answer(&asking, &fence, &ticket, complete()).await.is_err(), "nothing is there");
}

#[tokio::test]
async fn another_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _serving) = start(directory.path(), "guessed").await;
    assert!(store.write("a", Bytes::from_static(b"text")).await.is_err());
    assert!(store.head("a").await.is_err());
}

/// What is to be encrypted is signed: a step that left the headers out would store nothing.
#[tokio::test]
async fn encryption_is_asked_for_by_headers_that_cannot_be_left_out() {
    const HEADER: &str = "x-amz-server-side-encryption";
    let header = |name: &str, value: &str| (format!("{HEADER}{name}"), value.to_owned());
    for (options, wanted) in [
        (json!({}), vec![]),
        (json!({"kmsKeyId": "k"}), vec![]),
        (json!({"enableEncryption": true}), vec![header("", "AES256")]),
        (
            json!({"enableEncryption": true, "kmsKeyId": "arn:aws:kms:k"}),
            vec![header("", "aws:kms"), header("-aws-kms-key-id", "arn:aws:kms:k")],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (store, _serving) = start_with(directory.path(), "secret", &options).await;
        let request = store.sign_put("a").await.unwrap();
        assert_eq!(request.headers, wanted, "{options}");
        let client = reqwest::Client::new();
        let bare = client.put(&request.url).body("text").send().await.unwrap();
        assert_eq!(bare.status().is_success(), wanted.is_empty(), "{options}");
        let mut full = client.put(&request.url).body("text");
        for (name, value) in &request.headers {
            full = full.header(name, value);
        }
        let full = full.send().await.unwrap();
        assert!(full.status().is_success(), "{options}: {}", full.text().await.unwrap());
        // What the agent does itself has them, too.
        store.copy("a", "b", 4).await.unwrap();
        store.write("c", Bytes::from_static(b"text")).await.unwrap();
        let upload = store.begin("d").await.unwrap();
        store.abort("d", &upload).await.unwrap();
        assert_eq!(keys(&store, "").await, ["a", "b", "c"], "{options}");
    }
}
