//! What a client's session with a container is made of, between the API server and the node agent.
//!
//! The API server speaks the client's protocol (WebSocket channels) and hands the node agent plain channels. The future that
//! [`NodeBackend::session`](super::NodeBackend::session) gives lasts as long as the session: it resolves when the process has ended
//! and everything it wrote has been sent.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

/// What the session is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Run this program with its arguments beside the container's process, in its namespaces. Not empty.
    Exec(Vec<String>),
    /// Join the container's own process.
    Attach,
}

/// A session as the client asked for it. Without `tty` the two outputs are told apart; with it there is only [`Output::Stdout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// One of the pod's containers.
    pub container: String,
    pub purpose: Purpose,
    /// Whether the client sends input. If not, the process reads an end of file at once.
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Something the process wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// The size of the client's terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The node agent's end of a session.
#[derive(Debug)]
pub struct Session {
    /// What the client types. `None` is the end of its input, and comes too when the client has gone.
    pub stdin: mpsc::Receiver<Bytes>,
    /// Where the process's output goes. [`mpsc::Sender::closed`] tells that the client has gone: a process started by `exec` is then
    /// ended, one that was only joined is left alone.
    pub output: mpsc::Sender<Output>,
    /// The size of the terminal, once the client has told it.
    pub size: watch::Receiver<Option<TerminalSize>>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The process ended with this code (128 and the signal's number if by a signal). 0 is no error.
    #[error("command terminated with non-zero exit code: exit status {0}")]
    Exit(i32),
    /// There was no session: the message says why, and what to do.
    #[error("{0}")]
    Refused(String),
}
