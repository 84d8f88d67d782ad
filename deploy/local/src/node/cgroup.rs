//! cgroup v2 directories: who belongs to which pod and container, and the sure way to end them all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the kernel may take to reap a killed cgroup before we give up waiting.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a dying cgroup is looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(5);

/// How the names of clusters' cgroups begin; their ids follow.
const CLUSTER: &str = "fsm-local.";

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
    /// The root of the hierarchy.
    pub fn root() -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        Ok(Self { path: mount_point(&mounts).ok_or(CgroupError::NotMounted)? })
    }

    /// That of all processes of the cluster with this id; not made yet.
    pub fn of_cluster(id: &str) -> Result<Self, CgroupError> {
        Ok(Self::root()?.child(&format!("{CLUSTER}{id}")))
    }

    /// Those of clusters whose process is gone, with the clusters' ids. They stay locked while the locks are held, so that
    /// nobody else cleans them.
    pub fn orphans() -> Result<Vec<(String, Self, File)>, CgroupError> {
        let root = Self::root()?;
        let entries = fs::read_dir(&root.path).map_err(|e| root.error("list", e))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut orphans = Vec::new();
        for name in names {
            let Some(id) = name.strip_prefix(CLUSTER) else { continue };
            let cgroup = root.child(&name);
            // Gone meanwhile, or it has an owner.
            if let Ok(lock) = File::open(&cgroup.path)
                && lock.try_lock().is_ok()
            {
                orphans.push((id.to_owned(), cgroup, lock));
            }
        }
        Ok(orphans)
    }

    /// Makes the directory and takes it, until the lock is dropped or this process ends: by that others know that it has an owner.
    pub fn hold(&self) -> Result<File, CgroupError> {
        let error = |e| self.error("take", e);
        loop {
            self.create()?;
            let lock = match File::open(&self.path) {
                // Somebody cleaned up between the two.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(error)?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                // Somebody who cleans up looks at it.
                Err(TryLockError::WouldBlock) => lock.lock().map_err(error)?,
                Err(TryLockError::Error(e)) => return Err(error(e)),
            }
            let held = lock.metadata().map_err(error)?;
            if fs::metadata(&self.path).is_ok_and(|now| now.ino() == held.ino()) {
                return Ok(lock);
            }
        }
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

    /// Hands controllers on to the cgroups below, as far as this one has them. Gives those it could.
    pub fn delegate(&self, controllers: &[&'static str]) -> Vec<&'static str> {
        let handed_on = |name: &&&'static str| self.set("cgroup.subtree_control", &format!("+{name}")).is_ok();
        controllers.iter().filter(handed_on).copied().collect()
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        fs::write(&path, text).map_err(|source| CgroupError::Access { what: "write to", path, source })
    }

    /// How many processes the kernel has ended for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or(0)
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

    /// Like [`Cgroup::remove`], where nothing can be awaited: gives up after two seconds, and says nothing.
    pub fn remove_now(&self) {
        for _ in 0..400 {
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

    #[tokio::test]
    async fn a_cgroup_without_an_owner_is_an_orphan() {
        if !crate::preflight::is_root() || Cgroup::root().is_err() {
            println!("skipped: needs root and cgroup v2");
            return;
        }
        let id = format!("test{}", std::process::id());
        let cgroup = Cgroup::of_cluster(&id).unwrap();
        let owner = cgroup.hold().unwrap();
        let is_orphan = || Cgroup::orphans().unwrap().iter().any(|(orphan, ..)| *orphan == id);
        assert!(!is_orphan());
        drop(owner);
        assert!(is_orphan());
        cgroup.remove().await.unwrap();
        assert!(!is_orphan());
    }
}
