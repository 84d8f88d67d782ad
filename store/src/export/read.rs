//! Reading an export: it is looked through once, and then answers like a log.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::{BLOCK_BYTES, END, ExportSummary, FORMAT, FRAME, HEADER_BYTES, MAGIC, REDACTED, SNAPSHOT};
use crate::frame::{self, FrameHash, FrameHeader, MAX_FRAME_BYTES};
use crate::packed::unpack;
use crate::{Entry, Error, EventLog, RecordBatch, Records, Retention, Seq, Snapshot, Timestamp};

/// An export as a log that takes no more records.
#[derive(Debug)]
pub struct ExportFile {
    content: Arc<Content>,
}

#[derive(Debug)]
struct Content {
    path: PathBuf,
    file: File,
    frames: Vec<(FrameHeader, Place)>,
    snapshots: Vec<(String, Seq, Place)>,
    summary: ExportSummary,
    /// Of the last frame.
    last_hash: Option<FrameHash>,
    damage: Option<Error>,
}

/// Where a block's content lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    length: u32,
}

impl ExportFile {
    /// Opens an export and checks all of it. What is before a damage can be read: see [`ExportFile::damage`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        let mut scan = Scan::new(&file);
        let mut content = Content {
            path: path.into(),
            file: file.try_clone().map_err(|error| Error::io(format!("open {}", path.display()), error))?,
            frames: Vec::new(),
            snapshots: Vec::new(),
            summary: ExportSummary::default(),
            last_hash: None,
            damage: None,
        };
        content.header(&mut scan)?;
        if let Err(why) = content.blocks(&mut scan)? {
            content.damage = Some(Error::ExportDamaged { path: path.into(), why, kept: content.summary.last });
        }
        Ok(Self { content: Arc::new(content) })
    }

    /// Whether a file begins as exports do.
    pub fn is_one(path: &Path) -> bool {
        let mut magic = [0; MAGIC.len()];
        File::open(path).and_then(|file| file.read_exact_at(&mut magic, 0)).is_ok() && magic == *MAGIC
    }

    /// What it holds.
    pub fn summary(&self) -> ExportSummary {
        self.content.summary
    }

    /// What is wrong with it; records and snapshots before that can be used.
    pub fn damage(&self) -> Option<&Error> {
        self.content.damage.as_ref()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.content.path
    }

    /// Every frame as stored, in order, with its header.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Result<(FrameHeader, Vec<u8>), Error>> {
        self.content.frames.iter().map(|(header, place)| Ok((header.clone(), self.content.bytes(*place)?)))
    }

    /// Every snapshot as stored: name, seq, packed bytes.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = Result<(&str, Seq, Vec<u8>), Error>> {
        let snapshots = self.content.snapshots.iter();
        snapshots.map(|(name, seq, place)| Ok((name.as_str(), *seq, self.content.bytes(*place)?)))
    }

    fn refuse<T: Send + 'static>(&self) -> BoxFuture<'static, Result<T, Error>> {
        let path = self.content.path.clone();
        async move { Err(Error::ReadOnly { path }) }.boxed()
    }
}

impl Content {
    fn header(&mut self, scan: &mut Scan<'_>) -> Result<(), Error> {
        let foreign = |found| Error::NoExport { path: self.path.clone(), found };
        let head = scan.take(HEADER_BYTES).map_err(|error| self.unreadable(error))?;
        let (Some(MAGIC), Some(&[format, format_high, flags, flags_high])) = (head.first_chunk(), head.last_chunk())
        else {
            return Err(foreign("it does not begin with \"FSMX\""));
        };
        let format = u16::from_le_bytes([format, format_high]);
        if format > FORMAT {
            return Err(Error::Newer { dir: self.path.clone(), found: u32::from(format), known: u32::from(FORMAT) });
        }
        self.summary.redacted = u16::from_le_bytes([flags, flags_high]) & REDACTED != 0;
        Ok(())
    }

