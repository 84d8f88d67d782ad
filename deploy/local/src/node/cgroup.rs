//! cgroup v2 directories: who belongs to which pod and container, and the sure way to end them all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the kernel may take to reap a killed cgroup before we give up waiting.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a dying cgroup is looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup v2 file system is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`")]
    NotMounted,
    #[error("cannot {what} cgroup {path}: {source}; run as root on a kernel 5.14 or newer")]
    Access { what: &'static str, path: PathBuf, source: io::Error },
    #[error("processes in cgroup {0} survive SIGKILL; they hang in the kernel (see `cat {0}/cgroup.procs`)")]
    Unkillable(PathBuf),
}

/// Where the cgroup v2 hierarchy is mounted, from the text of `/proc/mounts`.
pub fn mount_point(mounts: &str) -> Option<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|f| f.get(2) == Some(&"cgroup2")).find_map(|f| f.get(1).map(PathBuf::from))
}

/// A cgroup directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The directory `name` directly below the hierarchy's root; not made yet.
    pub fn at_root(name: &str) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let root = mount_point(&mounts).ok_or(CgroupError::NotMounted)?;
        Ok(Self { path: root.join(name) })
    }

    pub fn child(&self, name: &str) -> Self {
        Self { path: self.path.join(name) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory; it may exist.
    pub fn create(&self) -> Result<(), CgroupError> {
        fs::create_dir_all(&self.path).map_err(|e| self.error("make", e))
    }

    /// The file a process writes `0` to, to join.
    pub fn entrance(&self) -> Result<File, CgroupError> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs")).map_err(|e| self.error("open", e))
    }

    /// Kills every process in it and below. It may be gone already.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("kill", e)),
            _ => Ok(()),
        }
    }

    /// Kills every process in it and below, waits until they are gone, and removes it.
    pub async fn remove(&self) -> Result<(), CgroupError> {
        self.kill()?;
        let deadline = tokio::time::Instant::now() + REAP_TIMEOUT;
        loop {
            match remove_tree(&self.path) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
                Err(e) => return Err(self.error("remove", e)),
            }
            if tokio::time::Instant::now() > deadline {
                return Err(CgroupError::Unkillable(self.path.clone()));
            }
            // A child forked while the kill was under way; killing again is harmless.
            tokio::time::sleep(REAP_INTERVAL).await;
            self.kill()?;
        }
    }

    /// Like [`Cgroup::remove`], where nothing can be awaited: gives up after half a second, and says nothing.
    pub fn remove_now(&self) {
        for _ in 0..100 {
            if self.kill().is_err() || remove_tree(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(REAP_INTERVAL);
        }
    }

    fn error(&self, what: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Access { what, path: self.path.clone(), source }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"), None);
    }
}
