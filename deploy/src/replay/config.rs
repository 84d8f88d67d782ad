//! `fsm replay config`.

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use fsm_actors::Fact;
use fsm_actors::catalog::ObjectName;
use fsm_actors::fact::Ack;
use fsm_proxy_config::ConfigSet;
use fsm_store::Seq;
use futures::TryStreamExt;

use super::format;
use super::past::{At, Past};
use super::proxies;
use crate::log::{Out, time_text};

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    at: At,
    /// The proxy: <namespace>/<pod>, or a workload, whose first pod is taken.
    #[arg(long, value_name = "POD")]
    proxy: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The names of the resources, and the record that last changed each.
    #[default]
    Text,
    /// Everything, decoded.
    Json,
    Yaml,
    /// Only the digest, as proxies acknowledge it: SHA-256 over names and bytes of all resources.
    Digest,
}

pub(super) async fn run(args: ConfigArgs) -> anyhow::Result<()> {
    let history = args.at.history()?;
    let past = args.at.past(&history).await?;
    let proxy = proxies::find(&past, &args.proxy)?;
    let config = past
        .core
        .config_of(&proxy)
        .ok_or_else(|| anyhow!("proxy {proxy} had no configuration at {}", past.moment()))?;
    let mut out = Out::new();
    match args.output {
        Format::Digest => out.line(config.digest())?,
        Format::Json => format::Format::Json.print(&mut out, &config.to_json())?,
        Format::Yaml => format::Format::Yaml.print(&mut out, &config.to_json())?,
        Format::Text => {
            // An acknowledgement comes after what it acknowledges: it may lie behind the moment that was asked for.
            let mut last: Option<(Seq, Ack)> = None;
            let mut batches = history.records(Seq::ZERO, false);
            while let Some(batch) = batches.try_next().await? {
                for record in batch.iter().filter(|record| record.entry.topic == "ack") {
                    if let Ok(Fact::Ack(ack)) = Fact::parse(&record.entry)
                        && ack.proxy == proxy
                        && ack.seq <= past.core.seq()
                    {
                        last = Some((record.seq, ack));
                    }
                }
            }
            text(&mut out, &past, &proxy, &config, last.as_ref())?;
        }
    }
    Ok(out.flush()?)
}

fn text(
    out: &mut Out,
    past: &Past,
    proxy: &ObjectName,
    config: &ConfigSet,
    last: Option<&(Seq, Ack)>,
) -> anyhow::Result<()> {
    let digest = config.digest();
    out.line(format_args!("proxy         {proxy}"))?;
    out.line(format_args!("seq           {} ({})", past.core.seq(), time_text(past.time)))?;
    out.line(format_args!("digest        {digest}"))?;
    let acknowledged = match last {
        None => "never".into(),
        Some((record, ack)) if ack.digest == digest => {
            format!("seq {}, in record {record}: the same digest", ack.seq)
        }
        Some((record, ack)) => {
            format!("seq {}, in record {record}: {}, an earlier configuration", ack.seq, ack.digest)
        }
    };
    out.line(format_args!("acknowledged  {acknowledged}"))?;
    out.line("")?;
    let mut rows = vec![["RESOURCE", "RECORD", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(
        config
            .resources
            .iter()
            .map(|(name, entry)| vec![name.to_string(), entry.version.to_string(), entry.bytes.len().to_string()]),
    );
    Ok(out.table(&rows)?)
}
