//! The server: its refs, and packs.

use crate::packet::{self, Packet, Packets};
use crate::ssh::{self, Conversation};
use crate::{Error, Limits, Login, Request, pause};
use bytes::Bytes;
use gix_hash::ObjectId;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use url::Url;

const AGENT: &str = concat!("agent=argosy/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 5;

/// What the server has under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    pub id: ObjectId,
    /// What an annotated tag stands for.
    pub peeled: Option<ObjectId>,
}

/// What is fetched, and what it is called afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub ids: Vec<ObjectId>,
    /// The clone's refs.
    pub refs: BTreeMap<String, ObjectId>,
    /// Tags that are kept if the objects that they stand for were fetched.
    pub tags: BTreeMap<String, Ref>,
    /// What is checked out.
    pub head: Head,
}

/// What is checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A branch of the server's.
    Branch(String, ObjectId),
    /// An object: a commit, or a tag of one.
    Object(ObjectId),
    /// The beginning of a commit's name, or something else that is looked for among the objects.
    Search(String),
}

impl Default for Head {
    fn default() -> Self {
        Self::Search(String::new())
    }
}

/// What came with a pack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Commits whose parents were left out.
    pub shallow: Vec<String>,
}

/// A repository on a server.
pub struct Remote<'a> {
    http: &'a reqwest::Client,
    base: Url,
    login: Option<Login>,
    /// By SSH all is one conversation.
    conversation: Option<Conversation>,
    request: &'a Request,
    limits: &'a Limits,
}

/// What a server answers to one question.
enum Answer<'a> {
    Http(reqwest::Response),
    /// Ends with a mark, and not with the bytes.
    Ssh(&'a mut Conversation),
}

impl Answer<'_> {
    async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Http(answer) => answer.chunk().await.map_err(cut),
            Self::Ssh(conversation) => conversation.piece().await,
        }
    }

    fn broke_off(&self) -> Error {
        match self {
            Self::Http(_) => Error::Server("the server broke off".to_owned()),
            Self::Ssh(conversation) => conversation.broke_off(),
        }
    }

    /// All lines of a short one.
    async fn lines(mut self, bytes_max: usize) -> Result<Vec<String>, Error> {
        let (mut packets, mut lines, mut bytes) = (Packets::default(), Vec::new(), 0);
        while let Some(piece) = self.piece().await? {
            bytes += piece.len();
            if bytes > bytes_max {
                return Err(Error::Limit { what: "the refs", max: bytes_max as u64 });
            }
            packets.feed(&piece);
            while let Some(packet) = packets.next()? {
                match packet {
                    Packet::Line(line) => lines.push(packet::text(&line)?),
                    Packet::Flush if matches!(self, Self::Ssh(_)) => return Ok(lines),
                    Packet::Flush | Packet::Delimiter | Packet::End => {}
                }
            }
        }
        let is_whole = packets.is_empty() && matches!(self, Self::Http(_));
        if is_whole { Ok(lines) } else { Err(self.broke_off()) }
    }
}

pub fn client(request: &Request, limits: &Limits) -> Result<reqwest::Client, Error> {
    // Somebody else in the process may have chosen the provider: then that one is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(pause(limits))
        .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
        .tls_danger_accept_invalid_certs(request.insecure_skip_tls)
        .build()
        .map_err(|error| Error::Server(error.to_string()))
}

impl<'a> Remote<'a> {
    /// A submodule elsewhere is not told the login.
    pub fn new(http: &'a reqwest::Client, mut base: Url, request: &'a Request, limits: &'a Limits) -> Self {
        let own = Url::parse(&request.repo).map(|url| url.origin()).ok();
        let of_url =
            Login { user: decoded(base.username()), password: decoded(base.password().unwrap_or("")) };
        let given = request.login.clone().filter(|_| own == Some(base.origin()));
        let login = given.or_else(|| (!of_url.user.is_empty()).then_some(of_url));
        strip_login(&mut base);
        Self { http, base, login, conversation: None, request, limits }
    }

