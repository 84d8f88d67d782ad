//! A pod that keeps more in an `emptyDir` than its `sizeLimit` allows is ended, as the kubelet does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::context::Context;
use super::env::parse_quantity;
use super::volume::is_in_memory;

/// How often volumes are measured, as often as the kubelet does.
const INTERVAL: Duration = Duration::from_secs(10);

/// A volume with a limit, and where it is.
struct Limited {
    name: String,
    /// As the manifest says it.
    limit: String,
    bytes: u64,
    path: PathBuf,
}

/// Measures the pod's volumes for as long as it is polled; evicts the pod when one is too large.
pub(super) async fn watch(ctx: Arc<Context>) {
    let volumes = limited(&ctx.pod, &ctx.agent.dirs.volumes(&ctx.pod));
    if volumes.is_empty() {
        return;
    }
    let volumes = Arc::new(volumes);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let measured = Arc::clone(&volumes);
        let too_large = tokio::task::spawn_blocking(move || {
            let found = measured.iter().find(|v| used(&v.path).is_ok_and(|used| used > v.bytes));
            found.map(|v| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", v.name, v.limit))
        });
        if let Ok(Some(message)) = too_large.await {
            ctx.agent.events.warn(ctx.pod.as_ref(), "Evicted", &message);
            ctx.board.send_modify(|board| board.evicted = Some(message));
            ctx.agent.workers.evict(&ctx.pod.uid().unwrap_or_default());
            return;
        }
    }
}

/// The pod's volumes with a limit. Memory sees to its own.
fn limited(pod: &Pod, dir: &Path) -> Vec<Limited> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let limited = volumes.filter(|volume| !is_in_memory(volume)).filter_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.clone()?.0;
        let bytes = parse_quantity(&limit)?.ceil() as u64;
        Some(Limited { name: volume.name.clone(), limit, bytes, path: dir.join(&volume.name) })
    });
    limited.collect()
}

/// What the files of a directory take of the disk.
fn used(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        // In blocks of 512 bytes, whatever the file system's own are (stat(2)).
        sum += found.blocks() * 512;
        if found.is_dir() {
            sum += used(&entry.path())?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_is_as_large_as_the_files_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {}, "spec": {"containers": [], "volumes": [{"name": "a", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "b", "emptyDir": {}}, {"name": "c", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}});
        let volumes = limited(&serde_json::from_value(pod).unwrap(), dir.path());
        assert_eq!(volumes.iter().map(|v| (v.name.as_str(), v.bytes)).collect::<Vec<_>>(), [("a", 1 << 20)]);
        let path = &volumes[0].path;
        fs::create_dir_all(path.join("sub")).unwrap();
        assert!(used(path).unwrap() < 1 << 20);
        fs::write(path.join("sub/x"), vec![1; 2 << 20]).unwrap();
        assert!(used(path).unwrap() > 1 << 20);
    }
}
