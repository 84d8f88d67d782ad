//! The cluster from outside: what a user of the API sees of pods, services and names, and what is left afterwards.

mod crash;
mod helpers;
mod pods;
mod server;
mod services;
mod workloads;
