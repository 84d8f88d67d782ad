//! Loading the programs once, and attaching them to pods.

use crate::{
    attachment::PodAttachment,
    bpffs::PrivateBpffs,
    cgroup::Cgroup,
    error::InterceptError,
    netns, objects,
    rules::Rules,
    tables::{SHARED, Tables},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapError},
    programs::{
        CgroupAttachMode, CgroupSockAddr, CgroupSockopt, Program, ProgramError, SkLookup, SockOps,
        cgroup_sock_addr::CgroupSockAddrLink, cgroup_sockopt::CgroupSockoptLink, sk_lookup::SkLookupLink,
        sock_ops::SockOpsLink,
    },
};
use std::{
    fs::File,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A cgroup link always coexists with those of others; the kernel takes no flag for it.
const ATTACH_MODE: CgroupAttachMode = CgroupAttachMode::Single;

/// Programs that rewrite or hide addresses, in the order of attaching. The ones that redirect come last, so nothing is
/// redirected before all else is in place.
const SOCK_ADDR_PROGRAMS: [&str; 4] = ["getpeername4", "getpeername6", "connect4", "connect6"];

/// One pod to intercept.
#[derive(Debug)]
pub struct PodSpec<'a> {
    /// The pod's network namespace: an open `/proc/PID/ns/net` or `/run/netns/NAME`.
    pub netns: BorrowedFd<'a>,
    /// The pod's cgroup; its containers' cgroups are below it.
    pub cgroup: PathBuf,
    /// The proxy container's cgroup, into which the proxy's process goes directly.
    pub proxy_cgroup: PathBuf,
    /// What is left alone.
    pub rules: Rules,
    /// While no proxy listens: `true` refuses the pod's connections, `false` lets them go direct.
    pub fail_closed: bool,
}

/// The loaded programs. Attachments keep them loaded, so an interceptor may be dropped before its pods. Any number of
/// interceptors on one machine work side by side, as long as each pod belongs to one. Each attached pod holds nine file
/// descriptors.
#[derive(Clone)]
pub struct Interceptor {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    object: Mutex<Ebpf>,
    tables: Mutex<Tables>,
    /// Kept, because making one parses the type information of the whole kernel, which takes longer than all the rest.
    loader: Mutex<EbpfLoader<'static>>,
    /// Where the loader finds the tables.
    _bpffs: PrivateBpffs,
}

impl std::fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptor").field("attachments", &(Arc::strong_count(&self.shared) - 1)).finish()
    }
}

impl Interceptor {
    /// Loads programs and tables; takes some ten milliseconds. Nothing is intercepted yet.
    pub fn load() -> Result<Self, InterceptError> {
        let bpffs = PrivateBpffs::new()?;
        let mut loader = loader(&bpffs);
        let mut object = loader.load(objects::sockets()).map_err(InterceptError::load)?;
        let tables = Tables::take(&mut object)?;
        for name in SOCK_ADDR_PROGRAMS {
            program::<CgroupSockAddr>(&mut object, name)?.load().map_err(|e| InterceptError::program(name, e))?;
        }
        for name in ["flows", "listen"] {
            program::<SockOps>(&mut object, name)?.load().map_err(|e| InterceptError::program(name, e))?;
        }
        let name = "original_dst";
        program::<CgroupSockopt>(&mut object, name)?.load().map_err(|e| InterceptError::program(name, e))?;
        let shared = Shared {
            object: Mutex::new(object),
            tables: Mutex::new(tables),
            loader: Mutex::new(loader),
            _bpffs: bpffs,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Intercepts a pod from now until the attachment is dropped. On failure nothing stays attached.
    pub fn attach(&self, pod: &PodSpec<'_>) -> Result<PodAttachment, InterceptError> {
        let cgroup = Cgroup::open(&pod.cgroup)?;
        let proxy_cgroup = Cgroup::open(&pod.proxy_cgroup)?;
        let netns = netns::cookie(pod.netns)?;
        let attachment = PodAttachment::register(Arc::clone(&self.shared), netns, &proxy_cgroup, pod)?;
        // From here on the attachment's drop takes back whatever is there.
        attachment.connect(&cgroup.dir, &proxy_cgroup, pod.netns)
    }

    /// Entries in all tables together: 0 when no pod is attached.
    pub fn table_entries(&self) -> usize {
        self.shared.tables().entries()
    }
}

/// A loader of objects that share tables.
pub(crate) fn loader(bpffs: &PrivateBpffs) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    // The programs read no kernel structure, so they need no type information of the running kernel.
    loader.btf(None);
    for name in SHARED {
        loader.map_pin_path(name, bpffs.path(name));
    }
    loader
}

/// The inbound object for one namespace, with its program not loaded yet.
pub(crate) fn load_inbound(loader: &mut EbpfLoader<'_>, netns: u64) -> Result<Ebpf, InterceptError> {
    let mut object = loader.load(objects::inbound()).map_err(InterceptError::load)?;
    let named = |e| InterceptError::map("NETNS", e);
    let table = object.map_mut("NETNS").ok_or(MapError::InvalidName { name: "NETNS".to_owned() }).map_err(named)?;
    let mut table = Array::<_, u64>::try_from(table).map_err(named)?;
    table.set(0, netns, 0).map_err(named)?;
    Ok(object)
}

pub(crate) fn program<'o, P>(object: &'o mut Ebpf, name: &'static str) -> Result<&'o mut P, InterceptError>
where
    &'o mut P: TryFrom<&'o mut Program, Error = ProgramError>,
{
    object
        .program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|e| InterceptError::program(name, e))
}

