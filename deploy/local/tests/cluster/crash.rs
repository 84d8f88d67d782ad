//! A cluster that is killed, and one that is started again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{LogParams, PostParams};

use crate::helpers::{TestCluster, cluster, is_ready, shell, until_some, up};

const HELPER_DIR: &str = "CRASH_TEST_DIR";

/// Not a test by itself: the process that [`a_killed_cluster_is_cleaned_up_by_the_next`] starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn holds_a_cluster_until_killed() {
    let Ok(dir) = std::env::var(HELPER_DIR) else { return };
    let Some(cluster) = up(Path::new(&dir)).await else {
        println!("helper: skipped");
        return;
    };
    let api: Api<Pod> = Api::namespaced(cluster.client(), "default");
    // The grandchild has no parent that takes it along.
    let pod = serde_json::from_value(shell("victim", "setsid sleep 1000 & echo $!; exec sleep 1000")).unwrap();
    api.create(&PostParams::default(), &pod).await.unwrap();
    let ready = kube::runtime::wait::conditions::is_pod_running();
    kube::runtime::wait::await_condition(api.clone(), "victim", ready).await.unwrap();
    let log =
        until_some(async || api.logs("victim", &LogParams::default()).await.ok().filter(|log| log.ends_with('\n')))
            .await;
    println!("helper: running {}", log.trim());
    std::future::pending::<()>().await;
}

/// Starts a cluster in `dir` with a process that outlives its parent, and kills the cluster. Gives that process; none if this
/// machine can't run clusters.
fn killed_cluster(dir: &Path) -> Option<String> {
    let helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::holds_a_cluster_until_killed", "--nocapture", "--test-threads=1"])
        .env(HELPER_DIR, dir)
        .stdout(Stdio::piped())
        .spawn();
    let mut helper = helper.unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.into_iter().find(|line| line.contains("helper: ")).unwrap_or_default();
    if said.contains("skipped") {
        println!("skipped: needs root, namespaces and cgroup v2");
        helper.wait().unwrap();
        return None;
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
    said.split(' ').next_back().map(str::to_owned)
}

fn id_of(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("cluster-id")).unwrap()
}

fn has_cgroup(id: &str) -> bool {
    fsm_local::node::Cgroup::of_cluster(id).unwrap().path().exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cluster_is_cleaned_up_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let Some(victim) = killed_cluster(dir.path()) else { return };
    let cluster = up(dir.path()).await.unwrap();
    let c = TestCluster { cluster, dir };
    let id = id_of(c.dir.path());
    assert!(is_dead(&victim), "a grandchild of the killed cluster is still running");
    c.cluster.shutdown().await;
    assert_eq!(processes_of(&id), 0);
    assert!(!has_cgroup(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cluster_whose_folder_is_gone_is_cleaned_up_by_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let Some(victim) = killed_cluster(dir.path()) else { return };
    let id = id_of(dir.path());
    drop(dir);
    let Some(c) = cluster().await else { return };
    // Another test's cluster may have come first, and may not be done yet.
    until_some(async || (!has_cgroup(&id)).then_some(())).await;
    assert!(is_dead(&victim), "a grandchild of the killed cluster is still running");
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cluster_starts_its_pods_again() {
    let Some(c) = cluster().await else { return };
    c.create::<Pod>(shell("lasting", "exec sleep 1000")).await;
    let before = c.ready("lasting").await;
    c.cluster.shutdown().await;
    let cluster = up(c.dir.path()).await.unwrap();
    let c = TestCluster { cluster, dir: c.dir };
    let restarted = |pod: &Pod| {
        is_ready(pod)
            && pod.status.as_ref().is_some_and(|s| s.container_statuses.as_ref().unwrap()[0].restart_count == 1)
    };
    let after = c.until::<Pod>("lasting", restarted).await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert!(c.cluster.container_pid("default", "lasting", "main").is_ok());
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_cluster_ends_its_processes() {
    let Some(c) = cluster().await else { return };
    let id = id_of(c.dir.path());
    let pod = serde_json::from_value(shell("left", "sleep 1000 & sleep 1000")).unwrap();
    c.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    c.ready("left").await;
    assert!(processes_of(&id) > 0);
    drop(c);
    // On a busy machine those that are killed may have to wait for a processor to die on.
    until_some(async || (processes_of(&id) == 0).then_some(())).await;
}

fn is_dead(pid: &str) -> bool {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    !cgroup.contains("/fsm-local.") || cgroup.contains(" (deleted)")
}

/// How many living processes belong to the cluster; the dead whose parents have not looked yet have a cgroup that is gone.
fn processes_of(id: &str) -> usize {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let inside = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.contains(&format!("/fsm-local.{id}/")) && !text.contains(" (deleted)"))
    };
    pids.filter(inside).count()
}
