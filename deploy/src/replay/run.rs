//! `fsm replay run`.

mod fork;
mod manifests;
mod probes;
mod sample;
mod text;
mod whatif;

use std::convert::Infallible;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use fsm_actors::Core;
use fsm_actors::core::{Panicked, Skips};
use fsm_actors::replay::{Expected, Verifier, VerifyReport};
use fsm_store::Seq;
use serde_json::json;

use self::fork::Hypothesis;
use self::whatif::WhatIf;
use super::misuse::Misuse;
use super::paint::Paint;
use super::past::{beginning, each_record, oldest, recompute};
use super::stretch::Stretch;
use crate::log::{Format, History, HistoryArgs, Out};

/// How many differences are printed for people.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    stretch: Stretch,
    /// As if these records had not been; may be given more than once, and with several seqs.
    #[arg(long, value_name = "SEQ", num_args = 1.., value_delimiter = ',')]
    without: Vec<u64>,
    /// As if these manifests had been applied: after --from if that is given, or else at the end.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "verify")]
    with: Vec<PathBuf>,
    /// Compare with every recorded state digest and every acknowledged configuration; a difference is a failure.
    #[arg(long, conflicts_with = "without")]
    verify: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let (from, to) = args.stretch.ends(&history).await?;
    let upto = to.unwrap_or(Seq(u64::MAX));
    let question = args.stretch.question()?;
    let mut out = Out::new();
    if !args.without.is_empty() || !args.with.is_empty() {
        let hypothesis = Hypothesis {
            without: args.without.iter().copied().map(Seq).collect(),
            with: manifests::read(&args.with)?,
            with_after: from.unwrap_or(upto),
            question,
        };
        let report = WhatIf::compute(&history, &hypothesis, upto).await?;
        match args.output {
            Format::Json => out.pretty_json(&report)?,
            Format::Text => text::lines(Paint::stdout(), &report).into_iter().try_for_each(|line| out.line(line))?,
        }
        return Ok(out.flush()?);
    }
    if question.is_some() {
        return Err(Misuse(
            "a request is compared between two histories: say what the other one is --without or --with".into(),
        )
        .into());
    }
    if !args.verify {
        let past = recompute(&history, upto).await?;
        args.print_state(&mut out, &past.core)?;
        return Ok(out.flush()?);
    }
    let report = verify(&history, from, upto).await?;
    ensure!(report.records > 0, "{} has no records", history.place());
    args.print_report(&mut out, &report)?;
    out.flush()?;
    if !report.identical() {
        bail!("{} of what was recorded does not come out again", report.differences.len());
    }
    Ok(())
}

/// Begins with the snapshot before `from`, or with the first state that history can tell. What was recorded about a seq comes after it, so
/// history is read twice: a log of any length fits.
async fn verify(history: &History, from: Option<Seq>, upto: Seq) -> anyhow::Result<VerifyReport> {
    let from = match from {
        Some(from) => from,
        None => oldest(history).await?,
    };
    let mut skips = Skips::new();
    let mut core = beginning(history, from, &skips).await?.core;
    let mut expected = Expected::default();
    let noted = each_record(history, core.seq(), upto, |record| {
        expected.note(record);
        Ok::<_, Infallible>(())
    });
    noted.await?.unwrap_or_else(|never| match never {});
    loop {
        let after = core.seq();
        let mut verifier = Verifier::new(core, expected.clone());
        match each_record(history, after, upto, |record| verifier.apply(record)).await? {
            Ok(()) => return Ok(verifier.finish()),
            Err(Panicked { machine, seq }) => skips.insert((machine, seq)),
        };
        core = beginning(history, from, &skips).await?.core;
    }
}

impl RunArgs {
    fn print_state(&self, out: &mut Out, core: &Core) -> anyhow::Result<()> {
        let digests = core.digests();
        if self.output == Format::Json {
            let digests: serde_json::Map<_, _> =
                digests.into_iter().map(|(machine, digest)| (machine, digest.to_string().into())).collect();
            let proxies = core.proxies().count();
            return Ok(out.json(&json!({ "seq": core.seq(), "proxies": proxies, "digests": digests }))?);
        }
        out.line(format_args!("recomputed up to seq {}, {} proxies", core.seq(), core.proxies().count()))?;
        let rows: Vec<_> = digests.into_iter().map(|(machine, digest)| vec![machine, digest.to_string()]).collect();
        Ok(out.table(&rows)?)
    }

    fn print_report(&self, out: &mut Out, report: &VerifyReport) -> anyhow::Result<()> {
        if self.output == Format::Json {
            let differences: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
            let report = json!({
                "from": report.from,
                "records": report.records,
                "states_checked": report.states_checked,
                "versions_checked": report.versions_checked,
                "identical": report.identical(),
                "differences": differences,
            });
            return Ok(out.json(&report)?);
        }
        if report.from > Seq::ZERO {
            out.line(format_args!("begun with the snapshot of seq {}", report.from))?;
        }
        out.line(format_args!("{:>9} records recomputed", report.records))?;
        out.line(format_args!("{:>9} recorded states compared", report.states_checked))?;
        out.line(format_args!("{:>9} acknowledged configurations compared", report.versions_checked))?;
        for difference in report.differences.iter().take(SHOWN) {
            out.line(format_args!("DIFFERENT: {difference}"))?;
        }
        match report.differences.len() {
            0 => out.line("identical")?,
            count if count > SHOWN => out.line(format_args!("and {} more", count - SHOWN))?,
            _ => {}
        }
        Ok(())
    }
}
