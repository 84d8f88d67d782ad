//! A child process whose system calls can be made to fail, by ptrace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What happens at the chosen write, and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends before it.
    Kill,
    /// Half of it is done, then the process ends.
    Torn,
    /// It fails because the disk is full, and so does every write after it.
    Full,
}

pub struct Traced {
    process: Child,
    pub stdout: BufReader<ChildStdout>,
    /// What it did so far.
    pub events: Vec<Event>,
}

/// A system call that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something in a file, or its length, or what files there are.
    Changes(PathBuf),
    /// It ends when the disk has all changes of the file.
    Syncs(PathBuf),
    /// The process prints something.
    Says,
}

/// What is done when a system call of a thread ends.
enum AtExit {
    Kill,
    Fail(Errno),
}

impl Traced {
    /// Starts one test of this binary, stops all its threads, and lets it go on; none where that can't be done.
    pub fn start(test: &str, (variable, value): (&str, &Path)) -> Option<Self> {
        if !cfg!(target_arch = "x86_64") {
            return None;
        }
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(variable, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the child is not ready");
        }
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_EXITKILL;
        for thread in fs::read_dir(format!("/proc/{}/task", process.id())).unwrap() {
            let thread = Pid::from_raw(thread.unwrap().file_name().to_str().unwrap().parse().unwrap());
            if ptrace::seize(thread, options).is_err() {
                process.kill().unwrap();
                process.wait().unwrap();
                return None;
            }
            ptrace::interrupt(thread).unwrap();
        }
        process.stdin.take().unwrap().write_all(b"\n").unwrap();
        Some(Self { process, stdout, events: Vec::new() })
    }

    /// Lets it run to its end, with a fault at the write of this number; gives how many writes to files below `dir` there were.
    pub fn run(&mut self, dir: &Path, fault: Option<(Fault, usize)>) -> usize {
        let mut writes = 0;
        let mut inside = BTreeSet::new();
        let mut at_exit: BTreeMap<Pid, AtExit> = BTreeMap::new();
        // Only what this thread traces: other tests have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let leader = Pid::from_raw(self.process.id() as i32);
        loop {
            let stopped = match waitpid(None, Some(flags)) {
                Ok(stopped) => stopped,
                Err(Errno::EINTR) => continue,
                Err(Errno::ECHILD) => break,
                Err(error) => panic!("{error}"),
            };
            let signal = match stopped {
                WaitStatus::PtraceSyscall(thread) if inside.remove(&thread) => {
                    match at_exit.remove(&thread) {
                        Some(AtExit::Kill) => self.process.kill().unwrap(),
                        Some(AtExit::Fail(error)) => fail(thread, error),
                        None => {}
                    }
                    None
                }
                WaitStatus::PtraceSyscall(thread) => {
                    if is_entry(thread) {
                        inside.insert(thread);
                        let event = event(thread, dir);
                        let is_write = matches!(event, Some(Event::Changes(_) | Event::Syncs(_)));
                        self.events.extend(event);
                        if is_write {
                            if let Some((fault, at)) = fault {
                                self.happen(fault, writes, at, thread, &mut at_exit);
                            }
                            writes += 1;
                        }
                    }
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) if thread == leader => break,
                _ => None,
            };
            if let Some(thread) = stopped.pid() {
                // It may have been killed meanwhile.
                let _ = ptrace::syscall(thread, signal.filter(|signal| *signal != Signal::SIGTRAP));
            }
        }
        writes
    }

    fn happen(&mut self, fault: Fault, write: usize, at: usize, thread: Pid, at_exit: &mut BTreeMap<Pid, AtExit>) {
        match fault {
            Fault::Kill if write == at => self.process.kill().unwrap(),
            Fault::Torn if write == at => {
                halve(thread);
                at_exit.insert(thread, AtExit::Kill);
            }
            Fault::Full if write >= at => {
                skip(thread);
                at_exit.insert(thread, AtExit::Fail(Errno::ENOSPC));
            }
            Fault::Kill | Fault::Torn | Fault::Full => {}
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_entry(thread: Pid) -> bool {
    ptrace::syscall_info(thread).is_ok_and(|info| info.op == nix::libc::PTRACE_SYSCALL_INFO_ENTRY)
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use nix::libc;

    use super::*;

    /// What the system call that begins does to the files below `dir`.
    pub fn event(thread: Pid, dir: &Path) -> Option<Event> {
        let registers = ptrace::getregs(thread).ok()?;
        let file =
            || fs::read_link(format!("/proc/{thread}/fd/{}", registers.rdi)).ok().filter(|file| file.starts_with(dir));
        match registers.orig_rax as i64 {
            libc::SYS_write if registers.rdi == 1 => Some(Event::Says),
            libc::SYS_write
            | libc::SYS_pwrite64
            | libc::SYS_writev
            | libc::SYS_ftruncate
            | libc::SYS_fallocate
            | libc::SYS_sync_file_range => file().map(Event::Changes),
            libc::SYS_fsync | libc::SYS_fdatasync => file().map(Event::Syncs),
            libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_unlink | libc::SYS_unlinkat => {
                Some(Event::Changes(dir.into()))
            }
            _ => None,
        }
    }

    /// A write of so many bytes becomes one of half of them.
    pub fn halve(thread: Pid) {
        let Ok(mut registers) = ptrace::getregs(thread) else { return };
        if matches!(registers.orig_rax as i64, libc::SYS_write | libc::SYS_pwrite64) {
            registers.rdx /= 2;
            let _ = ptrace::setregs(thread, registers);
        }
    }

    /// The system call is not done.
    pub fn skip(thread: Pid) {
        let Ok(mut registers) = ptrace::getregs(thread) else { return };
        registers.orig_rax = u64::MAX;
        let _ = ptrace::setregs(thread, registers);
    }

    /// The system call that ends gives this error.
    pub fn fail(thread: Pid, error: Errno) {
        let Ok(mut registers) = ptrace::getregs(thread) else { return };
        registers.rax = (-i64::from(error as i32)) as u64;
        let _ = ptrace::setregs(thread, registers);
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use super::*;

    pub fn event(_: Pid, _: &Path) -> Option<Event> {
        None
    }
    pub fn halve(_: Pid) {}
    pub fn skip(_: Pid) {}
    pub fn fail(_: Pid, _: Errno) {}
}

use registers::{event, fail, halve, skip};
