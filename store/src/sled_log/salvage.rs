//! The way on when the storage engine can't open its own files: frames say of themselves where they begin and end and whether they are
//! whole, so they are looked for in the raw files, and a new engine is made of them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::durable::sync_engine_in;
use super::place::{Place, sync_dir};
use super::store::{Store, engine_dir};
use crate::frame::{FrameHash, FrameHeader, HEADER_BYTES, MAGIC, MAX_FRAME_BYTES, decode};
use crate::{Error, Seq};

/// How much of a file is looked at in one go.
const WINDOW: usize = 4 << 20;

/// A whole frame in one of the engine's files.
struct Found {
    header: FrameHeader,
    hash: FrameHash,
    /// Index of the file, and where in it.
    file: usize,
    offset: u64,
    length: usize,
}

/// Makes a new engine of the frames that can be found in the files of the old one, which move aside whole.
///
/// What is kept is the longest unbroken stretch of history. Snapshots are not: they can be computed again.
pub(super) fn salvage(place: &Arc<Place>, cache_bytes: u64) -> Result<(), Error> {
    let (dir, old) = (&place.dir, engine_dir(&place.dir));
    let failed = |error| Error::io(format!("look for frames in {}", old.display()), error);
    let files = engine_files(&old).map_err(failed)?;
    let mut found = BTreeMap::new();
    for (number, (path, file)) in files.iter().enumerate() {
        look_through(file, number, &mut found)
            .map_err(|error| Error::io(format!("look for frames in {}", path.display()), error))?;
    }
    let all = found.len();
    let stretch = longest_stretch(found.into_values());

    let new = dir.join("salvaged");
    let made = |action: &str, path: &Path, error| Error::io(format!("{action} {}", path.display()), error);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(made("remove", &new, error)),
        // What a repair that was cut short had made.
        _ => {}
    }
    {
        let store = Store::open_engine_in(Arc::clone(place), &new, cache_bytes)?;
        if let Some(first) = stretch.first().filter(|first| first.header.first_seq != Seq(1)) {
            store.set_floor(first.header.first_seq, first.header.previous)?;
        }
        for one in &stretch {
            let bytes = one.read(&files[one.file].1).map_err(|error| made("read", &files[one.file].0, error))?;
            store.insert_frame(one.header.first_seq, bytes)?;
        }
        store.flush()?;
    }
    sync_engine_in(&new)?;
    let aside = free_name(&dir.join("aside"))?;
    fs::rename(&old, &aside).map_err(|error| made("move aside", &old, error))?;
    finish(dir)?;
    let (first, last) =
        (stretch.first().map(|one| one.header.first_seq), stretch.last().map(|one| one.header.last_seq()));
    tracing::warn!(
        dir = %dir.display(), found = all, kept = stretch.len(), first = ?first, last = ?last, aside = %aside.display(),
        "the storage engine's files were damaged: its frames were read out of them into new ones"
    );
    Ok(())
}

/// Ends a salvage that was cut short between its last two steps.
pub(super) fn finish(dir: &Path) -> Result<(), Error> {
    let (new, old) = (dir.join("salvaged"), engine_dir(dir));
    if old.exists() || !new.exists() {
        return Ok(());
    }
    let rename = || fs::rename(&new, &old).and_then(|()| sync_dir(dir));
    rename().map_err(|error| Error::io(format!("put {} in place of {}", new.display(), old.display()), error))
}

/// The engine's main file, and those of its large values.
fn engine_files(dir: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let mut paths = vec![dir.join("db")];
    match fs::read_dir(dir.join("blobs")) {
        Ok(entries) => {
            for entry in entries {
                paths.push(entry?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    paths.sort();
    let open = |path: PathBuf| File::open(&path).map(|file| (path, file));
    paths.into_iter().filter(|path| path.is_file()).map(open).collect()
}

/// Adds the whole frames of a file. The engine leaves old copies lying about: one of each is enough.
fn look_through(file: &File, number: usize, found: &mut BTreeMap<(Seq, [u8; 32]), Found>) -> io::Result<()> {
    let end = file.metadata()?.len();
    let mut window = vec![0; WINDOW];
    let mut start = 0;
    while start < end {
        let length = usize::try_from(end - start).unwrap_or(WINDOW).min(WINDOW);
        file.read_exact_at(&mut window[..length], start)?;
        for at in FrameHeader::beginnings(&window[..length]) {
            if let Some(frame) = whole_frame(file, number, start + at as u64, end)? {
                found.entry((frame.header.first_seq, frame.hash.0)).or_insert(frame);
            }
        }
        // A beginning may lie across the border of two windows.
        start += if length < WINDOW { length } else { length - MAGIC.len() + 1 } as u64;
    }
    Ok(())
}

/// The frame that begins here, if one does and is whole.
fn whole_frame(file: &File, number: usize, offset: u64, end: u64) -> io::Result<Option<Found>> {
    let mut head = [0; HEADER_BYTES];
    if end - offset < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, offset)?;
    let length = FrameHeader::frame_bytes(&head);
    if length as u64 > (end - offset).min(MAX_FRAME_BYTES) {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    let hash = FrameHash::of(&bytes);
    let header = decode(&bytes).ok().map(|(header, _)| header);
    Ok(header.map(|header| Found { header, hash, file: number, offset, length }))
}

/// The most records in a row, each frame continuing the one before it; of two as long, the older.
fn longest_stretch(found: impl Iterator<Item = Found>) -> Vec<Found> {
    let mut stretches: Vec<Vec<Found>> = Vec::new();
    let mut by_last = HashMap::new();
    // In the order of their seqs, so what a frame continues is there before it.
    for frame in found {
        let (hash, place) = (frame.hash, by_last.remove(&frame.header.previous));
        let place = place.unwrap_or_else(|| {
            stretches.push(Vec::new());
            stretches.len() - 1
        });
        stretches[place].push(frame);
        by_last.insert(hash, place);
    }
    let records = |stretch: &Vec<Found>| stretch.iter().map(|one| u64::from(one.header.count)).sum::<u64>();
    let longest = stretches.into_iter().rev().max_by_key(records);
    longest.unwrap_or_default()
}

impl Found {
    fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// A name in `aside` that nothing has yet.
fn free_name(aside: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(aside).map_err(|error| Error::io(format!("create {}", aside.display()), error))?;
    let mut names = (1_u32..).map(|number| aside.join(format!("sled-{number}")));
    Ok(names.find(|name| !name.exists()).unwrap_or_else(|| aside.join("sled")))
}