    /// Looks through all blocks; `Err` within says what is damaged.
    fn blocks(&mut self, scan: &mut Scan<'_>) -> Result<Result<(), String>, Error> {
        loop {
            let before = scan.hash.clone();
            let at = scan.at;
            let head = scan.take(BLOCK_BYTES).map_err(|error| self.unreadable(error))?;
            let Some(&[kind, 0, 0, 0, a, b, c, d]) = head.first_chunk() else {
                return Ok(Err(format!("it ends, or is no export any more, at byte {at}")));
            };
            let place = Place { at: scan.at, length: u32::from_le_bytes([a, b, c, d]) };
            if u64::from(place.length) > MAX_FRAME_BYTES {
                return Ok(Err(format!("the block at byte {at} is larger than any can be")));
            }
            let content = scan.take(place.length as usize).map_err(|error| self.unreadable(error))?;
            if content.len() < place.length as usize {
                return Ok(Err(format!("it ends in the middle of the block at byte {at}")));
            }
            let noted = match kind {
                FRAME => self.note_frame(&content, place),
                SNAPSHOT => self.note_snapshot(&content, place),
                END => return Ok(self.check_end(&content, &head, before)),
                _ => Err("is of an unknown kind".to_owned()),
            };
            if let Err(why) = noted {
                return Ok(Err(format!("the block at byte {at} {why}")));
            }
        }
    }

    fn note_frame(&mut self, bytes: &[u8], place: Place) -> Result<(), String> {
        let (header, _) = frame::FrameHeader::open(bytes).map_err(|error| format!("is no intact frame: {error}"))?;
        if self.last_hash.is_some_and(|last| last != header.previous) || header.first_seq <= self.summary.last {
            return Err("does not continue the frame before it".to_owned());
        }
        self.last_hash = Some(FrameHash::of(bytes));
        let summary = &mut self.summary;
        if summary.frames == 0 {
            (summary.first, summary.first_time) = (header.first_seq, header.first_time);
        }
        (summary.last, summary.last_time) = (header.last_seq(), header.last_time);
        summary.records += u64::from(header.count);
        summary.frames += 1;
        self.frames.push((header, place));
        Ok(())
    }

    fn note_snapshot(&mut self, content: &[u8], place: Place) -> Result<(), String> {
        let parsed = || {
            let (length, rest) = content.split_first_chunk::<2>()?;
            let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            let (seq, packed) = rest.split_first_chunk::<8>()?;
            Some((std::str::from_utf8(name).ok()?.to_owned(), Seq(u64::from_le_bytes(*seq)), packed.len() as u32))
        };
        let (name, seq, length) = parsed().ok_or("is no snapshot")?;
        let place = Place { at: place.at + u64::from(place.length - length), length };
        self.snapshots.push((name, seq, place));
        self.summary.snapshots += 1;
        Ok(())
    }

    fn check_end(&self, content: &[u8], head: &[u8], mut hash: digest::Context) -> Result<(), String> {
        let said = content.len().checked_sub(digest::SHA256_OUTPUT_LEN).and_then(|at| content.split_at_checked(at));
        let (numbers, checksum) = said.ok_or("its last block is no end")?;
        hash.update(head);
        hash.update(numbers);
        if hash.finish().as_ref() != checksum {
            return Err("its checksum does not fit what it holds".to_owned());
        }
        let held: Vec<u8> = self.summary.numbers().iter().flat_map(|number| number.to_le_bytes()).collect();
        if held != numbers { Err("it holds something else than it says".to_owned()) } else { Ok(()) }
    }

