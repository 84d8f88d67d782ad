//! Where a pod is on its node: its cgroups, found by the ids of pod and container in their names, and a process in its
//! network namespace.
//!
//! Kubelets and runtimes name cgroups in many ways; the ids are in all of them:
//!
//! ```text
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/cri-containerd-ID.scope    - in UID is _
//! kubepods.slice/kubepods-podUID.slice/crio-ID.scope/container
//! kubepods/besteffort/podUID/ID
//! kubelet/kubepods/burstable/podUID/ID                                                       a node in a container
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How deep kubelets put pods: a node in a container has some levels more.
const DEEPEST: usize = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's cgroup.
    pub pod: PathBuf,
    /// The cgroup that the proxy's processes are in.
    pub proxy: PathBuf,
    /// One of these processes.
    pub pid: i32,
}

/// Why a pod cannot be found (yet).
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(
        "no cgroup below {root} has the pod's id {uid} in its name: is this the root of the node's cgroup v2 hierarchy?"
    )]
    NoPod { root: PathBuf, uid: String },
    #[error("no cgroup below {pod} has the container's id {id} in its name")]
    NoContainer { pod: PathBuf, id: String },
    #[error("no process is in {container}")]
    NoProcess { container: PathBuf },
    #[error("processes in {container} are of another process namespace: the agent must run with hostPID")]
    Foreign { container: PathBuf },
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
}

/// Finds the pod with this uid below `root`, and in it the container with the runtime's id `container`.
pub fn locate(root: &Path, uid: &str, container: &str) -> Result<Place, PlaceError> {
    let ids = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let is_pod = |name: &str| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        ids.iter().any(|id| name.ends_with(id))
    };
    let pod = find(root, DEEPEST, &is_pod)?;
    let pod = pod.ok_or_else(|| PlaceError::NoPod { root: root.to_owned(), uid: uid.to_owned() })?;
    // CRI-O has a cgroup for the container's monitor as well.
    let is_container = |name: &str| name.contains(container) && !name.contains("conmon");
    let found = find(&pod, 2, &is_container)?;
    let found = found.ok_or_else(|| PlaceError::NoContainer { pod: pod.clone(), id: container.to_owned() })?;
    let (proxy, pid) = occupied(&found)?.ok_or_else(|| PlaceError::NoProcess { container: found.clone() })?;
    if pid == 0 {
        return Err(PlaceError::Foreign { container: found });
    }
    Ok(Place { pod, proxy, pid })
}

