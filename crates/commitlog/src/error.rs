//! Why a log cannot be opened, in words for whoever is woken by it.

use std::fmt;

use model::{GroupId, Index};

/// Why a log cannot be opened. Nothing on disk was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Something that was durable cannot be read any more.
    Damaged {
        /// What exactly.
        what: String,
        /// The file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// Groups and the ranges of indexes (first, last) known to be lost; there may be more.
        lost: Vec<(GroupId, Index, Index)>,
    },
    /// The files were written by a newer version of this program.
    Newer {
        /// The file.
        file: String,
        /// Its version.
        version: u16,
    },
    /// The disk refused.
    Failed(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Damaged { what, file, offset, lost } => {
                write!(f, "The log is damaged: {what}, in {file} at byte {offset}.")?;
                for (group, first, last) in lost {
                    write!(f, " Group {group}: entries {first} to {last} cannot be read.")?;
                }
                f.write_str(
                    " Nothing was changed on disk. Starting without these entries would lose messages that were \
                     confirmed, so this node does not start: restore the whole data directory from a copy taken \
                     while it was stopped. Without a copy, keep this one aside for whoever can look at it, and \
                     start with an empty one.",
                )
            }
            OpenError::Newer { file, version } => write!(
                f,
                "{file} has format version {version}, written by a newer version of this program; this one reads \
                 up to version {}. Start the newer one.",
                crate::flush::VERSION
            ),
            OpenError::Failed(why) => write!(f, "The log cannot be read: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}
