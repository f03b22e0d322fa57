//! Where the API is and how to get in.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::{Error, GlobalArguments};

const NAMESPACE_DEFAULT: &str = "default";
const SERVER_DEFAULT: &str = "localhost:2746";

/// Where the API is and how to get in: `context.json` in `$ARGOSY_HOME`, else in `~/.argosy`. `argosy dev` writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Context {
    /// host:port, or several with commas between them; with `http://` before it for no TLS.
    pub server: String,
    /// Bearer token.
    pub token: String,
    /// PEM file of the certificate authority; empty for the system's.
    pub certificate_authority: String,
    /// Namespace when none is given; empty for `default`.
    pub namespace: String,
}

/// The directory of a user's own files: `$ARGOSY_HOME`, else `~/.argosy`.
///
/// # Errors
/// [`Error::Setup`] when the environment names neither.
pub fn home() -> Result<PathBuf, Error> {
    let home = std::env::var_os("ARGOSY_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".argosy")));
    home.ok_or_else(|| Error::Setup("no home directory is known: set ARGOSY_HOME".to_owned()))
}

impl Context {
    /// A context for the default namespace.
    #[must_use]
    pub fn new(
        server: impl Into<String>,
        token: impl Into<String>,
        certificate_authority: impl AsRef<Path>,
    ) -> Self {
        Self {
            server: server.into(),
            token: token.into(),
            certificate_authority: certificate_authority.as_ref().display().to_string(),
            namespace: String::new(),
        }
    }

    /// The file's path.
    ///
    /// # Errors
    /// [`Error::Setup`] when no home is known.
    pub fn path() -> Result<PathBuf, Error> {
        Ok(home()?.join("context.json"))
    }

    /// Writes the context where the command line looks for it.
    ///
    /// # Errors
    /// [`Error::Setup`], [`Error::Context`].
    pub fn save(&self) -> Result<(), Error> {
        self.save_to(&Self::path()?)
    }

    /// Reads a context file; one that is not there is an empty context.
    ///
    /// # Errors
    /// [`Error::Context`] when it can't be read or understood.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Context { path: path.display().to_string(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Writes a context file that only its owner can read, and its directory.
    ///
    /// # Errors
    /// [`Error::Context`] when it can't be written.
    pub fn save_to(&self, path: &Path) -> Result<(), Error> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let wrong = |error: std::io::Error| Error::Context {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(wrong)?;
        }
        let text = serde_json::to_string_pretty(self).expect("strings can always be written as JSON");
        let draft = path.with_extension("json.new");
        // A leftover may have wider permissions, which opening would keep.
        let _ = std::fs::remove_file(&draft);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)
            .map_err(wrong)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
        std::fs::rename(&draft, path).map_err(wrong)
    }
}

/// Flags, environment and context file, joined: the first that says something counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Somebody named a server; else it is the one that there may be on this host.
    pub is_named: bool,
    /// Base addresses without a slash at the end.
    pub servers: Vec<String>,
    pub token: String,
    pub insecure_skip_verify: bool,
    pub certificate_authority: Option<PathBuf>,
    pub namespace: String,
}

impl Settings {
    pub fn resolve(
        global: &GlobalArguments,
        context: &Context,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let first =
            |values: [Option<String>; 3]| values.into_iter().flatten().find(|value| !value.is_empty());
        let truth = |name: &str| environment(name).map(|value| value == "true" || value == "1");
        let server =
            first([global.argo_server.clone(), environment("ARGO_SERVER"), Some(context.server.clone())]);
        let is_named = server.is_some();
        let secure = global.secure.or_else(|| truth("ARGO_SECURE")).unwrap_or(true);
        let server = server.unwrap_or_else(|| SERVER_DEFAULT.to_owned());
        let servers = addresses(&server, secure);
        // The context's token is for its own servers alone, and so is the authority that they are told by.
        let known = addresses(&context.server, secure);
        let is_known = servers.iter().all(|server| known.contains(server));
        let of_context = |value: &String| Some(value.clone()).filter(|_| is_known);
        let token = first([global.token.clone(), environment("ARGO_TOKEN"), of_context(&context.token)]);
        let context_authority = of_context(&context.certificate_authority).filter(|path| !path.is_empty());
        let authority = global.certificate_authority.clone();
        // Argo's users write the scheme into ARGO_TOKEN.
        let token = token.unwrap_or_default();
        let token = token.strip_prefix("Bearer ").unwrap_or(&token).trim().to_owned();
        Self {
            is_named,
            servers,
            token,
            insecure_skip_verify: global.insecure_skip_verify
                || truth("ARGO_INSECURE_SKIP_VERIFY").unwrap_or(false),
            certificate_authority: authority.or_else(|| context_authority.map(PathBuf::from)),
            namespace: first([global.namespace.clone(), Some(context.namespace.clone()), None])
                .unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()),
        }
    }
}

/// Servers with commas between them.
fn addresses(servers: &str, secure: bool) -> Vec<String> {
    let servers = servers.split(',').map(str::trim).filter(|server| !server.is_empty());
    servers.map(|server| address(server, secure)).collect()
}

fn address(server: &str, secure: bool) -> String {
    let server = server.trim_end_matches('/');
    if server.contains("://") {
        server.to_owned()
    } else if secure {
        format!("https://{server}")
    } else {
        format!("http://{server}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_says_something_counts() {
        let context = Context {
            server: "c:1,d:2".into(),
            token: "t".into(),
            certificate_authority: "/ca".into(),
            namespace: "ns".into(),
        };
        let settings = Settings::resolve(&GlobalArguments::default(), &context, |_| None);
        assert_eq!(settings.servers, ["https://c:1", "https://d:2"]);
        assert_eq!((settings.token.as_str(), settings.namespace.as_str()), ("t", "ns"));
        assert_eq!(settings.certificate_authority, Some("/ca".into()));

        let environment = |name: &str| match name {
            "ARGO_SERVER" => Some("e:1".to_owned()),
            "ARGO_TOKEN" => Some("Bearer et".to_owned()),
            "ARGO_SECURE" => Some("false".to_owned()),
            _ => None,
        };
        let settings = Settings::resolve(&GlobalArguments::default(), &context, environment);
        assert_eq!((settings.servers, settings.token.as_str()), (vec!["http://e:1".to_owned()], "et"));
        assert_eq!(settings.certificate_authority, None);

        let global = GlobalArguments {
            argo_server: Some("http://f:1/".into()),
            secure: Some(true),
            ..GlobalArguments::default()
        };
        assert_eq!(Settings::resolve(&global, &context, environment).servers, ["http://f:1"]);

        // One of the context's servers is what the context says; another one is not told its token.
        let named = |server: &str| {
            let global =
                GlobalArguments { argo_server: Some(server.to_owned()), ..GlobalArguments::default() };
            let settings = Settings::resolve(&global, &context, |_| None);
            (settings.token, settings.certificate_authority)
        };
        assert_eq!(named("d:2"), ("t".to_owned(), Some("/ca".into())));
        assert_eq!(named("d:2,f:1"), (String::new(), None));
    }

    #[test]
    fn a_context_reads_back_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("home/context.json");
        assert_eq!(Context::load(&path).unwrap(), Context::default());
        let context = Context { server: "s".into(), ..Context::default() };
        context.save_to(&path).unwrap();
        context.save_to(&path).unwrap();
        assert_eq!(Context::load(&path).unwrap(), context);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "{").unwrap();
        assert!(Context::load(&path).is_err());
    }
}
