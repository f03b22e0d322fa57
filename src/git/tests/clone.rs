//! Clones of real repositories, from a server.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use argosy_git::testing::{git, serve};
use argosy_git::{Archive, Error, Limits, Login, Request};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Repositories, and a server for them; what is below `private` asks for a login.
struct World {
    directory: tempfile::TempDir,
    server: String,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = serve(directory.path().to_owned()).await;
        Self { directory, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A repository with three commits on `main`, of which the second is tagged, and one more on `side`.
    fn repository(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.join("bin")).unwrap();
        git(&path, &["init", "-q"]);
        for step in ["one", "two", "three"] {
            fs::write(path.join("step"), format!("{step} {}", "x".repeat(5000))).unwrap();
            fs::write(path.join("bin/run"), step).unwrap();
            Command::new("chmod").args(["755", "bin/run"]).current_dir(&path).status().unwrap();
            if step == "one" {
                std::os::unix::fs::symlink("bin/run", path.join("link")).unwrap();
            }
            git(&path, &["add", "-A"]);
            git(&path, &["commit", "-q", "-m", step]);
            if step == "two" {
                git(&path, &["tag", "-a", "v2", "-m", "the second"]);
            }
        }
        git(&path, &["checkout", "-q", "-b", "side"]);
        fs::write(path.join("step"), "side").unwrap();
        git(&path, &["commit", "-q", "-am", "side"]);
        git(&path, &["checkout", "-q", "main"]);
        path
    }

    fn request(&self, name: &str) -> Request {
        Request { repo: format!("{}/{name}", self.server), ..Request::default() }
    }

    async fn archive(&self, request: &Request, limits: &Limits) -> Result<Archive, Error> {
        argosy_git::clone(request, &self.path("work"), limits).await
    }

    /// A clone, unpacked.
    async fn clone(&self, request: &Request, to: &str) -> PathBuf {
        let archive = self.archive(request, &Limits::default()).await.unwrap();
        assert_eq!(archive.file.metadata().unwrap().len(), archive.bytes);
        let to = self.path(to);
        tar::Archive::new(flate2::read::GzDecoder::new(archive.file)).unpack(&to).unwrap();
        // Nothing is left behind.
        assert_eq!(fs::read_dir(self.path("work")).unwrap().count(), 0);
        to.join("repository")
    }
}

#[tokio::test]
async fn a_clone_is_what_git_itself_makes() {
    let world = World::new().await;
    let source = world.repository("source");
    let clone = world.clone(&world.request("source"), "all").await;
    assert!(fs::read_to_string(clone.join("step")).unwrap().starts_with("three "));
    assert_eq!(fs::read_link(clone.join("link")).unwrap(), Path::new("bin/run"));
    // Git finds nothing that is missing, changed or unknown.
    assert_eq!(git(&clone, &["fsck", "--full"]), "");
    assert_eq!(git(&clone, &["status", "--porcelain", "--branch"]), "## main...origin/main");
    assert_eq!(git(&clone, &["log", "--format=%s"]), "three\ntwo\none");
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), git(&source, &["rev-parse", "main"]));
    assert_eq!(git(&clone, &["branch", "-r"]), "origin/main\n  origin/side");
    assert_eq!(git(&clone, &["describe", "HEAD"]), git(&source, &["describe", "main"]));
}

