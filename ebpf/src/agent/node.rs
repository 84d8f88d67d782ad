//! Brings the kernel in line with the pods that are wanted.

use super::{
    place::{Place, PlaceError, locate},
    pods::Wanted,
};
use crate::{
    attachment::PodStats,
    error::InterceptError,
    interceptor::PodSpec,
    mechanism::{Attached, Mechanism},
    rules::Rules,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
};

/// What holds for all pods of a node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's cgroup v2 hierarchy.
    pub cgroup_root: PathBuf,
    /// While no proxy listens: refuse a pod's connections, or let them go direct.
    pub fail_closed: bool,
    /// The number of the node's own network namespace, which is never intercepted.
    pub node_netns: u64,
}

/// How things stand, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub attached: usize,
    /// Wanted, but their proxy does not run yet or cannot be found.
    pub waiting: usize,
    /// Attachments that failed since the agent started.
    pub failures: u64,
    /// Of all attached pods together.
    pub stats: PodStats,
}

/// The pods of one node.
#[derive(Debug)]
pub struct Node {
    mechanism: Mechanism,
    settings: Settings,
    pods: BTreeMap<String, Held>,
    failures: u64,
    /// What was last said of a pod that waits, so that it is said once.
    said: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Held {
    name: String,
    attachment: Attached,
    cgroup: PathBuf,
    rules: Rules,
    /// The runtime's id of the proxy's container.
    proxy: String,
    /// The pod's network namespace: a new sandbox has a new one.
    netns: u64,
}

#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Intercept(#[from] InterceptError),
    #[error("its processes are in the node's own network namespace, which is not one pod's to be intercepted")]
    NodeNetwork,
    #[error("the namespace of process {pid}: {source}")]
    Namespace { pid: i32, source: io::Error },
}

impl Obstacle {
    /// Whether it goes by itself while a container starts or ends.
    fn passes(&self) -> bool {
        match self {
            Self::Place(error) => !matches!(error, PlaceError::Foreign { .. }),
            Self::Namespace { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl Node {
    pub fn new(mechanism: Mechanism, settings: Settings) -> Self {
        Self { mechanism, settings, pods: BTreeMap::new(), failures: 0, said: BTreeMap::new() }
    }

    /// Attaches, changes and detaches. Gives how many pods have to be looked at again soon, though nothing is reported of
    /// them: their container is about to start, or an attempt failed.
    pub fn reconcile(&mut self, wanted: &[Wanted]) -> usize {
        self.let_go(wanted);
        let mut waiting = 0;
        for pod in wanted {
            let Some(proxy) = &pod.proxy else { continue };
            match self.intercept(pod, proxy) {
                Ok(()) => drop(self.said.remove(&pod.uid)),
                Err(obstacle) => {
                    waiting += 1;
                    self.failures += u64::from(!obstacle.passes());
                    self.say(pod, &obstacle);
                }
            }
        }
        waiting
    }

    pub fn summary(&self, wanted: usize) -> Summary {
        let mut summary = Summary {
            attached: self.pods.len(),
            waiting: wanted.saturating_sub(self.pods.len()),
            failures: self.failures,
            ..Summary::default()
        };
        for pod in self.pods.values() {
            match pod.attachment.stats() {
                Ok(stats) => summary.stats += stats,
                Err(error) => tracing::warn!(pod = %pod.name, %error, "no counters"),
            }
        }
        summary
    }

    /// Pods that are no more wanted stay captured as long as they have processes: an object can go before them.
    fn let_go(&mut self, wanted: &[Wanted]) {
        let gone = |uid: &String, pod: &Held| !wanted.iter().any(|w| w.uid == *uid) && !pod.cgroup.exists();
        for (_, pod) in self.pods.extract_if(.., |uid, pod| gone(uid, pod)) {
            match pod.attachment.detach() {
                Ok(()) => tracing::info!(pod = %pod.name, "ended; no longer intercepted"),
                Err(error) => tracing::warn!(pod = %pod.name, %error, "parts of its interception stay behind"),
            }
        }
        self.said.retain(|uid, _| wanted.iter().any(|w| w.uid == *uid));
    }

    fn intercept(&mut self, pod: &Wanted, proxy: &str) -> Result<(), Obstacle> {
        if let Some(held) = self.pods.get_mut(&pod.uid)
            && held.proxy == proxy
        {
            if held.rules != pod.rules {
                held.attachment.update(&pod.rules)?;
                held.rules = pod.rules.clone();
                tracing::info!(pod = %pod.name, "rules changed");
            }
            return Ok(());
        }
        let place = locate(&self.settings.cgroup_root, &pod.uid, proxy)?;
        let (netns, inode) = namespace(&place, self.settings.node_netns)?;
        match self.pods.remove(&pod.uid) {
            Some(mut held) if held.netns == inode => {
                let changed = held.attachment.set_proxy_cgroup(&place.proxy);
                if changed.is_ok() {
                    held.proxy = proxy.to_owned();
                    tracing::info!(pod = %pod.name, container = proxy, "its proxy restarted");
                }
                self.pods.insert(pod.uid.clone(), held);
                return Ok(changed?);
            }
            // A new sandbox: nothing of the old one is left to be captured.
            Some(held) => held.attachment.detach()?,
            None => {}
        }
        let spec = PodSpec {
            netns: netns.as_fd(),
            cgroup: place.pod.clone(),
            proxy_cgroup: place.proxy,
            rules: pod.rules.clone(),
            fail_closed: self.settings.fail_closed,
        };
        let attachment = self.mechanism.attach(&spec)?;
        tracing::info!(pod = %pod.name, cgroup = %place.pod.display(), "intercepted");
        let held = Held {
            name: pod.name.clone(),
            attachment,
            cgroup: place.pod,
            rules: pod.rules.clone(),
            proxy: proxy.to_owned(),
            netns: inode,
        };
        self.pods.insert(pod.uid.clone(), held);
        Ok(())
    }

    fn say(&mut self, pod: &Wanted, obstacle: &Obstacle) {
        let text = obstacle.to_string();
        if self.said.get(&pod.uid) == Some(&text) {
            return;
        }
        if obstacle.passes() {
            tracing::debug!(pod = %pod.name, reason = %text, "not intercepted yet");
        } else {
            tracing::error!(pod = %pod.name, reason = %text, "not intercepted; its containers wait for it");
        }
        self.said.insert(pod.uid.clone(), text);
    }
}

/// The number of a network namespace, by its file.
pub fn netns_number(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// The network namespace of the place's process, with its number.
fn namespace(place: &Place, of_node: u64) -> Result<(File, u64), Obstacle> {
    let failed = |source| Obstacle::Namespace { pid: place.pid, source };
    let file = File::open(format!("/proc/{}/ns/net", place.pid)).map_err(failed)?;
    let number = netns_number(&file).map_err(failed)?;
    // The process may have ended, and its number be another's by now.
    let still = fs::read_to_string(place.proxy.join("cgroup.procs")).map_err(failed)?;
    if !still.lines().any(|line| line.parse() == Ok(place.pid)) {
        return Err(PlaceError::NoProcess { container: place.proxy.clone() }.into());
    }
    if number == of_node { Err(Obstacle::NodeNetwork) } else { Ok((file, number)) }
}
