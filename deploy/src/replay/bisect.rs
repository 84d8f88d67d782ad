//! `fsm replay bisect`: the first record after which the answer to a request was another one.

mod reach;
mod search;

use std::str::FromStr;

use anyhow::bail;
use clap::Args;
use fsm_proxy_config::Verdict;
use fsm_store::Seq;

use self::search::{Outcome, Search};
use super::columns::columns;
use super::misuse::Misuse;
use super::paint::Paint;
use super::past::oldest;
use super::request::{Answer, Question, summary, verdict};
use super::stretch::Stretch;
use crate::log::{Format, HistoryArgs, Out};

#[derive(Debug, Args)]
pub(super) struct BisectArgs {
    #[command(flatten)]
    history: HistoryArgs,
    #[command(flatten)]
    stretch: Stretch,
    /// The answer that is expected: allowed, denied, or backend=NAME (it may go to that service).
    #[arg(long, value_name = "ANSWER")]
    expect: Expect,
    /// Look at every record for the very first change, instead of jumping from snapshot to snapshot for one.
    #[arg(long)]
    first: bool,
    /// As --first, and apply every record, also those of objects that the answer cannot depend on.
    #[arg(long)]
    thorough: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What is expected of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Allowed,
    Denied,
    /// `ns/name` or `name` of a service among its backends.
    Backend(String),
}

/// Why a text is no expectation.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no answer: expected allowed, denied or backend=NAME")]
pub(super) struct InvalidExpect(String);

impl FromStr for Expect {
    type Err = InvalidExpect;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "allowed" => Ok(Self::Allowed),
            None if text == "denied" => Ok(Self::Denied),
            Some(("backend", name)) if !name.is_empty() => Ok(Self::Backend(name.to_owned())),
            _ => Err(InvalidExpect(text.to_owned())),
        }
    }
}

impl Expect {
    /// Whether an answer is as expected. If nobody is there to ask, nothing is.
    fn holds(&self, answer: Option<&Answer>) -> bool {
        let Some(answer) = answer else { return false };
        match self {
            Self::Allowed => answer.verdict == Verdict::Allowed,
            Self::Denied => answer.verdict == Verdict::Denied,
            Self::Backend(name) => answer.journey.backends.iter().any(|backend| {
                backend.service == *name || backend.service.split_once('/').is_some_and(|(_, bare)| bare == name)
            }),
        }
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Denied => f.write_str("denied"),
            Self::Backend(name) => write!(f, "backend={name}"),
        }
    }
}

pub(super) async fn run(args: BisectArgs) -> anyhow::Result<()> {
    let Some(question) = args.stretch.question()? else {
        return Err(Misuse("bisect looks for a change in the answer to a request: describe it with --client POD and --server HOST:PORT".into()).into());
    };
    let history = args.history.open()?;
    let (from, to) = args.stretch.ends(&history).await?;
    let search = Search { question: &question, expect: &args.expect, first: args.first, thorough: args.thorough };
    let from = match from {
        Some(from) => from,
        None => oldest(&history).await?,
    };
    let outcome = search.run(&history, from, to.unwrap_or(Seq(u64::MAX))).await?;
    let mut out = Out::new();
    match args.output {
        Format::Json => out.pretty_json(&outcome)?,
        Format::Text => lines(Paint::stdout(), &question, &outcome).into_iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()?;
    if outcome.found.is_none() {
        let never = if outcome.holds_at_from { "always" } else { "never" };
        bail!(
            "the answer was {never} as expected ({}) from seq {} to seq {}: {}",
            args.expect,
            outcome.from,
            outcome.to,
            looked_at(&outcome)
        );
    }
    Ok(())
}

fn lines(paint: Paint, question: &Question, outcome: &Outcome) -> Vec<String> {
    let mut lines = vec![paint.bold(question.title()), paint.dim(format!("from {}", question.from)), String::new()];
    let Some(found) = &outcome.found else { return lines };
    let word = |answer: &Option<Answer>| match answer {
        Some(answer) => format!("{}  {}", verdict(paint, answer.verdict), summary(answer)),
        None => "nobody there to ask".to_owned(),
    };
    let after = if outcome.holds_at_from { "is not as expected any more" } else { "is as expected" };
    lines.push(format!("after record {} the answer {after} ({})", paint.bold(found.record.seq), outcome.expect));
    lines.extend(columns("  ", &[found.record.row(paint)]));
    lines.push(String::new());
    lines.extend(columns(
        "",
        &[vec!["before".to_owned(), word(&found.before)], vec!["after".to_owned(), word(&found.after)]],
    ));
    lines.push(String::new());
    lines.push(paint.dim(looked_at(outcome)));
    if !outcome.first {
        lines.push(paint.dim("found from snapshot to snapshot: the answer may have changed and changed back before; --first looks at every record"));
    }
    lines
}

/// What the outcome rests on.
fn looked_at(outcome: &Outcome) -> String {
    let Outcome { asked, records, .. } = outcome;
    match outcome.concerned {
        None => format!("{asked} answers compared, on {records} records"),
        Some(concerned) => format!(
            "{asked} answers compared, on {records} records, of which {concerned} can concern the answer (--thorough applies all)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::Expect;

    #[test]
    fn expectations_are_read() {
        assert_eq!("allowed".parse::<Expect>().unwrap(), Expect::Allowed);
        assert_eq!("backend=shop/v2".parse::<Expect>().unwrap(), Expect::Backend("shop/v2".into()));
        for wrong in ["", "allow", "backend=", "backend", "denied=1"] {
            assert!(wrong.parse::<Expect>().is_err(), "{wrong}");
        }
    }
}
