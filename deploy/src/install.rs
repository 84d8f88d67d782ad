//! `fsm install` and `fsm uninstall mesh`: the control plane as ordinary objects.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use fsm_actors::kubernetes;
use kube::api::DynamicObject;
use kube::{Client, Config};

use crate::cluster::{Applier, FIELD_MANAGER, parse_manifest};
use crate::readiness::wait_for_deployment;

/// The CustomResourceDefinitions of SMI and FSM.
const CRDS: &[(&str, &str)] = &[
    ("traffictargets.access.smi-spec.io.yaml", include_str!("../crds/traffictargets.access.smi-spec.io.yaml")),
    ("httproutegroups.specs.smi-spec.io.yaml", include_str!("../crds/httproutegroups.specs.smi-spec.io.yaml")),
    ("tcproutes.specs.smi-spec.io.yaml", include_str!("../crds/tcproutes.specs.smi-spec.io.yaml")),
    ("trafficsplits.split.smi-spec.io.yaml", include_str!("../crds/trafficsplits.split.smi-spec.io.yaml")),
    ("meshconfigs.config.flomesh.io.yaml", include_str!("../crds/meshconfigs.config.flomesh.io.yaml")),
];

const CONTROL_PLANE: &str = include_str!("../charts/fsm/manifests/fsm.yaml");
const INTERCEPTOR: &str = include_str!("../charts/fsm/manifests/interceptor.yaml");

/// Install the control plane into the cluster of the current kubeconfig.
#[derive(Clone, Debug, Parser)]
pub struct InstallArgs {
    /// Name of the mesh; namespaces join it by the label flomesh.io/monitored-by.
    #[arg(long, default_value = "fsm")]
    pub mesh_name: String,
    /// Namespace of the control plane.
    #[arg(long, default_value = "fsm-system")]
    pub fsm_namespace: String,
    /// Trust domain of the workloads' identities.
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    /// Let every workload of the mesh call every other, whatever the TrafficTargets say.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub permissive: bool,
    /// Let workloads reach destinations outside the mesh.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    pub egress: bool,
    /// Image of the controller.
    #[arg(long, default_value = "flomesh/fsm-controller:latest")]
    pub image: String,
    /// Run an agent on each node that intercepts pods. Without it, something else must.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub interceptor: bool,
    /// Image of the agent.
    #[arg(long, default_value = "flomesh/fsm-interceptor:latest")]
    pub interceptor_image: String,
    /// Let a pod's connections go direct while its proxy does not listen, instead of refusing them.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set)]
    pub interception_fail_open: bool,
    /// Keep the event log in this folder of the node (default: in the pod, and gone with it).
    #[arg(long)]
    pub log_host_path: Option<PathBuf>,
    /// Where traces are sent (OTLP over gRPC), for controller and proxies.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How long to wait for the controller to be ready.
    #[arg(long, default_value = "90")]
    pub timeout_seconds: u64,
}

impl Default for InstallArgs {
    fn default() -> Self {
        Self::parse_from(["install"])
    }
}

/// Remove parts of a mesh.
#[derive(Debug, Parser)]
pub struct UninstallArgs {
    #[command(subcommand)]
    what: Uninstall,
}

#[derive(Debug, Subcommand)]
enum Uninstall {
    /// The control plane; workloads keep their proxies until they are restarted.
    Mesh {
        #[arg(long, default_value = "fsm")]
        mesh_name: String,
        #[arg(long, default_value = "fsm-system")]
        fsm_namespace: String,
        /// Also remove the CustomResourceDefinitions, and with them every policy object.
        #[arg(long)]
        delete_cluster_wide_resources: bool,
    },
}

/// `fsm install` from the command line.
pub async fn run(args: InstallArgs) -> anyhow::Result<()> {
    let client = default_client().await?;
    install(&client, &args).await?;
    println!("FSM installed successfully in namespace [{}] with mesh name [{}]", args.fsm_namespace, args.mesh_name);
    Ok(())
}

/// `fsm uninstall` from the command line.
pub async fn run_uninstall(args: UninstallArgs) -> anyhow::Result<()> {
    let Uninstall::Mesh { mesh_name, fsm_namespace, delete_cluster_wide_resources } = args.what;
    let client = default_client().await?;
    let install = InstallArgs { mesh_name, fsm_namespace, ..InstallArgs::default() };
    let mut applier = Applier::new(client);
    applier.delete(&webhooks(&install.mesh_name)?).await?;
    applier.delete(&interceptor(&install)?).await?;
    applier.delete(&control_plane(&install)?).await?;
    if delete_cluster_wide_resources {
        applier.delete(&crds()?).await?;
    }
    println!("mesh [{}] is removed; its workloads keep their proxies until they are restarted", install.mesh_name);
    Ok(())
}

/// A client for the current kubeconfig (or, in a pod, for the cluster around it).
pub async fn default_client() -> anyhow::Result<Client> {
    let config = Config::infer().await.context("no cluster: set KUBECONFIG, or start one with `fsm local up`")?;
    Ok(kubernetes::client(config, FIELD_MANAGER)?)
}

