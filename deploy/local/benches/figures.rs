//! What the cluster costs: `cargo bench -p fsm-local --bench figures`, as root. The pods run `sleep`, so that the figures are the
//! cluster's own. `FSM_BENCH_PODS` is how many there are (200 when not given).

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use fsm_local::{LocalCluster, LocalConfig};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

/// How long the cluster is left alone before its memory is read.
const QUIET: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pods = std::env::var("FSM_BENCH_PODS").map_or(Ok(200), |text| text.parse::<i32>()).context("FSM_BENCH_PODS")?;
    let dir = tempfile::tempdir()?;
    let config = LocalConfig::new(dir.path(), std::env::current_exe()?);
    let start = Instant::now();
    let cluster = LocalCluster::up(config).await?;
    println!("ready                       {:.2?}", start.elapsed());
    tokio::time::sleep(QUIET).await;
    println!("memory, idle                {}", memory());

    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    let container = json!({"name": "main", "image": "busybox", "command": ["sleep", "100000"]});
    let template = json!({"metadata": {"labels": {"app": "many"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}});
    let spec = json!({"replicas": pods, "selector": {"matchLabels": {"app": "many"}}, "template": template});
    let many = serde_json::from_value(json!({"metadata": {"name": "many"}, "spec": spec}))?;
    let (start, cpu) = (Instant::now(), cpu());
    deployments.create(&PostParams::default(), &many).await?;
    let mut states = watcher::watch_object(deployments.clone(), "many").default_backoff().boxed();
    while let Some(state) = states.next().await {
        let available = state.ok().flatten().and_then(|d| d.status?.available_replicas);
        if available == Some(pods) {
            break;
        }
    }
    let (took, used) = (start.elapsed(), self::cpu() - cpu);
    println!("{pods} pods available          {took:.2?}, {used:.2?} of CPU time in this process");
    println!("memory with {pods} pods        {}", memory());

    let start = Instant::now();
    deployments.delete("many", &DeleteParams::background()).await?;
    let all: Api<Pod> = Api::namespaced(cluster.client(), "default");
    while !all.list(&ListParams::default().limit(1)).await?.items.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("all pods gone               {:.2?}", start.elapsed());
    tokio::time::sleep(QUIET).await;
    println!("memory afterwards           {}", memory());
    cluster.shutdown().await;
    Ok(())
}

/// Of this process: what it has written, and with the pages of files it has in memory.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kilobytes.unwrap_or_default() / 1024.0
    };
    format!("{:.0} MB, {:.0} MB of it its own", megabytes("VmRSS:"), megabytes("RssAnon:"))
}

/// CPU time of this process's threads.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may contain anything: the 14th and 15th field are user and system time, in hundredths of a second.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
