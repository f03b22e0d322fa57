use std::io::{IsTerminal, Read, Write};
use std::sync::{Arc, Mutex};

/// Where a command reads and writes. Tests have their own.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    input: Box<dyn Read + Send>,
    /// Somebody looks at it: redraw in place and give hints.
    pub interactive: bool,
}

impl Console {
    /// The process's own. Colours are stripped where nobody would see them, or where `NO_COLOR` asks for it.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            out: Box::new(anstream::stdout()),
            err: Box::new(anstream::stderr()),
            input: Box::new(std::io::stdin()),
            interactive: std::io::stdout().is_terminal(),
        }
    }

    /// Keeps what is written, without colours.
    #[must_use]
    pub fn in_memory(input: &str) -> (Self, Written) {
        let written = Written::default();
        let console = Self {
            out: Box::new(anstream::StripStream::new(
                Box::new(Sink(Arc::clone(&written.out))) as Box<dyn Write + Send>
            )),
            err: Box::new(anstream::StripStream::new(
                Box::new(Sink(Arc::clone(&written.err))) as Box<dyn Write + Send>
            )),
            input: Box::new(std::io::Cursor::new(input.as_bytes().to_vec())),
            interactive: false,
        };
        (console, written)
    }

    /// A result.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), crate::Error> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// All else. What can't be told is not worth failing for.
    pub(crate) fn tell(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// How to go on, for somebody who looks.
    pub(crate) fn hint(&mut self, text: &str) {
        if self.interactive {
            self.tell(&crate::style::Style::Dim.paint(text));
        }
    }

    pub(crate) fn read_input(&mut self, bytes_max: u64) -> std::io::Result<String> {
        let mut text = String::new();
        self.input.by_ref().take(bytes_max).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// What a command has written to an in-memory console.
#[derive(Clone, Debug, Default)]
pub struct Written {
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Written {
    /// Standard output.
    #[must_use]
    pub fn out(&self) -> String {
        text(&self.out)
    }

    /// Standard error.
    #[must_use]
    pub fn err(&self) -> String {
        text(&self.err)
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    let bytes = bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
