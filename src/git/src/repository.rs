//! A pack that was fetched: its objects, and what of them goes into the archive.

use crate::remote::{Fetched, Head, Wanted, strip_login};
use crate::submodule::{self, Job};
use crate::tree::Builder;
use crate::{Error, Request};
use gix_hash::{ObjectId, oid};
use gix_object::tree::EntryKind;
use gix_object::{CommitRefIter, Data, Kind, TagRefIter, TreeRefIter};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Directories in each other, and tags of tags.
const DEPTH_MAX: usize = 128;
/// Bytes of a list of submodules.
const MODULES_BYTES_MAX: usize = 1 << 20;
const SHA1: gix_hash::Kind = gix_hash::Kind::Sha1;

/// The objects of a pack.
pub struct Repository {
    bundle: gix_pack::Bundle,
    inflate: RefCell<gix_zlib::Inflate>,
    directory: PathBuf,
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Broken(crate::packet::shown(&error.to_string()))
}

impl gix_object::Find for Repository {
    fn try_find<'a>(&self, id: &oid, buffer: &'a mut Vec<u8>) -> gix_error::Result<Option<Data<'a>>> {
        let mut inflate = self.inflate.borrow_mut();
        let found = self.bundle.find(id, buffer, &mut inflate, &mut gix_pack::cache::Never)?;
        Ok(found.map(|(data, _)| data))
    }
}

/// A working tree on its way into the archive.
struct Checkout<'a> {
    repository: &'a Repository,
    archive: &'a mut Builder,
    /// Commits of submodules by path within the tree.
    links: BTreeMap<String, ObjectId>,
}

impl Repository {
    /// Reads a pack and makes an index of it below a directory.
    pub fn index(pack: &Path, directory: &Path, object_bytes_max: usize) -> Result<Self, Error> {
        std::fs::create_dir_all(directory)?;
        let options = gix_pack::bundle::write::Options {
            thread_limit: Some(1),
            alloc_limit_bytes: Some(object_bytes_max),
            ..gix_pack::bundle::write::Options::default()
        };
        let written = gix_pack::Bundle::write_to_directory(
            &mut BufReader::new(File::open(pack)?),
            Some(directory),
            &mut gix_utils::progress::Discard,
            &AtomicBool::new(false),
            None::<gix_object::find::Never>,
            SHA1,
            options,
        );
        let written = written.map_err(broken)?;
        std::fs::remove_file(pack)?;
        let bundle = written.to_bundle().ok_or_else(|| broken("its pack has no objects"))?.map_err(broken)?;
        Ok(Self { bundle, inflate: RefCell::default(), directory: directory.to_owned() })
    }

    fn object(&self, id: &oid) -> Result<(Kind, Vec<u8>), Error> {
        let mut buffer = Vec::new();
        let found = gix_object::Find::try_find(self, id, &mut buffer).map_err(broken)?;
        let kind = found.ok_or_else(|| broken(format!("object {id} is missing")))?.kind;
        Ok((kind, buffer))
    }

    fn has(&self, id: &oid) -> bool {
        self.bundle.index.lookup(id).is_some()
    }

    /// The commit that an object is, or a tag stands for.
    fn commit(&self, id: ObjectId) -> Result<ObjectId, Error> {
        let mut id = id;
        for _ in 0..DEPTH_MAX {
            match self.object(&id)? {
                (Kind::Commit, _) => return Ok(id),
                (Kind::Tag, bytes) => {
                    id = TagRefIter::from_bytes(&bytes, SHA1).target_id().map_err(broken)?
                }
                (Kind::Tree | Kind::Blob, _) => return Err(broken(format!("{id} is no commit"))),
            }
        }
        Err(broken("a tag of a tag of a tag"))
    }

    /// The object whose name begins so.
    fn search(&self, revision: &str) -> Option<ObjectId> {
        let is_short = revision.len() >= 4 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = gix_hash::Prefix::from_hex(revision).ok().filter(|_| is_short)?;
        let at = self.bundle.index.lookup_prefix(prefix, None)?.ok()?;
        Some(self.bundle.index.oid_at_index(at).to_owned())
    }

    /// Puts working tree and `.git` into the archive; gives the submodules.
    pub fn put(
        &self,
        request: &Request,
        job: &Job,
        wanted: &Wanted,
        fetched: &Fetched,
        archive: &mut Builder,
    ) -> Result<Vec<Job>, Error> {
        let (branch, head) = match &wanted.head {
            Head::Branch(name, id) => (Some(name.as_str()), *id),
            Head::Object(id) => (None, *id),
            Head::Search(revision) => {
                (None, self.search(revision).ok_or_else(|| Error::Revision(revision.clone()))?)
            }
        };
        if !self.has(&head) {
            return Err(Error::Revision(request.revision.clone()));
        }
        let commit = self.commit(head)?;
        let (_, bytes) = self.object(&commit)?;
        let tree = CommitRefIter::from_bytes(&bytes, SHA1).tree_id().map_err(broken)?;
        let root = Path::new(&job.path);
        archive.directory(root)?;
        let mut checkout = Checkout { repository: self, archive, links: BTreeMap::new() };
        checkout.tree(&tree, root, "", 0)?;
        let links = checkout.links;
        self.put_git(&root.join(".git"), job, wanted, fetched, (branch, commit, &tree), archive)?;
        self.submodules(&tree, job, &links)
    }

