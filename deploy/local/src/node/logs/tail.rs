//! Reading what is stored: lines, and files that grow.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;

/// One stored line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub time: Timestamp,
    stamp: String,
    text: Vec<u8>,
    whole: bool,
}

impl Line {
    fn parse(stored: &[u8]) -> Option<Self> {
        let mut fields = stored.splitn(4, |b| *b == b' ');
        let stamp = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let (_, mark, text) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { time: stamp.parse().ok()?, stamp, text: text.to_vec(), whole: mark == b"F" })
    }

    pub fn show(&self, timestamps: bool) -> Bytes {
        let mut out = Vec::new();
        if timestamps {
            out.extend_from_slice(self.stamp.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(&self.text);
        if self.whole {
            out.push(b'\n');
        }
        out.into()
    }
}

/// Reads a growing file, across its rotation.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: BufReader<File>,
}

impl Tail {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: BufReader::new(File::open(path)?) })
    }

    /// The whole lines written since the last call.
    pub fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            self.read_file(&mut lines)?;
            let held = self.file.get_ref().metadata()?;
            let now = fs::metadata(&self.path);
            let same = |now: &fs::Metadata| now.ino() == held.ino();
            match now {
                Ok(now) if !same(&now) => self.file = BufReader::new(File::open(&self.path)?),
                _ => return Ok(lines),
            }
        }
    }

    fn read_file(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let mut stored = Vec::new();
        while self.file.read_until(b'\n', &mut stored)? > 0 {
            if stored.last() != Some(&b'\n') {
                // Written up to here only; it comes again, whole.
                self.file.seek(SeekFrom::Current(-i64::try_from(stored.len()).unwrap_or(0)))?;
                return Ok(());
            }
            stored.pop();
            lines.extend(Line::parse(&stored));
            stored.clear();
        }
        Ok(())
    }
}

/// All lines of a file; none if it is not there.
pub(super) fn read_all(path: &Path) -> io::Result<Vec<Line>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(_) => return Ok(Vec::new()),
    };
    Ok(text.split(|b| *b == b'\n').filter_map(Line::parse).collect())
}

/// Where the file is when it has been put aside.
pub(super) fn aside(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}
