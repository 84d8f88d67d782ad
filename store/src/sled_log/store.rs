//! The stored log, shared by the committer and the readers.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::durable::sync_engine_in;
use super::engine::{engine, open_engine};
use super::place::Place;
use crate::frame::{self, FrameError, FrameHash, FrameHeader};
use crate::{Damage, Error, RecordBatch, Seq};

/// Committed batches that are kept in memory for those who follow the end of the log.
const RECENT_BATCHES: usize = 64;

/// In the tree of marks: the oldest seq that is kept, and the hash of the frame before it.
const FLOOR: &[u8] = b"floor";

#[derive(Debug)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
    pub(super) db: sled::Db,
    /// Frames by their first seq (big-endian, so that the order of keys is the order of seqs).
    pub(super) frames: sled::Tree,
    pub(super) snapshots: sled::Tree,
    marks: sled::Tree,
    /// The last record that readers may see.
    committed: watch::Sender<Seq>,
    recent: Mutex<VecDeque<RecordBatch>>,
    first: AtomicU64,
    /// Bytes of all frames; counted when it is first asked for, and followed from then on.
    frame_bytes: OnceLock<AtomicU64>,
    pub(super) damage: Option<Error>,
    /// What is kept has to survive a power cut.
    pub(super) power: bool,
    /// Released after the engine.
    _place: Arc<Place>,
}

/// A frame as stored, under its key.
pub(super) struct StoredFrame {
    pub(super) first_seq: Seq,
    pub(super) bytes: sled::IVec,
}

impl Store {
    pub(super) fn open(place: Arc<Place>, cache_bytes: u64) -> Result<Self, Error> {
        let engine_dir = engine_dir(&place.dir);
        Self::open_engine_in(place, &engine_dir, cache_bytes)
    }

    /// With the engine's files in another directory than usual.
    pub(super) fn open_engine_in(place: Arc<Place>, engine_dir: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let dir = place.dir.clone();
        let db = open_engine(&dir, engine_dir, cache_bytes)?;
        let tree = |name| engine(&dir, "open its trees", || db.open_tree(name));
        let (frames, snapshots, marks) = (tree("frames")?, tree("snapshots")?, tree("marks")?);
        let (committed, _) = watch::channel(Seq::ZERO);
        let first = AtomicU64::new(1);
        let mut store = Self {
            frames,
            snapshots,
            marks,
            committed,
            recent: Mutex::default(),
            first,
            frame_bytes: OnceLock::new(),
            damage: None,
            power: false,
            _place: place,
            db,
            dir,
        };
        let floor = store.floor()?;
        *store.first.get_mut() = floor.map_or(1, |(first, _)| first.0);
        Ok(store)
    }

    /// The last record that readers may see.
    pub(super) fn last(&self) -> Seq {
        *self.committed.borrow()
    }

    pub(super) fn first(&self) -> Seq {
        Seq(self.first.load(Ordering::Acquire))
    }

    /// Tells when [`Self::last`] changes; fails once the log is closed.
    pub(super) fn follow(&self) -> watch::Receiver<Seq> {
        self.committed.subscribe()
    }

    /// Lets readers see a batch that has become durable.
    pub(super) fn publish(&self, batch: RecordBatch) {
        let Some(last) = batch.last().map(|record| record.seq) else { return };
        {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if recent.len() == RECENT_BATCHES {
                recent.pop_front();
            }
            recent.push_back(batch);
        }
        self.committed.send_replace(last);
    }

    /// Lets readers see what is stored up to here.
    pub(super) fn publish_stored(&self, last: Seq) {
        self.committed.send_replace(last);
    }