    fn with_login(&self, builder: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let builder = builder.header("Git-Protocol", "version=2");
        match &self.login {
            Some(login) => builder.basic_auth(&login.user, Some(&login.password)),
            None => builder,
        }
    }

    fn service(&self, name: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{name}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn send(&self, builder: reqwest::RequestBuilder) -> Result<reqwest::Response, Error> {
        let answer = self.with_login(builder).send().await;
        // The URL may hold a credential: no message does.
        let answer = answer.map_err(|error| Error::Server(chain(&error.without_url())))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let message = match status.as_u16() {
            401 | 403 => {
                "authentication required: the server does not let this user read the repository".to_owned()
            }
            404 => "repository not found".to_owned(),
            other => format!("the git server answered {other}"),
        };
        let again = status.is_server_error() || status.as_u16() == 429;
        Err(if again { Error::Server(message) } else { Error::Refused(message) })
    }

    /// Asks the server whether it speaks the version that is needed.
    async fn greet(&mut self) -> Result<(), Error> {
        let lines = if self.base.scheme() == "ssh" {
            self.greet_by_ssh().await?
        } else {
            self.greet_by_http().await?
        };
        if !lines.iter().any(|line| line == "version 2") {
            return Err(Error::Refused("the server does not speak version 2 of Git's protocol".to_owned()));
        }
        let is_other =
            |line: &String| line.strip_prefix("object-format=").is_some_and(|format| format != "sha1");
        if lines.iter().any(is_other) {
            return Err(Error::Unsupported("the repository's objects are not named by SHA-1".to_owned()));
        }
        Ok(())
    }

    async fn greet_by_http(&mut self) -> Result<Vec<String>, Error> {
        let mut url = self.service("info/refs");
        url.set_query(Some("service=git-upload-pack"));
        let answer = self.send(self.http.get(url)).await?;
        // Servers may be moved: what follows goes to where they are now.
        let at = answer.url().clone();
        if at.origin() != self.base.origin() {
            self.login = None;
        }
        if let Some(path) = at.path().strip_suffix("/info/refs") {
            let mut base = at.clone();
            base.set_path(path);
            base.set_query(None);
            self.base = base;
        }
        Answer::Http(answer).lines(self.limits.refs_bytes_max).await
    }

    async fn greet_by_ssh(&mut self) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for by_shell in [false, true] {
            let conversation = ssh::open(self.request, &self.base, self.limits, by_shell).await?;
            let conversation = self.conversation.insert(conversation);
            lines = Answer::Ssh(conversation).lines(self.limits.refs_bytes_max).await?;
            if lines.iter().any(|line| line == "version 2") {
                break;
            }
        }
        Ok(lines)
    }

    async fn refs(&mut self, prefixes: &[String]) -> Result<(BTreeMap<String, Ref>, Option<String>), Error> {
        let mut body = Vec::new();
        packet::line(&mut body, "command=ls-refs");
        packet::line(&mut body, AGENT);
        packet::delimiter(&mut body);
        packet::line(&mut body, "peel");
        packet::line(&mut body, "symrefs");
        for prefix in prefixes {
            packet::line(&mut body, &format!("ref-prefix {prefix}"));
        }
        packet::flush(&mut body);
        let bytes_max = self.limits.refs_bytes_max;
        let answer = self.ask(body).await?;
        let (mut refs, mut head) = (BTreeMap::new(), None);
        for line in answer.lines(bytes_max).await? {
            let mut words = line.split(' ');
            let (Some(id), Some(name)) = (words.next().and_then(id), words.next()) else { continue };
            let mut found = Ref { id, peeled: None };
            for word in words {
                if let Some(target) = word.strip_prefix("symref-target:").filter(|_| name == "HEAD") {
                    head = Some(target.to_owned());
                }
                if let Some(peeled) = word.strip_prefix("peeled:") {
                    found.peeled = self::id(peeled);
                }
            }
            if is_name(name) {
                refs.insert(name.to_owned(), found);
            }
        }
        Ok((refs, head))
    }

