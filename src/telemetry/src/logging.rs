use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, with the fields of the enclosing spans (request, workflow, attempt ids).
    Json,
}

/// What to log, and how. Lines go to standard error: standard output belongs to a command's result.
#[derive(Clone, Debug)]
pub struct Options {
    /// How lines look.
    pub format: Format,
    /// Directives as in `info,argosy_member=debug`.
    pub filter: String,
}

impl Options {
    /// The filter in the environment variable `ARGOSY_LOG`, else `info`; the format in `ARGOSY_LOG_FORMAT` (`text`, `json`).
    #[must_use]
    pub fn from_environment() -> Self {
        let format = match std::env::var("ARGOSY_LOG_FORMAT").as_deref() {
            Ok("json") => Format::Json,
            Ok(_) | Err(_) => Format::Text,
        };
        Self { format, filter: std::env::var("ARGOSY_LOG").unwrap_or_else(|_| "info".to_owned()) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::Text, filter: "info".to_owned() }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directives can't be read.
    #[error("log filter {filter:?} is invalid: {reason}; use directives such as info,argosy_member=debug")]
    Filter {
        /// As given.
        filter: String,
        /// The parser's words.
        reason: String,
    },
    /// Somebody else has set the log up.
    #[error("the log is set up already: call init once per process")]
    Repeated,
}

/// Sets up the process's log. Call once, at the start of `main`.
///
/// # Errors
/// [`Error`]: a filter that can't be read, or a second call.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|error| Error::Filter { filter: options.filter.clone(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    match options.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init(),
    }
    .map_err(|_| Error::Repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = init(&Options { filter: "info,=".to_owned(), ..Options::default() });
        assert!(matches!(&error, Err(Error::Filter { filter, .. }) if filter == "info,="), "{error:?}");
    }
}
