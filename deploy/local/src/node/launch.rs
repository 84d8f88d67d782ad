//! Starting a process in a container's namespaces and cgroup.
//!
//! Each process has a thread of ours for as long as it runs. The thread puts itself into the container's namespaces, starts
//! the process, which inherits them, and waits for it. Because the process asks for SIGKILL when that thread ends, it cannot
//! outlive this program, however this program ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::cgroup::{Cgroup, CgroupError};
use super::rootfs::{self, RootError, RootSpec};
use super::spawn::{Place, Program, spawn};
use super::terminal;
use crate::api::TerminalSize;
use crate::net::Netns;

/// In which file system a process starts.
#[derive(Debug, Clone)]
pub enum Root {
    /// One of its own.
    New(RootSpec),
    /// That of a running process (for `exec`).
    Of { pid: i32 },
}

/// Everything needed to start a process.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program and arguments; not empty.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    pub cwd: Option<PathBuf>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub root: Root,
    pub netns: Netns,
    pub cgroup: Cgroup,
    pub streams: Streams,
}

/// What a process's standard input and outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Nobody reads or writes them. (A process whose output nobody reads would stop once a pipe is full.)
    None,
    /// Pipes; the input only if it is wanted.
    Pipes { stdin: bool },
    /// All three are a terminal, of this size from the first moment if the client has told it.
    Terminal(Option<TerminalSize>),
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(
        "command \"{command}\" was not found in the container (PATH={path}); local containers run the programs of this \
         machine: install it here, or give a command that exists"
    )]
    NoCommand { command: String, path: String },
    #[error("command \"{0}\" is not executable")]
    NotExecutable(String),
    #[error("working directory {0} does not exist in the container and could not be made: {1}")]
    WorkingDir(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cannot start \"{command}\": {source}")]
    Start { command: String, source: io::Error },
    #[error("cannot {0}: {1}")]
    Thread(&'static str, #[source] io::Error),
}

/// A started process. Unless its output is taken, it is lost when this is dropped.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    ends: Ends,
    exit: oneshot::Receiver<Exit>,
    known: Option<Exit>,
}

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    /// With a terminal there is none.
    pub stderr: Option<OwnedFd>,
    /// The terminal, for its size; `stdin` and `stdout` are the same.
    pub terminal: Option<OwnedFd>,
}

impl Process {
    /// Our ends of the process's streams, once.
    pub fn take_streams(&mut self) -> Ends {
        std::mem::take(&mut self.ends)
    }

    /// Resolves when the process has ended, and again whenever asked. Safe to cancel.
    pub async fn ended(&mut self) -> Exit {
        if let Some(exit) = self.known {
            return exit;
        }
        let exit = (&mut self.exit).await.unwrap_or(Exit::UNKNOWN);
        self.known = Some(exit);
        exit
    }

    /// Kills the process and those it started in its session, unless it is known to have ended.
    pub fn kill_group(&self) {
        if self.known.is_none() {
            nix::sys::signal::killpg(Pid::from_raw(self.pid), Signal::SIGKILL).ok();
        }
    }

