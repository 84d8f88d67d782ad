//! The side of the proxy that runs, and that of one that has a successor.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::wire::{Answer, Hello, Line, VERSION, Word};
use super::{HandoverError, Other, address, other};
use crate::accept::{Inherited, Role};

/// How long a successor may take for its first words.
const PATIENCE: Duration = Duration::from_secs(5);

/// Successors that wait for one to be through.
const BACKLOG: i32 = 16;

/// Waits for successors.
pub struct Giver {
    listener: UnixListener,
    workload: String,
}

/// A proxy that serves in the place of this one.
pub struct Successor(Line);

impl Successor {
    /// Waits until it ends. True: it died, and said nothing before.
    pub async fn died(mut self) -> bool {
        loop {
            match self.0.receive().await {
                Ok(Some((Word::Ready, _))) => {}
                Ok(Some((Word::Ended, _))) => return false,
                Ok(None) => return true,
                // Not in words of this version; whoever still speaks is not dead.
                Err(error) => return error.kind() != ErrorKind::InvalidData,
            }
        }
    }
}

impl Giver {
    /// Takes the socket over from the predecessor, or binds `name`.
    pub fn new(name: &str, workload: &str, inherited: &mut Inherited) -> Result<Self, HandoverError> {
        let inherited = inherited.any(Role::Handover);
        let listen = || {
            let listener = match inherited {
                Some(socket) => StdListener::from(socket),
                None => StdListener::bind_addr(&address(name)?)?,
            };
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(|source| HandoverError::Socket { name: name.to_owned(), source })?;
        Ok(Self { listener, workload: workload.to_owned() })
    }

    /// Offers `sockets` to whoever is entitled to them, until one of them serves. `ready`: whether this proxy has what it
    /// needs to serve, so that a successor should have it too before it takes over.
    pub async fn handed_over(
        &self,
        sockets: impl Fn() -> io::Result<Vec<(Role, OwnedFd)>>,
        ready: impl Fn() -> bool,
    ) -> Successor {
        // Successors look at who listens; that was the predecessor's process, if the socket is inherited.
        if let Err(error) = rustix::net::listen(&self.listener, BACKLOG) {
            tracing::warn!(%error, "no successor will be able to take this proxy's place");
        }
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: others close theirs in time.
                    tracing::warn!(%error, "a successor could not be heard");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let offered = sockets().and_then(|mut all| {
                all.push((Role::Handover, rustix::io::fcntl_dupfd_cloexec(&self.listener, 0)?));
                Ok(all)
            });
            match self.offer(stream, offered, ready()).await {
                Ok(Some(successor)) => return successor,
                Ok(None) => tracing::warn!("a successor has not taken over: this proxy serves on"),
                Err(error) => tracing::warn!(%error, "a handover broke off: this proxy serves on"),
            }
        }
    }

    /// None: the successor does not serve.
    async fn offer(
        &self,
        stream: UnixStream,
        offered: io::Result<Vec<(Role, OwnedFd)>>,
        ready: bool,
    ) -> io::Result<Option<Successor>> {
        let asking = other(&stream)?;
        let mut line = Line::new(stream);
        let Some((hello, _)) = tokio::time::timeout(PATIENCE, line.receive::<Hello>()).await?? else {
            return Ok(None);
        };
        if let Some(reason) = self.refusal(asking, &hello) {
            tracing::warn!(%reason, "a successor is refused");
            line.send(&Answer::Refused { reason }, &[]).await?;
            return Ok(None);
        }
        let (roles, sockets): (Vec<Role>, Vec<OwnedFd>) = offered?.into_iter().unzip();
        tracing::info!(sockets = sockets.len(), "a successor gets the sockets; this proxy serves until it is ready");
        line.send(&Answer::Offer { version: VERSION, roles, ready }, &sockets).await?;
        Ok(matches!(line.receive().await?, Some((Word::Ready, _))).then_some(Successor(line)))
    }

    fn refusal(&self, asking: Other, hello: &Hello) -> Option<String> {
        match asking {
            Other::Stranger(why) => return Some(format!("the successor is not entitled to it: {why}")),
            Other::Trusted => {}
        }
        if hello.version != VERSION {
            return Some(format!("it speaks version {VERSION} of the handover, and the successor {}", hello.version));
        }
        let (ours, theirs) = (&self.workload, &hello.workload);
        (ours != theirs).then(|| format!("it is the proxy of {ours}, and the successor of {theirs}"))
    }
}
