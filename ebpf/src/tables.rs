//! The tables in the kernel, as the loader writes them.

use crate::{
    abi::{
        AF_INET, AF_INET6, CAPTURE_DNS, Counters, Destination, FAIL_CLOSED, Flow, INBOUND, INCLUDE_ONLY, ListenerKey,
        OUTBOUND, PodEntry, PortKey, RANGE_KEY_FIXED_BITS, RangeKey,
    },
    error::{InterceptError, errno},
    listeners::Listener,
    rules::Rules,
};
use aya::{
    Ebpf,
    maps::{
        HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues, SockHash,
        lpm_trie::{Key, LpmTrie},
    },
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::fd::AsRawFd,
    time::Duration,
};

/// As declared in the programs; named in messages.
const PODS_LIMIT: u32 = 4096;
const RULES_LIMIT: u32 = 262_144;
const LISTENERS_LIMIT: u32 = 16_384;

/// How often a write is tried while the kernel has no memory at hand for it, and what it gets in between to find some.
const TRIES: u32 = 20;
const REFILL: Duration = Duration::from_millis(1);

pub(crate) struct Tables {
    pods: HashMap<MapData, u64, PodEntry>,
    counters: PerCpuHashMap<MapData, u64, Counters>,
    ports: HashMap<MapData, PortKey, u8>,
    excluded: LpmTrie<MapData, RangeKey, u8>,
    included: LpmTrie<MapData, RangeKey, u8>,
    flows: HashMap<MapData, Flow, Destination>,
    listeners: SockHash<MapData, ListenerKey>,
    /// Number of the next set of rules.
    next_rules: u32,
    /// Rules in force that an earlier process wrote, by their numbers.
    recovered: BTreeMap<u32, InstalledRules>,
}

macro_rules! plain_data {
    ($($type:ty),*) => {$(
        #[expect(unsafe_code, reason = "aya's marker for what may be copied to and from the kernel")]
        // SAFETY: `repr(C)`, made of integers, and without padding.
        unsafe impl aya::Pod for $type {}
    )*};
}
plain_data!(PodEntry, PortKey, RangeKey, Flow, Destination, ListenerKey);

/// What one set of rules occupies. It must be given back with [`Tables::remove_rules`].
#[derive(Debug, Default)]
pub(crate) struct InstalledRules {
    id: u32,
    include_only: bool,
    dns_capture: bool,
    ports: Vec<PortKey>,
    excluded: Vec<(u32, RangeKey)>,
    included: Vec<(u32, RangeKey)>,
}

macro_rules! take {
    ($object:expr, $name:literal) => {
        $object
            .take_map($name)
            .ok_or(MapError::InvalidName { name: $name.to_owned() })
            .and_then(TryInto::try_into)
            .map_err(|e: MapError| InterceptError::map($name, e))?
    };
}

impl Tables {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, InterceptError> {
        Ok(Self {
            pods: take!(object, "PODS"),
            counters: take!(object, "COUNTERS"),
            ports: take!(object, "PORTS"),
            excluded: take!(object, "EXCLUDED_RANGES"),
            included: take!(object, "INCLUDED_RANGES"),
            flows: take!(object, "FLOWS"),
            listeners: take!(object, "LISTENERS"),
            next_rules: 1,
            recovered: BTreeMap::new(),
        })
    }

    /// Takes over what an earlier process wrote for the pods with these cookies, and forgets what belongs to no pod.
    pub(crate) fn recover(&mut self, pods: &BTreeSet<u64>) {
        let keys = self.pods.keys().chain(self.counters.keys()).flatten();
        let of_listeners = self.listeners.keys().flatten().map(|key| key.netns);
        let strangers: BTreeSet<u64> = keys.chain(of_listeners).filter(|netns| !pods.contains(netns)).collect();
        for netns in strangers {
            self.forget_pod(netns);
        }
        let mut rules: BTreeMap<u32, InstalledRules> = BTreeMap::new();
        for key in self.ports.keys().flatten() {
            rules.entry(key.rules).or_default().ports.push(key);
        }
        for key in self.excluded.keys().flatten() {
            let range: RangeKey = key.data();
            rules.entry(range.rules).or_default().excluded.push((key.prefix_len(), range));
        }
        for key in self.included.keys().flatten() {
            let range: RangeKey = key.data();
            rules.entry(range.rules).or_default().included.push((key.prefix_len(), range));
        }
        let in_force: BTreeSet<u32> = self.pods.iter().flatten().map(|(_, pod)| pod.rules).collect();
        let last = rules.last_key_value().map(|(id, _)| *id).max(in_force.last().copied());
        self.next_rules = last.map_or(1, |id| id + 1);
        for (id, mut installed) in rules {
            installed.id = id;
            if in_force.contains(&id) {
                self.recovered.insert(id, installed);
            } else {
                self.remove_rules(&installed);
            }
        }
    }