    /// Sends a signal, unless the process is known to have ended.
    pub fn signal(&self, signal: Signal) {
        if self.known.is_none() {
            nix::sys::signal::kill(Pid::from_raw(self.pid), signal).ok();
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + the signal's number.
    pub code: i32,
    pub signal: Option<i32>,
}

impl Exit {
    const UNKNOWN: Self = Self { code: 255, signal: None };

    /// Waits until a child has ended.
    fn of(pid: Pid) -> Self {
        loop {
            return match waitpid(pid, None) {
                Ok(WaitStatus::Exited(_, code)) => Self { code, signal: None },
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    Self { code: 128 + signal as i32, signal: Some(signal as i32) }
                }
                Err(nix::Error::EINTR) => continue,
                // Nobody else waits for our children.
                _ => Self::UNKNOWN,
            };
        }
    }
}

/// Kills a process of a container, as a crash would.
pub fn kill(pid: i32) -> io::Result<()> {
    Ok(nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// Starts a process and returns once it runs.
pub async fn launch(spec: Launch) -> Result<Process, LaunchError> {
    let (report, started) = oneshot::channel();
    let thread = std::thread::Builder::new().name("fsm-container".into());
    thread
        .spawn(move || {
            let (pid, ends) = match start(&spec) {
                Ok(started) => started,
                Err(error) => {
                    report.send(Err(error)).ok();
                    return;
                }
            };
            let (ended, exit) = oneshot::channel();
            let process = Process { pid: pid.as_raw(), ends, exit, known: None };
            report.send(Ok(process)).ok();
            // What it was started with is not kept for as long as it runs.
            drop(spec);
            // Nobody waits for the exit when the cluster is going down.
            ended.send(Exit::of(pid)).ok();
        })
        .map_err(|e| LaunchError::Thread("start a thread for the container", e))?;
    started
        .await
        .unwrap_or_else(|_| Err(LaunchError::Thread("start the container", io::Error::other("its thread ended"))))
}

fn start(spec: &Launch) -> Result<(Pid, Ends), LaunchError> {
    let entrance = spec.cgroup.entrance()?;
    setns(spec.netns.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|e| LaunchError::Thread("enter the pod's network", e.into()))?;
    match &spec.root {
        Root::New(root) => rootfs::enter(root)?,
        Root::Of { pid } => join(*pid).map_err(|e| LaunchError::Thread("enter the container", e))?,
    }
    let cwd = spec.cwd.clone().unwrap_or_else(|| "/".into());
    fs::create_dir_all(&cwd).map_err(|e| LaunchError::WorkingDir(cwd.clone(), e))?;
    let name = spec.argv.first().cloned().unwrap_or_default();
    let path = find(&name, &spec.env, &cwd)?;
    let (streams, ends) = streams(spec).map_err(|e| LaunchError::Thread("open the process's streams", e))?;
    let terminal = ends.terminal.is_some();
    let place = Place { entrance, user: spec.user, group: spec.group, streams, terminal };
    let started = Program::new(&path, &spec.argv, &spec.env, &cwd).and_then(|program| spawn(&program, &place));
    Ok((started.map_err(|source| LaunchError::Start { command: name, source })?, ends))
}

/// The process's streams and our ends of them.
fn streams(spec: &Launch) -> io::Result<([OwnedFd; 3], Ends)> {
    let nothing = || Ok::<OwnedFd, io::Error>(fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into());
    match spec.streams {
        Streams::None => Ok(([nothing()?, nothing()?, nothing()?], Ends::default())),
        Streams::Pipes { stdin } => {
            let (input, to_input) = if stdin {
                let (theirs, ours) = io::pipe()?;
                (theirs.into(), Some(ours.into()))
            } else {
                (nothing()?, None)
            };
            let ((from_output, output), (from_error, error)) = (io::pipe()?, io::pipe()?);
            let (stdout, stderr) = (Some(from_output.into()), Some(from_error.into()));
            Ok(([input, output.into(), error.into()], Ends { stdin: to_input, stdout, stderr, terminal: None }))
        }
        Streams::Terminal(size) => {
            let (ours, theirs) = terminal::open(spec.user)?;
            if let Some(TerminalSize { width, height }) = size {
                terminal::resize(ours.as_fd(), width, height)?;
            }
            let (stdin, stdout) = (Some(ours.try_clone()?), Some(ours.try_clone()?));
            let all = [theirs.try_clone()?, theirs.try_clone()?, theirs];
            Ok((all, Ends { stdin, stdout, stderr: None, terminal: Some(ours) }))
        }
    }
}

/// Moves the calling thread into the mount and host name namespaces of a process.
fn join(pid: i32) -> io::Result<()> {
    let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
    let (mounts, names) = (open("mnt")?, open("uts")?);
    unshare(CloneFlags::CLONE_FS)?;
    setns(names.as_fd(), CloneFlags::CLONE_NEWUTS)?;
    setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
    Ok(())
}

/// The file a command's name stands for, as seen from inside.
fn find(name: &str, env: &BTreeMap<String, String>, cwd: &Path) -> Result<PathBuf, LaunchError> {
    let path = env.get("PATH").cloned().unwrap_or_default();
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![cwd.join(name)]
    } else {
        path.split(':').map(|dir| cwd.join(dir).join(name)).collect()
    };
    let mut exists = false;
    for candidate in candidates {
        match fs::metadata(&candidate) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(_) => exists = true,
            Err(_) => {}
        }
    }
    if exists {
        Err(LaunchError::NotExecutable(name.to_owned()))
    } else {
        Err(LaunchError::NoCommand { command: name.to_owned(), path })
    }
}
