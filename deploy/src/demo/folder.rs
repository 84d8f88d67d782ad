//! The folder in which a demo keeps its cluster and its log.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fsm_local::home;

/// The cluster's part of it.
pub const CLUSTER: &str = "cluster";
/// The controller's event log in it.
pub const LOG: &str = "log";

/// How long what was ended may still write its last files.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes `dir` an empty folder, if it holds nothing but what an earlier demo left, and that demo is over.
pub async fn empty(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let name = entry?.file_name();
            if name != CLUSTER && name != LOG {
                bail!("{} holds {name:?}, which is no demo's; choose another --data-dir", dir.display());
            }
        }
        let cluster = dir.join(CLUSTER);
        if let Some(running) = home::running(&cluster)? {
            bail!(
                "another demo runs in {} (process {}); end it with Ctrl-C, or choose another --data-dir",
                dir.display(),
                running.pid
            );
        }
        // Ends what is left of a demo that was killed.
        home::down(&cluster).await?;
        remove(&cluster)?;
        remove(&dir.join(LOG))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes a folder with all that is in it. What was just ended may still write its last files there, so that is tried for a while.
pub fn remove(dir: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    loop {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => return Ok(()),
        }
    }
}
