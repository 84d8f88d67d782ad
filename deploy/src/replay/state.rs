//! `fsm replay state`.

use anyhow::{Context, bail};
use clap::Args;
use fsm_actors::catalog::{Object, ObjectName};
use fsm_api::kinds::WATCHED;
use serde_json::{Value, json};

use super::format::Format;
use super::past::{At, Past};
use crate::log::{Out, time_text};

#[derive(Debug, Args)]
pub(super) struct StateArgs {
    #[command(flatten)]
    at: At,
    /// Only objects of this kind: Pod, pods, v1/Pod, trafficsplits, …
    kind: Option<String>,
    /// Only the object of this name, in full.
    #[arg(requires = "kind")]
    name: Option<String>,
    /// Only objects in this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Keep metadata.managedFields in JSON and YAML.
    #[arg(long)]
    show_managed_fields: bool,
}

/// An object of the past.
struct Found<'a> {
    gvk: &'a str,
    name: &'a ObjectName,
    object: &'a Object,
}

pub(super) async fn run(args: StateArgs) -> anyhow::Result<()> {
    let history = args.at.history()?;
    let past = args.at.past(&history).await?;
    let found = args.find(&past);
    let mut out = Out::new();
    if let Some(name) = &args.name {
        match found.as_slice() {
            [] => bail!(
                "there was no {} {name} at seq {} ({})",
                args.kind.as_deref().unwrap_or_default(),
                past.core.seq(),
                time_text(past.time)
            ),
            [one] => args.output.print(&mut out, &args.json(one)?)?,
            several => {
                let places: Vec<String> = several.iter().map(|found| format!("{} {}", found.gvk, found.name)).collect();
                bail!("{name} is ambiguous: say which with -n and the kind; there were {}", places.join(", "));
            }
        }
    } else if args.output == Format::Text {
        out.line(format_args!("seq {}, {}", past.core.seq(), time_text(past.time)))?;
        out.line("")?;
        out.table(&table(&found))?;
    } else {
        let items = found.iter().map(|found| args.json(found)).collect::<anyhow::Result<Vec<_>>>()?;
        let list = json!({ "seq": past.core.seq(), "time": time_text(past.time), "items": items });
        args.output.print(&mut out, &list)?;
    }
    Ok(out.flush()?)
}

impl StateArgs {
    fn find<'a>(&self, past: &'a Past) -> Vec<Found<'a>> {
        let objects = past.core.catalog().objects().iter();
        objects
            .map(|((gvk, name), object)| Found { gvk, name, object })
            .filter(|found| self.kind.as_deref().is_none_or(|kind| is_kind(found.gvk, kind)))
            .filter(|found| self.name.as_ref().is_none_or(|name| *name == found.name.name()))
            .filter(|found| self.namespace.as_ref().is_none_or(|namespace| *namespace == found.name.namespace()))
            .collect()
    }

    fn json(&self, found: &Found<'_>) -> anyhow::Result<Value> {
        let mut object: Value = serde_json::from_str(found.object.json.get())
            .with_context(|| format!("{} {} is no JSON", found.gvk, found.name))?;
        if !self.show_managed_fields
            && let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
        Ok(object)
    }
}

fn table(found: &[Found<'_>]) -> Vec<Vec<String>> {
    let header = ["KIND", "NAMESPACE", "NAME", "RECORD", "RESOURCE VERSION"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|found| {
        let object: Value = serde_json::from_str(found.object.json.get()).unwrap_or_default();
        let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
        vec![
            found.gvk.to_owned(),
            found.name.namespace().to_owned(),
            found.name.name().to_owned(),
            found.object.seq.to_string(),
            version.to_owned(),
        ]
    }));
    rows
}

/// Whether `asked` names the kind: `Pod`, `pods`, `v1/Pod`, in any case.
fn is_kind(gvk: &str, asked: &str) -> bool {
    let kind = gvk.rsplit('/').next().unwrap_or(gvk);
    let plural = WATCHED.iter().find(|info| info.gvk() == gvk).map(|info| info.plural);
    [Some(gvk), Some(kind), plural].into_iter().flatten().any(|name| name.eq_ignore_ascii_case(asked))
}

#[cfg(test)]
mod tests {
    use super::is_kind;

    #[test]
    fn a_kind_goes_by_all_its_names() {
        for asked in ["Pod", "pod", "pods", "v1/Pod"] {
            assert!(is_kind("v1/Pod", asked), "{asked}");
        }
        assert!(is_kind("split.smi-spec.io/v1alpha4/TrafficSplit", "trafficsplits"));
        assert!(!is_kind("v1/Pod", "Service"));
    }
}
