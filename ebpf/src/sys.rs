//! The calls of bpf(2) that deal with links: attachments as objects of their own, which can be pinned, found again,
//! given another program without a gap, and asked what they are attached to.

#![expect(unsafe_code, reason = "no library has all of these calls; every one is in this file")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_CREATE: i32 = 28;
const LINK_UPDATE: i32 = 29;
const LINK_DETACH: i32 = 34;

const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_NETNS: u32 = 5;

/// Where a program can be attached: the kernel's `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum AttachType {
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    GetSockOpt = 21,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    SkLookup = 36,
}

/// What a link is attached to, by the kernel's number; 0 once that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Cgroup(u64),
    Netns(u32),
    Other,
}

impl Target {
    /// Whether a program can still run there.
    pub(crate) fn alive(self) -> bool {
        !matches!(self, Self::Cgroup(0) | Self::Netns(0))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) target: Target,
}

/// An attachment. It ends when neither a descriptor nor a pin holds it.
#[derive(Debug)]
pub(crate) struct Link(OwnedFd);

impl Link {
    pub(crate) fn create(program: BorrowedFd<'_>, target: BorrowedFd<'_>, kind: AttachType) -> io::Result<Self> {
        let attr = [program.as_raw_fd() as u32, target.as_raw_fd() as u32, kind as u32, 0];
        descriptor(LINK_CREATE, &attr).map(Self)
    }

    /// The link pinned at `path`; nothing if there is none.
    pub(crate) fn pinned(path: &Path) -> io::Result<Option<Self>> {
        let path = c_path(path)?;
        match descriptor(OBJ_GET, &PathAttr { path: path.as_ptr() as u64, fd: 0, flags: 0 }) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        let attr = PathAttr { path: path.as_ptr() as u64, fd: self.0.as_raw_fd() as u32, flags: 0 };
        bpf(OBJ_PIN, &attr).map(drop)
    }

    /// Puts `program` in place of the present one: each event runs the one or the other.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let attr = [self.0.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0];
        bpf(LINK_UPDATE, &attr).map(drop)
    }

    /// Ends the attachment, whoever else holds the link. Removing pins does that too, but some time later.
    pub(crate) fn detach(&self) -> io::Result<()> {
        bpf(LINK_DETACH, &[self.0.as_raw_fd() as u32]).map(drop)
    }

    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        #[repr(C)]
        struct Attr {
            fd: u32,
            length: u32,
            info: u64,
        }
        let mut info = [0u64; 4];
        let length = size_of_val(&info) as u32;
        bpf(OBJ_GET_INFO_BY_FD, &Attr { fd: self.0.as_raw_fd() as u32, length, info: info.as_mut_ptr() as u64 })?;
        // type and id, program and padding, then what belongs to the type.
        let (kind, id) = halves(info[0]);
        let target = match kind {
            LINK_TYPE_CGROUP => Target::Cgroup(info[2]),
            LINK_TYPE_NETNS => Target::Netns(halves(info[2]).0),
            _ => Target::Other,
        };
        Ok(LinkInfo { id, target })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs a program once on a context made up for it (`BPF_PROG_TEST_RUN`), and gives what it returned; the context is
/// afterwards as the program left it.
#[cfg(test)]
pub(crate) fn test_run(program: BorrowedFd<'_>, context: &mut [u64]) -> io::Result<u32> {
    const PROG_TEST_RUN: i32 = 10;
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        program: u32,
        returned: u32,
        data_size: [u32; 2],
        data: [u64; 2],
        repeat: u32,
        duration: u32,
        context_size: [u32; 2],
        context: [u64; 2],
    }
    let (size, address) = (size_of_val(context) as u32, context.as_mut_ptr() as u64);
    let program = program.as_raw_fd() as u32;
    let mut attr = Attr { program, repeat: 1, context_size: [size; 2], context: [address; 2], ..Attr::default() };
    // SAFETY: as in `bpf`; the kernel also writes to the structure and to the context, which are ours alone meanwhile.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attr, size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attr.returned) }
}

/// The two 32-bit fields that share an aligned word, in their order in memory.
fn halves(word: u64) -> (u32, u32) {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (half(0), half(4))
}

#[repr(C)]
struct PathAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

fn descriptor<T>(command: i32, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: called with commands that return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: i32, attr: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a plain structure that the command takes; what that points to
    // outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
