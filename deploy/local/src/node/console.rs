//! The running containers of a pod, for those who join them: what a command beside one needs, and its own input.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Container;
use tokio::net::unix::pipe;

use super::launch::Launch;

/// A running container's process.
#[derive(Debug, Clone)]
pub(super) struct Console {
    pub pid: i32,
    /// How it was started.
    pub spec: Launch,
    /// Its standard input, if it has one; one writer at a time.
    pub stdin: Option<Arc<tokio::sync::Mutex<Option<pipe::Sender>>>>,
    pub terminal: Option<Arc<OwnedFd>>,
}

impl Console {
    pub fn new(pid: i32, spec: Launch, stdin: Option<pipe::Sender>, terminal: Option<OwnedFd>) -> Self {
        let stdin = stdin.map(|end| Arc::new(tokio::sync::Mutex::new(Some(end))));
        Self { pid, spec, stdin, terminal: terminal.map(Arc::new) }
    }
}

/// The consoles of one pod, by container.
#[derive(Debug, Default)]
pub(super) struct Consoles {
    open: Mutex<BTreeMap<String, Console>>,
}

impl Consoles {
    pub fn of(&self, container: &str) -> Option<Console> {
        self.lock().get(container).cloned()
    }

    pub fn open(&self, container: &Container, console: Console) {
        self.lock().insert(container.name.clone(), console);
    }

    pub fn close(&self, container: &Container) {
        self.lock().remove(&container.name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Console>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
