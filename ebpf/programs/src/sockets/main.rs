//! Outbound interception at the sockets of a pod's cgroup: connections of the application go to the proxy, which can
//! ask for the destination they were meant for.
//!
//! 1. `connect` keeps the destination on the socket and rewrites it to the proxy's listener.
//! 2. `flows` publishes it under the connection's addresses when the SYN leaves, and moves it onto the proxy's accepted
//!    socket when the handshake is done there.
//! 3. `sockopt` answers `SO_ORIGINAL_DST` from the accepted socket, as iptables would.
//! 4. `peername` tells the application the address it asked for.
//! 5. `names` does the same for queries for names, if the pod's go to the proxy's DNS server.
#![no_std]
#![no_main]

#[path = "../abi.rs"]
#[allow(dead_code, reason = "each object uses its part of what the loader agrees on")]
mod abi;
#[path = "../address.rs"]
mod address;
mod connect;
mod flows;
mod listen;
mod names;
mod peername;
#[path = "../shared.rs"]
mod shared;
mod sockopt;
mod storage;