    /// What is known of a pod that an earlier process attached, and its rules, to be given back.
    pub(crate) fn take_over(&mut self, netns: u64) -> Option<(PodEntry, InstalledRules)> {
        let pod = self.pods.get(&netns, 0).ok()?;
        let rules = self.recovered.remove(&pod.rules);
        Some((pod, rules.unwrap_or(InstalledRules { id: pod.rules, ..InstalledRules::default() })))
    }

    /// Keeps rules for the next take-over if they are in force, and removes them if not.
    pub(crate) fn give_back(&mut self, netns: u64, rules: InstalledRules) {
        match self.pods.get(&netns, 0) {
            Ok(pod) if pod.rules == rules.id => drop(self.recovered.insert(rules.id, rules)),
            _ => self.remove_rules(&rules),
        }
    }

    /// Makes a pod known, or replaces what is known of it, in one step.
    pub(crate) fn set_pod(
        &mut self,
        netns: u64,
        proxy_cgroup: u64,
        rules: &InstalledRules,
        fail_closed: bool,
    ) -> Result<(), InterceptError> {
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(fail_closed, FAIL_CLOSED)
            | flag(rules.include_only, INCLUDE_ONLY)
            | flag(rules.dns_capture, CAPTURE_DNS);
        let entry = PodEntry { proxy_cgroup, rules: rules.id, flags };
        write("PODS", "intercepted pods", PODS_LIMIT, || self.pods.insert(netns, entry, 0))
    }

    pub(crate) fn start_counters(&mut self, netns: u64) -> Result<(), InterceptError> {
        if self.counters.get(&netns, 0).is_ok() {
            return Ok(());
        }
        let cpus = aya::util::nr_cpus().map_err(|(what, e)| {
            InterceptError::map("COUNTERS", MapError::IoError(std::io::Error::new(e.kind(), format!("{what}: {e}"))))
        })?;
        write("COUNTERS", "intercepted pods", PODS_LIMIT, || {
            let zero = PerCpuValues::try_from(vec![[0u64; 8]; cpus]).map_err(MapError::IoError)?;
            self.counters.insert(netns, zero, 0)
        })
    }

    /// Sums over the CPUs.
    pub(crate) fn counters(&self, netns: u64) -> Result<Counters, InterceptError> {
        let values = self.counters.get(&netns, 0).map_err(|e| InterceptError::map("COUNTERS", e))?;
        let mut sum = Counters::default();
        for cpu in values.iter() {
            for (total, value) in sum.iter_mut().zip(cpu) {
                *total += value;
            }
        }
        Ok(sum)
    }

    /// Writes a set of rules under a number of its own, which nothing refers to yet.
    pub(crate) fn install_rules(&mut self, rules: &Rules) -> Result<InstalledRules, InterceptError> {
        let id = self.next_rules;
        self.next_rules += 1;
        let mut installed = InstalledRules {
            id,
            include_only: !rules.outbound_ip_range_inclusions.is_empty(),
            dns_capture: rules.dns_capture,
            ports: Vec::new(),
            excluded: Vec::new(),
            included: Vec::new(),
        };
        let result = self.write_rules(rules, &mut installed);
        if result.is_err() {
            self.remove_rules(&installed);
        }
        result.map(|()| installed)
    }

