//! Control groups, version 2: where they are mounted, and a cgroup's identity in the kernel.

use crate::error::InterceptError;
use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// A pod's or container's cgroup, held open.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(crate) path: PathBuf,
    pub(crate) dir: File,
    /// The kernel's id of the cgroup, which is the inode number of its directory.
    pub(crate) id: u64,
}

impl Cgroup {
    pub(crate) fn open(path: &Path) -> Result<Self, InterceptError> {
        let refuse = |reason: String| {
            mount_point()
                .map(|mount| InterceptError::NotACgroup { path: path.to_owned(), mount, reason })
                .unwrap_or_else(|e| e)
        };
        let dir = File::open(path).map_err(|e| refuse(e.to_string()))?;
        let kind = nix::sys::statfs::fstatfs(dir.as_fd()).map_err(|e| refuse(e.to_string()))?;
        if kind.filesystem_type() != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
            return Err(refuse("it is on another file system".to_owned()));
        }
        let id = dir.metadata().map_err(|e| refuse(e.to_string()))?.ino();
        Ok(Self { path: path.to_owned(), dir, id })
    }
}

/// The mount point of the cgroup v2 hierarchy. On machines with both versions it is not `/sys/fs/cgroup`.
pub(crate) fn mount_point() -> Result<PathBuf, InterceptError> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mount_point_in(&mounts).ok_or(InterceptError::NoCgroup2)
}

/// The cgroup v2 hierarchy at `given`, or below it on machines with both versions.
pub(crate) fn hierarchy_at(given: &Path) -> Result<PathBuf, InterceptError> {
    match Cgroup::open(given) {
        Ok(cgroup) => Ok(cgroup.path),
        Err(refused) => Cgroup::open(&given.join("unified")).map(|cgroup| cgroup.path).map_err(|_| refused),
    }
}

fn mount_point_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // Spaces and the like are written as octal escapes.
        (kind == "cgroup2").then(|| PathBuf::from(target.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_beside_version_1_hierarchies() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        assert_eq!(mount_point_in(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn without_version_2_there_is_none() {
        assert_eq!(mount_point_in("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }

    #[test]
    fn a_directory_elsewhere_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Cgroup::open(dir.path()).unwrap_err().to_string();
        let named = refused.contains(&dir.path().display().to_string()) || refused.contains("no cgroup v2 hierarchy");
        assert!(named, "{refused}");
    }
}
