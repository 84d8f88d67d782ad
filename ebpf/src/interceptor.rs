//! Loading the programs once, and attaching them to pods.

use crate::{
    attachment::PodAttachment,
    bpffs::Bpffs,
    cgroup::Cgroup,
    error::InterceptError,
    netns, objects,
    pins::{ATTACHMENTS, Pins, Places},
    rules::Rules,
    tables::{SHARED, Tables},
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapError},
    programs::{CgroupSockAddr, CgroupSockopt, Program, ProgramError, SkLookup, SockOps},
};
use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
/// interceptors on one machine work side by side, as long as each pod belongs to one. An attached pod holds no file
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
    /// Pods with a [`PodAttachment`] in this process, by their cookies.
    attached: Mutex<BTreeSet<u64>>,
    /// Where tables and links are.
    pub(crate) bpffs: Bpffs,
}

impl std::fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptor").field("attachments", &self.shared.attached().len()).finish()
    }
}

impl Interceptor {
    /// Loads programs and tables; takes some ten milliseconds. Nothing is intercepted yet, and what will be ends with
    /// this process.
    pub fn load() -> Result<Self, InterceptError> {
        Self::with(Bpffs::private()?)
    }

    /// As [`Self::load`], for interception that outlives this process: tables and links are pinned below `folder`, which
    /// is on a BPF file system or becomes one. What an earlier process left there works on all the time; attaching a pod
    /// again takes it over and puts the programs of this version in place of the old ones.
    pub fn open(folder: &Path) -> Result<Self, InterceptError> {
        Self::open_layout(folder, None)
    }

    /// As [`Self::open`], under another name of the tables' layout, as a version to come will have.
    #[doc(hidden)]
    pub fn open_layout(folder: &Path, layout: Option<&str>) -> Result<Self, InterceptError> {
        Self::with(Bpffs::persistent(folder, layout)?)
    }

