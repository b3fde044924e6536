//! What can go wrong while measuring, as one sentence for the person at the terminal.

use std::fmt;
use std::io;

/// A failed run: the sentence says what was tried and what happened.
#[derive(Debug)]
pub(crate) struct Error(String);

/// The result of everything that talks to a server or the operating system.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that reads `sentence`.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Error(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error(error.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Error(io::Error::from(error).to_string())
    }
}

/// Puts what was being tried in front of an error.
pub(crate) trait Trying<T> {
    /// The same result, its error prefixed with `what`.
    fn trying(self, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Trying<T> for std::result::Result<T, E> {
    fn trying(self, what: &str) -> Result<T> {
        self.map_err(|e| Error(format!("{what}: {e}")))
    }
}