    async fn ask(&mut self, body: Vec<u8>) -> Result<Answer<'_>, Error> {
        if self.conversation.is_none() {
            return self.ask_by_http(body).await.map(Answer::Http);
        }
        let conversation = self.conversation.as_mut().expect("it was just there");
        conversation.say(body).await?;
        Ok(Answer::Ssh(conversation))
    }

    async fn ask_by_http(&self, body: Vec<u8>) -> Result<reqwest::Response, Error> {
        let request = self.http.post(self.service("git-upload-pack"));
        let request = request.header("Content-Type", "application/x-git-upload-pack-request");
        let request = request.header("Accept", "application/x-git-upload-pack-result");
        self.send(request.body(body)).await
    }

    /// What of the server is wanted; a submodule wants one commit.
    pub async fn wanted(&mut self, request: &Request, commit: Option<ObjectId>) -> Result<Wanted, Error> {
        self.greet().await?;
        if let Some(commit) = commit {
            return Ok(Wanted { ids: vec![commit], head: Head::Object(commit), ..Wanted::default() });
        }
        let specs: Vec<Spec> = request.fetch.iter().map(|spec| Spec::read(spec)).collect::<Result<_, _>>()?;
        let mut prefixes = vec!["HEAD".to_owned(), "refs/heads/".to_owned(), "refs/tags/".to_owned()];
        prefixes.extend(specs.iter().map(|spec| spec.from.clone()));
        let (refs, head) = self.refs(&prefixes).await?;
        choose(request, &specs, &refs, head.as_deref())
    }

    /// Has the server send what is wanted into a file; `left` is what may still come.
    pub async fn fetch(
        &mut self,
        wanted: &Wanted,
        depth: u64,
        pack: &Path,
        left: &mut u64,
    ) -> Result<Fetched, Error> {
        let mut body = Vec::new();
        packet::line(&mut body, "command=fetch");
        packet::line(&mut body, AGENT);
        packet::delimiter(&mut body);
        for word in ["no-progress", "ofs-delta", "include-tag"] {
            packet::line(&mut body, word);
        }
        if depth > 0 {
            packet::line(&mut body, &format!("deepen {depth}"));
        }
        for id in &wanted.ids {
            packet::line(&mut body, &format!("want {id}"));
        }
        packet::line(&mut body, "done");
        packet::flush(&mut body);
        let bytes_max = self.limits.pack_bytes_max;
        let mut answer = self.ask(body).await?;
        let mut file = std::io::BufWriter::new(std::fs::File::create(pack)?);
        let (mut packets, mut section) = (Packets::default(), Section::default());
        while !(section.is_over && matches!(answer, Answer::Ssh(_)))
            && let Some(piece) = answer.piece().await?
        {
            packets.feed(&piece);
            while let Some(packet) = packets.next()? {
                let bytes = section.take(packet)?;
                *left = left
                    .checked_sub(bytes.len() as u64)
                    .ok_or(Error::Limit { what: "the packed objects", max: bytes_max })?;
                file.write_all(&bytes)?;
            }
        }
        file.flush()?;
        if !section.is_over {
            return Err(answer.broke_off());
        }
        Ok(Fetched { shallow: section.shallow })
    }
}

/// Where in an answer to `fetch` we are.
#[derive(Debug, Default)]
struct Section {
    name: String,
    shallow: Vec<String>,
    is_over: bool,
}