/// The first directory below `dir` whose name is as asked, nearer ones first.
fn find(dir: &Path, depth: usize, named: &impl Fn(&str) -> bool) -> Result<Option<PathBuf>, PlaceError> {
    if depth == 0 {
        return Ok(None);
    }
    let children = folders(dir)?;
    let name = |path: &PathBuf| path.file_name().is_some_and(|name| named(&name.to_string_lossy()));
    if let Some(found) = children.iter().find(|child| name(child)) {
        return Ok(Some(found.clone()));
    }
    for child in children {
        if let Some(found) = find(&child, depth - 1, named)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The cgroup itself, or one below it, that processes are in. Some runtimes put them one level deeper.
fn occupied(cgroup: &Path) -> Result<Option<(PathBuf, i32)>, PlaceError> {
    let procs = cgroup.join("cgroup.procs");
    let text = match fs::read_to_string(&procs) {
        Ok(text) => text,
        // Ended meanwhile.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => String::new(),
        Err(source) => return Err(PlaceError::Read { path: procs, source }),
    };
    if let Some(pid) = text.lines().find_map(|line| line.parse().ok()) {
        return Ok(Some((cgroup.to_owned(), pid)));
    }
    for child in folders(cgroup)? {
        if let Some(found) = occupied(&child)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // Cgroups come and go while one looks.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PlaceError::Read { path: dir.to_owned(), source }),
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f6a2b1c-77d2-4b7e-9d0a-3d1c5e6f7a8b";
    const PROXY: &str = "9b1f4f0e6f2f4c3d8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f";

    /// Trees as `find /sys/fs/cgroup -type d` shows them, with the pids of leaves. `UID`, `U_I_D`, `PROXY`, `APP` stand for
    /// the ids.
    const CONTAINERD_SYSTEMD: &str = "
        init.scope 1
        system.slice/containerd.service 412
        system.slice/kubelet.service 420
        kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod11111111_2222_3333_4444_555555555555.slice/cri-containerd-APP.scope 77
        kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-aaaa.scope 501
        kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-PROXY.scope 533
        kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-APP.scope 560";
    const CRIO_SYSTEMD: &str = "
        system.slice/crio.service 400
        kubepods.slice/kubepods-podU_I_D.slice/crio-aaaa.scope/container 500
        kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-PROXY.scope 530
        kubepods.slice/kubepods-podU_I_D.slice/crio-PROXY.scope/container 533";
    const CONTAINERD_CGROUPFS: &str = "
        kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/APP 77
        kubepods/burstable/podUID/aaaa 501
        kubepods/burstable/podUID/PROXY 533";
    const DOCKER_SYSTEMD: &str = "
        kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/docker-PROXY.scope 533";
    const GUARANTEED_CGROUPFS: &str = "
        kubepods/podUID/PROXY 533";
    const NODE_IN_A_CONTAINER: &str = "
        system.slice/docker-bbbb.scope/init.scope 9
        system.slice/docker-bbbb.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podU_I_D.slice/cri-containerd-PROXY.scope 533";

    fn write(tree: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for line in tree.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, pid) = line.split_once(' ').unwrap_or((line, ""));
            let path = path.replace("UID", UID).replace("U_I_D", &UID.replace('-', "_")).replace("PROXY", PROXY);
            let cgroup = root.path().join(path);
            fs::create_dir_all(&cgroup).unwrap();
            // Every level has the file, most of them empty.
            for level in cgroup.ancestors().take_while(|level| *level != root.path()) {
                let procs = level.join("cgroup.procs");
                if !procs.exists() {
                    fs::write(procs, "").unwrap();
                }
            }
            fs::write(cgroup.join("cgroup.procs"), format!("{pid}\n")).unwrap();
        }
        root
    }

    #[test]
    fn pods_are_found_in_the_layouts_of_all_runtimes_and_drivers() {
        for (tree, pod, proxy) in [
            (CONTAINERD_SYSTEMD, ".slice", ".scope"),
            (CRIO_SYSTEMD, ".slice", ".scope/container"),
            (CONTAINERD_CGROUPFS, UID, PROXY),
            (DOCKER_SYSTEMD, ".slice", ".scope"),
            (GUARANTEED_CGROUPFS, UID, PROXY),
            (NODE_IN_A_CONTAINER, ".slice", ".scope"),
        ] {
            let root = write(tree);
            let place = locate(root.path(), UID, PROXY).unwrap();
            assert_eq!(place.pid, 533, "{tree}");
            assert!(place.pod.to_str().unwrap().ends_with(pod), "{}", place.pod.display());
            assert!(place.proxy.to_str().unwrap().ends_with(proxy), "{}", place.proxy.display());
            assert!(place.proxy.starts_with(&place.pod));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let root = write(CONTAINERD_CGROUPFS);
        let missing = |uid, id| locate(root.path(), uid, id).unwrap_err();
        assert!(matches!(missing("ffff", PROXY), PlaceError::NoPod { .. }));
        assert!(matches!(missing(UID, "ffff"), PlaceError::NoContainer { .. }));
        let ended = write("kubepods/podUID/PROXY");
        assert!(matches!(locate(ended.path(), UID, PROXY), Err(PlaceError::NoProcess { .. })));
        let foreign = write("kubepods/podUID/PROXY 0");
        assert!(matches!(locate(foreign.path(), UID, PROXY), Err(PlaceError::Foreign { .. })));
    }
}
