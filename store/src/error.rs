//! What can go wrong with a log, said with what was found and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Seq;

/// An error of the event log. It can be cloned because one failed commit fails everybody who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{dir} is in use by {holder}: ask that process (--controller URL), or stop it first", dir = dir.display())]
    Locked {
        dir: PathBuf,
        /// "process 1234", or "another process" where that is not known.
        holder: String,
    },

    #[error("{dir} is not an event log: it holds {found} and no FORMAT file; name another directory, or an empty one to start a log", dir = dir.display())]
    Foreign { dir: PathBuf, found: String },

    #[error(
        "{dir} holds an event log of format {found}, and this program knows formats up to {known}: use a newer fsm; nothing was changed",
        dir = dir.display()
    )]
    Newer { dir: PathBuf, found: u32, known: u32 },

    #[error("{dir} holds no event log: name the --data-dir that the controller writes to", dir = dir.display())]
    Missing { dir: PathBuf },

    #[error(
        "the log in {dir} is damaged: {damage}; records up to seq {kept} are intact. \
         `fsm log verify --data-dir {dir} --repair` puts what is damaged aside and lets the log go on after it",
        dir = dir.display()
    )]
    Damaged {
        dir: PathBuf,
        damage: Damage,
        /// The last record before the damage.
        kept: Seq,
    },

    #[error(
        "records before seq {first} were dropped by retention: seq {from} can't be read; begin at {first} or later"
    )]
    Compacted { from: Seq, first: Seq },

    #[error(
        "an append of {bytes} bytes in {entries} entries is more than one commit can hold ({max} bytes): append it in parts"
    )]
    TooLarge { entries: usize, bytes: u64, max: u64 },

    #[error("can't {action}: {source}")]
    Io {
        /// What was being done, with the file's name; e.g. "sync /var/lib/fsm/sled/db".
        action: String,
        source: Arc<io::Error>,
    },

    #[error("the storage engine of {dir} can't {action}: {}{}", told(source), way_on(dir, source), dir = dir.display())]
    Engine { dir: PathBuf, action: &'static str, source: Arc<sled::Error> },

    /// A commit failed earlier, so nothing is appended any more: whether that commit is on disk is known only after opening again.
    /// Reading goes on.
    #[error(
        "the log in {dir} takes no more records since a commit failed ({reason}): \
         make sure the disk has room and works, then start again; records up to seq {last} are safe",
        dir = dir.display()
    )]
    Stopped { dir: PathBuf, reason: String, last: Seq },

    #[error("the log in {dir} was closed", dir = dir.display())]
    Closed { dir: PathBuf },

    #[error("{path} is no export of an event log ({found}): name a file that `fsm log export` wrote", path = path.display())]
    NoExport { path: PathBuf, found: &'static str },

    #[error(
        "the export {path} is damaged: {why}; records up to seq {kept} are intact. Export the history again, or go on with these",
        path = path.display()
    )]
    ExportDamaged {
        path: PathBuf,
        why: String,
        /// The last record before the damage.
        kept: Seq,
    },

    #[error("{path} is an export, which takes no more records: `fsm log import` makes a log of it", path = path.display())]
    ReadOnly { path: PathBuf },

    #[error("{dir} holds an event log already: name a directory that is empty, or that there isn't yet", dir = dir.display())]
    Occupied { dir: PathBuf },

    #[error("{path} holds no records, so no log can begin with it", path = path.display())]
    EmptyExport { path: PathBuf },

    #[error("no snapshot is older than seq {before}: take one first, or the records would be gone for good")]
    NoSnapshot { before: Seq },
}

/// What the engine says, in one line and without its own traces.
fn told(source: &sled::Error) -> String {
    let text = source.to_string();
    let text = text.split(" backtrace ").next().unwrap_or(&text).trim();
    text.replace("at file offset None", "in its files")
}

fn way_on(dir: &std::path::Path, source: &sled::Error) -> String {
    if !is_damage(source) {
        return String::new();
    }
    format!(
        ". `fsm log verify --data-dir {} --repair` reads every frame that is whole out of its files, and lets the log go on with them",
        dir.display()
    )
}

/// Whether the engine's own files are not as it left them.
fn is_damage(source: &sled::Error) -> bool {
    use sled::Error::{Corruption, Io, ReportableBug};
    match source {
        Corruption { .. } | ReportableBug(_) => true,
        Io(error) => matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData),
        _ => false,
    }
}

impl Error {
    pub(crate) fn is_engine_damage(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if is_damage(source))
    }

    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source: Arc::new(source) }
    }
}

/// What is wrong with a stored log, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The frame stored under this seq does not decode.
    Frame { first_seq: Seq, why: String },
    /// The frame is intact in itself but does not continue the one before it.
    Chain { first_seq: Seq, why: String },
    /// Records that were acknowledged are not there.
    Lost { from: Seq, to: Seq },
    /// The `HEAD` file is missing or unreadable, so it can't be told whether anything is missing after `last`.
    Head { last: Seq },
}

impl Damage {
    /// The first record that is affected.
    pub fn from(&self) -> Seq {
        match self {
            Self::Frame { first_seq, .. } | Self::Chain { first_seq, .. } => *first_seq,
            Self::Lost { from, .. } => *from,
            Self::Head { last } => last.next(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { first_seq, why } => write!(f, "the frame that begins at seq {first_seq} is damaged ({why})"),
            Self::Chain { first_seq, why } => {
                write!(f, "the frame that begins at seq {first_seq} does not continue the history before it ({why})")
            }
            Self::Lost { from, to } => write!(f, "seq {from} to {to} were acknowledged and are not there"),
            Self::Head { last } => {
                write!(f, "the HEAD file is missing or unreadable, so records after seq {last} may be missing")
            }
        }
    }
}
