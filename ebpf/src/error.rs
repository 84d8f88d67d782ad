//! Why interception is not possible, and what to do about it.

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A failure to load, attach or change interception. What it was about is left as it was before.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The kernel refused for want of privilege.
    #[error(
        "{what} was refused ({source}): interception needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN; run as root, and in a \
         container as privileged"
    )]
    NotPermitted {
        /// What was asked of the kernel.
        what: String,
        source: io::Error,
    },
    /// The kernel lacks something.
    #[error(
        "the kernel does not offer {feature}, needed for {needed_for} ({source}): use Linux {since} or later built with it"
    )]
    MissingFeature { feature: &'static str, needed_for: &'static str, since: &'static str, source: io::Error },
    /// No cgroup v2 mount.
    #[error(
        "no cgroup v2 hierarchy in /proc/self/mounts, where it would be a line of type cgroup2: mount one with \
         `mount -t cgroup2 none DIR`, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NoCgroup2,
    /// A path that is not a cgroup.
    #[error("{path} is not a cgroup v2 directory ({reason}): give a directory below {mount}")]
    NotACgroup { path: PathBuf, mount: PathBuf, reason: String },
    /// A file descriptor that is not a network namespace.
    #[error("cannot enter the pod's network namespace: {0}; give an open /proc/PID/ns/net or /run/netns/NAME")]
    Netns(#[source] io::Error),
    /// The namespace is intercepted already.
    #[error(
        "this pod's network namespace (cookie {netns_cookie}) is intercepted already: drop the other attachment first"
    )]
    AlreadyAttached { netns_cookie: u64 },
    /// A proxy that runs already cannot be looked into.
    #[error(
        "cannot find the listeners of the proxy that already runs in {cgroup} ({source}): run as root with CAP_SYS_PTRACE"
    )]
    Listeners { cgroup: PathBuf, source: io::Error },
    /// Tables and links cannot be kept there.
    #[error(
        "cannot keep tables and links in {path} ({source}): give a folder on a BPF file system, mounted with \
         `mount -t bpf bpf /sys/fs/bpf`, and run as root"
    )]
    PinFolder { path: PathBuf, source: io::Error },
    /// Somebody else owns the folder.
    #[error("another agent uses {path}: one interceptor runs on a node; stop the other one first")]
    OtherAgent { path: PathBuf },
    /// A program could not be attached, detached or replaced.
    #[error("eBPF program {program} cannot be {done} ({source})")]
    Link { program: &'static str, done: &'static str, source: io::Error },
    /// The rules of nf_tables were refused.
    #[error(
        "setting nf_tables rules ({source}): the kernel needs CONFIG_NF_TABLES_INET, NFT_NAT, NFT_REDIR and NFT_SOCKET (with \
         cgroup v2, Linux 5.13), and the caller CAP_NET_ADMIN"
    )]
    Nftables { source: io::Error },
    /// A table is full.
    #[error("no room for more {what}: at most {limit} on one node")]
    TableFull { what: &'static str, limit: u32 },
    /// The process may not open more files.
    #[error("no file descriptors left for {what}: raise the limit (ulimit -n)")]
    NoDescriptors { what: String },
    /// The embedded objects and this kernel do not fit.
    #[error("loading the eBPF programs: {0}")]
    Load(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("eBPF program {program}: {}", chain(source))]
    Program { program: &'static str, source: Box<ProgramError> },
    /// A table operation was refused.
    #[error("eBPF table {table}: {}", chain(source))]
    Map { table: &'static str, source: Box<MapError> },
}

/// A message with its causes, without the verifier's log, which fills pages.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    match text.find("Verifier output") {
        Some(at) => text[..at].trim_end().to_owned(),
        None => text,
    }
}

/// The system error at the bottom of a chain of errors.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        cause = inner.source();
    }
    None
}

fn is_refusal(code: Option<i32>) -> bool {
    matches!(code, Some(libc::EPERM | libc::EACCES))
}

fn is_exhausted(code: Option<i32>) -> bool {
    matches!(code, Some(libc::EMFILE | libc::ENFILE))
}

impl InterceptError {
    pub(crate) fn load(source: EbpfError) -> Self {
        match errno(&source) {
            Some(code) if is_refusal(Some(code)) => Self::NotPermitted {
                what: "loading eBPF programs and tables".into(),
                source: io::Error::from_raw_os_error(code),
            },
            code if is_exhausted(code) => Self::NoDescriptors { what: "eBPF programs and tables".into() },
            _ => Self::Load(Box::new(source)),
        }
    }

    pub(crate) fn program(program: &'static str, source: ProgramError) -> Self {
        match errno(&source) {
            // A verifier refusal is EACCES too, but comes with a log: then the program is at fault, not the caller.
            Some(code) if code == libc::EPERM => Self::NotPermitted {
                what: format!("eBPF program {program}"),
                source: io::Error::from_raw_os_error(code),
            },
            code if is_exhausted(code) => Self::NoDescriptors { what: format!("eBPF program {program}") },
            _ => Self::Program { program, source: Box::new(source) },
        }
    }

    pub(crate) fn link(program: &'static str, done: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted { what: format!("eBPF program {program}"), source },
            code if is_exhausted(code) => Self::NoDescriptors { what: format!("eBPF program {program}") },
            _ => Self::Link { program, done, source },
        }
    }

    pub(crate) fn listeners(cgroup: &Path, source: io::Error) -> Self {
        if is_exhausted(source.raw_os_error()) {
            return Self::NoDescriptors { what: format!("looking at the processes of {}", cgroup.display()) };
        }
        Self::Listeners { cgroup: cgroup.to_owned(), source }
    }

    pub(crate) fn nft(source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NotPermitted { what: "setting nf_tables rules".into(), source },
            _ => Self::Nftables { source },
        }
    }

    pub(crate) fn map(table: &'static str, source: MapError) -> Self {
        Self::Map { table, source: Box::new(source) }
    }
}
