//! The last good configuration as a file, so that a proxy that restarts while no controller is there knows its mesh.
//! The format is in [`fsm_proxy_config::cache`].

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use fsm_proxy_config::{Snapshot, cache};
use tokio::sync::watch;

use super::{Environment, State};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "config.fsm";

/// The configuration on disk, if there is a good one that was meant for this pod. Anything else is logged, and the proxy
/// waits for its controller.
pub(super) fn load(environment: &Environment) -> Option<Snapshot> {
    let path = environment.state_dir.as_ref()?.join(FILE_NAME);
    let ignored = |reason: &dyn std::fmt::Display| {
        tracing::warn!(path = %path.display(), %reason, "the configuration on disk is ignored; waiting for the controller's");
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            ignored(&error);
            return None;
        }
    };
    let set = cache::decode(&bytes).map_err(|error| ignored(&error)).ok()?;
    let snapshot = Snapshot::compile(set).map_err(|error| ignored(&error)).ok()?;
    let workload = snapshot.workload();
    if (workload.namespace.as_str(), workload.pod.as_str()) != (environment.identity.namespace(), &environment.pod) {
        ignored(&format_args!("it is for pod {}/{}", workload.namespace, workload.pod));
        return None;
    }
    tracing::info!(path = %path.display(), seq = snapshot.seq(), "configuration taken from disk");
    Some(snapshot)
}

/// Writes the newest snapshot whenever there is one. If several came while one was written, only the last is.
pub(super) async fn keep(
    environment: Arc<Environment>,
    mut applied: watch::Receiver<Option<Arc<Snapshot>>>,
    state: Arc<watch::Sender<State>>,
) {
    let Some(directory) = environment.state_dir.clone() else { return };
    let mut failing = false;
    while applied.changed().await.is_ok() {
        let Some(snapshot) = applied.borrow_and_update().clone() else { continue };
        let (directory, seq) = (directory.clone(), snapshot.seq());
        let written = tokio::task::spawn_blocking(move || store(&directory, &snapshot)).await;
        let written = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if let Err(error) = &written
            && !failing
        {
            tracing::warn!(%error, "the configuration cannot be kept on disk: after a restart without a controller, this proxy would have none");
        }
        failing = written.is_err();
        if !failing {
            state.send_modify(|state| state.on_disk = Some(seq));
        }
    }
}

/// Replaces the file as a whole: at every moment there is the old one or the new one.
pub fn store(directory: &Path, snapshot: &Snapshot) -> io::Result<()> {
    // Only the folder itself: what it lies in is the pod's, and if that is gone, so is the need for the file.
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let temporary = directory.join(format!("{FILE_NAME}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&cache::encode(snapshot.set()))?;
    file.sync_all()?;
    std::fs::rename(&temporary, directory.join(FILE_NAME))?;
    File::open(directory)?.sync_all()
}