#[tokio::test]
async fn revisions_are_checked_out() {
    let world = World::new().await;
    let source = world.repository("source");
    let first = git(&source, &["rev-parse", "main~2"]);
    for (revision, wanted) in [("v2", "two"), ("side", "side"), (&*first, "one"), (&first[..9], "one")] {
        let request = Request { revision: revision.to_owned(), ..world.request("source") };
        let clone = world.clone(&request, revision).await;
        assert!(fs::read_to_string(clone.join("step")).unwrap().starts_with(wanted), "{revision}");
        assert_eq!(git(&clone, &["status", "--porcelain"]), "", "{revision}");
    }
    let request = Request { revision: "nothing".to_owned(), ..world.request("source") };
    let error = world.archive(&request, &Limits::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "git revision nothing was not found in the repository");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn depth_single_branch_and_refspecs_bound_what_comes() {
    let world = World::new().await;
    let source = world.repository("source");
    git(&source, &["update-ref", "refs/pull/7/head", "side"]);
    let request =
        Request { depth: 1, single_branch: true, branch: "main".to_owned(), ..world.request("source") };
    let clone = world.clone(&request, "shallow").await;
    assert_eq!(git(&clone, &["log", "--format=%s", "--all"]), "three");
    assert_eq!(git(&clone, &["rev-parse", "--is-shallow-repository"]), "true");
    assert_eq!(git(&clone, &["branch", "-r"]), "origin/main");
    // A commit that no branch of the clone has.
    let revision = git(&source, &["rev-parse", "main~2"]);
    let clone = world.clone(&Request { revision, ..request.clone() }, "deep").await;
    assert!(fs::read_to_string(clone.join("step")).unwrap().starts_with("one"));
    let fetch = vec!["refs/pull/*:refs/remotes/pull/*".to_owned()];
    let clone = world.clone(&Request { fetch, ..request }, "pull").await;
    assert_eq!(git(&clone, &["log", "-1", "--format=%s", "refs/remotes/pull/7/head"]), "side");
}

#[tokio::test]
async fn submodules_come_along_and_are_told_no_login_of_another_server() {
    let world = World::new().await;
    let (lower, upper) = (world.repository("lower"), world.repository("private-upper"));
    // The address is that of the server, which Git is not asked for here.
    git(&upper, &["submodule", "--quiet", "add", lower.to_str().unwrap(), "lib/lower"]);
    git(&upper.join("lib/lower"), &["checkout", "-q", "v2"]);
    // Another port would be another origin; here it is a name for the same one.
    let other = world.server.replace("127.0.0.1", "localhost");
    fs::write(
        upper.join(".gitmodules"),
        format!("[submodule \"l\"]\n\tpath = lib/lower\n\turl = {other}/lower\n"),
    )
    .unwrap();
    git(&upper, &["add", "-A"]);
    git(&upper, &["commit", "-q", "-m", "with a submodule"]);
    let login = Login { user: "user".to_owned(), password: "secret".to_owned() };
    let request = Request { login: Some(login), ..world.request("private-upper") };
    let clone = world.clone(&request, "with").await;
    assert!(fs::read_to_string(clone.join("lib/lower/step")).unwrap().starts_with("two"));
    assert!(!fs::read_to_string(clone.join(".git/config")).unwrap().contains("secret"));
    let without = world.clone(&Request { without_submodules: true, ..request.clone() }, "without").await;
    assert_eq!(fs::read_dir(without.join("lib/lower")).unwrap().count(), 0);

    let refused = world.archive(&Request { login: None, ..request }, &Limits::default()).await.unwrap_err();
    assert!(refused.to_string().starts_with("authentication required"), "{refused}");
    let in_address = world.request("private-upper").repo.replace("http://", "http://user:secret@");
    let request = Request { repo: in_address, without_submodules: true, ..Request::default() };
    let clone = world.clone(&request, "address").await;
    assert!(!fs::read_to_string(clone.join(".git/config")).unwrap().contains("secret"));
}

#[tokio::test]
async fn what_is_too_much_or_not_there_is_refused() {
    let world = World::new().await;
    world.repository("source");
    let request = world.request("source");
    for (limits, word) in [
        (Limits { pack_bytes_max: 100, ..Limits::default() }, "packed objects"),
        (Limits { tree_bytes_max: 1_000, ..Limits::default() }, "the files"),
        (Limits { object_bytes_max: 1_000, ..Limits::default() }, ""),
    ] {
        let error = world.archive(&request, &limits).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(word), "{error}");
    }
    let error = world.archive(&world.request("nowhere"), &Limits::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "repository not found");
    for repo in ["git@github.com:a/b.git", "ssh://h/a", "file:///etc", "/etc"] {
        let request = Request { repo: repo.to_owned(), ..Request::default() };
        let error = world.archive(&request, &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains("http and https alone"), "{error}");
    }
    assert_eq!(fs::read_dir(world.path("work")).unwrap().count(), 0);
}
