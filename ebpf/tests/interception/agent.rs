//! A process in a cgroup and network namespace that opens sockets there on request. The test takes over the sockets
//! and uses them as its own.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Tells the test binary to serve as an agent.
const ROLE: &str = "FSM_EBPF_TEST_AGENT";
/// No step of a test takes long unless it goes wrong.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Agent {
    child: Child,
    pidfd: OwnedFd,
    control: Mutex<BufReader<UnixStream>>,
}

impl Agent {
    #[expect(unsafe_code, reason = "a new process enters its cgroup and namespace between fork and exec")]
    pub fn start(cgroup: &Path, netns: &File) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let procs = File::options().write(true).open(cgroup.join("cgroup.procs")).unwrap();
        let netns = netns.try_clone().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["agent_process", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, "1");
        command.stdin(OwnedFd::from(theirs)).stdout(std::process::Stdio::null());
        // SAFETY: only system calls between fork and exec, on descriptors opened before.
        unsafe {
            command.pre_exec(move || {
                (&procs).write_all(b"0")?;
                nix::sched::setns(netns.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        Self { child, pidfd, control: Mutex::new(BufReader::new(ours)) }
    }

    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.socket("connect", to, "close")?);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// A listener whose `accept` gives up in the end instead of hanging the test.
    pub fn listen(&self, on: SocketAddr) -> TcpListener {
        self.listener(on, "close")
    }

    /// A listener that the agent holds as well, as a running proxy would, for as long as it lives.
    pub fn listen_and_hold(&self, on: SocketAddr) -> TcpListener {
        self.listener(on, "hold")
    }

    fn listener(&self, on: SocketAddr, then: &str) -> TcpListener {
        let listener = TcpListener::from(self.socket("listen", on, then).unwrap());
        let timeout = nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0);
        nix::sys::socket::setsockopt(&listener, nix::sys::socket::sockopt::ReceiveTimeout, &timeout).unwrap();
        listener
    }

    /// As [`Self::connect`], with a multipath TCP socket.
    pub fn connect_multipath(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.socket("mptcp", to, "close")?);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub fn udp(&self, on: SocketAddr) -> UdpSocket {
        // What was closed here is still open in a process that another test is about to start, until its exec.
        let until = Instant::now() + PATIENCE;
        let socket = loop {
            match self.socket("udp", on, "close") {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                    std::thread::yield_now();
                }
                socket => break UdpSocket::from(socket.unwrap()),
            }
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A socket that is connected to a name server.
    pub fn ask(&self, server: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::from(self.socket("ask", server, "close").unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn socket(&self, what: &str, address: SocketAddr, then: &str) -> io::Result<OwnedFd> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(control.get_mut(), "{what} {address}")?;
        let reply = read_line(&mut control)?;
        let (kind, number) = reply.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        if kind == "error" {
            return Err(io::Error::from_raw_os_error(number));
        }
        let taken = pidfd_getfd(&self.pidfd, number);
        writeln!(control.get_mut(), "{then}")?;
        read_line(&mut control)?;
        taken
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The agent ends by itself when its control connection closes; killing is for one that is stuck.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(control: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    if control.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// The agent's side; returns at once in a process that is none.
pub fn serve() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut replies = control.try_clone().unwrap();
    let mut held: Vec<OwnedFd> = Vec::new();
    for line in BufReader::new(control).lines() {
        let line = line.unwrap();
        if line == "close" || line == "hold" {
            if line == "close" {
                held.pop();
            }
            writeln!(replies, "done").unwrap();
            continue;
        }
        match open(&line) {
            Ok(socket) => {
                writeln!(replies, "socket {}", socket.as_raw_fd()).unwrap();
                held.push(socket);
            }
            Err(error) => writeln!(replies, "error {}", error.raw_os_error().unwrap_or(libc::ETIMEDOUT)).unwrap(),
        }
    }
}

fn open(request: &str) -> io::Result<OwnedFd> {
    let (what, address) = request.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    Ok(match what {
        "connect" => TcpStream::connect_timeout(&address, PATIENCE)?.into(),
        "listen" => TcpListener::bind(address)?.into(),
        "udp" => UdpSocket::bind(address)?.into(),
        "ask" => {
            let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.connect(address)?;
            socket.into()
        }
        "mptcp" => connect_multipath(address)?,
        other => panic!("unknown request {other}"),
    })
}

#[expect(unsafe_code, reason = "nix does not know multipath TCP")]
fn connect_multipath(to: SocketAddr) -> io::Result<OwnedFd> {
    use nix::sys::socket::{SockaddrStorage, connect};
    // SAFETY: plain integers in, a descriptor that is ours out.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) }.into())?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "libc has no wrapper for pidfd_open")]
fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers in, a descriptor that is ours out.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

#[expect(unsafe_code, reason = "libc has no wrapper for pidfd_getfd")]
fn pidfd_getfd(pidfd: &OwnedFd, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

#[expect(unsafe_code, reason = "takes ownership of a new descriptor")]
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: called with the results of calls that return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
