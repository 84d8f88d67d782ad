//! Pod addresses: handed out in a circle, so that an address rests as long as possible before it names another pod.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;

/// The free and used addresses of the pod network.
#[derive(Debug, Clone)]
pub struct AddressPool {
    shared: Arc<Mutex<Shared>>,
    first: u32,
    size: u32,
}

#[derive(Debug, Default)]
struct Shared {
    next: u32,
    used: BTreeSet<u32>,
}

/// An address in use; dropping it returns it to the pool.
#[derive(Debug)]
pub struct PodAddress {
    ip: Ipv4Addr,
    offset: u32,
    pool: Arc<Mutex<Shared>>,
}

impl AddressPool {
    /// All host addresses of `net` but the first, which is the gateway's.
    pub fn new(net: Ipv4Net) -> Self {
        let first = net.network().to_bits() + 2;
        let size = net.broadcast().to_bits().saturating_sub(first);
        Self { shared: Arc::default(), first, size }
    }

    /// How many pods can have an address at once.
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// The next free address, or `None` when all are in use.
    pub fn take(&self) -> Option<PodAddress> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = (0..self.size).map(|step| (shared.next + step) % self.size).find(|o| !shared.used.contains(o))?;
        shared.next = (offset + 1) % self.size;
        shared.used.insert(offset);
        Some(PodAddress { ip: Ipv4Addr::from_bits(self.first + offset), offset, pool: Arc::clone(&self.shared) })
    }
}

impl PodAddress {
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).used.remove(&self.offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str) -> AddressPool {
        AddressPool::new(net.parse().unwrap())
    }

    #[test]
    fn a_freed_address_is_not_the_next_one_given() {
        let pool = pool("10.244.0.0/16");
        let first = pool.take().unwrap();
        assert_eq!(first.ip(), Ipv4Addr::new(10, 244, 0, 2));
        drop(first);
        assert_eq!(pool.take().unwrap().ip(), Ipv4Addr::new(10, 244, 0, 3));
    }

    #[test]
    fn the_pool_ends_before_broadcast_and_refills() {
        let pool = pool("10.0.0.0/29");
        let mut held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let ips: Vec<_> = held.iter().map(|a| a.ip().octets()[3]).collect();
        assert_eq!(ips, [2, 3, 4, 5, 6]);
        held.remove(3);
        assert_eq!(pool.take().unwrap().ip(), Ipv4Addr::new(10, 0, 0, 5));
    }
}
