//! The BPF file system that holds tables and links. It is either one of our own, mounted nowhere: nobody else sees it,
//! and it is gone with its file descriptor. Or it is a folder that outlives this process, in which the next one finds
//! everything again.

use crate::error::InterceptError;
use nix::{mount::MsFlags, sys::statfs::statfs};
use std::{
    ffi::{CStr, c_long},
    fs::{self, File, TryLockError},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr::null,
};

/// `FSCONFIG_CMD_CREATE` of linux/mount.h.
const CREATE: u32 = 6;
const CLOSE_ON_EXEC: u32 = 1;
/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: i64 = 0xcafe_4a11;

/// Which tables there are and how their keys and values look. Programs of one layout can take each other's place at
/// the same tables; after a change of the layout, pods are attached anew beside the old links.
const LAYOUT: &str = "v1";

#[derive(Debug)]
pub(crate) struct Bpffs {
    root: PathBuf,
    layout: String,
    /// Holds the file system (a private one), or says that this folder has an owner.
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for what happens when they are dropped")]
enum Held {
    Private(OwnedFd),
    Locked(File),
}

impl Bpffs {
    /// Ends with this process.
    pub(crate) fn private() -> Result<Self, InterceptError> {
        let explain = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                InterceptError::NotPermitted { what: "making a BPF file system".into(), source }
            }
            _ => InterceptError::MissingFeature {
                feature: "the BPF file system (CONFIG_BPF_SYSCALL) through fsopen(2)",
                needed_for: "sharing tables between programs",
                since: "5.2",
                source,
            },
        };
        let mount = mount(c"bpf").map_err(explain)?;
        // Valid in this process only.
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Self { root, layout: LAYOUT.to_owned(), _held: Held::Private(mount) }.with_folders()
    }

    /// Outlives this process. A folder that is on another file system gets a BPF file system mounted on it.
    pub(crate) fn persistent(root: &Path, layout: Option<&str>) -> Result<Self, InterceptError> {
        let refuse = |source| InterceptError::PinFolder { path: root.to_owned(), source };
        fs::create_dir_all(root).map_err(refuse)?;
        if statfs(root).map_err(|e| refuse(e.into()))?.filesystem_type().0 as i64 != MAGIC {
            let none: Option<&str> = None;
            nix::mount::mount(Some("bpf"), root, Some("bpf"), MsFlags::empty(), none).map_err(|e| refuse(e.into()))?;
        }
        let lock = File::open(root).map_err(refuse)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(InterceptError::OtherAgent { path: root.to_owned() }),
            Err(TryLockError::Error(e)) => return Err(refuse(e)),
        }
        let layout = layout.unwrap_or(LAYOUT).to_owned();
        Self { root: root.to_owned(), layout, _held: Held::Locked(lock) }.with_folders()
    }

    fn with_folders(self) -> Result<Self, InterceptError> {
        for folder in [self.tables(), self.pods()] {
            fs::create_dir_all(&folder).map_err(|source| InterceptError::PinFolder { path: folder, source })?;
        }
        Ok(self)
    }

    pub(crate) fn outlives_us(&self) -> bool {
        matches!(self._held, Held::Locked(_))
    }

    /// Where the table `name` is pinned.
    pub(crate) fn table(&self, name: &str) -> PathBuf {
        self.tables().join(name)
    }

    fn tables(&self) -> PathBuf {
        self.root.join(&self.layout).join("tables")
    }

    /// The folder of folders with the pods' links, named by the pods' cookies.
    pub(crate) fn pods(&self) -> PathBuf {
        self.root.join(&self.layout).join("pods")
    }

    /// As [`Self::pods`], of agents with another layout.
    pub(crate) fn pods_of_others(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let others = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name != self.layout));
        others.map(|entry| entry.path().join("pods")).filter(|pods| pods.is_dir()).collect()
    }

    /// Removes the tables of the layout `pods` belongs to, if no pod needs them.
    pub(crate) fn forget_layout_of(pods: &Path) -> io::Result<()> {
        match fs::remove_dir(pods) {
            Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => return Ok(()),
            removed => removed?,
        }
        let layout = pods.parent().unwrap_or(pods);
        let tables = layout.join("tables");
        for table in fs::read_dir(&tables)? {
            fs::remove_file(table?.path())?;
        }
        fs::remove_dir(tables)?;
        fs::remove_dir(layout)
    }
}

#[expect(unsafe_code, reason = "libc has no wrappers for fsopen, fsconfig and fsmount")]
fn mount(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the arguments are of the types fsopen(2), fsconfig(2) and fsmount(2) take, strings end with a zero, and
    // each descriptor is owned as soon as it exists.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOSE_ON_EXEC))?;
        let none = null::<libc::c_char>();
        if libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, 0))
    }
}

#[expect(unsafe_code, reason = "takes ownership of a descriptor returned by a system call")]
unsafe fn owned(result: c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller passes the result of a call that returns a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
