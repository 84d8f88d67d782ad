//! A container's file system: this machine's, with everything the container writes kept apart.
//!
//! The root is an overlay on the host's root whose upper directory is a tmpfs, made in a mount namespace of the container's
//! own. So nothing a container writes outside its volumes reaches the host, and all of it is gone with its last process.
//! Other file systems of the host (a separate `/home`, say) are bound in as they are.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root, sethostname};

use super::devices;

/// Where the host's file system is reachable while the root is being built.
const HOST: &str = "/.host";
/// Fresh memory file systems in every container, with their modes.
const FRESH: [(&str, &str); 3] = [("/tmp", "mode=1777"), ("/run", "mode=755"), ("/dev/shm", "mode=1777")];
/// File systems of the host that aren't storage: `/proc`, `/sys` and `/dev` are bound with what is mounted in them, the
/// rest is of no use to a container.
const STORAGE: [&str; 8] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "virtiofs"];

/// A directory or file of the host to show inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// What a container's root is made of.
#[derive(Debug, Clone)]
pub struct RootSpec {
    /// An empty directory of the host, to mount on inside the new namespace. Containers can share one.
    pub scratch: PathBuf,
    pub hostname: String,
    /// The host's devices instead of the harmless ones (`privileged`).
    pub all_devices: bool,
    /// Files written into the root: path and content.
    pub files: Vec<(PathBuf, String)>,
    pub binds: Vec<Bind>,
}

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("cannot make a mount namespace: {0}; run as root")]
    Namespace(#[source] io::Error),
    #[error("cannot mount an overlay on the root: {0}; load the module `overlay` (CONFIG_OVERLAY_FS)")]
    Overlay(#[source] io::Error),
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Step { what: &'static str, path: PathBuf, source: io::Error },
}

/// Moves the calling thread, for good, into a new mount and host name namespace with the root described.
pub(super) fn enter(spec: &RootSpec) -> Result<(), RootError> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(|e| RootError::Namespace(e.into()))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| RootError::Namespace(e.into()))?;
    let storage = storage_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &spec.scratch);

    let scratch = &spec.scratch;
    mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .map_err(step("mount a tmpfs on", scratch))?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for dir in [&upper, &work, &root] {
        fs::create_dir(dir).map_err(|e| RootError::Step { what: "make", path: dir.clone(), source: e })?;
    }
    // The upper directory's mode becomes the root directory's.
    let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .map_err(|e| RootError::Overlay(e.into()))?;
    let host = root.join(&HOST[1..]);
    fs::create_dir_all(&host).map_err(|e| RootError::Step { what: "make", path: host.clone(), source: e })?;
    pivot_root(&root, &host).map_err(step("make the new root of", &root))?;
    chdir("/").map_err(step("enter", Path::new("/")))?;

    for dir in ["/proc", "/sys", "/dev"].iter().filter(|dir| **dir != "/dev" || spec.all_devices) {
        bind(&Bind { source: dir.into(), target: dir.into(), read_only: false }, MsFlags::MS_REC)?;
    }
    if !spec.all_devices {
        devices::make(&Path::new(HOST).join("dev"))?;
    }
    for point in storage {
        let plain = Bind { source: point.clone(), target: point, read_only: false };
        if let Err(error) = bind(&plain, MsFlags::empty()) {
            tracing::debug!(%error, "a file system of the host is not shown in the container");
        }
    }
    for (path, options) in FRESH {
        fs::create_dir_all(path).map_err(|e| RootError::Step { what: "make", path: path.into(), source: e })?;
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
            .map_err(step("mount a tmpfs on", Path::new(path)))?;
    }
    for (path, content) in &spec.files {
        write(path, content).map_err(|e| RootError::Step { what: "write", path: path.clone(), source: e })?;
    }
    for volume in &spec.binds {
        bind(volume, MsFlags::MS_REC)?;
    }
    umount2(HOST, MntFlags::MNT_DETACH).map_err(step("let go of", Path::new(HOST)))?;
    fs::remove_dir(HOST).map_err(|e| RootError::Step { what: "remove", path: HOST.into(), source: e })?;
    sethostname(&spec.hostname).map_err(step("set the host name in", Path::new("/")))
}

/// Builds a root on a thread of its own and throws it away: whether this machine can run containers at all.
pub fn can_build_roots(scratch: &Path) -> Result<(), RootError> {
    let spec = RootSpec {
        scratch: scratch.to_owned(),
        hostname: "check".to_owned(),
        all_devices: false,
        files: Vec::new(),
        binds: Vec::new(),
    };
    std::thread::scope(|scope| match scope.spawn(|| enter(&spec)).join() {
        Ok(built) => built,
        Err(_) => Err(RootError::Namespace(io::Error::other("the thread that tried panicked"))),
    })
}

/// Replaces a file that may be a symbolic link to something the host manages.
fn write(path: &Path, content: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Binds a path of the host, making the mount point.
fn bind(bind: &Bind, recursive: MsFlags) -> Result<(), RootError> {
    let source = Path::new(HOST).join(bind.source.strip_prefix("/").unwrap_or(&bind.source));
    let target = &bind.target;
    let made = match fs::metadata(&source) {
        Ok(found) if found.is_dir() => fs::create_dir_all(target),
        Ok(_) => target
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(target).map(drop)),
        Err(error) => return Err(RootError::Step { what: "find", path: bind.source.clone(), source: error }),
    };
    made.map_err(|e| RootError::Step { what: "make the mount point", path: target.clone(), source: e })?;
    let none = None::<&str>;
    mount(Some(&source), target, none, MsFlags::MS_BIND | recursive, none).map_err(step("mount", target))?;
    if bind.read_only {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, target, none, flags, none).map_err(step("make read-only", target))?;
    }
    Ok(())
}

pub(super) fn step<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(nix::Error) -> RootError + 'a {
    move |source| RootError::Step { what, path: path.to_owned(), source: source.into() }
}

/// Mount points of storage file systems besides the root, from the text of `/proc/self/mountinfo` (proc(5)): the ones an
/// overlay on `/` does not show.
fn storage_mounts(mountinfo: &str, scratch: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let point = PathBuf::from(point.replace("\\040", " "));
        let special = ["/proc", "/sys", "/dev"].iter().any(|dir| point.starts_with(dir));
        let around_scratch = point.starts_with(scratch);
        if STORAGE.contains(&kind) && point != Path::new("/") && !special && !around_scratch && point.is_dir() {
            found.push(point);
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_storage_besides_the_root_is_bound_in() {
        let mountinfo = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
            23 22 0:21 / /proc rw - proc proc rw\n\
            24 22 8:1 / /usr rw - xfs /dev/sda1 rw\n\
            25 22 0:40 / /var rw - tmpfs tmpfs rw\n\
            26 22 8:2 / /etc/hostname rw - ext4 /dev/sda2 rw\n";
        assert_eq!(storage_mounts(mountinfo, Path::new("/var/lib/fsm-local/scratch")), [PathBuf::from("/usr")]);
    }
}
