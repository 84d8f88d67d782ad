//! What a cluster has of the machine, counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use fsm_local::node::Cgroup;

use crate::helpers::TestCluster;

/// How long counts may take to come down: idle connections of the cluster's own clients are closed after 90 s.
const PATIENCE: Duration = Duration::from_secs(150);
/// Between two counts.
const PAUSE: Duration = Duration::from_millis(200);
/// So many counts in a row that are the same are a rest.
const STEADY: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Of containers.
    pub processes: usize,
    pub cgroups: usize,
    /// Network namespaces this process holds.
    pub namespaces: usize,
    /// Interfaces of the node.
    pub links: usize,
    /// Mounts of this process's namespace in the cluster's directory.
    pub mounts: usize,
    pub fds: usize,
    pub threads: usize,
    /// Files and folders the node keeps.
    pub files: usize,
    /// Anonymous memory in use.
    pub memory_kb: u64,
    /// What the fds are, for the message.
    kinds: BTreeMap<String, usize>,
}

impl Census {
    fn take(c: &TestCluster) -> Self {
        let id = fs::read_to_string(c.dir.path().join("cluster-id")).unwrap();
        let own_fds: Vec<_> = entries("/proc/self/fd").filter_map(|fd| fs::read_link(fd).ok()).collect();
        let namespaces: BTreeSet<_> =
            own_fds.iter().filter(|target| target.to_string_lossy().starts_with("net:[")).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = c.dir.path().to_string_lossy().into_owned();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let links = c.cluster.net().netns().run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        Self {
            processes: processes(&id),
            cgroups: folders(Cgroup::of_cluster(&id).unwrap().path()),
            namespaces: namespaces.len(),
            links: links.unwrap().lines().count(),
            mounts: mounts.lines().filter(|line| line.contains(&dir)).count(),
            fds: own_fds.len(),
            threads: entries("/proc/self/task").count(),
            files: ["pods", "logs"].iter().map(|name| entries(c.dir.path().join(name)).count()).sum(),
            memory_kb: anonymous.trim().trim_end_matches(" kB").parse().unwrap(),
            kinds: own_fds.iter().fold(BTreeMap::new(), |mut kinds, target| {
                let text = target.to_string_lossy();
                let kind = text.split_once(":[").map_or(&*text, |(kind, _)| kind);
                *kinds.entry(kind.to_owned()).or_default() += 1;
                kinds
            }),
        }
    }

    /// The counts once they have come down to `limits`, or rest; the last ones if that takes too long.
    pub async fn settled(c: &TestCluster, limits: Option<&Self>) -> Self {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (mut last, mut same) = (Self::take(c), 0);
        loop {
            let done = limits.map_or(same >= STEADY, |limits| last.is_within(limits));
            if done || tokio::time::Instant::now() > deadline {
                return last;
            }
            tokio::time::sleep(PAUSE).await;
            let next = Self::take(c);
            same = if next.is_within(&last) && last.is_within(&next) { same + 1 } else { 0 };
            last = next;
        }
    }

    /// What is counted, how many there are, and how many more are nothing to speak of.
    fn counts(&self) -> [(&'static str, usize, usize); 8] {
        [
            ("processes", self.processes, 0),
            ("cgroups", self.cgroups, 0),
            ("network namespaces", self.namespaces, 0),
            ("links", self.links, 0),
            ("mounts", self.mounts, 0),
            // The cluster's own clients may have a connection more, which has two ends here.
            ("fds", self.fds, 8),
            ("threads", self.threads, 2),
            ("files", self.files, 0),
        ]
    }

    /// Whether nothing counted is more than in `limits`, memory aside.
    pub fn is_within(&self, limits: &Self) -> bool {
        self.counts().iter().zip(limits.counts()).all(|((_, have, spare), (_, may, _))| *have <= may + spare)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count, _) in self.counts() {
            write!(f, "{what} {count}, ")?;
        }
        write!(f, "memory {} kB, fds: {:?}", self.memory_kb, self.kinds)
    }
}

/// Living processes in the cluster's cgroups.
fn processes(id: &str) -> usize {
    let inside = |process: &std::path::PathBuf| {
        fs::read_to_string(process.join("cgroup"))
            .is_ok_and(|text| text.contains(&format!("/fsm-local.{id}/")) && !text.contains(" (deleted)"))
    };
    entries("/proc").filter(inside).count()
}

fn entries(dir: impl AsRef<Path>) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn folders(dir: &Path) -> usize {
    entries(dir).filter(|path| path.is_dir()).map(|path| 1 + folders(&path)).sum()
}