/// Applies the CustomResourceDefinitions and the control plane, and waits until the controller is ready.
pub async fn install(client: &Client, args: &InstallArgs) -> anyhow::Result<()> {
    let mut applier = Applier::new(client.clone());
    applier.apply(&crds()?).await?;
    applier.apply(&control_plane(args)?).await?;
    if args.interceptor {
        applier.apply(&interceptor(args)?).await?;
    }
    let timeout = Duration::from_secs(args.timeout_seconds);
    wait_for_deployment(client, &args.fsm_namespace, "fsm-controller", timeout).await
}

fn crds() -> anyhow::Result<Vec<DynamicObject>> {
    CRDS.iter().try_fold(Vec::new(), |mut all, (name, text)| {
        all.extend(parse_manifest(name, text)?);
        Ok(all)
    })
}

fn control_plane(args: &InstallArgs) -> anyhow::Result<Vec<DynamicObject>> {
    let log_volume = match &args.log_host_path {
        Some(path) => serde_json::json!({ "path": path, "type": "DirectoryOrCreate" }),
        None => serde_json::json!({}),
    };
    let volume_kind = if args.log_host_path.is_some() { "hostPath" } else { "emptyDir" };
    let env: Vec<_> = args
        .otlp_endpoint
        .iter()
        .map(|endpoint| serde_json::json!({ "name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint }))
        .collect();
    // Values go in as JSON, which is YAML: no value can break out of its place.
    let text = [
        ("${NAMESPACE}", args.fsm_namespace.clone()),
        ("${MESH}", args.mesh_name.clone()),
        ("${TRUST_DOMAIN}", args.trust_domain.clone()),
        ("${IMAGE}", serde_json::json!(args.image).to_string()),
        ("${PERMISSIVE}", args.permissive.to_string()),
        ("${EGRESS}", args.egress.to_string()),
        ("${ENV}", serde_json::json!(env).to_string()),
        ("${LOG_VOLUME}", format!("{volume_kind}: {log_volume}")),
    ]
    .into_iter()
    .fold(CONTROL_PLANE.to_owned(), |text, (key, value)| text.replace(key, &value));
    parse_manifest("the control plane's manifest", &text)
}

fn interceptor(args: &InstallArgs) -> anyhow::Result<Vec<DynamicObject>> {
    let mut arguments = vec!["run", "--cgroup-root=/host/cgroup", "--fsm-config-name=fsm-mesh-config"];
    let namespace = format!("--fsm-namespace={}", args.fsm_namespace);
    arguments.push(&namespace);
    if args.interception_fail_open {
        arguments.push("--fail-open");
    }
    let text = [
        ("${NAMESPACE}", args.fsm_namespace.clone()),
        ("${MESH}", args.mesh_name.clone()),
        ("${INTERCEPTOR_IMAGE}", serde_json::json!(args.interceptor_image).to_string()),
        ("${INTERCEPTOR_ARGS}", serde_json::json!(arguments).to_string()),
    ]
    .into_iter()
    .fold(INTERCEPTOR.to_owned(), |text, (key, value)| text.replace(key, &value));
    parse_manifest("the interceptor's manifest", &text)
}

/// The webhook configurations that the controller made for itself.
fn webhooks(mesh_name: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let object = |kind: &str, name: String| {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name },
        }))
    };
    Ok(vec![
        object("MutatingWebhookConfiguration", format!("fsm-webhook-{mesh_name}"))?,
        object("ValidatingWebhookConfiguration", format!("fsm-validator-mesh-{mesh_name}"))?,
    ])
}

#[cfg(test)]
mod tests {
    use super::{InstallArgs, control_plane, crds, interceptor};

    #[test]
    fn every_placeholder_is_filled_in() {
        let args = InstallArgs { log_host_path: Some("/var/lib/fsm".into()), ..InstallArgs::default() };
        let objects = control_plane(&args).unwrap();
        let text = serde_json::to_string(&objects).unwrap();
        assert!(!text.contains("${"), "{text}");
        assert!(text.contains(r#""hostPath":{"path":"/var/lib/fsm","type":"DirectoryOrCreate"}"#), "{text}");
        assert_eq!(objects.len(), 10);
    }

    #[test]
    fn the_interceptor_runs_on_every_node_as_it_is_asked_to() {
        let arguments = |args: &InstallArgs| {
            let objects = interceptor(args).unwrap();
            let text = serde_json::to_string(&objects).unwrap();
            assert!(!text.contains("${"), "{text}");
            let daemon_set = objects.iter().find(|object| object.types.as_ref().unwrap().kind == "DaemonSet").unwrap();
            daemon_set.data["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
        };
        let closed = InstallArgs { fsm_namespace: "mesh".into(), ..InstallArgs::default() };
        assert!(arguments(&closed).contains("--fsm-namespace=mesh"));
        assert!(!arguments(&closed).contains("--fail-open"));
        assert!(arguments(&InstallArgs { interception_fail_open: true, ..closed }).contains("--fail-open"));
    }

    #[test]
    fn the_embedded_crds_are_objects() {
        assert!(crds().unwrap().iter().all(|crd| crd.types.as_ref().unwrap().kind == "CustomResourceDefinition"));
    }
}
