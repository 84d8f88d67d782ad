//! Interception for real: network namespaces, cgroups, processes and sockets made by each test and gone with it.
//! Everything here needs root; without it the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod agent;
mod both;
mod inbound;
mod lifecycle;
mod node;
mod outbound;
mod persistence;
mod world;

/// Not a test by itself: the process that [`agent::Agent`] starts inside a pod. See there.
#[test]
fn agent_process() {
    agent::serve();
}

/// Not a test by itself: the agent of [`persistence`].
#[test]
fn node_process() {
    persistence::serve();
}
