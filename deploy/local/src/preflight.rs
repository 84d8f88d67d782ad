//! What the machine must offer, checked before anything is made.

use std::path::Path;

use crate::node::{Cgroup, CgroupError, RootError, can_build_roots};

/// A missing prerequisite; the message names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("the local cluster needs root, to make namespaces and cgroups: run it with sudo")]
    NotRoot,
    #[error("this kernel has no network namespaces: it needs CONFIG_NET_NS")]
    NoNetns,
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("containers can't be given a file system of their own: {0}")]
    Root(#[from] RootError),
}

/// Checks privileges and kernel features. `scratch` is an empty directory; nothing is left mounted there.
pub fn check(scratch: &Path) -> Result<(), Unfit> {
    if !is_root() {
        return Err(Unfit::NotRoot);
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Err(Unfit::NoNetns);
    }
    Cgroup::of_cluster("check")?;
    Ok(can_build_roots(scratch)?)
}

/// Whether this process has root's rights.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
