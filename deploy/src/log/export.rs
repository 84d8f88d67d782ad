//! `fsm log export` and `fsm log import`: history as one file.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use fsm_actors::core::{SNAPSHOT, Skips, rebuild, snapshot};
use fsm_store::{EventLog, ExportFile, ExportSummary, ExportWriter, Seq, SledLog};
use futures::TryStreamExt;
use serde_json::json;

use super::moment::time_text;
use super::output::human_bytes;
use super::redact::{redact, redact_snapshot};
use super::{Format, History, HistoryArgs, Moment, Out};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// The first record: a seq, a time, or a while ago. What was before goes into the file as one snapshot.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// The last record.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// Take out what may be private and no decision of the mesh depends on: environment, arguments, foreign annotations.
    #[arg(long)]
    redact: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// The file to write; it must not be there yet.
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A file that `fsm log export` wrote.
    file: PathBuf,
    /// The directory that becomes a log; it must be empty, or not be there yet.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: ExportArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let from = match args.from {
        // The first record at that time or after it.
        Some(Moment::Seq(seq)) => seq.max(Seq(1)),
        Some(moment) => history.resolve(moment).await?.next(),
        None => Seq::ZERO,
    };
    let to = match args.to {
        Some(moment) => history.resolve(moment).await?,
        None => Seq(u64::MAX),
    };
    ensure!(from <= to, "there is nothing from seq {from} to seq {to}: --from has to be before --to");
    ensure!(!args.file.exists(), "{} is there already: name a new file", args.file.display());

    // Under another name until it is whole.
    let partial = args.file.with_extension("partial");
    let written = write(&history, from, to, args.redact, &partial).await;
    let summary = match written {
        Ok(summary) => summary,
        Err(error) => {
            drop(fs::remove_file(&partial));
            return Err(error);
        }
    };
    fs::rename(&partial, &args.file).with_context(|| format!("can't write {}", args.file.display()))?;
    say(args.output, "exported", &summary, &args.file)
}

async fn write(history: &History, from: Seq, to: Seq, redacted: bool, path: &Path) -> anyhow::Result<ExportSummary> {
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    let mut writer = ExportWriter::new(BufWriter::new(file), path, redacted)?;
    let mut start = from;
    if let Some(log) = history.log() {
        start = from.max(log.first());
        if let Some((seq, bytes)) = before(log, start).await? {
            let bytes = if redacted { redact_snapshot(&bytes)? } else { bytes };
            writer.snapshot(SNAPSHOT, seq, &bytes)?;
        }
    } else {
        ensure!(from <= Seq(1), "only a log's directory or an export can be exported in part: leave --from out");
    }
    let mut records = history.records(start, false);
    while let Some(batch) = records.try_next().await? {
        let end = batch.partition_point(|record| record.seq <= to);
        if redacted {
            writer.records(&batch[..end].iter().map(redact).collect::<Vec<_>>())?;
        } else {
            writer.records(&batch[..end])?;
        }
        if end < batch.len() {
            break;
        }
    }
    let (file, summary) = writer.finish()?;
    ensure!(summary.records > 0, "{} has no records there", history.place());
    let file = file.into_inner().map_err(|error| error.into_error())?;
    file.sync_all().with_context(|| format!("can't write {}", path.display()))?;
    Ok(summary)
}

/// The state before a record, as a snapshot; none before the first.
async fn before(log: &dyn EventLog, from: Seq) -> anyhow::Result<Option<(Seq, Vec<u8>)>> {
    if from <= Seq(1) {
        return Ok(None);
    }
    let core = rebuild(log, Seq(from.0 - 1), Skips::new()).await?;
    Ok((core.seq() > Seq::ZERO).then(|| (core.seq(), snapshot::write(&core))))
}

pub(super) fn import(args: ImportArgs) -> anyhow::Result<()> {
    let export = ExportFile::open(&args.file)?;
    SledLog::import(&args.data_dir, &export)?;
    say(args.output, "imported", &export.summary(), &args.data_dir)
}

fn say(format: Format, done: &str, summary: &ExportSummary, place: &Path) -> anyhow::Result<()> {
    let mut out = Out::new();
    let size = fs::metadata(place).map_or(0, |file| if file.is_file() { file.len() } else { 0 });
    match format {
        Format::Json => out.json(&json!({
            "place": place.display().to_string(),
            "records": summary.records,
            "first": summary.first,
            "last": summary.last,
            "snapshots": summary.snapshots,
            "redacted": summary.redacted,
        }))?,
        Format::Text => {
            let redacted = if summary.redacted { ", redacted" } else { "" };
            let size = if size > 0 { format!(", {}", human_bytes(size)) } else { String::new() };
            out.line(format_args!(
                "{done} {} records (seq {} to {}, {} to {}){redacted}{size}: {}",
                summary.records,
                summary.first,
                summary.last,
                time_text(summary.first_time),
                time_text(summary.last_time),
                place.display()
            ))?;
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests;
