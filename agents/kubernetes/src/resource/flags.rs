//! A resource template's `flags`: arguments of Argo's `kubectl`. Pure.

/// What the flags say. Those that mean nothing here are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Words that are no options: a type and names, or `TYPE/NAME`.
    pub words: Vec<String>,
    pub namespace: Option<String>,
    /// `Strict`, `Warn` or `Ignore`.
    pub validation: Option<&'static str>,
    pub server_dry_run: bool,
    pub grace_period_seconds: Option<u32>,
    /// Propagation of deletion.
    pub cascade: Option<&'static str>,
    /// Deletion is not waited for.
    pub no_wait: bool,
    pub subresource: Option<String>,
}

/// Reads flags.
///
/// # Errors
/// For one that can't be honoured.
pub fn parse(flags: &[String]) -> Result<Flags, String> {
    let mut found = Flags::default();
    let mut rest = flags.iter();
    while let Some(flag) = rest.next() {
        let flag = flag.trim();
        if !flag.starts_with('-') {
            found.words.extend(flag.split_whitespace().map(str::to_owned));
            continue;
        }
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = || {
            given
                .clone()
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| format!("error: flag needs an argument: {name}"))
        };
        match name {
            "-n" | "--namespace" => found.namespace = Some(value()?),
            "--subresource" => found.subresource = Some(value()?),
            "--grace-period" => {
                let seconds = value()?;
                found.grace_period_seconds = Some(
                    seconds
                        .parse()
                        .map_err(|_| format!("error: invalid argument {seconds:?} for {name:?}"))?,
                );
            }
            // These may stand alone; a value comes after `=` only.
            "--validate" => {
                found.validation = Some(match given.as_deref() {
                    None | Some("true" | "strict") => "Strict",
                    Some("warn") => "Warn",
                    Some("false" | "ignore") => "Ignore",
                    Some(other) => return Err(format!("error: invalid argument {other:?} for {name:?}")),
                });
            }
            "--dry-run" if given.as_deref() == Some("server") => found.server_dry_run = true,
            "--cascade" => {
                found.cascade = Some(match given.as_deref() {
                    None | Some("true" | "background") => "Background",
                    Some("foreground") => "Foreground",
                    Some("false" | "orphan") => "Orphan",
                    Some(other) => return Err(format!("error: invalid argument {other:?} for {name:?}")),
                });
            }
            "--wait" => found.no_wait = given.as_deref() == Some("false"),
            // What they ask for is the case.
            "--ignore-not-found" | "--server-side" | "--force-conflicts" | "--overwrite" => {}
            other => return Err(format!("resource flag {other} is not supported")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Result<Flags, String> {
        parse(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_and_words_are_told_apart() {
        let found = read(&["configmap", "a", "-n", "other", "--validate=false", "--grace-period=3"]).unwrap();
        assert_eq!(found.words, ["configmap", "a"]);
        assert_eq!(found.namespace.as_deref(), Some("other"));
        assert_eq!((found.validation, found.grace_period_seconds), (Some("Ignore"), Some(3)));
        assert_eq!(read(&["--kubeconfig=/x"]).unwrap_err(), "resource flag --kubeconfig is not supported");
        assert!(read(&["--namespace"]).unwrap_err().contains("needs an argument"));
    }
}
