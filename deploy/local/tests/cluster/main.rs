//! The cluster from outside: what a user of the API sees of pods, services and names, and what is left afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod containers;
mod crash;
mod helpers;
#[path = "../api_support/kubectl.rs"]
mod kubectl;
mod mesh;
mod nodes;
mod pods;
mod policies;
mod probes;
mod refusals;
mod secure;
mod server;
mod services;
mod sessions;
mod tour;
mod workloads;
