//! A pod and a peer: two network namespaces joined by a veth pair, and the pod's cgroups with a process in each.

use crate::agent::Agent;
use fsm_ebpf::{FeatureTable, Interceptor, PodAttachment, PodSpec, Rules};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, packet_route::link::LinkMessage};
use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

pub const POD: &str = "10.99.0.2";
pub const POD6: &str = "fd99::2";
pub const PEER: &str = "10.99.0.3";
/// Another address of the peer, in another range.
pub const PEER_FAR: &str = "10.99.7.3";
pub const PEER6: &str = "fd99::3";

/// The pod's id, as its cgroup's name has it, and the names of its proxy's cgroups.
pub const UID: &str = "6c1d";
pub const PROXY: &str = "proxy";
pub const NEXT_PROXY: &str = "restarted";

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// The same IPv4 address as an IPv6 socket names it.
pub fn mapped(ip: &str, port: u16) -> SocketAddr {
    let IpAddr::V4(v4) = ip.parse().unwrap() else { panic!("{ip} is not an IPv4 address") };
    SocketAddr::new(v4.to_ipv6_mapped().into(), port)
}

pub struct World {
    /// In the pod's application container.
    pub app: Agent,
    /// In the pod's proxy container.
    pub proxy: Agent,
    /// On the other side of the veth pair, in no pod.
    pub peer: Agent,
    pub pod_netns: File,
    pub cgroups: Cgroups,
}

/// `None`, and a line saying why, where interception is not possible.
pub fn world() -> Option<World> {
    static FEATURES: OnceLock<FeatureTable> = OnceLock::new();
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    let features = FEATURES.get_or_init(fsm_ebpf::probe);
    if let Some(missing) = features.missing_for_ebpf() {
        println!("skipped: needs {missing} (see fsm-interceptor probe)");
        return None;
    }
    let (pod_netns, peer_netns) = (new_netns(), new_netns());
    join(&pod_netns, &peer_netns);
    let cgroups = Cgroups::new();
    Some(World {
        app: Agent::start(&cgroups.app(), &pod_netns),
        proxy: Agent::start(&cgroups.proxy(), &pod_netns),
        peer: Agent::start(&cgroups.outside(), &peer_netns),
        pod_netns,
        cgroups,
    })
}

impl World {
    pub fn spec(&self, rules: Rules, fail_closed: bool) -> PodSpec<'_> {
        PodSpec {
            netns: self.pod_netns.as_fd(),
            cgroup: self.cgroups.pod(),
            proxy_cgroup: self.cgroups.proxy(),
            rules,
            fail_closed,
        }
    }

    /// Intercepts the pod, refusing connections without a proxy, with programs that tests share.
    pub fn intercept(&self, rules: Rules) -> PodAttachment {
        static SHARED: OnceLock<Interceptor> = OnceLock::new();
        SHARED.get_or_init(|| Interceptor::load().unwrap()).attach(&self.spec(rules, true)).unwrap()
    }
}

/// Waits for what the kernel does some moments later.
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let patience = std::time::Instant::now() + crate::agent::PATIENCE;
    while !happened() {
        assert!(std::time::Instant::now() < patience, "{what}");
        std::thread::yield_now();
    }
}

/// Accepts a connection and proves with a byte that it is `client`'s.
pub fn accept_from(listener: &TcpListener, client: &TcpStream) -> TcpStream {
    use std::io::{Read, Write};
    let (mut accepted, _) = listener.accept().expect("no connection arrived here");
    (&*client).write_all(b"?").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    accepted.write_all(b"!").unwrap();
    (&*client).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
    accepted
}

/// The cgroups of one pod, and one beside it.
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).unwrap().split(' ').nth(1).unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroups = Self { root: Path::new(mount).join(format!("fsm-ebpf-test-{}-{number}", std::process::id())) };
        for dir in [cgroups.app(), cgroups.proxy(), cgroups.next_proxy(), cgroups.outside()] {
            fs::create_dir_all(dir).unwrap();
        }
        cgroups
    }

    /// What stands for the root of a node's hierarchy.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pod(&self) -> PathBuf {
        self.root.join(format!("pod{UID}"))
    }

    pub fn app(&self) -> PathBuf {
        self.pod().join("app")
    }

    pub fn proxy(&self) -> PathBuf {
        self.pod().join(PROXY)
    }

    /// Where the proxy runs after a restart.
    pub fn next_proxy(&self) -> PathBuf {
        self.pod().join(NEXT_PROXY)
    }

    pub fn outside(&self) -> PathBuf {
        self.root.join("outside")
    }
}

impl Cgroups {
    pub fn remove(&self) -> std::io::Result<()> {
        let dirs = [self.app(), self.proxy(), self.next_proxy(), self.pod(), self.outside(), self.root.clone()];
        dirs.iter().try_for_each(fs::remove_dir)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        match self.remove() {
            Err(error) if self.root.exists() => eprintln!("{} stays behind: {error}", self.root.display()),
            _ => {}
        }
    }
}

/// Runs `work` on a thread inside `netns`.
pub fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        entered.join().unwrap()
    })
}

pub fn new_netns() -> File {
    std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // Addresses are usable at once, without asking the neighbours first.
        fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0").unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

/// Joins the namespaces by a veth pair and gives both ends their addresses.
fn join(pod: &File, peer: &File) {
    inside(pod, || {
        with_netlink(async |netlink| {
            netlink.link().add(LinkVeth::new("eth0", "peer0").build()).execute().await.unwrap();
            let moved: LinkMessage = LinkUnspec::new_with_name("peer0").setns_by_fd(peer.as_raw_fd()).build();
            netlink.link().set(moved).execute().await.unwrap();
            bring_up(&netlink, "lo", &[]).await;
            bring_up(&netlink, "eth0", &[(POD, 16), (POD6, 64)]).await;
        });
    });
    inside(peer, || {
        with_netlink(async |netlink| {
            bring_up(&netlink, "lo", &[]).await;
            bring_up(&netlink, "peer0", &[(PEER, 16), (PEER_FAR, 16), (PEER6, 64)]).await;
        });
    });
}

/// Opens netlink in the calling thread's namespace.
fn with_netlink(work: impl AsyncFnOnce(Handle)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        work(handle).await;
    });
}

async fn bring_up(netlink: &Handle, name: &str, addresses: &[(&str, u8)]) {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    for (address, prefix) in addresses {
        netlink.address().add(index, address.parse().unwrap(), *prefix).execute().await.unwrap();
    }
    let up = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
    netlink.link().set(up).execute().await.unwrap();
}
