//! Making a commit survive what [`Durability`] says.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::head::{Head, HeadFile};
use super::place::sync_dir;
use crate::{Durability, Error};

/// The last steps of a commit, after the storage engine's own flush.
#[derive(Debug)]
pub(super) struct Durable {
    head: HeadFile,
    power: Option<PowerSync>,
}

/// What the storage engine's flush leaves undone: syncing file sizes, the disk's cache, and the files it puts large values in.
#[derive(Debug)]
struct PowerSync {
    db_path: PathBuf,
    db: File,
    blobs_dir: PathBuf,
    synced_blobs: BTreeSet<OsString>,
}

impl Durable {
    /// `engine_dir` is the directory of the storage engine, already open.
    pub(super) fn new(head: HeadFile, engine_dir: &Path, durability: Durability) -> Result<Self, Error> {
        let power = match durability {
            Durability::Process => None,
            Durability::Power => Some(PowerSync::new(engine_dir)?),
        };
        Ok(Self { head, power })
    }

    /// Makes everything that the engine has flushed durable, and says so in `HEAD`.
    pub(super) fn commit(&mut self, head: &Head) -> Result<(), Error> {
        if let Some(power) = &mut self.power {
            power.sync()?;
        }
        self.head
            .write(head)
            .and_then(|()| if self.power.is_some() { self.head.sync() } else { Ok(()) })
            .map_err(|error| Error::io(format!("write {}", self.head.path.display()), error))
    }
}

/// Makes what an engine wrote in a directory survive a power cut.
pub(super) fn sync_engine_in(dir: &Path) -> Result<(), Error> {
    PowerSync::new(dir).map(|_| ())
}

impl PowerSync {
    fn new(engine_dir: &Path) -> Result<Self, Error> {
        let (db_path, blobs_dir) = (engine_dir.join("db"), engine_dir.join("blobs"));
        let db = File::open(&db_path).map_err(|error| Error::io(format!("open {}", db_path.display()), error))?;
        let mut sync = Self { db_path, db, blobs_dir, synced_blobs: BTreeSet::new() };
        sync.sync()?;
        // Written once, when the log begins, and never synced by the engine.
        let conf = engine_dir.join("conf");
        let synced = File::open(&conf).and_then(|file| file.sync_all());
        synced.map_err(|error| Error::io(format!("sync {}", conf.display()), error))?;
        sync_dir(engine_dir).map_err(|error| Error::io(format!("sync {}", engine_dir.display()), error))?;
        Ok(sync)
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.sync_blobs().map_err(|error| Error::io(format!("sync {}", self.blobs_dir.display()), error))?;
        self.db.sync_data().map_err(|error| Error::io(format!("sync {}", self.db_path.display()), error))
    }

    /// The engine's file refers to these, so they go first.
    fn sync_blobs(&mut self) -> std::io::Result<()> {
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.blobs_dir)? {
            present.insert(entry?.file_name());
        }
        let mut fresh = false;
        for name in present.difference(&self.synced_blobs) {
            match File::open(self.blobs_dir.join(name)) {
                Ok(file) => file.sync_all()?,
                // Removed by the engine in the meantime.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            fresh = true;
        }
        if fresh {
            sync_dir(&self.blobs_dir)?;
        }
        self.synced_blobs = present;
        Ok(())
    }
}
