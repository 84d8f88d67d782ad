//! Interception that outlives the agent: killed, restarted, replaced by another version, while connections are made.

use crate::{
    outbound::original_destination,
    world::{Cgroups, PEER, World, accept_from, at, eventually, new_netns, world},
};
use fsm_ebpf::{InterceptError, Interceptor, OUTBOUND_PORT, PodSpec, Rules};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

/// Tells the test binary to be a node's agent; the values are what it is to attach.
const FOLDER: &str = "FSM_EBPF_TEST_FOLDER";
const NETNS: &str = "FSM_EBPF_TEST_NETNS";
const POD: &str = "FSM_EBPF_TEST_POD";

/// A folder whose BPF file system is mounted only for the calling thread and its children, and gone with them.
fn folder() -> tempfile::TempDir {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let folder = tempfile::tempdir().unwrap();
    mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
    folder
}

/// A node's agent that has attached the pod.
struct Node(Child);

impl Node {
    fn start(folder: &Path, world: &World) -> Self {
        use std::os::fd::AsRawFd;
        let netns = format!("/proc/{}/fd/{}", std::process::id(), world.pod_netns.as_raw_fd());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["node_process", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(FOLDER, folder).env(NETNS, netns).env(POD, world.cgroups.pod());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("attached")), "the agent could not attach the pod");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The agent's side; returns at once in a process that is none.
pub fn serve() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let pod = PathBuf::from(std::env::var_os(POD).unwrap());
    let netns = File::open(std::env::var_os(NETNS).unwrap()).unwrap();
    let interceptor = Interceptor::open(Path::new(&folder)).unwrap();
    let spec = PodSpec {
        netns: netns.as_fd(),
        proxy_cgroup: pod.join("proxy"),
        cgroup: pod,
        rules: Rules { outbound_port_exclusions: [1, 2, 3].into(), ..Rules::default() },
        fail_closed: true,
    };
    let _attached = interceptor.attach(&spec).unwrap();
    println!("attached");
    // Until killed.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn an_agent_killed_and_restarted_under_traffic_costs_no_connection() {
    let Some(world) = world() else { return };
    let folder = folder();
    let proxy = world.proxy.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    let node = Node::start(folder.path(), &world);
    let (stop, made) = (AtomicBool::new(false), AtomicU32::new(0));
    let some_more = || {
        let until = made.load(Ordering::SeqCst) + 20;
        while made.load(Ordering::SeqCst) < until {
            assert!(!stop.load(Ordering::SeqCst), "the traffic ended early");
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            // Nobody listens at the peer: a connection that is not captured fails.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                while !stop.load(Ordering::SeqCst) {
                    let client = world.app.connect(at(PEER, 80)).unwrap();
                    let accepted = accept_from(&proxy, &client);
                    assert_eq!(original_destination(&accepted).unwrap(), at(PEER, 80));
                    assert_eq!(client.peer_addr().unwrap(), at(PEER, 80));
                    made.fetch_add(1, Ordering::SeqCst);
                }
            }));
            stop.store(true, Ordering::SeqCst);
            ended.unwrap();
        });
        let mut node = node;
        for _ in 0..3 {
            some_more();
            node.kill();
            some_more();
            node = Node::start(folder.path(), &world);
        }
        some_more();
        node.kill();
        stop.store(true, Ordering::SeqCst);
        traffic.join().unwrap();
    });
    // Three restarts later there is one set of links and of rules.
    let interceptor = Interceptor::open(folder.path()).unwrap();
    assert_eq!(interceptor.link_ids().unwrap().len(), 12);
    // The pod, its counters, its listener, three excluded ports.
    assert_eq!(interceptor.table_entries(), 6);
    assert_eq!(interceptor.sweep().unwrap(), 0, "the pod is alive");
    assert_eq!(interceptor.clear().unwrap(), 1);
    assert_eq!(interceptor.table_entries(), 0);
    let server = world.peer.listen(at(PEER, 80));
    accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());
}

#[test]
fn taking_over_keeps_the_links_and_replaces_rules_and_programs() {
    let Some(world) = world() else { return };
    let folder = folder();
    let proxy = world.proxy.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    Node::start(folder.path(), &world).kill();
    let interceptor = Interceptor::open(folder.path()).unwrap();
    let links = interceptor.link_ids().unwrap();
    let programs = programs_of(&links);

    let rules = Rules { outbound_port_exclusions: [81].into(), ..Rules::default() };
    let pod = interceptor.attach(&world.spec(rules, true)).unwrap();

    assert_eq!(interceptor.link_ids().unwrap(), links);
    assert!(programs_of(&links).is_disjoint(&programs), "the new programs run");
    accept_from(&proxy, &world.app.connect(at(PEER, 1)).unwrap());
    let server = world.peer.listen(at(PEER, 81));
    accept_from(&server, &world.app.connect(at(PEER, 81)).unwrap());
    assert_eq!(pod.stats().unwrap().outbound_redirected, 1);
    pod.detach().unwrap();
    assert_eq!((interceptor.table_entries(), interceptor.link_ids().unwrap().len()), (0, 0));
}

