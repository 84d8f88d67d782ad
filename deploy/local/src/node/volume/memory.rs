//! Volumes in memory (`emptyDir` with `medium: Memory`): mounts of the host in the cluster's directory, that go with the pod.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The first word of such a mount in `/proc/mounts`.
const SOURCE: &str = "fsm-local";

/// Mounts memory at a directory, of a size or of what the kernel allows.
pub(super) fn make(dir: &Path, bytes: Option<u64>) -> io::Result<()> {
    let size = bytes.map_or(String::new(), |bytes| format!(",size={bytes}"));
    let options = format!("mode=777{size}");
    Ok(mount(Some(SOURCE), dir, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?)
}

/// Unmounts all of them at and below a directory.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    // The last mounted first.
    for point in mounted_below(&fs::read_to_string("/proc/self/mountinfo")?, dir).iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// From the text of `/proc/self/mountinfo` (proc(5)).
fn mounted_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let source = right.split(' ').nth(1)?;
        (source == SOURCE).then(|| PathBuf::from(left.split(' ').nth(4).unwrap_or_default().replace("\\040", " ")))
    });
    points.filter(|point| point.starts_with(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_of_the_directory_are_found() {
        let mountinfo = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            23 22 0:40 / /c/pods/1/volumes/a rw - tmpfs fsm-local rw\n\
            24 22 0:41 / /c/pods/1/volumes/b rw - tmpfs tmpfs rw\n\
            25 22 0:42 / /d/pods/1/volumes/a rw - tmpfs fsm-local rw\n";
        assert_eq!(mounted_below(mountinfo, Path::new("/c/pods")), [PathBuf::from("/c/pods/1/volumes/a")]);
    }
}
