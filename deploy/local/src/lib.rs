//! One machine as a Kubernetes cluster, for development and tests.

pub mod api;
pub mod apply;
pub mod cli;
pub mod cluster;
pub mod dns;
pub mod event;
pub mod home;
pub mod informer;
pub mod net;
pub mod node;
pub mod preflight;
pub mod refusal;
pub mod service;
pub mod tasks;
pub mod workload;

pub use cluster::{LocalCluster, LocalConfig, UpError};
pub use node::kill;
