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

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cluster_is_cleaned_up_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::holds_a_cluster_until_killed", "--nocapture", "--test-threads=1"])
        .env(HELPER_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn();
    let mut helper = helper.unwrap();
    let lines = BufReader::new(helper.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said = lines.into_iter().find(|line| line.contains("helper: ")).unwrap_or_default();
    let victim = said.split(' ').next_back().unwrap_or_default();
    if said.contains("skipped") {
        println!("skipped: needs root, namespaces and cgroup v2");
        helper.wait().unwrap();
        return;
    }
    helper.kill().unwrap();
    helper.wait().unwrap();

    let cluster = up(dir.path()).await.unwrap();
    let c = TestCluster { cluster, dir };
    let id = std::fs::read_to_string(c.dir.path().join("cluster-id")).unwrap();
    assert!(is_dead(victim), "a grandchild of the killed cluster is still running");
    c.cluster.shutdown().await;
    assert_eq!(processes_of(&id), 0);
    assert!(fsm_local::node::Cgroup::at_root(&format!("fsm-local-{id}")).is_ok_and(|cgroup| !cgroup.path().exists()));
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
    let id = std::fs::read_to_string(c.dir.path().join("cluster-id")).unwrap();
    let pod = serde_json::from_value(shell("left", "sleep 1000 & sleep 1000")).unwrap();
    c.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
    c.ready("left").await;
    assert!(processes_of(&id) > 0);
    drop(c);
    assert_eq!(processes_of(&id), 0);
}

fn is_dead(pid: &str) -> bool {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    !cgroup.contains("/fsm-local-") || cgroup.contains(" (deleted)")
}

/// How many living processes belong to the cluster; the dead whose parents have not looked yet have a cgroup that is gone.
fn processes_of(id: &str) -> usize {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let inside = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.contains(&format!("/fsm-local-{id}/")) && !text.contains(" (deleted)"))
    };
    pids.filter(inside).count()
}
