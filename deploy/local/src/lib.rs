//! One machine as a Kubernetes cluster, for development and tests.

pub mod api;
pub mod dns;
pub mod event;
pub mod informer;
pub mod net;
pub mod node;
pub mod service;
pub mod tasks;
pub mod workload;
