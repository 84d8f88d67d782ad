//! The program `fsm-proxy` from outside: what it needs, what it says, how it ends.
//!
//! Its ports are fixed, so each one runs in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fsm-proxy");

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

#[test]
fn a_missing_variable_is_named() {
    let output = Command::new(PROGRAM).arg("sidecar").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("FSM_CONTROLLER is not set"), "{said}");
}

#[test]
fn a_wrong_command_line_is_misuse() {
    let output = Command::new(PROGRAM).arg("carside").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// A running program, which does not outlive the test.
struct Running(Child);

impl Running {
    fn id(&self) -> u32 {
        self.0.id()
    }

    fn log(&mut self) -> BufReader<std::process::ChildStderr> {
        BufReader::new(self.0.stderr.take().unwrap())
    }

    /// Its exit status, once it has ended by itself.
    fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    fn terminate(&self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.id().cast_signed()), nix::sys::signal::SIGTERM).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program in a network namespace of its own; none if the machine does not allow that.
fn started(flags: &str) -> Option<Running> {
    let allowed = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs root, unshare and ip for a network namespace");
        return None;
    }
    let script = format!("ip link set lo up && exec {PROGRAM} sidecar --drain-seconds 5 {flags}");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).envs(environment()).stderr(Stdio::piped());
    Some(Running(command.spawn().unwrap()))
}

/// Reads the log until a line with `text`.
fn wait_for(log: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    while !seen.lines().any(|line| line.contains(text)) {
        assert!(log.read_line(&mut seen).unwrap() > 0, "no \"{text}\" in:\n{seen}");
    }
}

/// Another one beside it, whose variables `change` may differ.
fn beside(pid: u32, change: &[(&str, &str)]) -> Running {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).args([PROGRAM, "sidecar", "--drain-seconds", "5"]);
    command.envs(environment()).envs(change.iter().copied()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

/// Does something inside the namespace of `pid`.
fn inside<T: Send + 'static>(pid: u32, act: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    // Only this thread moves, and it ends here.
    let acting = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        act()
    });
    acting.join().unwrap()
}

/// A GET from inside the namespace of `pid`.
fn get(pid: u32, port: u16, path: &str) -> String {
    let path = path.to_owned();
    inside(pid, move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

#[test]
fn it_starts_without_a_controller_and_ends_at_sigterm() {
    let Some(mut child) = started("") else { return };
    let mut log = child.log();
    wait_for(&mut log, "the sidecar has started");
    let ready = get(child.id(), 15902, "/fsm-ready");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let metrics = get(child.id(), 15010, "/stats/prometheus");
    assert!(metrics.contains("\nsidecar_server_live 1\n"), "{metrics}");
    let admin = get(child.id(), 15000, "/ready");
    assert!(admin.starts_with("HTTP/1.1 503"), "{admin}");
    child.terminate();
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
}

#[test]
fn processes_take_each_others_place_and_no_connection_is_refused() {
    let Some(mut child) = started("") else { return };
    let mut log = child.log();
    wait_for(&mut log, "the sidecar has started");
    // Keeps the namespace, and connects to its ports all the time.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let (pid, held) = (child.id(), std::fs::File::open(format!("/proc/{}/ns/net", child.id())).unwrap());
    let connecting = std::thread::spawn(move || {
        nix::sched::setns(held, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut answered = 0;
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for (port, path) in [(15010, "/stats/prometheus"), (15000, "/stats")] {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "port {port} after {answered}: {answer}");
                answered += 1;
            }
        }
        answered
    });
    // One that is killed after it got the sockets.
    inside(pid, || {
        let address = SocketAddr::from_abstract_name("fsm-proxy/handover").unwrap();
        let mut stream = UnixStream::connect_addr(&address).unwrap();
        let workload = "spiffe://cluster.local/ns/shop/sa/store in shop/store-1";
        writeln!(stream, "{{\"version\":1,\"workload\":\"{workload}\"}}").unwrap();
        let mut offer = String::new();
        BufReader::new(stream).read_line(&mut offer).unwrap();
        assert!(offer.contains("\"roles\":[\"outbound\""), "{offer}");
    });
    wait_for(&mut log, "a successor has not taken over: this proxy serves on");
    // One of another workload.
    let mut stranger = beside(pid, &[("POD_NAME", "store-2")]);
    wait_for(&mut stranger.log(), "does not hand over: it is the proxy of");
    assert_eq!(stranger.code(), Some(1));
    for _ in 0..3 {
        let mut next = beside(child.id(), &[]);
        let mut its_log = next.log();
        wait_for(&mut its_log, "this proxy has taken the place of the other one");
        wait_for(&mut log, "ended");
        assert_eq!(child.code(), Some(0));
        (child, log) = (next, its_log);
    }
    end.send(()).unwrap();
    assert!(connecting.join().unwrap() > 0);
    child.terminate();
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
}

#[test]
fn everything_is_served_for_the_grace_and_a_second_signal_ends_it() {
    let Some(mut child) = started("--grace-seconds 3600") else { return };
    let mut log = child.log();
    wait_for(&mut log, "the sidecar has started");
    child.terminate();
    wait_for(&mut log, "for a while everything is served as before");
    assert!(get(child.id(), 15010, "/stats/prometheus").starts_with("HTTP/1.1 200"));
    child.terminate();
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
}
