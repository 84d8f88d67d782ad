//! The flags of a stretch of history together with a request: both have a beginning and an end, `--from` and `--to`.

use clap::Args;
use fsm_store::Seq;

use super::misuse::Misuse;
use super::past::upto;
use super::request::{Question, RequestFlags};
use crate::log::{History, Moment};

/// `--from` and `--to` may each be given twice, as what they are can be told apart: a moment, and who asks or is asked.
#[derive(Debug, Args)]
pub(super) struct Stretch {
    /// The earlier moment (a seq, an RFC 3339 time, or -5m); given once more, the workload that asks, as with --client.
    #[arg(long, value_name = "SEQ|TIME|POD", allow_hyphen_values = true)]
    from: Vec<String>,
    /// The later moment; given once more, who is asked, as with --server.
    #[arg(long, value_name = "SEQ|TIME|HOST:PORT", allow_hyphen_values = true)]
    to: Vec<String>,
    /// Who asks: <namespace>/<pod>, or a workload, whose first pod is taken.
    #[arg(long, value_name = "POD")]
    client: Option<String>,
    /// Who is asked: a host as the application would write it, with the port.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    flags: RequestFlags,
}

impl Stretch {
    /// The seqs of the two moments, as far as they are given: a stretch has an order.
    pub(super) async fn ends(&self, history: &History) -> anyhow::Result<(Option<Seq>, Option<Seq>)> {
        let from = sorted("--from", &self.from, None)?.0;
        let to = sorted("--to", &self.to, None)?.0;
        let from = match from {
            Some(moment) => Some(upto(history, Some(moment)).await?),
            None => None,
        };
        let to = match to {
            Some(moment) => Some(upto(history, Some(moment)).await?),
            None => None,
        };
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(
                Misuse(format!("--from is seq {from} and --to is seq {to}: the earlier moment comes first")).into()
            );
        }
        Ok((from, to))
    }

    /// The request, if one is described.
    pub(super) fn question(&self) -> anyhow::Result<Option<Question>> {
        let client = sorted("--from", &self.from, self.client.clone())?.1;
        let server = sorted("--to", &self.to, self.server.clone())?.1;
        match (client, server) {
            (Some(client), Some(server)) => Ok(Some(Question::new(&client, &server, &self.flags)?)),
            (None, None) => Ok(None),
            (Some(client), None) => {
                Err(Misuse(format!("{client} asks, and whom? name it with --server HOST:PORT")).into())
            }
            (None, Some(server)) => {
                Err(Misuse(format!("{server} is asked, and by whom? name it with --client POD")).into())
            }
        }
    }
}

/// The moment and the other thing among the values of a flag.
fn sorted(flag: &str, values: &[String], other: Option<String>) -> Result<(Option<Moment>, Option<String>), Misuse> {
    let (mut moment, mut other) = (None, other);
    for value in values {
        let twice = match value.parse() {
            Ok(read) => moment.replace(read).map(|_| "moment"),
            Err(_) if value.starts_with('-') => {
                return Err(Misuse(format!("{flag} {value}: no while ago, as -5m would be")));
            }
            Err(_) => other.replace(value.clone()).map(|_| "end of the request"),
        };
        if let Some(what) = twice {
            return Err(Misuse(format!("{flag} {value}: a {what} was given already")));
        }
    }
    Ok((moment, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sort(values: &[&str]) -> Result<(Option<Moment>, Option<String>), String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        sorted("--from", &values, None).map_err(|misuse| misuse.to_string())
    }

    #[test]
    fn moments_and_ends_of_a_request_are_told_apart() {
        assert_eq!(sort(&["12", "shop/web-0"]), Ok((Some(Moment::Seq(Seq(12))), Some("shop/web-0".to_owned()))));
        assert_eq!(sort(&["web.shop:80", "-5m"]).unwrap().1, Some("web.shop:80".to_owned()));
        assert_eq!(sort(&["2026-11-22T14:03:00Z"]).unwrap().1, None);
        assert!(sort(&["1", "2"]).unwrap_err().contains("a moment was given already"));
        assert!(sort(&["a/b", "c/d"]).unwrap_err().contains("end of the request was given already"));
        assert!(sort(&["-5y"]).unwrap_err().contains("no while ago"));
    }
}
