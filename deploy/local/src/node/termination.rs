//! What a container says about its end: the file at its `terminationMessagePath`, or the end of its log.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use super::logs::ContainerLog;
use super::rootfs::Bind;

const DEFAULT_PATH: &str = "/dev/termination-log";
/// How much is kept of one container's message, and of all messages of a pod together (as the kubelet does).
const MESSAGE_BYTES: usize = 4 << 10;
const POD_BYTES: usize = 12 << 10;
/// What stands in for a message.
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2 << 10;

/// An empty file in `dir` that shows in the container where it is to write its message.
pub(super) fn file(dir: &Path, container: &Container) -> io::Result<Bind> {
    fs::create_dir_all(dir)?;
    let source = source(dir, container);
    fs::write(&source, b"")?;
    // The container may run as any user.
    fs::set_permissions(&source, fs::Permissions::from_mode(0o666))?;
    let target = container.termination_message_path.clone().filter(|path| !path.is_empty());
    Ok(Bind { source, target: target.unwrap_or_else(|| DEFAULT_PATH.to_owned()).into(), read_only: false })
}

/// The message of a run that ended with `code`, in a pod with so many containers.
pub(super) fn message(
    dir: &Path,
    container: &Container,
    containers: usize,
    code: i32,
    log: &ContainerLog,
) -> Option<String> {
    let limit = MESSAGE_BYTES.min(POD_BYTES / containers.max(1));
    let mut said = fs::read(source(dir, container)).unwrap_or_default();
    if said.is_empty() && code != 0 && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
    {
        said = log.end(LOG_LINES, LOG_BYTES);
    }
    let end = &said[said.len().saturating_sub(limit)..];
    (!end.is_empty()).then(|| String::from_utf8_lossy(end).into_owned())
}

fn source(dir: &Path, container: &Container) -> PathBuf {
    dir.join(&container.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = ContainerLog::new(dir.path().join("log"));
        let container = serde_json::from_value(json!({"name": "c", "terminationMessagePath": "/tmp/why"})).unwrap();
        let bind = file(dir.path(), &container).unwrap();
        assert_eq!(bind.target, PathBuf::from("/tmp/why"));
        assert_eq!(message(dir.path(), &container, 1, 1, &log), None);
        fs::write(&bind.source, "x".repeat(5000) + "end").unwrap();
        let told = |containers| message(dir.path(), &container, containers, 0, &log).unwrap();
        assert!(told(1).len() == 4096 && told(1).ends_with("xend"));
        assert_eq!(told(6).len(), 2048);
        file(dir.path(), &container).unwrap();
        assert_eq!(message(dir.path(), &container, 1, 0, &log), None, "the next run begins without one");
    }
}
