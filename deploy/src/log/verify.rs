//! `fsm log verify`.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use fsm_store::{EventLog, ExportFile, LogSummary, OnDamage, Options, Seq, SledLog};
use futures::TryStreamExt;
use serde::Serialize;

use super::output::human_bytes;
use super::{Format, Out};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The log's directory, which no other process may have open; or a file that `fsm log export` wrote.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) data_dir: PathBuf,
    /// Put what is damaged aside, with everything after it, and let the log go on.
    #[arg(long)]
    pub(super) repair: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

/// The outcome for programs.
#[derive(Debug, Serialize)]
struct Verified {
    intact: bool,
    frames: u64,
    records: u64,
    first: u64,
    last: u64,
    /// Of the last frame of a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Seqs that were lost and repaired, first and last.
    gaps: Vec<(u64, u64)>,
    damages: Vec<String>,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<()> {
    if ExportFile::is_one(&args.data_dir) {
        return of_export(args).await;
    }
    let on_damage = if args.repair { OnDamage::PutAside } else { OnDamage::ReadIntact };
    let log = SledLog::open(&args.data_dir, Options { on_damage, ..Options::inspect() })?;
    let summary = log.verify(|_| ())?;
    let mut out = Out::new();
    match args.output {
        Format::Json => out.json(&verified(&summary))?,
        Format::Text => text(&summary).into_iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()?;
    if !summary.damages.is_empty() {
        bail!(
            "the log is damaged; `fsm log verify --data-dir {} --repair` puts what is damaged aside and lets it go on",
            args.data_dir.display()
        );
    }
    Ok(())
}

async fn of_export(args: VerifyArgs) -> anyhow::Result<()> {
    ensure!(
        !args.repair,
        "{} is an export, which cannot be repaired: export the history again",
        args.data_dir.display()
    );
    let export = ExportFile::open(&args.data_dir)?;
    let summary = export.summary();
    let mut damage = export.damage().map(ToString::to_string);
    // The checksums of frames are right; so should be what is in them.
    let read = export.read(Seq::ZERO).try_for_each(|_| async { Ok(()) }).await;
    damage = damage.or(read.err().map(|error| error.to_string()));
    let mut out = Out::new();
    match args.output {
        Format::Json => out.json(&Verified {
            intact: damage.is_none(),
            frames: summary.frames,
            records: summary.records,
            first: summary.first.0,
            last: summary.last.0,
            hash: None,
            gaps: Vec::new(),
            damages: damage.iter().cloned().collect(),
        })?,
        Format::Text => {
            let redacted = if summary.redacted { ", redacted" } else { "" };
            out.line(format!("an export of {} frames and {} snapshots{redacted}", summary.frames, summary.snapshots))?;
            out.line(format!(
                "{} records, seq {} to {}, in order of time",
                summary.records, summary.first, summary.last
            ))?;
            if damage.is_none() {
                out.line("checksums and records are right, and it is whole")?;
            }
        }
    }
    out.flush()?;
    damage.map_or(Ok(()), |damage| bail!(damage))
}

fn verified(summary: &LogSummary) -> Verified {
    Verified {
        intact: summary.damages.is_empty(),
        frames: summary.frames,
        records: summary.records,
        first: summary.first.0,
        last: summary.last.0,
        hash: Some(summary.hash.to_string()),
        gaps: summary.gaps.iter().map(|gap| (gap.from.0, gap.to.0)).collect(),
        damages: summary.damages.iter().map(ToString::to_string).collect(),
    }
}

fn text(summary: &LogSummary) -> Vec<String> {
    let mut lines = vec![
        format!("{} frames: checksums and records are right ({})", summary.frames, human_bytes(summary.frame_bytes)),
        format!("{} records, seq {} to {}, in order of time", summary.records, summary.first, summary.last),
    ];
    lines.extend(
        summary.gaps.iter().map(|gap| format!("seq {} to {} were lost; the log was repaired", gap.from, gap.to)),
    );
    if summary.damages.is_empty() {
        lines.push(format!("every frame continues the one before it, up to {}", summary.hash));
    }
    lines.extend(summary.damages.iter().map(|damage| format!("DAMAGED: {damage}")));
    lines
}
