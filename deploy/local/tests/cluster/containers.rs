//! Containers: what they have of the machine, and what they leave as their last words.

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::helpers::{TestCluster, cluster, output, shell};

/// How the only run of a pod's container ended.
async fn ended(c: &TestCluster, pod: Value) -> Value {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    c.create::<Pod>(pod).await;
    let of = |pod: &Pod| json!(pod.status)["containerStatuses"][0]["state"]["terminated"].clone();
    of(&c.until::<Pod>(&name, |pod| of(pod).is_object()).await)
}

fn once(name: &str, script: &str) -> Value {
    let mut pod = shell(name, script);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_last_words_are_its_message() {
    let Some(c) = cluster().await else { return };
    let said = ended(&c, once("file", "echo because > /dev/termination-log; exit 3")).await;
    assert_eq!((&said["message"], &said["exitCode"]), (&json!("because\n"), &json!(3)));
    let mut elsewhere = once("elsewhere", "echo done > /out/why");
    elsewhere["spec"]["containers"][0]["terminationMessagePath"] = json!("/out/why");
    assert_eq!(ended(&c, elsewhere).await["message"], "done\n");
    for (code, message) in [(4, json!("last words\n")), (0, Value::Null)] {
        let mut pod = once(&format!("fallback-{code}"), &format!("echo last words; exit {code}"));
        pod["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
        assert_eq!(ended(&c, pod).await["message"], message);
    }
    assert!(!std::path::Path::new("/dev/termination-log").exists(), "a container wrote into the host's /dev");
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_has_the_harmless_devices_only() {
    let Some(c) = cluster().await else { return };
    let listed =
        output(&c, "devices", "cd /dev; echo *; echo x > null; head -c 3 /dev/zero | wc -c; echo out > /dev/stdout")
            .await;
    let expected = "fd full null ptmx pts random shm stderr stdin stdout termination-log tty urandom zero\n3\nout\n";
    assert_eq!(listed, expected);
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_memory_has_its_size_and_goes_with_the_pod() {
    let Some(c) = cluster().await else { return };
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&*c.dir.path().to_string_lossy())).count()
    };
    let script = "stat -f -c %T /memory; head -c 3000000 /dev/zero > /memory/x || echo full; exec sleep 1000";
    let mut pod = shell("memory", script);
    pod["spec"]["volumes"] = json!([{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "memory", "mountPath": "/memory"}]);
    c.create::<Pod>(pod).await;
    c.ready("memory").await;
    let log = crate::helpers::until_some(async || Some(c.log("memory").await).filter(|log| log.contains("full"))).await;
    assert!(log.starts_with("tmpfs\n"), "{log}");
    assert_eq!(mounts(), 1);
    c.api::<Pod>().delete("memory", &DeleteParams::default()).await.unwrap();
    c.until_gone::<Pod>("memory").await;
    assert_eq!(mounts(), 0);
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_takes_too_much_memory_is_ended() {
    let Some(c) = cluster().await else { return };
    let controllers = fsm_local::node::Cgroup::root().unwrap().path().join("cgroup.controllers");
    if !std::fs::read_to_string(controllers).unwrap().contains("memory") {
        println!("skipped: needs the memory controller of cgroup v2");
        c.cluster.shutdown().await;
        return;
    }
    let mut pod = once("greedy", "exec tail /dev/zero");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "20Mi"}});
    let ended = ended(&c, pod).await;
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fills_its_volume_is_evicted() {
    let Some(c) = cluster().await else { return };
    let mut pod = shell("full", "head -c 3000000 /dev/zero > /data/x; exec sleep 1000");
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    c.create::<Pod>(pod).await;
    let status = |pod: &Pod| json!(pod.status);
    let evicted = status(&c.until::<Pod>("full", |pod| status(pod)["phase"] == "Failed").await);
    assert_eq!(evicted["reason"], "Evicted");
    assert_eq!(evicted["message"], "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ");
    assert_eq!(evicted["containerStatuses"][0]["state"]["terminated"]["reason"], "Error");
    c.api::<Pod>().delete("full", &DeleteParams::default()).await.unwrap();
    c.until_gone::<Pod>("full").await;
    c.cluster.shutdown().await;
}
