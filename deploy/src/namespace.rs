//! `fsm namespace`: which namespaces belong to the mesh.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::install::default_client;

const MONITORED_BY: &str = "flomesh.io/monitored-by";
const IGNORE: &str = "flomesh.io/ignore";
const INJECTION: &str = "flomesh.io/sidecar-injection";

/// Add namespaces to the mesh, remove them, list them.
#[derive(Debug, Parser)]
#[command(visible_alias = "ns")]
pub struct NamespaceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add namespaces to the mesh; pods made from then on get a proxy.
    Add {
        #[arg(required = true)]
        namespaces: Vec<String>,
        #[arg(long, default_value = "fsm")]
        mesh_name: String,
        /// Belong to the mesh, but do not inject proxies.
        #[arg(long)]
        disable_sidecar_injection: bool,
    },
    /// Remove a namespace from the mesh; running pods keep their proxies until they are restarted.
    Remove {
        namespace: String,
        #[arg(long, default_value = "fsm")]
        mesh_name: String,
    },
    /// Keep namespaces out of every mesh.
    Ignore {
        #[arg(required = true)]
        namespaces: Vec<String>,
    },
    /// List the namespaces of the mesh.
    List {
        #[arg(long)]
        mesh_name: Option<String>,
        /// "json" for machines.
        #[arg(short, long)]
        output: Option<String>,
    },
}

pub async fn run(args: NamespaceArgs) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(default_client().await?);
    match args.command {
        Command::Add { namespaces: names, mesh_name, disable_sidecar_injection } => {
            for name in &names {
                add(&namespaces, name, &mesh_name, !disable_sidecar_injection).await?;
                println!("Namespace [{name}] successfully added to mesh [{mesh_name}]");
            }
        }
        Command::Remove { namespace, mesh_name } => {
            remove(&namespaces, &namespace, &mesh_name).await?;
            println!("Namespace [{namespace}] successfully removed from mesh [{mesh_name}]");
        }
        Command::Ignore { namespaces: names } => {
            for name in &names {
                patch(&namespaces, name, json!({ "metadata": { "labels": { IGNORE: "true" } } })).await?;
                println!("Namespace [{name}] successfully ignored");
            }
        }
        Command::List { mesh_name, output } => list(&namespaces, mesh_name, output).await?,
    }
    Ok(())
}

async fn add(api: &Api<Namespace>, name: &str, mesh: &str, inject: bool) -> anyhow::Result<()> {
    let namespace = api.get(name).await.with_context(|| format!("namespace {name}"))?;
    if namespace.labels().contains_key(IGNORE) {
        bail!(
            "namespace {name} is ignored; to add it, remove its label first: kubectl label namespace {name} {IGNORE}-"
        );
    }
    match namespace.labels().get(MONITORED_BY) {
        Some(other) if other != mesh => {
            bail!(
                "namespace {name} belongs to mesh {other}; remove it there first: fsm namespace remove {name} --mesh-name {other}"
            )
        }
        _ => {}
    }
    let injection = if inject { "enabled" } else { "disabled" };
    let change = json!({ "metadata": { "labels": { MONITORED_BY: mesh }, "annotations": { INJECTION: injection } } });
    patch(api, name, change).await
}

async fn remove(api: &Api<Namespace>, name: &str, mesh: &str) -> anyhow::Result<()> {
    let namespace = api.get(name).await.with_context(|| format!("namespace {name}"))?;
    match namespace.labels().get(MONITORED_BY) {
        Some(found) if found == mesh => {}
        Some(found) => bail!("namespace {name} belongs to mesh {found}, not {mesh}: give --mesh-name {found}"),
        None => bail!("namespace {name} belongs to no mesh"),
    }
    patch(api, name, json!({ "metadata": { "labels": { MONITORED_BY: null }, "annotations": { INJECTION: null } } }))
        .await
}

async fn patch(api: &Api<Namespace>, name: &str, change: serde_json::Value) -> anyhow::Result<()> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .with_context(|| format!("namespace {name}"))?;
    Ok(())
}

async fn list(api: &Api<Namespace>, mesh: Option<String>, output: Option<String>) -> anyhow::Result<()> {
    let selector = match &mesh {
        Some(mesh) => format!("{MONITORED_BY}={mesh}"),
        None => MONITORED_BY.to_owned(),
    };
    let found = api.list(&ListParams::default().labels(&selector)).await?;
    let rows: Vec<(String, String, String)> = found
        .iter()
        .map(|namespace| {
            let injection = namespace.annotations().get(INJECTION).cloned().unwrap_or_else(|| "-".to_owned());
            (namespace.name_any(), namespace.labels()[MONITORED_BY].clone(), injection)
        })
        .collect();
    if output.as_deref() == Some("json") {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, mesh, injection)| json!({ "namespace": name, "mesh": mesh, "sidecarInjection": injection }))
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else if rows.is_empty() {
        println!("No namespaces in mesh [{}]", mesh.as_deref().unwrap_or("any"));
    } else {
        println!("{:<30} {:<15} SIDECAR-INJECTION", "NAMESPACE", "MESH");
        for (name, mesh, injection) in rows {
            println!("{name:<30} {mesh:<15} {injection}");
        }
    }
    Ok(())
}
