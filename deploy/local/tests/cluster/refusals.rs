//! Starts that are refused: the message names what is wrong, and nothing stays behind.

use fsm_local::{LocalCluster, LocalConfig};

use crate::helpers::cluster;

async fn refused(config: LocalConfig) -> String {
    match LocalCluster::up(config).await {
        Ok(_) => panic!("the cluster came up"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_a_directory_in_use_are_named() {
    let Some(c) = cluster().await else { return };
    let executable = std::env::current_exe().unwrap();
    let port = c.cluster.api_address().unwrap().port();
    let other = tempfile::tempdir().unwrap();
    let config = LocalConfig { api_port: Some(port), ..LocalConfig::new(other.path(), executable.clone()) };
    let message = refused(config).await;
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("choose another"), "{message}");
    let id = std::fs::read_to_string(other.path().join("cluster-id")).unwrap();
    let cgroup = fsm_local::node::Cgroup::of_cluster(&id).unwrap();
    assert!(!cgroup.path().exists(), "{} is left over", cgroup.path().display());

    let config = LocalConfig::new(c.dir.path(), executable);
    let message = refused(config).await;
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
    c.cluster.shutdown().await;
}
