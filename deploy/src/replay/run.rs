//! `fsm replay run`.

use std::convert::Infallible;

use anyhow::{bail, ensure};
use clap::Args;
use fsm_actors::Core;
use fsm_actors::core::{Panicked, Skips};
use fsm_actors::replay::{Expected, Verifier, VerifyReport};
use fsm_store::Seq;
use serde_json::json;

use super::past::{each_record, recompute};
use crate::log::{Format, History, HistoryArgs, Moment, Out};

/// How many differences are printed for people.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// Stop after this seq or time.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// Compare with every recorded state digest and every acknowledged configuration; a difference is a failure.
    #[arg(long)]
    verify: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let upto = match args.to {
        Some(moment) => history.resolve(moment).await?,
        None => Seq(u64::MAX),
    };
    let mut out = Out::new();
    if !args.verify {
        let past = recompute(&history, upto).await?;
        args.print_state(&mut out, &past.core)?;
        return Ok(out.flush()?);
    }
    let report = verify(&history, upto).await?;
    ensure!(report.records > 0, "{} has no records", history.place());
    args.print_report(&mut out, &report)?;
    out.flush()?;
    if !report.identical() {
        bail!("{} of what was recorded does not come out again", report.differences.len());
    }
    Ok(())
}

/// What was recorded about a seq comes after it, so history is read twice: a log of any length fits.
async fn verify(history: &History, upto: Seq) -> anyhow::Result<VerifyReport> {
    let mut expected = Expected::default();
    let noted = each_record(history, upto, |record| {
        expected.note(record);
        Ok::<_, Infallible>(())
    });
    noted.await?.unwrap_or_else(|never| match never {});
    let mut skips = Skips::new();
    loop {
        let mut verifier = Verifier::new(expected.clone(), skips.clone());
        match each_record(history, upto, |record| verifier.apply(record)).await? {
            Ok(()) => return Ok(verifier.finish()),
            Err(Panicked { machine, seq }) => skips.insert((machine, seq)),
        };
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
                "records": report.records,
                "states_checked": report.states_checked,
                "versions_checked": report.versions_checked,
                "identical": report.identical(),
                "differences": differences,
            });
            return Ok(out.json(&report)?);
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