    fn with(bpffs: Bpffs) -> Result<Self, InterceptError> {
        let mut loader = loader(&bpffs);
        let mut object = loader.load(objects::sockets()).map_err(InterceptError::load)?;
        let tables = Tables::take(&mut object)?;
        for attachment in ATTACHMENTS {
            load(&mut object, attachment.program)?;
        }
        let shared = Shared {
            object: Mutex::new(object),
            tables: Mutex::new(tables),
            loader: Mutex::new(loader),
            attached: Mutex::default(),
            bpffs,
        };
        shared.recover()?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Intercepts a pod until the attachment is dropped (after [`Self::load`]) or detached (after [`Self::open`]). On
    /// failure nothing stays attached, unless it was before.
    pub fn attach(&self, pod: &PodSpec<'_>) -> Result<PodAttachment, InterceptError> {
        let cgroup = Cgroup::open(&pod.cgroup)?;
        let proxy = Cgroup::open(&pod.proxy_cgroup)?;
        let netns = netns::cookie(pod.netns)?;
        let places = Places { pod: &cgroup, proxy: &proxy, netns: pod.netns };
        PodAttachment::new(Arc::clone(&self.shared), netns, &places, pod)
    }

    /// Lets go of pods that earlier processes attached and that are gone, and says how many they were.
    pub fn sweep(&self) -> Result<usize, InterceptError> {
        self.shared.sweep(|pins| Ok(!pins.alive()?))
    }

    /// Lets go of all pods that this process has not attached, and says how many they were.
    pub fn clear(&self) -> Result<usize, InterceptError> {
        self.shared.sweep(|_| Ok(true))
    }

    /// Removes what an agent with another layout of tables left, of the pods taken over from it. Connections it captured
    /// and whose destination has not been asked for by then are closed by the proxy, and the older ones' `getpeername`
    /// gives the proxy from then on: so call it some time after all pods are attached.
    pub fn forget_superseded(&self) -> Result<(), InterceptError> {
        for pods in self.shared.bpffs.pods_of_others() {
            let forget = || {
                for netns in Pins::all(&pods)? {
                    let pins = Pins::of(&pods, netns);
                    if self.shared.attached().contains(&netns) || !pins.alive()? {
                        pins.remove()?;
                    }
                }
                Bpffs::forget_layout_of(&pods)
            };
            forget().map_err(|source| InterceptError::PinFolder { path: pods.clone(), source })?;
        }
        Ok(())
    }

    /// Entries in all tables together: 0 when no pod is attached.
    pub fn table_entries(&self) -> usize {
        self.shared.tables().entries()
    }

    /// The kernel's numbers of all attachments, eight for each pod.
    pub fn link_ids(&self) -> Result<Vec<u32>, InterceptError> {
        let pods = self.shared.bpffs.pods();
        let ids = Pins::all(&pods).and_then(|all| all.into_iter().map(|pod| Pins::of(&pods, pod).link_ids()).collect());
        let ids: Vec<Vec<u32>> = ids.map_err(|source| InterceptError::PinFolder { path: pods, source })?;
        Ok(ids.concat())
    }
}

/// A loader of objects that share tables.
pub(crate) fn loader(bpffs: &Bpffs) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    // The programs read no kernel structure, so they need no type information of the running kernel.
    loader.btf(None);
    for name in SHARED {
        loader.map_pin_path(name, bpffs.table(name));
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

/// Loads a program of the object, if it is one of this object.
fn load(object: &mut Ebpf, name: &'static str) -> Result<(), InterceptError> {
    let loaded = match object.program_mut(name) {
        Some(Program::CgroupSockAddr(program)) => CgroupSockAddr::load(program),
        Some(Program::SockOps(program)) => SockOps::load(program),
        Some(Program::CgroupSockopt(program)) => CgroupSockopt::load(program),
        Some(Program::SkLookup(program)) => SkLookup::load(program),
        _ => Ok(()),
    };
    loaded.map_err(|e| InterceptError::program(name, e))
}

impl Shared {
    /// A panic while locked leaves tables whose entries are each valid, so the lock's poison says nothing.
    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attached(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pins(&self, netns: u64) -> Pins {
        Pins::of(&self.bpffs.pods(), netns)
    }

    fn pinned(&self) -> Result<Vec<u64>, InterceptError> {
        let pods = self.bpffs.pods();
        Pins::all(&pods).map_err(|source| InterceptError::PinFolder { path: pods, source })
    }

    /// Makes sense of what an earlier process left, which may have been killed at any moment.
    fn recover(&self) -> Result<(), InterceptError> {
        let pods: BTreeSet<u64> = self.pinned()?.into_iter().collect();
        self.tables().recover(&pods);
        Ok(())
    }

    fn sweep(&self, goes: impl Fn(&Pins) -> io::Result<bool>) -> Result<usize, InterceptError> {
        let mut swept = 0;
        for netns in self.pinned()? {
            let attached = self.attached();
            let pins = self.pins(netns);
            let refuse = |source| InterceptError::PinFolder { path: self.bpffs.pods(), source };
            if !attached.contains(&netns) && goes(&pins).map_err(refuse)? {
                self.release(netns).map_err(refuse)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Ends a pod's interception and forgets all about it.
    pub(crate) fn release(&self, netns: u64) -> io::Result<()> {
        let removed = self.pins(netns).remove();
        self.tables().forget_pod(netns);
        removed
    }

    /// Attaches what is not attached, and replaces the programs of what is.
    pub(crate) fn attach(&self, netns: u64, places: &Places<'_>) -> Result<(), InterceptError> {
        let pins = self.pins(netns);
        pins.create().map_err(|source| InterceptError::PinFolder { path: self.bpffs.pods(), source })?;
        let mut inbound = load_inbound(&mut self.loader.lock().unwrap_or_else(PoisonError::into_inner), netns)?;
        load(&mut inbound, "inbound")?;
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        for attachment in &ATTACHMENTS {
            let name = attachment.program;
            let program = object.program(name).or_else(|| inbound.program(name)).ok_or(ProgramError::NotLoaded);
            let program = program.and_then(Program::fd).map_err(|e| InterceptError::program(name, e))?;
            pins.attach(attachment, program.as_fd(), places)?;
        }
        Ok(())
    }

    /// Has `listen` watch another cgroup.
    pub(crate) fn attach_to_proxy(&self, netns: u64, places: &Places<'_>) -> Result<(), InterceptError> {
        let object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let program = object.program("listen").ok_or(ProgramError::NotLoaded).and_then(Program::fd);
        let program = program.map_err(|e| InterceptError::program("listen", e))?;
        self.pins(netns).attach(&ATTACHMENTS[0], program.as_fd(), places)
    }

    /// Has this layout alone redirect the pod's new connections. Connections under way need the rest of the former
    /// one's programs a little longer.
    pub(crate) fn supersede_others(&self, netns: u64) -> io::Result<()> {
        self.bpffs.pods_of_others().iter().try_for_each(|pods| Pins::of(pods, netns).stop_redirecting())
    }
}
