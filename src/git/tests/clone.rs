//! Clones of real repositories, from a server.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use argosy_git::testing::{SshServer, git, serve, serve_openssh, serve_ssh};
use argosy_git::{Archive, Error, Limits, Login, PrivateKey, Request};
use std::fs;
use std::net::Ipv4Addr;
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
    for repo in ["git://h/a", "file:///etc", "/etc", "a/b:c"] {
        let request = Request { repo: repo.to_owned(), ..Request::default() };
        let error = world.archive(&request, &Limits::default()).await.unwrap_err();
        assert!(error.to_string().contains("http, https and ssh alone"), "{error}");
    }
    assert_eq!(fs::read_dir(world.path("work")).unwrap().count(), 0);
}

/// The address of a repository below the user's own directory, and what it takes to read it.
fn by_ssh(world: &World, server: &SshServer, user: &str, path: &str) -> Request {
    let known_hosts = world.path("known_hosts");
    fs::write(&known_hosts, format!("# keys\nelsewhere ssh-ed25519 AAAA\n{}", server.known_host)).unwrap();
    Request {
        repo: format!("ssh://{user}@{}{path}", server.address),
        private_key: Some(PrivateKey(server.user_key.clone())),
        known_hosts,
        ..Request::default()
    }
}

#[tokio::test]
async fn a_clone_by_ssh_is_the_same_whether_or_not_the_server_takes_variables() {
    let world = World::new().await;
    let source = world.repository("source");
    for takes_variables in [true, false] {
        let server =
            serve_ssh(Ipv4Addr::LOCALHOST.into(), world.directory.path().to_owned(), takes_variables).await;
        let request = by_ssh(&world, &server, "git", "/~/source");
        let clone = world.clone(&request, &format!("ssh-{takes_variables}")).await;
        assert_eq!(git(&clone, &["fsck", "--full"]), "");
        assert_eq!(git(&clone, &["rev-parse", "HEAD"]), git(&source, &["rev-parse", "main"]));
        let config = fs::read_to_string(clone.join(".git/config")).unwrap();
        assert!(config.contains(&format!("url = \"{}\"\n", request.repo)), "{config}");
        let shallow = Request { depth: 1, revision: "v2".to_owned(), ..request };
        let clone = world.clone(&shallow, &format!("shallow-{takes_variables}")).await;
        assert!(fs::read_to_string(clone.join("step")).unwrap().starts_with("two "));
    }
}

#[tokio::test]
async fn openssh_serves_as_well() {
    let world = World::new().await;
    let source = world.repository("source");
    let Ok(user) = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")) else {
        return println!("SKIPPED: nobody says who the user is");
    };
    for takes_variables in [true, false] {
        let Some(server) = serve_openssh(world.directory.path(), takes_variables).await else {
            return println!("SKIPPED: there is no sshd here");
        };
        let request = by_ssh(&world, &server, &user, source.to_str().unwrap());
        let clone = world.clone(&request, &format!("openssh-{takes_variables}")).await;
        assert_eq!(git(&clone, &["rev-parse", "HEAD"]), git(&source, &["rev-parse", "main"]));
    }
}

#[tokio::test]
async fn a_host_that_is_not_known_is_told_nothing_and_a_key_goes_to_its_own_host() {
    let world = World::new().await;
    world.repository("source");
    let server = serve_ssh(Ipv4Addr::LOCALHOST.into(), world.directory.path().to_owned(), true).await;
    let request = by_ssh(&world, &server, "git", "/~/source");
    let refused = async |request: &Request| world.archive(request, &Limits::default()).await.unwrap_err();
    let other = serve_ssh(Ipv4Addr::LOCALHOST.into(), world.directory.path().to_owned(), true).await;
    let mistaken = server.known_host.split(' ').next().unwrap().to_owned()
        + " "
        + other.known_host.split_once(' ').unwrap().1;
    for (known, reason) in [
        (None, "ssh: handshake failed: knownhosts: key is unknown"),
        (Some(mistaken), "ssh: handshake failed: knownhosts: key mismatch in line 1"),
    ] {
        let known_hosts = world.path("others");
        let _ = fs::remove_file(&known_hosts);
        if let Some(line) = known {
            fs::write(&known_hosts, line).unwrap();
        }
        let request = Request { known_hosts, ..request.clone() };
        let error = refused(&request).await;
        assert!(error.to_string().starts_with(reason) && error.is_permanent(), "{error}");
        let ignoring = Request { insecure_ignore_host_key: true, ..request };
        world.archive(&ignoring, &Limits::default()).await.unwrap();
    }
    let foreign = Request { private_key: Some(PrivateKey(other.user_key.clone())), ..request.clone() };
    let error = refused(&foreign).await;
    assert!(error.to_string().contains("unable to authenticate") && error.is_permanent(), "{error}");
    let broken = Request { private_key: Some(PrivateKey("secret text".to_owned())), ..request.clone() };
    let error = refused(&broken).await;
    assert!(error.to_string().contains("sshPrivateKeySecret") && !error.to_string().contains("secret text"));
    let missing = Request { repo: format!("ssh://git@{}/~/none", server.address), ..request.clone() };
    let error = refused(&missing).await;
    assert!(error.to_string().contains("the server says: ") && error.to_string().contains("none"), "{error}");
    // A submodule elsewhere: that host gets no key.
    let upper = world.repository("upper");
    git(&upper, &["submodule", "--quiet", "add", world.path("source").to_str().unwrap(), "lib"]);
    let elsewhere =
        format!("[submodule \"l\"]\n\tpath = lib\n\turl = ssh://git@{}/~/source\n", other.address);
    fs::write(upper.join(".gitmodules"), elsewhere).unwrap();
    git(&upper, &["add", "-A"]);
    git(&upper, &["commit", "-q", "-m", "lib"]);
    let error = refused(&Request { repo: format!("ssh://git@{}/~/upper", server.address), ..request }).await;
    assert!(error.to_string().contains("sshPrivateKeySecret for this host"), "{error}");
}
