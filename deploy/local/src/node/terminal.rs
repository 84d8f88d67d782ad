//! Terminals for containers: pseudo-terminals of the container's own `/dev/pts`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::unistd::{Uid, fchown};

/// Opens a terminal as seen from the calling thread: our end and the process's, which belongs to `user`.
pub(super) fn open(user: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname_r(&ours)?;
    let theirs = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name)?;
    if let Some(user) = user {
        fchown(&theirs, Some(Uid::from_raw(user)), None)?;
    }
    // The descriptor is all that is kept of it; nix offers no conversion.
    let ours = nix::unistd::dup(&ours)?;
    Ok((ours, theirs.into()))
}

/// Makes standard input the controlling terminal of the calling process, which leads a session. For use between fork and exec.
pub(super) fn control() -> nix::Result<()> {
    #[expect(unsafe_code, reason = "nix has no wrapper for TIOCSCTTY")]
    // SAFETY: the request takes an integer and touches no memory of ours.
    let done = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    nix::errno::Errno::result(done).map(drop)
}

/// Tells a terminal its size; the processes in its foreground learn of it.
pub(super) fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "nix has no wrapper for TIOCSWINSZ")]
    // SAFETY: the request reads one `winsize`, which lives until the call returns.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
