//! The directory of a log: whose it is, of which format, and who uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// The newest directory format that this program knows.
const FORMAT: u32 = 1;
const TITLE: &str = "fsm event log";
/// What may lie in a directory that becomes a log: our own files of a start that was cut short, and what file systems put there.
const HARMLESS: [&str; 4] = ["LOCK", "HEAD", "FORMAT.new", "lost+found"];

/// A log's directory, locked for this process until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    /// No log was here before.
    pub(super) new: bool,
    /// The lock is the open file.
    lock: File,
}

impl Place {
    /// Takes the directory. A new one is not marked as a log before [`Place::mark`].
    pub(super) fn take(dir: &Path, create: bool) -> Result<Self, Error> {
        let new = match format(dir)? {
            Some(found) if found > FORMAT => return Err(Error::Newer { dir: dir.into(), found, known: FORMAT }),
            Some(_) => false,
            None if create => true,
            None => return Err(Error::Missing { dir: dir.into() }),
        };
        if new {
            fs::create_dir_all(dir).map_err(|error| Error::io(format!("create {}", dir.display()), error))?;
        }
        Ok(Self { dir: dir.into(), new, lock: lock(dir)? })
    }

    /// Says that this directory is a log. The last step of starting one, so that a start that was cut short can be repeated.
    pub(super) fn mark(&self) -> Result<(), Error> {
        let (temporary, path) = (self.dir.join("FORMAT.new"), self.dir.join("FORMAT"));
        let write = || {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{TITLE}\nformat {FORMAT}")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&self.dir)?;
            // The directory's own entry, where there is a directory above it that we may open.
            self.dir.canonicalize()?.parent().map_or(Ok(()), sync_dir)
        };
        write().map_err(|error| Error::io(format!("write {}", path.display()), error))
    }
}

/// A child process that begins at this moment shares the open file until it runs its own program: closing the file alone would leave it
/// locked until then.
impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(dir = %self.dir.display(), %error, "the log's lock stays until its file is closed");
        }
    }
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The format of the log in a directory; `None` if there is none yet but there may be.
fn format(dir: &Path) -> Result<Option<u32>, Error> {
    let path = dir.join("FORMAT");
    let foreign = |found: String| Error::Foreign { dir: dir.into(), found };
    match fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let format = text.strip_prefix(TITLE).and_then(|rest| rest.trim().strip_prefix("format ")?.parse().ok());
            format.map(Some).ok_or_else(|| foreign("a FORMAT file of something else".into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries = match fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io(format!("list {}", dir.display()), error)),
            };
            let mut strangers: Vec<String> = entries
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .filter(|name| !HARMLESS.contains(&name.as_str()) && name != "sled")
                .collect();
            strangers.sort();
            match strangers.as_slice() {
                [] => Ok(None),
                [one] => Err(foreign(format!("{one:?}"))),
                [one, rest @ ..] => Err(foreign(format!("{one:?} and {} more", rest.len()))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(foreign("a file, not a directory,".into())),
        Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
    }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("LOCK");
    let failed = |error| Error::io(format!("lock {}", path.display()), error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let holder = match pid.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".into(),
            };
            return Err(Error::Locked { dir: dir.into(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // For the message above, in another process.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_free_when_it_is_let_go_whoever_shares_the_open_file() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::take(dir.path(), true).unwrap();
        assert!(matches!(Place::take(dir.path(), true), Err(Error::Locked { .. })));
        let shared = place.lock.try_clone().unwrap();
        drop(place);
        Place::take(dir.path(), true).unwrap();
        drop(shared);
    }
}