    /// The batch in memory that holds the record, if it is one of the last.
    pub(super) fn recent(&self, seq: Seq) -> Option<RecordBatch> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let place = recent.partition_point(|batch| batch.last().is_some_and(|record| record.seq < seq));
        let batch = recent.get(place)?;
        batch.first().is_some_and(|record| record.seq <= seq).then(|| Arc::clone(batch))
    }

    /// Stores a frame, and hands it to the kernel.
    pub(super) fn put_frame(&self, first_seq: Seq, bytes: Vec<u8>) -> Result<(), Error> {
        self.insert_frame(first_seq, bytes)?;
        self.flush()
    }

    /// Hands a frame to the storage engine. It survives nothing before the flush.
    pub(super) fn insert_frame(&self, first_seq: Seq, bytes: Vec<u8>) -> Result<(), Error> {
        let length = bytes.len() as u64;
        engine(&self.dir, "store a frame", || self.frames.insert(key(first_seq), bytes))?;
        if let Some(total) = self.frame_bytes.get() {
            total.fetch_add(length, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Bytes of all frames that are kept.
    pub(super) fn frame_bytes(&self) -> Result<u64, Error> {
        if let Some(total) = self.frame_bytes.get() {
            return Ok(total.load(Ordering::Acquire));
        }
        let mut total = 0;
        for frame in self.frames.range(key(self.first())..) {
            total += engine(&self.dir, "measure its frames", || frame)?.1.len() as u64;
        }
        // A frame that came meanwhile may be missing: the limit is no exact one.
        Ok(self.frame_bytes.get_or_init(|| AtomicU64::new(total)).load(Ordering::Acquire))
    }

    pub(super) fn flush(&self) -> Result<(), Error> {
        engine(&self.dir, "flush", || self.db.flush()).map(|_bytes| ())
    }

    /// As [`Self::flush`], and durable as far as is asked for. (Commits do this themselves, together with `HEAD`.)
    pub(super) fn make_durable(&self) -> Result<(), Error> {
        self.flush()?;
        if self.power { sync_engine_in(&engine_dir(&self.dir)) } else { Ok(()) }
    }

    /// The last frame that begins at `seq` or before it.
    pub(super) fn frame_at_or_before(&self, seq: Seq) -> Result<Option<StoredFrame>, Error> {
        let found = engine(&self.dir, "read a frame", || self.frames.range(..=key(seq)).next_back().transpose())?;
        found.map(|(key, bytes)| self.stored(&key, bytes)).transpose()
    }

    /// The first frame that begins at `seq` or after it.
    pub(super) fn frame_at_or_after(&self, seq: Seq) -> Result<Option<StoredFrame>, Error> {
        let found = engine(&self.dir, "read a frame", || self.frames.range(key(seq)..).next().transpose())?;
        found.map(|(key, bytes)| self.stored(&key, bytes)).transpose()
    }

    fn stored(&self, key: &[u8], bytes: sled::IVec) -> Result<StoredFrame, Error> {
        let first_seq = key.try_into().map(|key| Seq(u64::from_be_bytes(key))).map_err(|_| Error::Foreign {
            dir: self.dir.clone(),
            found: "a storage engine's files with keys that are no seqs".into(),
        })?;
        Ok(StoredFrame { first_seq, bytes })
    }

    /// What a frame that can't be used means for whoever asked for it.
    pub(super) fn frame_error(&self, first_seq: Seq, error: &FrameError) -> Error {
        match error {
            FrameError::Newer { found } => {
                Error::Newer { dir: self.dir.clone(), found: u32::from(*found), known: u32::from(frame::FORMAT) }
            }
            other => {
                let damage = Damage::Frame { first_seq, why: other.to_string() };
                Error::Damaged { dir: self.dir.clone(), damage, kept: Seq(first_seq.0.saturating_sub(1)) }
            }
        }
    }

    /// The oldest seq that is kept and the hash of the frame before it, if retention has dropped anything.
    pub(super) fn floor(&self) -> Result<Option<(Seq, FrameHash)>, Error> {
        let mark = engine(&self.dir, "read its marks", || self.marks.get(FLOOR))?;
        Ok(mark.and_then(|mark| {
            let (first, hash) = mark.split_first_chunk::<8>()?;
            Some((Seq(u64::from_le_bytes(*first)), FrameHash(hash.try_into().ok()?)))
        }))
    }

    pub(super) fn set_floor(&self, first: Seq, before: FrameHash) -> Result<(), Error> {
        let mark = [&first.0.to_le_bytes()[..], &before.0].concat();
        engine(&self.dir, "write its marks", || self.marks.insert(FLOOR, mark))?;
        self.make_durable()?;
        self.first.store(first.0, Ordering::Release);
        Ok(())
    }

    pub(super) fn remove_frame(&self, frame: &StoredFrame) -> Result<(), Error> {
        engine(&self.dir, "remove a frame", || self.frames.remove(key(frame.first_seq)))?;
        if let Some(total) = self.frame_bytes.get() {
            let length = frame.bytes.len() as u64;
            let _ = total.fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| Some(total.saturating_sub(length)));
        }
        Ok(())
    }

    pub(super) fn stored_bytes(&self) -> Result<u64, Error> {
        engine(&self.dir, "measure its files", || self.db.size_on_disk())
    }

    /// Runs something that waits for the disk where that blocks nobody.
    pub(super) fn in_background<T: Send + 'static>(
        store: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let store = Arc::clone(store);
        async move {
            let dir = store.dir.clone();
            // The only ways to fail are a panic in `work` and a runtime that shuts down.
            tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(Error::Closed { dir }))
        }
        .boxed()
    }
}

pub(super) fn engine_dir(dir: &Path) -> PathBuf {
    dir.join("sled")
}

fn key(seq: Seq) -> [u8; 8] {
    seq.0.to_be_bytes()
}

impl StoredFrame {
    /// The header, after checking the frame's checksum and that it lies where it belongs.
    pub(super) fn header(&self) -> Result<FrameHeader, FrameError> {
        let (header, _) = FrameHeader::open(&self.bytes)?;
        self.in_place(&header)?;
        Ok(header)
    }

    pub(super) fn decode(&self) -> Result<(FrameHeader, RecordBatch), FrameError> {
        let (header, records) = frame::decode(&self.bytes)?;
        self.in_place(&header)?;
        Ok((header, records))
    }

    pub(super) fn hash(&self) -> FrameHash {
        FrameHash::of(&self.bytes)
    }

    fn in_place(&self, header: &FrameHeader) -> Result<(), FrameError> {
        if header.first_seq == self.first_seq {
            Ok(())
        } else {
            Err(FrameError::Header("its first seq is not the one it is stored under"))
        }
    }
}
