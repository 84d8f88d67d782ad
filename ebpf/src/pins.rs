//! The links of one pod, pinned in a folder of its own: whoever opens the folder later finds them.

use crate::{
    cgroup::Cgroup,
    error::InterceptError,
    sys::{AttachType, Link, Target},
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// What a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Pod,
    Proxy,
    Namespace,
}

/// One of a pod's attachments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attachment {
    /// The program's name, which is the pin's as well.
    pub(crate) program: &'static str,
    pub(crate) kind: AttachType,
    pub(crate) on: On,
}

/// All of them, in the order of attaching. The ones that redirect come last, so nothing is redirected before all else is
/// in place; detaching goes the other way.
pub(crate) const ATTACHMENTS: [Attachment; 12] = [
    Attachment { program: "listen", kind: AttachType::SockOps, on: On::Proxy },
    Attachment { program: "flows", kind: AttachType::SockOps, on: On::Pod },
    Attachment { program: "original_dst", kind: AttachType::GetSockOpt, on: On::Pod },
    Attachment { program: "inbound", kind: AttachType::SkLookup, on: On::Namespace },
    Attachment { program: "getpeername4", kind: AttachType::GetPeerName4, on: On::Pod },
    Attachment { program: "getpeername6", kind: AttachType::GetPeerName6, on: On::Pod },
    Attachment { program: "recvmsg4", kind: AttachType::RecvMsg4, on: On::Pod },
    Attachment { program: "recvmsg6", kind: AttachType::RecvMsg6, on: On::Pod },
    Attachment { program: "sendmsg4", kind: AttachType::SendMsg4, on: On::Pod },
    Attachment { program: "sendmsg6", kind: AttachType::SendMsg6, on: On::Pod },
    Attachment { program: "connect4", kind: AttachType::Connect4, on: On::Pod },
    Attachment { program: "connect6", kind: AttachType::Connect6, on: On::Pod },
];

/// The pod's parts that programs are attached to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) pod: &'a Cgroup,
    pub(crate) proxy: &'a Cgroup,
    pub(crate) netns: BorrowedFd<'a>,
}

impl Places<'_> {
    fn of(&self, on: On) -> io::Result<(BorrowedFd<'_>, Target)> {
        Ok(match on {
            On::Pod => (self.pod.dir.as_fd(), Target::Cgroup(self.pod.id)),
            On::Proxy => (self.proxy.dir.as_fd(), Target::Cgroup(self.proxy.id)),
            On::Namespace => {
                let inode = File::from(self.netns.try_clone_to_owned()?).metadata()?.ino();
                (self.netns, Target::Netns(inode as u32))
            }
        })
    }
}

/// The folder of one pod.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// That of the pod with this cookie, below `pods`.
    pub(crate) fn of(pods: &Path, netns: u64) -> Self {
        Self { dir: pods.join(netns.to_string()) }
    }

    /// The cookies of all pods with a folder.
    pub(crate) fn all(pods: &Path) -> io::Result<Vec<u64>> {
        let names = fs::read_dir(pods)?.map(|entry| Ok(entry?.file_name().to_string_lossy().parse().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// Has `program` run at its place from now on. If another version of it runs there already, it is replaced in one
    /// step; what is attached elsewhere (a cgroup that is no more) is let go.
    pub(crate) fn attach(
        &self,
        attachment: &Attachment,
        program: BorrowedFd<'_>,
        places: &Places<'_>,
    ) -> Result<(), InterceptError> {
        let path = self.dir.join(attachment.program);
        let failed = |done| move |source| InterceptError::link(attachment.program, done, source);
        let (place, target) = places.of(attachment.on).map_err(failed("attached"))?;
        let former = Link::pinned(&path).map_err(failed("found again"))?;
        if let Some(former) = &former
            && former.info().map_err(failed("found again"))?.target == target
        {
            return former.update(program).map_err(failed("replaced"));
        }
        let link = Link::create(program, place, attachment.kind).map_err(failed("attached"))?;
        if let Some(former) = former {
            release(&former, &path).map_err(failed("detached"))?;
        }
        link.pin(&path).map_err(failed("pinned"))
    }

    /// Whether the pod can still have processes: its cgroup and its namespace exist, as far as they were attached.
    pub(crate) fn alive(&self) -> io::Result<bool> {
        for attachment in ATTACHMENTS.iter().filter(|attachment| attachment.on != On::Proxy) {
            if let Some(link) = Link::pinned(&self.dir.join(attachment.program))?
                && !link.info()?.target.alive()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The kernel's numbers of the links.
    pub(crate) fn link_ids(&self) -> io::Result<Vec<u32>> {
        let link = |attachment: &Attachment| Link::pinned(&self.dir.join(attachment.program)).transpose();
        ATTACHMENTS.iter().filter_map(link).map(|link| Ok(link?.info()?.id)).collect()
    }

    /// Leaves new connections alone, while those under way find what they need.
    pub(crate) fn stop_redirecting(&self) -> io::Result<()> {
        use AttachType::{Connect4, Connect6, SendMsg4, SendMsg6};
        let redirecting =
            |attachment: &&Attachment| matches!(attachment.kind, Connect4 | Connect6 | SendMsg4 | SendMsg6);
        ATTACHMENTS.iter().filter(redirecting).try_for_each(|attachment| self.release(attachment))
    }

    fn release(&self, attachment: &Attachment) -> io::Result<()> {
        let path = self.dir.join(attachment.program);
        Link::pinned(&path)?.map_or(Ok(()), |link| release(&link, &path))
    }

    /// Ends all attachments: redirecting stops before what it relies on goes.
    pub(crate) fn remove(&self) -> io::Result<()> {
        ATTACHMENTS.iter().rev().try_for_each(|attachment| self.release(attachment))?;
        match fs::remove_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// Detaches and unpins.
fn release(link: &Link, path: &Path) -> io::Result<()> {
    match link.detach() {
        // What it was attached to is gone, and the attachment with it.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::EPERM)) && !alive(link) => {}
        detached => detached?,
    }
    fs::remove_file(path)
}

fn alive(link: &Link) -> bool {
    link.info().is_ok_and(|info| info.target.alive())
}
