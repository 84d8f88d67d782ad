//! A new log of an export.

use std::path::Path;
use std::sync::Arc;

use super::durable::Durable;
use super::head::{Head, HeadFile};
use super::place::Place;
use super::store::{Store, engine_dir};
use crate::frame::FrameHash;
use crate::{Durability, Error, ExportFile, Options, Seq};

/// Frames between two flushes.
const FLUSH_EVERY: usize = 256;

pub(super) fn import(dir: &Path, export: &ExportFile) -> Result<(), Error> {
    if let Some(damage) = export.damage() {
        return Err(damage.clone());
    }
    let place = Arc::new(Place::take(dir, true)?);
    if !place.new {
        return Err(Error::Occupied { dir: dir.into() });
    }
    let (head_file, _) =
        HeadFile::open(dir).map_err(|error| Error::io(format!("write {}", dir.join("HEAD").display()), error))?;
    let store = Store::open(Arc::clone(&place), Options::default().cache_bytes)?;
    let mut head = None;
    for (number, frame) in export.frames().enumerate() {
        let (header, bytes) = frame?;
        // Bytes of an import that was cut short are written over.
        if number == 0 && (header.first_seq != Seq(1) || header.previous != FrameHash::default()) {
            store.set_floor(header.first_seq, header.previous)?;
        }
        head = Some(Head { stored: header.last_seq(), given: header.last_seq(), hash: FrameHash::of(&bytes) });
        store.insert_frame(header.first_seq, bytes)?;
        if number % FLUSH_EVERY == 0 {
            store.flush()?;
        }
    }
    let head = head.ok_or_else(|| Error::EmptyExport { path: export.path().into() })?;
    for snapshot in export.snapshots() {
        let (name, seq, packed) = snapshot?;
        store.put_packed_snapshot(name, seq, packed)?;
    }
    store.flush()?;
    // The next one to open it may want it to survive a power cut.
    Durable::new(head_file, &engine_dir(dir), Durability::Power)?.commit(&head)?;
    place.mark()
}
