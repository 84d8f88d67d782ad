//! The program `fsm-controller`.

mod known;
mod retention;
mod run;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use retention::{Retain, age as parse_age, bytes as parse_bytes};
pub use run::main;

use crate::ca::SECRET_NAME;
use crate::telemetry::LogFormat;

/// What an acknowledged record survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// The end of the process, however sudden.
    #[default]
    Process,
    /// A power cut too; commits take milliseconds.
    Power,
}

/// Options of the controller.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the mesh: its namespaces carry it in the label flomesh.io/monitored-by
    #[arg(long, default_value = "fsm")]
    pub mesh_name: String,

    /// Namespace of the control plane
    #[arg(long, default_value = "fsm-system")]
    pub fsm_namespace: String,

    /// Name of the MeshConfig in that namespace
    #[arg(long, default_value = fsm_api::names::DEFAULT_MESH_CONFIG)]
    pub fsm_config_name: String,

    /// Trust domain of workload identities
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,

    /// Name of the Secret with the certificate authority
    #[arg(long, default_value = SECRET_NAME)]
    pub ca_bundle_secret_name: String,

    /// Directory of the event log
    #[arg(long, default_value = "/var/lib/fsm")]
    pub data_dir: PathBuf,

    /// What an acknowledged record survives
    #[arg(long, value_enum, default_value_t)]
    pub durability: Durability,

    /// A snapshot of the state is taken after so many records, and when the controller ends
    #[arg(long, value_name = "RECORDS", default_value = "4000", value_parser = clap::value_parser!(u64).range(1..))]
    pub snapshot_every: u64,

    /// History that is older is dropped, as far as snapshots allow (hours, minutes, seconds: 720h, 90m); 0s keeps all of it
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = retention::age)]
    pub retain_age: Retain<Duration>,

    /// The oldest history is dropped beyond this size of compressed records (bytes, KiB, MiB, GiB); 0 keeps all of it
    #[arg(long, value_name = "BYTES", default_value = "8GiB", value_parser = retention::bytes)]
    pub retain_bytes: Retain<u64>,

    /// Image of the sidecar where neither MeshConfig nor annotations name one
    #[arg(long, env = "FSM_DEFAULT_SIDECAR_IMAGE", default_value = "")]
    pub sidecar_image: String,

    /// Level of log lines (trace, debug, info, warn, error), or target=level pairs; without it MeshConfig's fsmLogLevel counts
    #[arg(long, env = "FSM_LOG")]
    pub log: Option<String>,

    /// Form of log lines
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Where proxies get their configuration and certificates (gRPC, TLS)
    #[arg(long, default_value = "0.0.0.0:15128")]
    pub stream_addr: SocketAddr,

    /// Where health and metrics are shown (HTTP)
    #[arg(long, default_value = "0.0.0.0:9091")]
    pub health_addr: SocketAddr,

    /// Where the log and proxies' configurations are shown (HTTP, no authentication: keep it on the loopback interface)
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub debug_addr: SocketAddr,

    /// Where the mutating webhook answers (HTTPS)
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub inject_addr: SocketAddr,

    /// Where the validating webhook answers (HTTPS)
    #[arg(long, default_value = "0.0.0.0:9093")]
    pub validate_addr: SocketAddr,
}
