use std::fmt::Write;

use crate::LogTarget;

/// The logger that the Raft library is given.
pub(crate) fn logger(target: LogTarget) -> slog::Logger {
    match target {
        LogTarget::Tracing => slog::Logger::root(Bridge, slog::o!()),
        LogTarget::Discard => slog::Logger::root(slog::Discard, slog::o!()),
    }
}

struct Bridge;

impl slog::Drain for Bridge {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            slog::Level::Critical | slog::Level::Error => {
                tracing::error!(target: "raft", "{}", text(record, values));
            }
            slog::Level::Warning => tracing::warn!(target: "raft", "{}", text(record, values)),
            slog::Level::Info => {
                if tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
                    tracing::debug!(target: "raft", "{}", text(record, values));
                }
            }
            slog::Level::Debug | slog::Level::Trace => {
                if tracing::enabled!(target: "raft", tracing::Level::TRACE) {
                    tracing::trace!(target: "raft", "{}", text(record, values));
                }
            }
        }
        Ok(())
    }
}

fn text(record: &slog::Record<'_>, values: &slog::OwnedKVList) -> String {
    use slog::KV;
    let mut line = Line(record.msg().to_string());
    // Writing to a string cannot fail.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl slog::Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(|_| slog::Error::Other)
    }
}