    fn write_rules(&mut self, rules: &Rules, installed: &mut InstalledRules) -> Result<(), InterceptError> {
        let id = installed.id;
        let outbound = rules.outbound_port_exclusions.iter().map(|&port| (port, OUTBOUND));
        let inbound = rules.inbound_port_exclusions.iter().map(|&port| (port, INBOUND));
        for (port, direction) in outbound.chain(inbound) {
            let key = PortKey { rules: id, port, direction };
            write("PORTS", "excluded ports", RULES_LIMIT, || self.ports.insert(key, 1, 0))?;
            installed.ports.push(key);
        }
        for &range in &rules.outbound_ip_range_exclusions {
            let (bits, data) = range_key(id, range);
            let insert = || self.excluded.insert(&Key::new(bits, data), 1, 0);
            write("EXCLUDED_RANGES", "excluded IP ranges", RULES_LIMIT, insert)?;
            installed.excluded.push((bits, data));
        }
        for &range in &rules.outbound_ip_range_inclusions {
            let (bits, data) = range_key(id, range);
            let insert = || self.included.insert(&Key::new(bits, data), 1, 0);
            write("INCLUDED_RANGES", "included IP ranges", RULES_LIMIT, insert)?;
            installed.included.push((bits, data));
        }
        Ok(())
    }

    /// Gives back what [`Self::install_rules`] wrote.
    pub(crate) fn remove_rules(&mut self, installed: &InstalledRules) {
        // An entry can only be missing, which is what is wanted.
        for key in &installed.ports {
            let _ = self.ports.remove(key);
        }
        for (bits, data) in &installed.excluded {
            let _ = self.excluded.remove(&Key::new(*bits, *data));
        }
        for (bits, data) in &installed.included {
            let _ = self.included.remove(&Key::new(*bits, *data));
        }
    }

    /// Forgets everything kept under a namespace's cookie, but for rules that this process installed.
    pub(crate) fn forget_pod(&mut self, netns: u64) {
        if let Some((_, rules)) = self.take_over(netns) {
            self.remove_rules(&rules);
        }
        let _ = self.pods.remove(&netns);
        let _ = self.counters.remove(&netns);
        let flows: Vec<Flow> = self.flows.keys().flatten().filter(|flow| flow.netns == netns).collect();
        for flow in flows {
            let _ = self.flows.remove(&flow);
        }
        self.forget_listeners(netns);
    }

    /// Makes listeners known that the kernel has not reported.
    pub(crate) fn add_listeners(&mut self, listeners: &[Listener]) -> Result<(), InterceptError> {
        const IF_NONE: u64 = 1;
        for Listener { socket, keys: (key, served_too) } in listeners {
            let mut add = |key, flags| {
                let insert = || match self.listeners.insert(key, socket.as_raw_fd(), flags) {
                    Err(e) if errno(&e) == Some(libc::EEXIST) => Ok(()),
                    added => added,
                };
                write("LISTENERS", "listeners of proxies", LISTENERS_LIMIT, insert)
            };
            add(key, 0)?;
            if let Some(key) = served_too {
                add(key, IF_NONE)?;
            }
        }
        Ok(())
    }

    /// Forgets the proxy of a pod: the cgroup it ran in is not the proxy's any more.
    pub(crate) fn forget_listeners(&mut self, netns: u64) {
        for family in [AF_INET, AF_INET6] {
            for port in [crate::abi::OUTBOUND_PORT, crate::abi::INBOUND_PORT] {
                let _ = self.listeners.remove(&ListenerKey { netns, family, port, pad: 0 });
            }
        }
    }

    /// Entries in all tables together.
    pub(crate) fn entries(&self) -> usize {
        self.pods.keys().count()
            + self.counters.keys().count()
            + self.ports.keys().count()
            + self.excluded.keys().count()
            + self.included.keys().count()
            + self.flows.keys().count()
            + self.listeners.keys().count()
    }
}

fn range_key(rules: u32, range: IpNet) -> (u32, RangeKey) {
    let (family, address) = match range.network() {
        IpAddr::V4(v4) => (AF_INET, [u32::from_ne_bytes(v4.octets()), 0, 0, 0]),
        IpAddr::V6(v6) => {
            let o = v6.octets();
            let word = |at: usize| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
            (AF_INET6, [word(0), word(4), word(8), word(12)])
        }
    };
    let bits = RANGE_KEY_FIXED_BITS + u32::from(range.prefix_len());
    (bits, RangeKey { rules, family: u32::from(family), address })
}

