//! `fsm log verify`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use fsm_store::{LogSummary, OnDamage, Options, SledLog};
use serde::Serialize;

use super::output::human_bytes;
use super::{Format, Out};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The log's directory; no other process may have it open.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Put what is damaged aside, with everything after it, and let the log go on.
    #[arg(long)]
    repair: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The outcome for programs.
#[derive(Debug, Serialize)]
struct Verified {
    intact: bool,
    frames: u64,
    records: u64,
    first: u64,
    last: u64,
    hash: String,
    /// Seqs that were lost and repaired, first and last.
    gaps: Vec<(u64, u64)>,
    damages: Vec<String>,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<()> {
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

fn verified(summary: &LogSummary) -> Verified {
    Verified {
        intact: summary.damages.is_empty(),
        frames: summary.frames,
        records: summary.records,
        first: summary.first.0,
        last: summary.last.0,
        hash: summary.hash.to_string(),
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
