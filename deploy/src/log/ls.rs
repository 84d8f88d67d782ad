//! `fsm log ls`, `show` and `tail`.

mod summary;

pub(crate) use self::summary::of as summary_of;

use anyhow::{Context, bail};
use clap::Args;
use fsm_store::{Record, Seq};
use futures::TryStreamExt;
use serde_json::Value;

use super::moment::time_text;
use super::ndjson::trace_id;
use super::{Format, HistoryArgs, Moment, Out, json_line};

/// How many records are shown when there is no telling where to begin.
const LAST: usize = 20;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    filter: Filter,
    /// Begin at this seq or time (or -5m).
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
    /// End at this seq or time.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// The records that led up to this moment: the same as --to, with --last 20.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true, conflicts_with_all = ["from", "to"])]
    at: Option<Moment>,
    /// Only the last N of them.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    filter: Filter,
    /// Begin at this seq or time instead of the last records.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    from: Option<Moment>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Which record.
    seq: u64,
}

#[derive(Debug, Default, Args)]
struct Filter {
    /// Only records of this topic (object, ack, …); may be given more than once.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Only records whose key contains this, e.g. bookstore/ or v1/Pod.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
}

impl Filter {
    fn takes(&self, record: &Record) -> bool {
        (self.topic.is_empty() || self.topic.iter().any(|topic| *topic == *record.entry.topic))
            && self.key.as_ref().is_none_or(|part| record.entry.key.contains(part.as_str()))
    }
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let from = match args.from {
        Some(Moment::Seq(seq)) => seq,
        // The first record of that time is the one after the last before it.
        Some(Moment::Time(time)) => {
            history.resolve(Moment::Time(fsm_store::Timestamp(time.0.saturating_sub(1)))).await?.next()
        }
        Some(ago) => history.resolve(ago).await?.next(),
        None => Seq::ZERO,
    };
    let to = match args.to.or(args.at) {
        Some(moment) => history.resolve(moment).await?,
        None => Seq(u64::MAX),
    };
    let last = args.last.or(args.at.map(|_| LAST));

    let mut listing = Listing::new(args.output);
    let mut kept = std::collections::VecDeque::new();
    let mut records = history.records(from, false);
    'history: while let Some(batch) = records.try_next().await? {
        for record in batch.iter() {
            if record.seq > to {
                break 'history;
            }
            if !args.filter.takes(record) {
                continue;
            }
            match last {
                None => listing.print(record)?,
                Some(last) => {
                    kept.push_back(record.clone());
                    if kept.len() > last {
                        kept.pop_front();
                    }
                }
            }
        }
    }
    kept.iter().try_for_each(|record| listing.print(record))?;
    listing.end()
}

pub(super) async fn tail(args: TailArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let from = match args.from {
        Some(Moment::Seq(seq)) => seq,
        Some(moment) => history.resolve(moment).await?.next(),
        None => {
            let last = history.last().await?.map_or(0, |record| record.seq.0);
            Seq((last + 1).saturating_sub(LAST as u64))
        }
    };
    let mut listing = Listing::new(args.output);
    listing.out.live = true;
    let mut records = history.records(from, true);
    while let Some(batch) = records.try_next().await? {
        for record in batch.iter().filter(|record| args.filter.takes(record)) {
            listing.print(record)?;
        }
    }
    listing.end()
}

pub(super) async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let batch = history.records(Seq(args.seq), false).try_next().await?;
    let record = batch.as_ref().and_then(|batch| batch.first()).filter(|record| record.seq.0 == args.seq);
    let Some(record) = record else {
        bail!("{} has no record {}: `fsm log stat` says which there are", history.place(), args.seq);
    };
    let mut out = Out::new();
    if args.output == Format::Json {
        out.line(json_line(record)?)?;
    } else {
        out.line(format_args!("seq     {}", record.seq))?;
        out.line(format_args!("time    {}", time_text(record.time)))?;
        out.line(format_args!("topic   {}", record.entry.topic))?;
        out.line(format_args!("key     {}", record.entry.key))?;
        if let Some(trace) = trace_id(&record.entry.trace) {
            out.line(format_args!("trace   {trace}"))?;
        }
        out.line("")?;
        match serde_json::from_slice::<Value>(&record.entry.body) {
            Ok(body) => out.pretty_json(&body)?,
            Err(_) => out.line(String::from_utf8_lossy(&record.entry.body))?,
        }
    }
    out.flush().context("stdout")
}

/// Records in columns, or as lines of JSON.
struct Listing {
    out: Out,
    format: Format,
    header_printed: bool,
}

impl Listing {
    fn new(format: Format) -> Self {
        Self { out: Out::new(), format, header_printed: false }
    }

    fn print(&mut self, record: &Record) -> anyhow::Result<()> {
        if self.format == Format::Json {
            return Ok(self.out.line(json_line(record)?)?);
        }
        if !self.header_printed {
            self.header_printed = true;
            self.out.line(format_args!("{:>8}  {:24}  {:11}  {:58}  WHAT", "SEQ", "TIME", "TOPIC", "KEY"))?;
        }
        let what = summary::of(record);
        let line = format!(
            "{:>8}  {:24}  {:11}  {:58}  {what}",
            record.seq.0,
            time_text(record.time),
            record.entry.topic,
            record.entry.key
        );
        Ok(self.out.line(line.trim_end())?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }
}
