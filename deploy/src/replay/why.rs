//! `fsm replay why`: the records that made a resource what it is.

mod origins;
mod text;

use anyhow::{anyhow, bail};
use clap::Args;
use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_proxy_config::ResourceName;

use self::origins::Origins;
use super::paint::Paint;
use super::past::{At, Past};
use super::proxies;
use crate::log::{Format, Out};

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    at: At,
    /// The proxy: <namespace>/<pod>, or a workload, whose first pod is taken.
    #[arg(long, value_name = "POD")]
    proxy: String,
    /// The resource: its whole name (Split/bookstore/bookstore-split), or enough of it to tell it from others.
    #[arg(long, value_name = "NAME")]
    resource: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(args: WhyArgs) -> anyhow::Result<()> {
    let history = args.at.history()?;
    let past = args.at.past(&history).await?;
    let proxy = proxies::find(&past, &args.proxy)?;
    let name = resource(&past, &proxy, &args.resource)?;
    let origins = Origins::find(&history, &past, proxy, name).await?;
    let mut out = Out::new();
    match args.output {
        Format::Json => out.pretty_json(&origins)?,
        Format::Text => text::lines(Paint::stdout(), &origins).into_iter().try_for_each(|line| out.line(line))?,
    }
    Ok(out.flush()?)
}

/// The resource that a text means, of those that the proxy is told.
fn resource(past: &Past, proxy: &ObjectName, text: &str) -> anyhow::Result<ResourceName> {
    let config =
        past.core.config_of(proxy).ok_or_else(|| anyhow!("proxy {proxy} had no configuration at {}", past.moment()))?;
    if let Ok(name) = text.parse::<ResourceName>()
        && config.resources.contains_key(&name)
    {
        return Ok(name);
    }
    let ends = |name: &&ResourceName| name.to_string().ends_with(&format!("/{text}")) || name.kind.as_str() == text;
    let contains = |name: &&ResourceName| name.to_string().to_lowercase().contains(&text.to_lowercase());
    let mut meant: Vec<&ResourceName> = config.resources.keys().filter(ends).collect();
    if meant.is_empty() {
        meant = config.resources.keys().filter(contains).collect();
    }
    match meant.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let elsewhere = elsewhere(&past.core, text);
            let told: Vec<String> = config.resources.keys().map(ToString::to_string).collect();
            bail!(
                "proxy {proxy} was told no resource \"{text}\" at {}{elsewhere}; it was told {}",
                past.moment(),
                told.join(", ")
            )
        }
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!("\"{text}\" may mean {}: write which", names.join(", "))
        }
    }
}

/// Which other proxies are told a resource of that name.
fn elsewhere(core: &Core, text: &str) -> String {
    let Ok(name) = text.parse::<ResourceName>() else { return String::new() };
    let others =
        core.proxies().filter(|proxy| core.config_of(proxy).is_some_and(|set| set.resources.contains_key(&name)));
    let others: Vec<String> = others.take(5).map(ToString::to_string).collect();
    if others.is_empty() { String::new() } else { format!(" (others were: {})", others.join(", ")) }
}
