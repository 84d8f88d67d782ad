//! What this machine offers of what interception needs.

use crate::{
    bpffs::Bpffs,
    cgroup,
    error::{InterceptError, chain},
    interceptor::{load_inbound, loader, program},
    netns, nft, objects,
};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSockAddr, CgroupSockopt, ProgramError, SkLookup, SockOps},
};
use serde::Serialize;
use std::{
    fmt,
    fs::File,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// Which mechanism needs a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum For {
    Both,
    Ebpf,
    Nftables,
}

/// One thing interception needs of the kernel.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Feature {
    /// By which mechanism.
    pub mechanism: For,
    /// What it is.
    pub name: &'static str,
    /// What does not work without it.
    pub needed_for: &'static str,
    /// The first Linux version that has it.
    pub since: &'static str,
    /// Why it is missing here; nothing if it is there.
    pub missing: Option<String>,
}

/// All of them, in the order they are tried. A later one may be missing because an earlier one is.
#[derive(Clone, Debug, Serialize)]
pub struct FeatureTable {
    pub features: Vec<Feature>,
}

impl FeatureTable {
    /// Whether pods can be intercepted here with eBPF.
    pub fn complete(&self) -> bool {
        self.missing_for_ebpf().is_none()
    }

    /// What eBPF needs and this machine lacks.
    pub fn missing_for_ebpf(&self) -> Option<String> {
        self.missing(For::Ebpf)
    }

    /// What the fallback needs and this machine lacks.
    pub fn missing_for_nftables(&self) -> Option<String> {
        self.missing(For::Nftables)
    }

    fn missing(&self, mechanism: For) -> Option<String> {
        let needed = self.features.iter().filter(|feature| [For::Both, mechanism].contains(&feature.mechanism));
        let missing: Vec<&str> = needed.filter(|f| f.missing.is_some()).map(|feature| feature.name).collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl fmt::Display for FeatureTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<9} {:<30} {:<6} {:<44} HERE", "FOR", "FEATURE", "LINUX", "NEEDED FOR")?;
        for feature in &self.features {
            let here = feature.missing.as_deref().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            let mechanism = match feature.mechanism {
                For::Both => "both",
                For::Ebpf => "ebpf",
                For::Nftables => "nftables",
            };
            writeln!(f, "{mechanism:<9} {:<30} {:<6} {:<44} {here}", feature.name, feature.since, feature.needed_for)?;
        }
        let used = match (self.missing_for_ebpf(), self.missing_for_nftables()) {
            (None, _) => "ebpf".to_owned(),
            (Some(missing), None) => format!("nftables, because eBPF needs {missing}"),
            (Some(_), Some(_)) => "not at all".to_owned(),
        };
        writeln!(f, "\nPods are intercepted by: {used}")
    }
}

/// Tries everything for real: loads each program, and attaches it to a cgroup and a network namespace made for the
/// purpose, which are gone when this returns.
pub fn probe() -> FeatureTable {
    let mut table = FeatureTable { features: Vec::new() };
    let scratch = ScratchCgroup::new();
    table.push(
        For::Both,
        "cgroup v2",
        "telling pods and their proxies apart",
        "4.5",
        scratch.as_ref().map(|_| ()).map_err(text),
    );
    if let Ok(scratch) = &scratch {
        let tried = nft::try_out(&scratch.path).map_err(|e| text(&e));
        table.push(For::Nftables, "nf_tables with NAT and cgroups", "the fallback", "5.13", tried);
    }
    let bpffs = Bpffs::private();
    table.add("bpf file system", "sharing tables between programs", "5.2", bpffs.as_ref().map(|_| ()).map_err(text));
    let (Ok(scratch), Ok(bpffs)) = (scratch, bpffs) else { return table };

    let mut loader = loader(&bpffs);
    let sockets = loader.load(objects::sockets()).map_err(InterceptError::load);
    table.add("eBPF tables", "everything", "5.14", sockets.as_ref().map(|_| ()).map_err(text));
    let Ok(mut sockets) = sockets else { return table };
    for (program, name, needed_for, since) in [
        ("connect4", "cgroup connect4", "capturing outbound IPv4", "4.17"),
        ("connect6", "cgroup connect6", "capturing outbound IPv6", "4.17"),
        ("sendmsg4", "cgroup sendmsg4", "capturing queries for names, IPv4", "4.18"),
        ("sendmsg6", "cgroup sendmsg6", "capturing queries for names, IPv6", "4.18"),
        ("recvmsg4", "cgroup recvmsg4", "answers from the name server that was asked, IPv4", "5.2"),
        ("recvmsg6", "cgroup recvmsg6", "answers from the name server that was asked, IPv6", "5.2"),
        ("getpeername4", "cgroup getpeername4", "showing IPv4 destinations to applications", "5.8"),
        ("getpeername6", "cgroup getpeername6", "showing IPv6 destinations to applications", "5.8"),
    ] {
        table.add(name, needed_for, since, try_sock_addr(&mut sockets, program, &scratch.dir));
    }
    let name = "cgroup getsockopt";
    table.add(name, "telling the proxy original destinations", "5.3", try_sockopt(&mut sockets, &scratch.dir));
    let name = "sock_ops";
    table.add(name, "carrying original destinations", "5.16", try_sock_ops(&mut sockets, "flows", &scratch.dir));
    let name = "sock_ops listen";
    table.add(name, "finding the proxy's listeners", "5.16", try_sock_ops(&mut sockets, "listen", &scratch.dir));
    table.add("sk_lookup", "capturing inbound connections", "5.9", try_sk_lookup(&mut loader));
    table
}

