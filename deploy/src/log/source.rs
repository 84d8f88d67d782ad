//! Where history is read from: a log's directory, a running controller, or an exported file.

mod controller;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use fsm_store::{EventLog, ExportFile, Options, Record, RecordBatch, Seq, SledLog, Timestamp};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};

pub(crate) use self::controller::Controller;
use super::{Moment, parse_line};

/// How many lines of a file make a batch.
const LINES: usize = 256;

/// Where to read history from.
#[derive(Clone, Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The log's directory, which no other process may have open; a file that `fsm log export` wrote; or lines as `fsm log ls -o json` prints them.
    #[arg(long, value_name = "DIR|FILE", group = "history")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The debug address of a running controller.
    #[arg(
        long,
        value_name = "URL",
        group = "history",
        default_value = "http://127.0.0.1:9092",
        conflicts_with = "data_dir"
    )]
    pub(crate) controller: String,
}

/// History, wherever it is.
pub(crate) enum History {
    Dir(SledLog),
    Controller(Controller),
    /// A file that `fsm log export` wrote.
    Export(ExportFile),
    /// Lines of JSON, as `fsm log ls -o json` prints them.
    File(PathBuf),
}

pub(crate) type Batches = BoxStream<'static, anyhow::Result<RecordBatch>>;

impl HistoryArgs {
    /// Opens it.
    pub(crate) fn open(&self) -> anyhow::Result<History> {
        match &self.data_dir {
            Some(dir) => History::open(dir.clone()),
            None => Ok(History::Controller(Controller::new(&self.controller)?)),
        }
    }
}

impl History {
    /// A log's directory, a file that `fsm log export` wrote, or lines of JSON.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        if ExportFile::is_one(&path) {
            let export = ExportFile::open(path)?;
            if let Some(damage) = export.damage() {
                eprintln!("warning: {damage}");
            }
            return Ok(Self::Export(export));
        }
        if path.is_file() {
            return Ok(Self::File(path));
        }
        let log = SledLog::open(path, Options::inspect())?;
        if let Some(damage) = log.damage() {
            eprintln!("warning: {damage}");
        }
        Ok(Self::Dir(log))
    }

    /// All records from `from` on; with `follow` also those to come.
    pub(crate) fn records(&self, from: Seq, follow: bool) -> Batches {
        match self {
            Self::Dir(log) if follow => log.tail(from).map_err(anyhow::Error::from).boxed(),
            Self::Dir(log) => log.read(from).map_err(anyhow::Error::from).boxed(),
            Self::Export(export) => export.read(from).map_err(anyhow::Error::from).boxed(),
            Self::Controller(controller) => controller.records(from, follow),
            Self::File(path) => read_file(path.clone(), from),
        }
    }

    /// The seq of a moment: of the last record that was there.
    pub(crate) async fn resolve(&self, moment: Moment) -> anyhow::Result<Seq> {
        let time = match moment {
            Moment::Seq(seq) => return Ok(seq),
            Moment::Time(time) => time,
            Moment::Ago { micros } => {
                let end = match self {
                    Self::File(_) | Self::Export(_) => self.last().await?.map_or(0, |record| record.time.0),
                    Self::Dir(_) | Self::Controller(_) => jiff::Timestamp::now().as_microsecond().unsigned_abs(),
                };
                Timestamp(end.saturating_sub(micros))
            }
        };
        if let Some(log) = self.log() {
            return Ok(log.at(time).await?);
        }
        let mut found = Seq::ZERO;
        let mut records = self.records(Seq::ZERO, false);
        while let Some(batch) = records.try_next().await? {
            let there = batch.partition_point(|record| record.time <= time);
            found = batch[..there].last().map_or(found, |record| record.seq);
            if there < batch.len() {
                break;
            }
        }
        Ok(found)
    }

    /// The log itself, with its snapshots, where it can be read in place.
    pub(crate) fn log(&self) -> Option<&dyn EventLog> {
        match self {
            Self::Dir(log) => Some(log),
            Self::Export(export) => Some(export),
            Self::Controller(_) | Self::File(_) => None,
        }
    }

    /// The last record.
    pub(crate) async fn last(&self) -> anyhow::Result<Option<Record>> {
        let from = match self {
            Self::Dir(log) => log.last().max(Seq(1)),
            Self::Export(export) => export.last().max(Seq(1)),
            Self::Controller(controller) => Seq(controller.status().await?.seq.max(1)),
            Self::File(_) => Seq::ZERO,
        };
        let mut records = self.records(from, false);
        let mut last = None;
        while let Some(batch) = records.try_next().await? {
            last = batch.last().cloned().or(last);
        }
        Ok(last)
    }

    /// Where it is, in words.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Dir(log) => log.dir().display().to_string(),
            Self::Export(export) => export.path().display().to_string(),
            Self::Controller(controller) => controller.url().to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// An open file, and where in it we are.
struct Reading {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    number: u64,
    last: Seq,
}

fn read_file(path: PathBuf, from: Seq) -> Batches {
    stream::try_unfold(None, move |reading: Option<Reading>| {
        let path = path.clone();
        async move {
            let mut reading = match reading {
                Some(reading) => reading,
                None => {
                    let file = File::open(&path).await.with_context(|| format!("can't open {}", path.display()))?;
                    Reading { path, lines: BufReader::new(file).lines(), number: 0, last: Seq::ZERO }
                }
            };
            let batch = reading.batch(from).await?;
            Ok::<_, anyhow::Error>((!batch.is_empty()).then(|| (Arc::from(batch), Some(reading))))
        }
    })
    .boxed()
}

impl Reading {
    async fn batch(&mut self, from: Seq) -> anyhow::Result<Vec<Record>> {
        let mut batch = Vec::new();
        while batch.len() < LINES {
            self.number += 1;
            let place = || format!("line {} of {}", self.number, self.path.display());
            let Some(line) = self.lines.next_line().await.with_context(place)? else { break };
            if line.trim().is_empty() {
                continue;
            }
            let record = parse_line(&line).with_context(place)?;
            anyhow::ensure!(
                record.seq > self.last,
                "{}: seq {} comes after {}; records have to be in order",
                place(),
                record.seq,
                self.last
            );
            self.last = record.seq;
            if record.seq >= from {
                batch.push(record);
            }
        }
        Ok(batch)
    }
}