/// Writes an entry of a table that takes `limit` of them.
///
/// The kernel takes the memory of entries from a small store that it fills up in the background. In the middle of many writes it may have
/// run out for a moment (ENOMEM), though there is memory: then it gets the time.
fn write(
    table: &'static str,
    what: &'static str,
    limit: u32,
    mut insert: impl FnMut() -> Result<(), MapError>,
) -> Result<(), InterceptError> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let Err(error) = insert() else { return Ok(()) };
        match errno(&error) {
            Some(libc::ENOMEM) if tries > 0 => std::thread::sleep(REFILL),
            Some(libc::E2BIG | libc::ENOSPC) => return Err(InterceptError::TableFull { what, limit }),
            _ => return Err(InterceptError::map(table, error)),
        }
    }
}

/// The tables that all objects use, now and later.
pub(crate) const SHARED: [&str; 9] =
    ["PODS", "COUNTERS", "PORTS", "LISTENERS", "EXCLUDED_RANGES", "INCLUDED_RANGES", "FLOWS", "MEANT", "ACCEPTED"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How often a write is tried that fails with these codes one after the other, and whether it succeeds.
    fn tried(codes: &[i32]) -> (usize, Result<(), InterceptError>) {
        let mut tries = 0;
        let written = write("PODS", "intercepted pods", PODS_LIMIT, || {
            tries += 1;
            let code = codes.get(tries - 1).copied();
            let Some(code) = code else { return Ok(()) };
            let io_error = std::io::Error::from_raw_os_error(code);
            Err(aya::sys::SyscallError { call: "bpf_map_update_elem", io_error }.into())
        });
        (tries, written)
    }

    #[test]
    fn a_kernel_that_has_no_memory_at_hand_gets_time_to_find_some() {
        assert!(matches!(tried(&[]), (1, Ok(()))));
        assert!(matches!(tried(&[libc::ENOMEM; 3]), (4, Ok(()))));
        let (tries, written) = tried(&[libc::ENOMEM; 50]);
        assert_eq!(tries, TRIES as usize);
        assert!(written.unwrap_err().to_string().contains("PODS"));
        assert!(matches!(tried(&[libc::ENOMEM, libc::E2BIG]), (2, Err(InterceptError::TableFull { .. }))));
        assert!(matches!(tried(&[libc::EPERM]), (1, Err(_))));
    }

    fn bytes(key: &RangeKey) -> Vec<u8> {
        let words = [key.rules, key.family].into_iter().chain(key.address);
        words.flat_map(u32::to_ne_bytes).collect()
    }

    /// As the kernel's longest-prefix trie compares, from the first bit of the first byte on.
    fn matches((bits, key): (u32, RangeKey), looked_up: &RangeKey) -> bool {
        let (key, looked_up) = (bytes(&key), bytes(looked_up));
        (0..bits as usize).all(|bit| (key[bit / 8] ^ looked_up[bit / 8]) & (0x80 >> (bit % 8)) == 0)
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
    }

    fn range(address: IpAddr, prefix: u8) -> IpNet {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, prefix % (longest + 1)).unwrap().trunc()
    }

    proptest! {
        #[test]
        fn a_range_matches_the_addresses_it_contains_and_no_others(
            base in addresses(), prefix in any::<u8>(), other in addresses(), flipped in 0..128usize,
        ) {
            let range = range(base, prefix);
            // One bit away from the base: sometimes inside, sometimes just outside.
            let near = match base {
                IpAddr::V4(v4) => IpAddr::from((u32::from(v4) ^ 1 << (flipped % 32)).to_be_bytes()),
                IpAddr::V6(v6) => IpAddr::from((u128::from(v6) ^ 1 << flipped).to_be_bytes()),
            };
            for address in [base, near, other] {
                let (_, looked_up) = range_key(7, address.into());
                prop_assert_eq!(matches(range_key(7, range), &looked_up), range.contains(&address));
                prop_assert!(!matches(range_key(8, range), &looked_up), "rules of another number never match");
            }
        }
    }
}
