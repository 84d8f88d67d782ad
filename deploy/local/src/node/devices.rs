//! A container's `/dev`: the devices everyone may have and terminals of its own, as container runtimes make it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::rootfs::{RootError, step};

const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts it at `/dev` of the calling thread's root; `host` is the host's `/dev` there.
pub(super) fn make(host: &Path) -> Result<(), RootError> {
    let dev = Path::new("/dev");
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| RootError::Step { what, path, source }
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME;
    mount(Some("tmpfs"), dev, Some("tmpfs"), flags, Some("mode=755")).map_err(step("mount a tmpfs on", dev))?;
    for name in NODES {
        let node = dev.join(name);
        File::create(&node).map_err(failed("make", &node))?;
        mount(Some(&host.join(name)), &node, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(step("mount", &node))?;
    }
    for (name, target) in LINKS {
        let link = dev.join(name);
        symlink(target, &link).map_err(failed("make", &link))?;
    }
    let terminals = dev.join("pts");
    fs::create_dir(&terminals).map_err(failed("make", &terminals))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), &terminals, Some("devpts"), flags, Some("newinstance,ptmxmode=0666,mode=0620"))
        .map_err(step("mount terminals on", &terminals))
}