    fn bytes(&self, place: Place) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; place.length as usize];
        self.file.read_exact_at(&mut bytes, place.at).map_err(|error| self.unreadable(error))?;
        Ok(bytes)
    }

    fn unreadable(&self, error: io::Error) -> Error {
        Error::io(format!("read {}", self.path.display()), error)
    }

    /// The records of the frame at `index` from `from` on.
    fn batch(&self, index: usize, from: Seq) -> Result<RecordBatch, Error> {
        let (header, place) = &self.frames[index];
        let (_, records) = frame::decode(&self.bytes(*place)?).map_err(|error| Error::ExportDamaged {
            path: self.path.clone(),
            why: format!("the frame that begins at seq {}: {error}", header.first_seq),
            kept: Seq(header.first_seq.0 - 1),
        })?;
        let begin = records.partition_point(|record| record.seq < from);
        Ok(if begin == 0 { records } else { records[begin..].into() })
    }

    fn at(&self, time: Timestamp) -> Result<Seq, Error> {
        let begun = self.frames.partition_point(|(header, _)| header.first_time <= time);
        let Some(index) = begun.checked_sub(1) else { return Ok(Seq::ZERO) };
        let records = self.batch(index, Seq::ZERO)?;
        let there = records.partition_point(|record| record.time <= time);
        Ok(there.checked_sub(1).map_or(Seq::ZERO, |last| records[last].seq))
    }

    fn latest_snapshot(&self, name: &str, at_or_before: Seq) -> Result<Option<Snapshot>, Error> {
        let mut fitting: Vec<_> =
            self.snapshots.iter().filter(|(its, seq, _)| its == name && *seq <= at_or_before).collect();
        fitting.sort_by_key(|(_, seq, _)| *seq);
        for (_, seq, place) in fitting.into_iter().rev() {
            match unpack(&self.bytes(*place)?) {
                Some(bytes) => return Ok(Some(Snapshot { seq: *seq, bytes })),
                None => tracing::warn!(name, %seq, "a snapshot is damaged; using an older one"),
            }
        }
        Ok(None)
    }
}

impl EventLog for ExportFile {
    fn append(&self, _: Vec<Entry>) -> BoxFuture<'static, Result<Seq, Error>> {
        self.refuse()
    }

    fn read(&self, from: Seq) -> Records {
        let content = Arc::clone(&self.content);
        let first = self.first();
        if from != Seq::ZERO && from < first {
            return stream::iter([Err(Error::Compacted { from, first })]).boxed();
        }
        let begin = content.frames.partition_point(|(header, _)| header.last_seq() < from);
        stream::iter(begin..content.frames.len()).map(move |index| content.batch(index, from)).boxed()
    }

    /// An export gets no more records: the same as [`EventLog::read`].
    fn tail(&self, from: Seq) -> Records {
        self.read(from)
    }

    fn at(&self, time: Timestamp) -> BoxFuture<'static, Result<Seq, Error>> {
        let found = self.content.at(time);
        async move { found }.boxed()
    }

    fn last(&self) -> Seq {
        self.content.summary.last
    }

    fn first(&self) -> Seq {
        self.content.summary.first.max(Seq(1))
    }

    fn snapshot(&self, _: &str, _: Seq, _: Vec<u8>) -> BoxFuture<'static, Result<(), Error>> {
        self.refuse()
    }

    fn latest_snapshot(&self, name: &str, at_or_before: Seq) -> BoxFuture<'static, Result<Option<Snapshot>, Error>> {
        let found = self.content.latest_snapshot(name, at_or_before);
        async move { found }.boxed()
    }

    fn compact(&self, _: Seq) -> BoxFuture<'static, Result<Seq, Error>> {
        self.refuse()
    }

    fn retain(&self, _: Retention, _: Timestamp) -> BoxFuture<'static, Result<Seq, Error>> {
        self.refuse()
    }
}

/// Reads a file from its beginning, and hashes what it reads.
struct Scan<'a> {
    reader: BufReader<&'a File>,
    hash: digest::Context,
    at: u64,
}

impl<'a> Scan<'a> {
    fn new(file: &'a File) -> Self {
        let hash = digest::Context::new(&digest::SHA256);
        Self { reader: BufReader::with_capacity(1 << 20, file), hash, at: 0 }
    }

    /// The next bytes; fewer at the file's end.
    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        self.reader.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        self.hash.update(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}
