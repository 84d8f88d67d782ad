//! Starting a program without a copy of this process.
//!
//! A fork copies the page tables of this process, whose memory grows with the cluster, and makes every page that is written
//! afterwards fault once; with two hundred pods that was a sixth of all CPU time. Here the child borrows the memory instead, and the
//! calling thread stands still, until it executes the program (as `posix_spawn` does, which can't do all that a container needs).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, setsid, write};

use super::terminal;

/// What the child needs between its start and the program's.
const STACK_BYTES: usize = 64 << 10;

/// A program as the kernel takes it.
pub(super) struct Program {
    path: CString,
    argv: Words,
    env: Words,
    cwd: CString,
}

/// What the program's process is.
pub(super) struct Place {
    /// Of the cgroup it joins.
    pub entrance: File,
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// Standard input, output and error.
    pub streams: [OwnedFd; 3],
    /// Whether they are a terminal, which is then the session's.
    pub terminal: bool,
}

/// Texts with the null-terminated list of pointers to them.
struct Words {
    _texts: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Words {
    fn new(texts: impl Iterator<Item = String>) -> io::Result<Self> {
        let texts = texts.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _texts: texts, pointers })
    }
}

impl Program {
    pub fn new(path: &Path, argv: &[String], env: &BTreeMap<String, String>, cwd: &Path) -> io::Result<Self> {
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes())?,
            argv: Words::new(argv.iter().cloned())?,
            env: Words::new(env.iter().map(|(name, value)| format!("{name}={value}")))?,
            cwd: CString::new(cwd.as_os_str().as_bytes())?,
        })
    }
}

/// Starts the program in a session of its own, in the calling thread's namespaces. It gets SIGKILL when the thread ends.
pub(super) fn spawn(program: &Program, place: &Place) -> io::Result<Pid> {
    // No handler of ours may run in the child while it has our memory.
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    let failed = Cell::new(None);
    let mut stack = vec![0; STACK_BYTES];
    let child = || {
        let error = enter(place, &program.cwd).map_or_else(|error| error, |()| execute(program));
        failed.set(Some(error));
        127
    };
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    #[expect(unsafe_code, reason = "a child that shares this process's memory")]
    // SAFETY: CLONE_VFORK keeps this thread, whose stack frame the child uses, waiting until the child has executed or ended. Until
    // then the child makes system calls only: it allocates nothing, takes no lock, and no signal handler of ours runs in it.
    let started = unsafe { nix::sched::clone(Box::new(child), &mut stack, flags, Some(libc::SIGCHLD)) };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    let pid = started?;
    match failed.take() {
        None => Ok(pid),
        Some(error) => {
            waitpid(pid, None)?;
            Err(error.into())
        }
    }
}

/// Makes the child what it is to be.
fn enter(place: &Place, cwd: &CStr) -> nix::Result<()> {
    write(&place.entrance, b"0")?;
    setsid()?;
    let [input, output, error] = &place.streams;
    nix::unistd::dup2_stdin(input)?;
    nix::unistd::dup2_stdout(output)?;
    nix::unistd::dup2_stderr(error)?;
    if place.terminal {
        terminal::control()?;
    }
    if let Some(group) = place.group {
        system_call(libc::SYS_setgid, [group as usize, 0])?;
    }
    if let Some(user) = place.user {
        system_call(libc::SYS_setgroups, [0, 0])?;
        system_call(libc::SYS_setuid, [user as usize, 0])?;
    }
    chdir(cwd)?;
    // Whatever we were started with ignored (Ctrl-C, say, in a script's background) is not ignored in a container.
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        #[expect(unsafe_code, reason = "a new handler may break what an old one was for")]
        // SAFETY: the child is about to execute another program, and has its own table of handlers.
        unsafe {
            nix::sys::signal::signal(signal, SigHandler::SigDfl)?;
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // After the change of user, which would clear it.
    prctl::set_pdeathsig(Signal::SIGKILL)
}

/// A change of user or group of the calling process alone: libc's functions would change all threads, which here are ours.
fn system_call(number: libc::c_long, [first, second]: [usize; 2]) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "nix has no wrapper that leaves the other threads alone")]
    // SAFETY: setgid and setuid take a number, setgroups a count of 0 and no list.
    let done = unsafe { libc::syscall(number, first, second) };
    nix::errno::Errno::result(done).map(drop)
}

/// Becomes the program; comes back only with an error.
fn execute(program: &Program) -> nix::Error {
    #[expect(unsafe_code, reason = "nix's wrapper allocates")]
    // SAFETY: the path is a C string, and both lists are null-terminated and point to C strings that `program` owns.
    unsafe {
        libc::execve(program.path.as_ptr(), program.argv.pointers.as_ptr(), program.env.pointers.as_ptr())
    };
    nix::Error::last()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::wait::WaitStatus;

    use super::*;

    fn place(dir: &Path) -> (Place, std::io::PipeReader) {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let (said, output) = std::io::pipe().unwrap();
        let entrance = File::create(dir.join("cgroup.procs")).unwrap();
        let streams = [null(), output.into(), null()];
        (Place { entrance, user: None, group: None, streams, terminal: false }, said)
    }

    #[test]
    fn a_program_gets_its_words_its_folder_and_its_streams() {
        let dir = tempfile::tempdir().unwrap();
        let (place, mut said) = place(dir.path());
        let argv = [
            "sh",
            "-c",
            "pwd; echo $WHO $0; read -r a b c d e session f < /proc/$$/stat; [ $session = $$ ] && echo leads; exit 3",
            "name",
        ]
        .map(str::to_owned);
        let env = [("WHO".to_owned(), "me".to_owned()), ("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
        let program = Program::new(Path::new("/bin/sh"), &argv, &env, dir.path()).unwrap();
        let pid = spawn(&program, &place).unwrap();
        drop(place);
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{}\nme name\nleads\n", dir.path().display()));
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 3));
        assert_eq!(std::fs::read(dir.path().join("cgroup.procs")).unwrap(), b"0");
    }

    #[test]
    fn what_is_no_program_is_an_error_and_leaves_no_child() {
        let dir = tempfile::tempdir().unwrap();
        for (path, error) in [("/no/such", io::ErrorKind::NotFound), ("/etc/passwd", io::ErrorKind::PermissionDenied)] {
            let program = Program::new(Path::new(path), &[], &BTreeMap::new(), dir.path()).unwrap();
            assert_eq!(spawn(&program, &place(dir.path()).0).unwrap_err().kind(), error);
        }
    }
}
