//! The cluster's directory: who has it, and what an earlier cluster left behind in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::node::{Cgroup, CgroupError, unmount_below};

/// How long a cluster may take to go down in order before it is killed.
const DOWN_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error(
        "data directory {0} belongs to a running cluster (process {1}); stop it with `fsm local down --data-dir {0}` or choose another directory"
    )]
    Taken(PathBuf, i32),
    #[error("data directory {path}: cannot {what}: {source}")]
    Access { path: PathBuf, what: &'static str, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// What a running cluster says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub pid: i32,
    /// Where kubectl finds the cluster.
    pub kubeconfig: PathBuf,
    /// The API's address on this machine.
    pub api_server: String,
}

/// The directory, held by this process until dropped.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    lock: File,
    id: String,
    cgroup_lock: Option<File>,
}

impl Home {
    /// Makes the directory if need be, and takes it.
    pub fn take(dir: &Path) -> Result<Self, HomeError> {
        let access = |what| move |source| HomeError::Access { path: dir.to_owned(), what, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(access("make it"))?;
        let dir = fs::canonicalize(dir).map_err(access("resolve it"))?;
        let mut lock = open_lock(&dir).map_err(access("open its lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = said(&mut lock).map_or(0, |running| running.pid);
                return Err(HomeError::Taken(dir, pid));
            }
            Err(TryLockError::Error(source)) => return Err(access("lock it")(source)),
        }
        let id = cluster_id(&dir).map_err(access("read or make the cluster's id in it"))?;
        Ok(Self { dir, lock, id, cgroup_lock: None })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster's name among those of this machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cgroup of all the cluster's processes.
    pub fn cgroup(&self) -> Result<Cgroup, CgroupError> {
        Cgroup::of_cluster(&self.id)
    }

    /// Makes the cluster's cgroup and shows that it has an owner, for as long as this lives.
    pub fn hold_cgroup(&mut self) -> Result<Cgroup, CgroupError> {
        let cgroup = self.cgroup()?;
        self.cgroup_lock = Some(cgroup.hold()?);
        Ok(cgroup)
    }

    /// Ends what is left of an earlier cluster that was killed, and removes what only it could use.
    pub async fn clean(&self) -> Result<(), HomeError> {
        self.cgroup()?.remove().await?;
        let access = |source| HomeError::Access { path: self.dir.join("pods"), what: "unmount what is in it", source };
        unmount_below(&self.dir).map_err(access)?;
        for name in ["pods", "logs", "scratch", "images"] {
            match fs::remove_dir_all(self.dir.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(HomeError::Access { path: self.dir.join(name), what: "remove it", source: e });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Says what runs here, for `status` and `down`.
    pub fn announce(&mut self, running: &Running) -> Result<(), HomeError> {
        let text = serde_json::to_vec(running).unwrap_or_default();
        let written = self.lock.set_len(0).and_then(|()| self.lock.rewind()).and_then(|()| self.lock.write_all(&text));
        written.map_err(|source| HomeError::Access { path: self.dir.clone(), what: "write its lock", source })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whoever is still in there after an orderly end is there by mistake; without one, all are.
        if self.cgroup_lock.is_some()
            && let Ok(cgroup) = self.cgroup()
        {
            cgroup.remove_now();
        }
    }
}

/// Ends what is left of clusters that were killed, wherever their directories are or were.
pub async fn sweep() {
    let orphans = match Cgroup::orphans() {
        Ok(orphans) => orphans,
        Err(error) => {
            tracing::debug!(%error, "what killed clusters left was not looked for");
            return;
        }
    };
    for (id, cgroup, _lock) in orphans {
        match cgroup.remove().await {
            Ok(()) => tracing::info!(cluster = id, "cleaned up after a cluster that was killed"),
            Err(error) => tracing::warn!(cluster = id, %error, "what a killed cluster left stays"),
        }
    }
}

/// The cluster that has `dir` now, if any.
pub fn running(dir: &Path) -> Result<Option<Running>, HomeError> {
    let access = |source| HomeError::Access { path: dir.to_owned(), what: "read its lock", source };
    let mut lock = match OpenOptions::new().read(true).open(lock_path(dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(access)?,
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(source)) => Err(access(source)),
        Err(TryLockError::WouldBlock) => {
            let starting = Running { pid: 0, kubeconfig: PathBuf::new(), api_server: String::new() };
            Ok(Some(said(&mut lock).unwrap_or(starting)))
        }
    }
}

/// Ends the cluster that has `dir`, in order if it lets us, and cleans up. True if one was running.
pub async fn down(dir: &Path) -> Result<bool, HomeError> {
    if !dir.exists() {
        return Ok(false);
    }
    let found = running(dir)?;
    if let Some(running) = &found {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            if running.pid > 0 {
                // Gone meanwhile, or it goes now.
                kill(Pid::from_raw(running.pid), signal).ok();
            }
            let path = lock_path(dir);
            let freed = tokio::task::spawn_blocking(move || OpenOptions::new().read(true).open(path)?.lock());
            if tokio::time::timeout(DOWN_TIMEOUT, freed).await.is_ok() {
                break;
            }
        }
    }
    Home::take(dir)?.clean().await?;
    sweep().await;
    Ok(found.is_some())
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(lock_path(dir))
}

fn said(lock: &mut File) -> Option<Running> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// A name that stays with the directory, so that a later start finds what an earlier one left elsewhere.
fn cluster_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("cluster-id");
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => {
            let id = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
            fs::write(&path, &id)?;
            Ok(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_has_one_cluster_and_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let mut home = Home::take(dir.path()).unwrap();
        let said = Running { pid: 42, kubeconfig: "/k".into(), api_server: "https://127.0.0.1:1".into() };
        home.announce(&said).unwrap();
        assert_eq!(running(dir.path()).unwrap(), Some(said));
        let refused = Home::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("process 42") && refused.contains("fsm local down"), "{refused}");
        let id = home.id.clone();
        drop(home);
        assert_eq!(running(dir.path()).unwrap(), None);
        assert_eq!(Home::take(dir.path()).unwrap().id, id);
    }
}
