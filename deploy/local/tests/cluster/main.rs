//! The cluster from outside: what a user of the API sees of pods, services and names, and what is left afterwards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod crash;
mod helpers;
mod mesh;
mod nodes;
mod pods;
mod refusals;
mod server;
mod services;
mod sessions;
mod workloads;