impl Section {
    /// Bytes of the pack.
    fn take(&mut self, packet: Packet) -> Result<Vec<u8>, Error> {
        let line = match packet {
            Packet::Line(line) => line,
            Packet::Delimiter => {
                self.name.clear();
                return Ok(Vec::new());
            }
            Packet::Flush => {
                self.is_over = self.name == "packfile";
                return Ok(Vec::new());
            }
            Packet::End => return Ok(Vec::new()),
        };
        match self.name.as_str() {
            "" => self.name = packet::text(&line)?,
            "packfile" => match line.split_first() {
                Some((1, bytes)) => return Ok(bytes.to_vec()),
                Some((3, bytes)) => {
                    let words = packet::shown(&String::from_utf8_lossy(bytes));
                    return Err(Error::Server(format!("the server says: {words}")));
                }
                Some(_) | None => {}
            },
            "shallow-info" => {
                let text = packet::text(&line)?;
                let shallow = text.strip_prefix("shallow ").filter(|shallow| id(shallow).is_some());
                self.shallow.extend(shallow.map(str::to_owned));
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}

/// A ref, or all below one, and what it is called here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    from: String,
    is_pattern: bool,
    to: Option<String>,
}

impl Spec {
    fn read(text: &str) -> Result<Self, Error> {
        let plain = text.trim_start_matches('+');
        let (from, to) = plain.split_once(':').map_or((plain, None), |(from, to)| (from, Some(to)));
        let is_pattern = from.ends_with('*');
        let bad = || {
            Error::Unsupported(format!("git.fetch: {text:?} is no refspec of the form SOURCE:DESTINATION"))
        };
        let start = from.trim_end_matches('*');
        if !start.starts_with("refs/")
            || start.contains('*')
            || to.is_some_and(|to| is_pattern != to.ends_with('*'))
        {
            return Err(bad());
        }
        let to = to.filter(|to| !to.is_empty()).map(|to| to.trim_end_matches('*').to_owned());
        Ok(Self { from: start.to_owned(), is_pattern, to })
    }

    /// What a ref of the server's is called here, if it is meant.
    fn name(&self, name: &str) -> Option<Option<String>> {
        let rest = name.strip_prefix(&self.from).filter(|rest| self.is_pattern || rest.is_empty())?;
        Some(self.to.as_ref().map(|to| format!("{to}{rest}")).filter(|name| is_name(name)))
    }
}

fn choose(
    request: &Request,
    specs: &[Spec],
    refs: &BTreeMap<String, Ref>,
    head: Option<&str>,
) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    let own = head.unwrap_or_default().to_owned();
    let branch = if request.branch.is_empty() { own } else { format!("refs/heads/{}", request.branch) };
    for (name, found) in refs {
        if let Some(short) = name.strip_prefix("refs/heads/")
            && (!request.single_branch || *name == branch)
        {
            wanted.ids.push(found.id);
            wanted.refs.insert(format!("refs/remotes/origin/{short}"), found.id);
        }
        if name.starts_with("refs/tags/") {
            wanted.tags.insert(name.clone(), found.clone());
        }
        for to in specs.iter().filter_map(|spec| spec.name(name)) {
            wanted.ids.push(found.id);
            wanted.refs.extend(to.map(|to| (to, found.id)));
        }
    }
    let revision = request.revision.as_str();
    wanted.head = if revision.is_empty() {
        let name = if request.single_branch { branch } else { head.unwrap_or_default().to_owned() };
        match (refs.get(&name), refs.get("HEAD")) {
            (Some(found), _) => Head::Branch(name, found.id),
            (None, Some(found)) if !request.single_branch || request.branch.is_empty() => {
                Head::Object(found.id)
            }
            (None, _) => return Err(Error::Revision(if name.is_empty() { "HEAD".to_owned() } else { name })),
        }
    } else {
        let short = revision.strip_prefix("origin/").unwrap_or(revision);
        let names = [revision.to_owned(), format!("refs/tags/{revision}"), format!("refs/heads/{short}")];
        match names.iter().find_map(|name| refs.get(name)).map(|found| found.id).or_else(|| id(revision)) {
            Some(id) => Head::Object(id),
            None => Head::Search(revision.to_owned()),
        }
    };
    if let Head::Object(id) | Head::Branch(_, id) = &wanted.head {
        wanted.ids.push(*id);
    }
    wanted.ids.sort_unstable();
    wanted.ids.dedup();
    if wanted.ids.is_empty() {
        return Err(Error::Refused("remote repository is empty".to_owned()));
    }
    Ok(wanted)
}

fn id(text: &str) -> Option<ObjectId> {
    (text.len() == 40).then(|| ObjectId::from_hex(text.as_bytes()).ok()).flatten()
}

/// A ref's name that can be written in a line of a file.
fn is_name(name: &str) -> bool {
    let plain = |letter: char| !letter.is_control() && !" ~^:?*[\\".contains(letter);
    (name == "HEAD" || name.starts_with("refs/"))
        && name.chars().all(plain)
        && !name.contains("..")
        && !name.contains("//")
        && !name.ends_with(['/', '.'])
}

/// A user's name is part of the address by SSH, where keys log in.
pub fn strip_login(url: &mut Url) {
    let _ = url.set_password(None);
    if url.scheme() == "ssh" {
        return;
    }
    // Neither fails for an address with a host.
    let _ = url.set_username("");
}

pub fn decoded(text: &str) -> String {
    let pairs = format!("a={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pairs.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn cut(error: reqwest::Error) -> Error {
    Error::Server(format!("the server broke off: {}", chain(&error.without_url())))
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(name: &str, digit: char) -> (String, Ref) {
        (name.to_owned(), Ref { id: id(&digit.to_string().repeat(40)).unwrap(), peeled: None })
    }

    fn chosen(request: &Request) -> Result<Wanted, Error> {
        let refs = BTreeMap::from([
            some("HEAD", '1'),
            some("refs/heads/main", '1'),
            some("refs/heads/side", '2'),
            some("refs/tags/v1", '3'),
            some("refs/pull/7/head", '4'),
        ]);
        let specs: Vec<Spec> = request.fetch.iter().map(|spec| Spec::read(spec).unwrap()).collect();
        choose(request, &specs, &refs, Some("refs/heads/main"))
    }

    #[test]
    fn a_clone_has_all_branches_and_a_single_branch_one() {
        let all = chosen(&Request::default()).unwrap();
        assert_eq!(all.ids.len(), 2);
        assert!(matches!(&all.head, Head::Branch(name, _) if name == "refs/heads/main"));
        let single = Request { single_branch: true, branch: "side".to_owned(), ..Request::default() };
        let single = chosen(&single).unwrap();
        assert_eq!(single.refs.keys().collect::<Vec<_>>(), ["refs/remotes/origin/side"]);
        let missing = Request { single_branch: true, branch: "no".to_owned(), ..Request::default() };
        assert!(chosen(&missing).unwrap_err().to_string().contains("refs/heads/no"));
    }

    #[test]
    fn revisions_are_tags_branches_and_commits() {
        let head = |revision: &str| {
            chosen(&Request { revision: revision.to_owned(), ..Request::default() }).unwrap().head
        };
        assert_eq!(head("v1"), Head::Object(id(&"3".repeat(40)).unwrap()));
        assert_eq!(head("side"), Head::Object(id(&"2".repeat(40)).unwrap()));
        assert_eq!(head(&"5".repeat(40)), Head::Object(id(&"5".repeat(40)).unwrap()));
        assert_eq!(head("abcd123"), Head::Search("abcd123".to_owned()));
    }

    #[test]
    fn refspecs_name_what_is_fetched_besides() {
        let fetch = vec!["+refs/pull/*:refs/remotes/pull/*".to_owned()];
        let wanted = chosen(&Request { fetch, ..Request::default() }).unwrap();
        assert!(wanted.refs.contains_key("refs/remotes/pull/7/head"));
        for bad in ["main", "refs/*/x:refs/y", "refs/a/*:refs/b"] {
            assert!(Spec::read(bad).is_err(), "{bad}");
        }
    }
}
