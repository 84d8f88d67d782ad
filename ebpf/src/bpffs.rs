//! A BPF file system of our own, mounted nowhere: the one way the loader can hand existing tables to an object loaded
//! later. Nobody else sees it, and it is gone with its file descriptor.

use crate::error::InterceptError;
use std::{
    ffi::{CStr, c_long},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    ptr::null,
};

/// `FSCONFIG_CMD_CREATE` of linux/mount.h.
const CREATE: u32 = 6;
const CLOSE_ON_EXEC: u32 = 1;

#[derive(Debug)]
pub(crate) struct PrivateBpffs {
    root: OwnedFd,
}

impl PrivateBpffs {
    pub(crate) fn new() -> Result<Self, InterceptError> {
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
        Ok(Self { root: mount(c"bpf").map_err(explain)? })
    }

    /// Where the table `name` is pinned. Valid in this process only.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.root.as_raw_fd()))
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
