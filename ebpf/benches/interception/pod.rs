//! A pod to measure in, gone with its value.

use crate::ROLE;
use fsm_ebpf::{PodSpec, Rules};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare},
    unistd::Pid,
};
use std::{
    cell::RefCell,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// What FSM's init container sets, for a proxy of this user.
const PROXY_USER: u32 = 1500;
const IPTABLES: &str = "*nat
:FSM_PROXY_OUTBOUND - [0:0]
:FSM_PROXY_OUT_REDIRECT - [0:0]
-A FSM_PROXY_OUT_REDIRECT -p tcp -j REDIRECT --to-port 15001
-A OUTPUT -p tcp -j FSM_PROXY_OUTBOUND
-A FSM_PROXY_OUTBOUND -m owner --uid-owner 1500 -j RETURN
-A FSM_PROXY_OUTBOUND -d 127.0.0.1/32 -j RETURN
-A FSM_PROXY_OUTBOUND -p tcp --match multiport --dports 22,3306 -j RETURN
-A FSM_PROXY_OUTBOUND -j FSM_PROXY_OUT_REDIRECT
COMMIT
";

pub struct Pod {
    netns: File,
    cgroup: PathBuf,
}

pub struct Process {
    child: RefCell<Child>,
    output: RefCell<BufReader<ChildStdout>>,
}

impl Pod {
    pub fn new() -> Self {
        let netns = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            addresses();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).unwrap().split(' ').nth(1).unwrap();
        let cgroup = Path::new(mount).join(format!("fsm-ebpf-bench-{}", std::process::id()));
        for container in ["app", "proxy"] {
            fs::create_dir_all(cgroup.join(container)).unwrap();
        }
        Self { netns: netns.join().unwrap(), cgroup }
    }

    pub fn spec(&self, rules: Rules) -> PodSpec<'_> {
        PodSpec {
            netns: self.netns.as_fd(),
            cgroup: self.cgroup.clone(),
            proxy_cgroup: self.cgroup.join("proxy"),
            rules,
            fail_closed: true,
        }
    }

    pub fn iptables(&self) {
        let mut restore = self.command("iptables-restore", None).stdin(Stdio::piped()).spawn().unwrap();
        restore.stdin.take().unwrap().write_all(IPTABLES.as_bytes()).unwrap();
        assert!(restore.wait().unwrap().success(), "iptables-restore refused the rules");
    }

    pub fn start(&self, role: &str, environment: &[(&str, &str)]) -> Process {
        let program = std::env::current_exe().unwrap();
        let mut command = self.command(program.to_str().unwrap(), Some(role));
        command.env(ROLE, role).envs(environment.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child: RefCell::new(child), output: RefCell::new(output) }
    }

    #[expect(unsafe_code, reason = "a new process enters its cgroup and namespace between fork and exec")]
    fn command(&self, program: &str, container: Option<&str>) -> Command {
        let mut command = Command::new(program);
        let netns = self.netns.try_clone().unwrap();
        let is_proxy = container == Some("proxy");
        let procs = container.map(|container| {
            File::options().write(true).open(self.cgroup.join(container).join("cgroup.procs")).unwrap()
        });
        // Both on one processor: between two, most of a round trip is waking the other one up, and that varies more than
        // what is to be compared.
        let mut processors = CpuSet::new();
        processors.set(0).unwrap();
        // SAFETY: only system calls between fork and exec, on descriptors opened before.
        unsafe {
            command.pre_exec(move || {
                if let Some(mut procs) = procs.as_ref() {
                    procs.write_all(b"0")?;
                }
                setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?;
                sched_setaffinity(Pid::from_raw(0), &processors)?;
                if is_proxy {
                    nix::unistd::setuid(PROXY_USER.into())?;
                }
                Ok(())
            });
        }
        command
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for dir in [self.cgroup.join("app"), self.cgroup.join("proxy"), self.cgroup.clone()] {
            if let Err(error) = fs::remove_dir(&dir) {
                eprintln!("{} stays behind: {error}", dir.display());
            }
        }
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    /// The first line that begins so.
    pub fn wait_for(&self, beginning: &str) -> String {
        let mut output = self.output.borrow_mut();
        loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "a process of the bench ended early");
            if line.starts_with(beginning) {
                return line;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Loopback alone, with a network on it: there is a way to the destinations, which are nowhere.
fn addresses() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        netlink.address().add(1, "10.77.0.2".parse().unwrap(), 24).execute().await.unwrap();
        let up = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::default().index(1).up().build();
        netlink.link().set(up).execute().await.unwrap();
    });
}
