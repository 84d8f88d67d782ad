//! `fsm log stat`.

use std::collections::BTreeMap;

use clap::Args;
use fsm_store::{LogSummary, Seq, Timestamp};
use futures::TryStreamExt;
use serde::Serialize;

use super::moment::time_text;
use super::output::human_bytes;
use super::source::History;
use super::{Format, HistoryArgs, Out};

#[derive(Debug, Args)]
pub(super) struct StatArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Default, Serialize)]
struct Stat {
    place: String,
    records: u64,
    first: u64,
    last: u64,
    first_time: String,
    last_time: String,
    topics: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
}

/// What only the one who has the files knows.
#[derive(Debug, Serialize)]
struct Stored {
    frames: u64,
    frame_bytes: u64,
    record_bytes: u64,
    disk_bytes: u64,
    hash: String,
}

pub(super) async fn run(args: StatArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let mut stat = count(&history).await?;
    if let History::Dir(log) = &history {
        let summary = log.verify(|_| ())?;
        stat.stored = Some(Stored::new(&summary, log.stored_bytes()?));
    }
    let mut out = Out::new();
    match args.output {
        Format::Json => out.json(&stat)?,
        Format::Text => out.table(&stat.rows())?,
    }
    Ok(out.flush()?)
}

async fn count(history: &History) -> anyhow::Result<Stat> {
    let mut stat = Stat { place: history.place(), ..Stat::default() };
    let mut times: Option<(Timestamp, Timestamp)> = None;
    let mut records = history.records(Seq::ZERO, false);
    while let Some(batch) = records.try_next().await? {
        for record in batch.iter() {
            if stat.records == 0 {
                stat.first = record.seq.0;
            }
            stat.records += 1;
            stat.last = record.seq.0;
            times = Some((times.map_or(record.time, |(first, _)| first), record.time));
            *stat.topics.entry(record.entry.topic.to_string()).or_default() += 1;
        }
    }
    if let Some((first, last)) = times {
        (stat.first_time, stat.last_time) = (time_text(first), time_text(last));
    }
    Ok(stat)
}

impl Stored {
    fn new(summary: &LogSummary, disk_bytes: u64) -> Self {
        Self {
            frames: summary.frames,
            frame_bytes: summary.frame_bytes,
            record_bytes: summary.record_bytes,
            disk_bytes,
            hash: summary.hash.to_string(),
        }
    }
}

impl Stat {
    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row("log", self.place.clone())];
        if self.records == 0 {
            rows.push(row("records", "none"));
            return rows;
        }
        rows.push(row("records", format!("{} (seq {} to {})", self.records, self.first, self.last)));
        rows.push(row("time", format!("{} to {}", self.first_time, self.last_time)));
        if let Some(stored) = &self.stored {
            let each = self.records as f64 / stored.frames.max(1) as f64;
            rows.push(row("frames", format!("{} ({each:.1} records each)", stored.frames)));
            let size = format!(
                "{} of records in {} of frames, {} on disk",
                human_bytes(stored.record_bytes),
                human_bytes(stored.frame_bytes),
                human_bytes(stored.disk_bytes)
            );
            rows.push(row("size", size));
            rows.push(row("hash", stored.hash.clone()));
        }
        let topics = self.topics.iter().enumerate();
        rows.extend(topics.map(|(place, (topic, count))| {
            row(if place == 0 { "topics" } else { "" }, format!("{topic:12} {count:>8}"))
        }));
        rows
    }
}

fn row(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.into(), value.into()]
}