impl Shared {
    /// A panic while locked leaves tables whose entries are each valid, so the lock's poison says nothing.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self) -> MutexGuard<'_, Ebpf> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches to the pod's cgroup what serves it alone.
    pub(crate) fn attach_flows(&self, cgroup: &File) -> Result<(SockOpsLink, CgroupSockoptLink), InterceptError> {
        let mut object = self.object();
        let flows = attach_sock_ops(&mut object, "flows", cgroup)?;
        let name = "original_dst";
        let sockopt = program::<CgroupSockopt>(&mut object, name)?;
        let link = sockopt.attach(cgroup, ATTACH_MODE).and_then(|id| sockopt.take_link(id));
        Ok((flows, link.map_err(|e| InterceptError::program(name, e))?))
    }

    pub(crate) fn attach_sock_addr(&self, cgroup: &File) -> Result<Vec<CgroupSockAddrLink>, InterceptError> {
        let mut object = self.object();
        let mut links = Vec::with_capacity(SOCK_ADDR_PROGRAMS.len());
        for name in SOCK_ADDR_PROGRAMS {
            let sock_addr = program::<CgroupSockAddr>(&mut object, name)?;
            let link = sock_addr.attach(cgroup, ATTACH_MODE).and_then(|id| sock_addr.take_link(id));
            links.push(link.map_err(|e| InterceptError::program(name, e))?);
        }
        Ok(links)
    }

    /// Attaches the registration of listeners to the proxy's cgroup.
    pub(crate) fn attach_listen(&self, proxy_cgroup: &File) -> Result<SockOpsLink, InterceptError> {
        attach_sock_ops(&mut self.object(), "listen", proxy_cgroup)
    }

    /// Loads and attaches the inbound program made for this namespace.
    pub(crate) fn attach_inbound(&self, cookie: u64, netns: BorrowedFd<'_>) -> Result<SkLookupLink, InterceptError> {
        let mut object = load_inbound(&mut self.loader.lock().unwrap_or_else(PoisonError::into_inner), cookie)?;
        let name = "inbound";
        let inbound = program::<SkLookup>(&mut object, name)?;
        let link = inbound.load().and_then(|()| inbound.attach(netns)).and_then(|id| inbound.take_link(id));
        link.map_err(|e| InterceptError::program(name, e))
    }
}

fn attach_sock_ops(object: &mut Ebpf, name: &'static str, cgroup: &File) -> Result<SockOpsLink, InterceptError> {
    let sock_ops = program::<SockOps>(object, name)?;
    let link = sock_ops.attach(cgroup, ATTACH_MODE).and_then(|id| sock_ops.take_link(id));
    link.map_err(|e| InterceptError::program(name, e))
}