impl FeatureTable {
    fn add(&mut self, name: &'static str, needed_for: &'static str, since: &'static str, tried: Result<(), String>) {
        self.push(For::Ebpf, name, needed_for, since, tried);
    }

    fn push(
        &mut self,
        mechanism: For,
        name: &'static str,
        needed_for: &'static str,
        since: &'static str,
        tried: Result<(), String>,
    ) {
        self.features.push(Feature { mechanism, name, needed_for, since, missing: tried.err() });
    }
}

fn text(error: &InterceptError) -> String {
    chain(error)
}

/// The outcome of loading and attaching, for people.
fn outcome(tried: Result<(), ProgramError>) -> Result<(), String> {
    tried.map_err(|e| chain(&e))
}

// The links stay with the programs, and go with them at the end of the probe.

fn try_sock_addr(object: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<(), String> {
    let program = program::<CgroupSockAddr>(object, name).map_err(|e| text(&e))?;
    outcome(program.load().and_then(|()| program.attach(cgroup, CgroupAttachMode::Single)).map(|_| ()))
}

fn try_sockopt(object: &mut Ebpf, cgroup: &File) -> Result<(), String> {
    let program = program::<CgroupSockopt>(object, "original_dst").map_err(|e| text(&e))?;
    outcome(program.load().and_then(|()| program.attach(cgroup, CgroupAttachMode::Single)).map(|_| ()))
}

fn try_sock_ops(object: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<(), String> {
    let program = program::<SockOps>(object, name).map_err(|e| text(&e))?;
    outcome(program.load().and_then(|()| program.attach(cgroup, CgroupAttachMode::Single)).map(|_| ()))
}

fn try_sk_lookup(loader: &mut EbpfLoader<'_>) -> Result<(), String> {
    let mut object = load_inbound(loader, 0).map_err(|e| text(&e))?;
    let program = program::<SkLookup>(&mut object, "inbound").map_err(|e| text(&e))?;
    outcome(program.load())?;
    let netns = netns::fresh().map_err(|e| format!("cannot make a network namespace: {e}"))?;
    outcome(program.attach(&netns).map(|_| ()))
}

/// An empty cgroup, removed on drop.
struct ScratchCgroup {
    path: PathBuf,
    dir: File,
}

impl ScratchCgroup {
    fn new() -> Result<Self, InterceptError> {
        let mount = cgroup::mount_point()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("fsm-probe-{}-{number}", std::process::id()));
        let refuse = |e: std::io::Error| match e.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::EROFS) => {
                InterceptError::NotPermitted { what: format!("making the cgroup {}", path.display()), source: e }
            }
            _ => InterceptError::NotACgroup { path: path.clone(), mount: mount.clone(), reason: e.to_string() },
        };
        match std::fs::create_dir(&path) {
            // Left by a probe of the same process id that was killed.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(refuse)?,
        }
        let dir = File::open(&path).map_err(refuse)?;
        Ok(Self { path, dir })
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the probe's cgroup stays behind");
        }
    }
}
