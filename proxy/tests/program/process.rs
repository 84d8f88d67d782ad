//! The program as a process, in a network namespace of its own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fsm-proxy");

fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
}

fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("FSM_CONTROLLER", "fsm-controller.fsm-system.svc.cluster.local:15128".into()),
        ("FSM_TRUST_DOMAIN", "cluster.local".into()),
        ("FSM_TRUST_ANCHORS", certificate()),
        ("FSM_TOKEN_PATH", "/nonexistent/token".into()),
        ("POD_NAMESPACE", "shop".into()),
        ("POD_NAME", "store-1".into()),
        ("SERVICE_ACCOUNT", "store".into()),
        ("POD_IP", "127.0.0.1".into()),
    ]
}

/// A running program, which does not outlive the test.
pub struct Running(Child);

impl Running {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it says from now on; to be taken once.
    pub fn log(&mut self) -> BufReader<std::process::ChildStderr> {
        BufReader::new(self.0.stderr.take().unwrap())
    }

    /// Its exit status, once it has ended by itself.
    pub fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.code(), None);
    }

    fn signal(&self, signal: Signal) {
        kill(nix::unistd::Pid::from_raw(self.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program in a network namespace of its own; none if the machine does not allow that.
pub fn started(flags: &str) -> Option<Running> {
    let allowed = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs root, unshare and ip for a network namespace");
        return None;
    }
    let script = format!("ip link set lo up && exec {PROGRAM} sidecar {flags}");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).envs(environment()).stderr(Stdio::piped());
    Some(Running(command.spawn().unwrap()))
}

/// Reads the log until a line with `text`.
pub fn wait_for(log: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    while !seen.lines().any(|line| line.contains(text)) {
        assert!(log.read_line(&mut seen).unwrap() > 0, "no \"{text}\" in:\n{seen}");
    }
}

/// Another one beside it, whose variables `change` may differ.
pub fn beside(pid: u32, change: &[(&str, &str)]) -> Running {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).args([PROGRAM, "sidecar", "--drain-seconds", "5"]);
    command.envs(environment()).envs(change.iter().copied()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

/// The network namespace of `pid`. It lasts as long as this.
pub fn namespace(pid: u32) -> File {
    File::open(format!("/proc/{pid}/ns/net")).unwrap()
}

/// Has this thread act inside a namespace from now on.
pub fn enter(namespace: File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Does something inside the namespace of `pid`.
pub fn inside<T: Send + 'static>(pid: u32, act: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace(pid);
    // Only this thread moves, and it ends here.
    let acting = std::thread::spawn(move || {
        enter(namespace);
        act()
    });
    acting.join().unwrap()
}

/// A GET from inside the namespace of `pid`.
pub fn get(pid: u32, port: u16, path: &str) -> String {
    let path = path.to_owned();
    inside(pid, move || fetch(TcpStream::connect(("127.0.0.1", port)).unwrap(), &path).unwrap())
}

/// A GET, and everything until the end of the connection.
pub fn fetch(mut stream: TcpStream, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
