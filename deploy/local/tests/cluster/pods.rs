//! Pods: started with what their manifest says, restarted, probed, ended, and nothing left.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::helpers::{cluster, patiently, serving, shell};
use crate::server;

fn status(pod: &Pod) -> Value {
    json!(pod.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_with_its_environment_volumes_and_names() {
    let Some(c) = cluster().await else { return };
    c.create::<ConfigMap>(
        json!({"metadata": {"name": "settings"}, "data": {"mode": "fast", "file.txt": "from a map\n"}}),
    )
    .await;
    c.create::<Secret>(json!({"metadata": {"name": "keys"}, "stringData": {"token": "s3cret"}})).await;
    let script = "echo $MODE $TOKEN $POD $(hostname) $1; cat /etc/settings/file.txt; cat /etc/hostname; pwd; \
        echo written > /shared/x; cat /shared/x; grep -c . /var/run/secrets/kubernetes.io/serviceaccount/token; \
        cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; grep search /etc/resolv.conf; \
        echo gone > /etc/passwd; ls /opt/fsm/bin; cat /proc/self/cgroup | grep 0::";
    let mut pod = shell("env", script);
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["volumes"] =
        json!([{"name": "settings", "configMap": {"name": "settings"}}, {"name": "shared", "emptyDir": {}}]);
    let main = &mut pod["spec"]["containers"][0];
    main["args"] = json!(["sh", "$(MODE)er"]);
    main["workingDir"] = json!("/srv/here");
    main["env"] = json!([
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    main["volumeMounts"] =
        json!([{"name": "settings", "mountPath": "/etc/settings"}, {"name": "shared", "mountPath": "/shared"}]);
    c.create::<Pod>(pod).await;
    let done = c.until::<Pod>("env", |pod| status(pod)["phase"] == "Succeeded").await;
    let log = c.log("env").await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines[..8],
        [
            "fast s3cret env env faster",
            "from a map",
            "env",
            "/srv/here",
            "written",
            "1",
            "default",
            "search default.svc.cluster.local svc.cluster.local cluster.local"
        ]
    );
    assert!(lines.contains(&"fsm-proxy"), "{log}");
    let uid = done.metadata.uid.unwrap();
    assert!(lines.last().unwrap().ends_with(&format!("/pod{uid}/main")), "{log}");
    assert_eq!(
        status(&c.api::<Pod>().get("env").await.unwrap())["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert!(
        std::fs::read_to_string("/etc/passwd").unwrap().contains("root"),
        "a container wrote into the host's file system"
    );
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_container_backs_off_and_tells_why() {
    let Some(c) = cluster().await else { return };
    c.create::<Pod>(shell("crash", "echo run; exit 7")).await;
    let crashed = c.until::<Pod>("crash", |pod| {
        let container = &status(pod)["containerStatuses"][0];
        container["state"]["waiting"]["reason"] == "CrashLoopBackOff" && container["restartCount"].as_i64() >= Some(2)
    });
    let crashed = crashed.await;
    assert_eq!(status(&crashed)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 7);
    let previous = LogParams { previous: true, ..LogParams::default() };
    assert_eq!(c.api::<Pod>().logs("crash", &previous).await.unwrap(), "run\n");

    let mut missing = shell("missing", "");
    missing["spec"]["containers"][0]["command"] = json!(["no-such-program"]);
    c.create::<Pod>(missing).await;
    let missing = c.until::<Pod>("missing", |pod| {
        status(pod)["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "StartError"
    });
    let message = status(&missing.await)["containerStatuses"][0]["lastState"]["terminated"]["message"].to_string();
    assert!(message.contains("no-such-program") && message.contains("install it"), "{message}");

    let mut unknown = shell("unknown", "");
    unknown["spec"]["containers"][0] = json!({"name": "main", "image": "nginx:1"});
    c.create::<Pod>(unknown).await;
    let unknown = c.until::<Pod>("unknown", |pod| {
        status(pod)["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"
    });
    let message = status(&unknown.await)["containerStatuses"][0]["state"]["waiting"]["message"].to_string();
    assert!(message.contains("nginx:1") && message.contains("set `command`"), "{message}");
    let events = c.api::<Event>().list(&ListParams::default()).await.unwrap();
    assert!(events.items.iter().any(|e| e.reason.as_deref() == Some("BackOff")));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_and_sidecars_keep_their_order() {
    let Some(c) = cluster().await else { return };
    let step = |name: &str, script: &str| json!({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script], "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
    let mut sidecar = step(
        "sidecar",
        "trap 'echo sidecar-end >> /shared/log; exit 0' TERM; echo sidecar >> /shared/log; touch /shared/up; while :; do sleep 0.05; done",
    );
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1});
    let pod = json!({"metadata": {"name": "order"}, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "volumes": [{"name": "shared", "hostPath": {"path": c.dir.path().join("shared"), "type": "DirectoryOrCreate"}}],
        "initContainers": [step("first", "echo first >> /shared/log"), sidecar, step("second", "echo second >> /shared/log")],
        "containers": [step("main", "trap 'echo main-end >> /shared/log; exit 0' TERM; echo main >> /shared/log; while :; do sleep 0.05; done")]}});
    c.create::<Pod>(pod).await;
    let log = c.dir.path().join("shared/log");
    c.ready("order").await;
    patiently(async {
        while !std::fs::read_to_string(&log).is_ok_and(|log| log.ends_with("main\n")) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the main container runs");
    c.api::<Pod>().delete("order", &DeleteParams::default()).await.unwrap();
    c.until_gone::<Pod>("order").await;
    let order = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        order.split_whitespace().collect::<Vec<_>>(),
        ["first", "sidecar", "second", "main", "main-end", "sidecar-end"]
    );
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_leaves_nothing() {
    let Some(c) = cluster().await else { return };
    let pod = json!({"metadata": {"name": "brief"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving("brief"),
        {"name": "stubborn", "image": "busybox", "command": ["/bin/sh", "-c", "trap '' TERM; sleep 1000 & while :; do sleep 1; done"]}]}});
    c.create::<Pod>(pod).await;
    let pod = c.ready("brief").await;
    let uid = pod.metadata.uid.clone().unwrap();
    let mut stream = patiently(async {
        loop {
            match c.cluster.dial_pod("default", "brief", server::PORT).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("brief"), "{answer}");
    let pids = processes_of(&uid);
    assert!(pids.len() >= 3, "{pids:?}");
    c.api::<Pod>().delete("brief", &DeleteParams::default()).await.unwrap();
    c.until_gone::<Pod>("brief").await;
    assert_eq!(processes_of(&uid), Vec::<u32>::new());
    assert!(!c.dir.path().join("pods").join(&uid).exists());
    assert_eq!(std::fs::read_dir(c.dir.path().join("logs")).unwrap().count(), 0);
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_follow_the_objects_they_come_from() {
    let Some(c) = cluster().await else { return };
    c.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "old", "gone": "x"}})).await;
    let script = "until [ \"$(cat /etc/settings/mode) $(cat /etc/podinfo/tier)\" = 'new gold' ]; do sleep 0.05; done; \
        ls /etc/settings; cat /etc/one; readlink /etc/settings/mode";
    let mut pod = shell("reader", script);
    pod["spec"]["restartPolicy"] = json!("Never");
    let tier = json!({"path": "tier", "fieldRef": {"fieldPath": "metadata.labels['tier']"}});
    pod["spec"]["volumes"] = json!([{"name": "settings", "configMap": {"name": "settings"}}, {"name": "info", "downwardAPI": {"items": [tier]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "settings", "mountPath": "/etc/settings"},
        {"name": "settings", "mountPath": "/etc/one", "subPath": "mode"}, {"name": "info", "mountPath": "/etc/podinfo"}]);
    c.create::<Pod>(pod).await;
    c.ready("reader").await;
    let patch = json!({"data": {"mode": "new", "gone": null, "more": "y"}});
    c.api::<ConfigMap>().patch("settings", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let patch = json!({"metadata": {"labels": {"tier": "gold"}}});
    c.api::<Pod>().patch("reader", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    c.until::<Pod>("reader", |pod| status(pod)["phase"] == "Succeeded").await;
    // A file mounted by itself stays as it was, as Kubernetes has it.
    assert_eq!(c.log("reader").await, "mode\nmore\nold..data/mode\n");
    c.cluster.shutdown().await;
}

/// A killed process that its parent has not taken note of yet has a cgroup that is gone.
const DEAD: &str = " (deleted)";

/// Living processes whose cgroup is the pod's.
fn processes_of(uid: &str) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let inside = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|cgroup| cgroup.contains(&format!("pod{uid}")) && !cgroup.contains(DEAD))
    };
    pids.filter(inside).collect()
}
