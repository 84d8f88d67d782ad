//! `fsm replay request`: what would have become of a request.

mod address;
mod ask;
mod text;

use clap::Args;
use serde_json::json;

pub(super) use self::ask::{Answer, Decider, Question, RequestFlags};
pub(super) use self::text::{summary, verdict};
use super::paint::Paint;
use super::past::At;
use crate::log::{Format, Out, time_text};

#[derive(Debug, Args)]
pub(super) struct RequestArgs {
    #[command(flatten)]
    at: At,
    /// Who asks: <namespace>/<pod>, or a workload, whose first pod is taken.
    #[arg(long, visible_alias = "client", value_name = "POD")]
    from: String,
    /// Who is asked: the name of a service as the application would write it, or an address; with the port.
    #[arg(long, visible_alias = "server", value_name = "HOST:PORT")]
    to: String,
    #[command(flatten)]
    flags: RequestFlags,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: RequestArgs) -> anyhow::Result<()> {
    let question = Question::new(&args.from, &args.to, &args.flags)?;
    let history = args.at.history()?;
    let past = args.at.past(&history).await?;
    let answer = question.ask(&past)?;
    let mut out = Out::new();
    if args.output == Format::Json {
        let answer = json!({
            "seq": past.core.seq(),
            "time": time_text(past.time),
            "request": question,
            "answer": answer,
        });
        out.pretty_json(&answer)?;
    } else {
        for line in text::lines(Paint::stdout(), &question, &answer, &past) {
            out.line(line)?;
        }
    }
    Ok(out.flush()?)
}
