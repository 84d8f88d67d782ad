//! The program `fsm-proxy` from outside: what it needs, what it says, how it ends.
//!
//! Its ports are fixed, so each one runs in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
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

/// The program in a network namespace of its own; none if the machine does not allow that.
fn started() -> Option<Child> {
    let allowed = Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs root, unshare and ip for a network namespace");
        return None;
    }
    let script = format!("ip link set lo up && exec {PROGRAM} sidecar --drain-seconds 5");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).envs(environment()).stderr(Stdio::piped());
    Some(command.spawn().unwrap())
}

/// Reads the log until a line with `text`.
fn wait_for(log: &mut impl BufRead, text: &str) {
    let mut seen = String::new();
    while !seen.lines().any(|line| line.contains(text)) {
        assert!(log.read_line(&mut seen).unwrap() > 0, "no \"{text}\" in:\n{seen}");
    }
}

/// A GET from inside the namespace of `pid`.
fn get(pid: u32, port: u16, path: &str) -> String {
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    let path = path.to_owned();
    // Only this thread moves, and it ends here.
    let asking = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    asking.join().unwrap()
}

#[test]
fn it_starts_without_a_controller_and_ends_at_sigterm() {
    let Some(mut child) = started() else { return };
    let mut log = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut log, "the sidecar has started");
    let ready = get(child.id(), 15902, "/fsm-ready");
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let metrics = get(child.id(), 15010, "/stats/prometheus");
    assert!(metrics.contains("\nsidecar_server_live 1\n"), "{metrics}");
    let admin = get(child.id(), 15000, "/ready");
    assert!(admin.starts_with("HTTP/1.1 503"), "{admin}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), nix::sys::signal::SIGTERM).unwrap();
    wait_for(&mut log, "ended");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