#[test]
fn an_agent_with_other_tables_takes_over_under_traffic() {
    let Some(world) = world() else { return };
    let folder = folder();
    let proxy = world.proxy.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    Node::start(folder.path(), &world).kill();
    let made = |count: u16| {
        for port in 10..10 + count {
            let client = world.app.connect(at(PEER, port)).unwrap();
            assert_eq!(original_destination(&accept_from(&proxy, &client)).unwrap(), at(PEER, port));
        }
    };
    made(5);
    let interceptor = Interceptor::open_layout(folder.path(), Some("v999")).unwrap();
    let traffic = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| made(200));
        let pod = interceptor.attach(&world.spec(Rules::default(), true)).unwrap();
        traffic.join().unwrap();
        pod
    });
    interceptor.forget_superseded().unwrap();
    made(5);
    assert_eq!(interceptor.link_ids().unwrap().len(), 12);
    assert!(folder.path().join("v999").is_dir());
    assert!(!folder.path().join("v1").exists(), "nothing of the old version stays");
    traffic.detach().unwrap();
}

#[test]
fn a_proxy_restarted_while_no_agent_ran_is_found() {
    let Some(world) = world() else { return };
    let folder = folder();
    Node::start(folder.path(), &world).kill();
    let restarted = crate::agent::Agent::start(&world.cgroups.next_proxy(), &world.pod_netns);
    let proxy = restarted.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    assert!(world.app.connect(at(PEER, 80)).is_err(), "fails closed without agent");

    let interceptor = Interceptor::open(folder.path()).unwrap();
    let mut spec = world.spec(Rules::default(), true);
    spec.proxy_cgroup = world.cgroups.next_proxy();
    let pod = interceptor.attach(&spec).unwrap();

    accept_from(&proxy, &world.app.connect(at(PEER, 80)).unwrap());
    pod.detach().unwrap();
}

#[test]
fn pods_that_ended_while_no_agent_ran_are_swept() {
    let Some(world) = world() else { return };
    let folder = folder();
    Node::start(folder.path(), &world).kill();
    // Its processes end, and so its cgroups and its namespace can go.
    let World { app, proxy, peer, pod_netns, cgroups } = world;
    drop((app, proxy, peer));
    cgroups.remove().unwrap();
    drop(pod_netns);

    let interceptor = Interceptor::open(folder.path()).unwrap();
    assert!(interceptor.table_entries() > 0);
    eventually("the pod is swept", || interceptor.sweep().unwrap() == 1);
    assert_eq!((interceptor.table_entries(), interceptor.link_ids().unwrap().len()), (0, 0));
}

#[test]
fn a_folder_has_one_agent() {
    let Some(_world) = world() else { return };
    let folder = folder();
    let interceptor = Interceptor::open(folder.path()).unwrap();
    let refused = Interceptor::open(folder.path()).unwrap_err();
    assert!(matches!(refused, InterceptError::OtherAgent { .. }), "{refused}");
    drop(interceptor);
    // A process that is being started by a test beside this one may hold the lock for a moment.
    eventually("the folder is free", || Interceptor::open(folder.path()).is_ok());
}

#[test]
fn a_folder_on_another_file_system_becomes_one() {
    let Some(_world) = world() else { return };
    let folder = folder();
    nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    drop(Interceptor::open(folder.path()).unwrap());
    assert!(folder.path().join("v1").is_dir());
    nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_thousand_pods_come_and_go_without_a_trace() {
    let Some(_world) = world() else { return };
    let folder = folder();
    let interceptor = Interceptor::open(folder.path()).unwrap();
    let rules = Rules { outbound_port_exclusions: (1..=20).collect(), ..Rules::default() };
    let mut ever: BTreeSet<u32> = BTreeSet::new();
    for _ in 0..5 {
        let places: Vec<_> = (0..200).map(|_| (new_netns(), Cgroups::new())).collect();
        let attach = |(netns, cgroups): &(File, Cgroups)| {
            let (cgroup, proxy_cgroup) = (cgroups.pod(), cgroups.proxy());
            let spec = PodSpec { netns: netns.as_fd(), cgroup, proxy_cgroup, rules: rules.clone(), fail_closed: true };
            interceptor.attach(&spec).unwrap()
        };
        let pods: Vec<_> = places.iter().map(attach).collect();
        assert_eq!(interceptor.table_entries(), 200 * 22);
        let links: BTreeSet<u32> = interceptor.link_ids().unwrap().into_iter().collect();
        assert_eq!(links.len(), 200 * 12);
        assert!(links.is_subset(&links_in_kernel()));
        ever.extend(links);
        // Tests beside this one look at a link now and then; attached pods hold none open.
        assert!(open_links() < 100);
        // One half is detached; the other half ends by itself, forgotten by its agent.
        for (number, pod) in pods.into_iter().enumerate() {
            if number % 2 == 0 { pod.detach().unwrap() } else { drop(pod) }
        }
        assert_eq!(interceptor.table_entries(), 100 * 22);
        for (netns, cgroups) in places {
            cgroups.remove().unwrap();
            drop(netns);
        }
        let mut swept = 0;
        eventually("all pods that ended are swept", || {
            swept += interceptor.sweep().unwrap();
            swept == 100
        });
        assert_eq!(interceptor.table_entries(), 0);
        assert!(interceptor.link_ids().unwrap().is_empty());
    }
    eventually("no links stay behind", || ever.is_disjoint(&links_in_kernel()));
}

fn links_in_kernel() -> BTreeSet<u32> {
    aya::programs::loaded_links().flatten().map(|link| link.id()).collect()
}

fn open_links() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    files.filter(|target| target.to_string_lossy().contains("bpf_link")).count()
}

fn programs_of(links: &[u32]) -> BTreeSet<u32> {
    let ours = aya::programs::loaded_links().flatten().filter(|link| links.contains(&link.id()));
    ours.map(|link| link.program_id()).collect()
}