    fn put_git(
        &self,
        at: &Path,
        job: &Job,
        wanted: &Wanted,
        fetched: &Fetched,
        (branch, commit, tree): (Option<&str>, ObjectId, &oid),
        archive: &mut Builder,
    ) -> Result<(), Error> {
        for directory in ["", "objects", "objects/pack", "objects/info", "refs", "refs/heads", "refs/tags"] {
            archive.directory(&at.join(directory))?;
        }
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if path.extension().is_some_and(|kind| kind == "pack" || kind == "idx") {
                archive.copy(&at.join("objects/pack").join(name), &path)?;
            }
        }
        let mut refs = wanted.refs.clone();
        refs.extend(branch.map(|branch| (branch.to_owned(), commit)));
        refs.retain(|_, id| self.has(id));
        let mut lines = String::new();
        for (name, id) in &refs {
            lines.push_str(&format!("{id} {name}\n"));
        }
        for (name, tag) in wanted.tags.iter().filter(|(_, tag)| self.has(&tag.id)) {
            lines.push_str(&format!("{} {name}\n", tag.id));
            lines.extend(tag.peeled.map(|peeled| format!("^{peeled}\n")));
        }
        archive.file(&at.join("packed-refs"), 0o644, lines.as_bytes())?;
        let head = branch.map_or_else(|| format!("{commit}\n"), |branch| format!("ref: {branch}\n"));
        archive.file(&at.join("HEAD"), 0o644, head.as_bytes())?;
        let mut url = job.url.clone();
        strip_login(&mut url);
        let mut config = format!(
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
             [remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        if let Some(short) = branch.and_then(|branch| branch.strip_prefix("refs/heads/")) {
            config.push_str(&format!(
                "[branch \"{}\"]\n\tremote = origin\n\tmerge = refs/heads/{short}\n",
                short.replace('"', "")
            ));
        }
        archive.file(&at.join("config"), 0o644, config.as_bytes())?;
        if !fetched.shallow.is_empty() {
            archive.file(&at.join("shallow"), 0o644, (fetched.shallow.join("\n") + "\n").as_bytes())?;
        }
        let state =
            gix_index::State::from_tree(tree, self, gix_index::validate::path::component::Options::default());
        let file = self.directory.join("index");
        let mut index = gix_index::File::from_state(state.map_err(broken)?, file.clone());
        index.write(gix_index::write::Options::default()).map_err(broken)?;
        archive.copy(&at.join("index"), &file)
    }

    /// The submodules whose address is known, as repositories to clone.
    fn submodules(
        &self,
        tree: &oid,
        job: &Job,
        links: &BTreeMap<String, ObjectId>,
    ) -> Result<Vec<Job>, Error> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let (_, bytes) = self.object(tree)?;
        let mut modules = None;
        for entry in TreeRefIter::from_bytes(&bytes, SHA1) {
            let entry = entry.map_err(broken)?;
            if entry.filename == ".gitmodules" && entry.mode.is_blob() {
                modules = Some(entry.oid.to_owned());
            }
        }
        // Links that nobody describes are empty directories, for Git as well.
        let Some(modules) = modules else { return Ok(Vec::new()) };
        let (_, bytes) = self.object(&modules)?;
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MODULES_BYTES_MAX)]).into_owned();
        let addresses = submodule::addresses(&text);
        let mut jobs = Vec::new();
        for (path, commit) in links {
            let Some(address) = addresses.get(path) else { continue };
            let url = submodule::resolve(&job.url, address)
                .map_err(|error| Error::Unsupported(format!("submodule {path}: {error}")))?;
            let at = format!("{}/{path}", job.path);
            jobs.push(Job { url, path: at, commit: Some(*commit) });
        }
        Ok(jobs)
    }
}

impl Checkout<'_> {
    fn tree(&mut self, id: &oid, at: &Path, below: &str, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(broken("its directories are too deep"));
        }
        let (_, bytes) = self.repository.object(id)?;
        for entry in TreeRefIter::from_bytes(&bytes, SHA1) {
            let entry = entry.map_err(broken)?;
            let name: &[u8] = entry.filename;
            if !is_file_name(name) {
                return Err(broken(format!("a file is called {:?}", String::from_utf8_lossy(name))));
            }
            let path = at.join(OsStr::from_bytes(name));
            match entry.mode.kind() {
                EntryKind::Tree => {
                    self.archive.directory(&path)?;
                    let below = format!("{below}{}/", String::from_utf8_lossy(name));
                    self.tree(entry.oid, &path, &below, depth + 1)?;
                }
                kind @ (EntryKind::Blob | EntryKind::BlobExecutable) => {
                    let mode = if kind == EntryKind::Blob { 0o644 } else { 0o755 };
                    let (_, bytes) = self.repository.object(entry.oid)?;
                    self.archive.file(&path, mode, &bytes)?;
                }
                EntryKind::Link => {
                    let (_, target) = self.repository.object(entry.oid)?;
                    self.archive.link(&path, Path::new(OsStr::from_bytes(&target)))?;
                }
                EntryKind::Commit => {
                    self.archive.directory(&path)?;
                    let within = format!("{below}{}", String::from_utf8_lossy(name));
                    self.links.insert(within, entry.oid.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Names that would lead elsewhere, or into `.git`, are no names.
fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.eq_ignore_ascii_case(b".git")
        && !name.contains(&b'/')
        && !name.contains(&0)
}
