//! The program `fsm-proxy` from outside: what it needs, what it says, how it ends.
//!
//! Its ports are fixed, so each one runs in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod handover;
mod process;

use std::process::Command;

use process::{PROGRAM, get, started, wait_for};

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

#[test]
fn it_starts_without_a_controller_and_ends_at_sigterm() {
    let Some(mut child) = started("--drain-seconds 5") else { return };
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
fn everything_is_served_for_the_grace_and_a_second_signal_ends_it() {
    let Some(mut child) = started("--drain-seconds 5 --grace-seconds 3600") else { return };
    let mut log = child.log();
    wait_for(&mut log, "the sidecar has started");
    child.terminate();
    wait_for(&mut log, "for a while everything is served as before");
    assert!(get(child.id(), 15010, "/stats/prometheus").starts_with("HTTP/1.1 200"));
    child.terminate();
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
}
