//! A tour with the real kubectl: what people do with a cluster on an ordinary day.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::helpers::{TestCluster, cluster, serving};
use crate::kubectl::{self, Kubectl, have_kubectl};
use crate::server::PORT;

/// The answer of the server in the pods to a request without headers.
const REQUEST: &str = "GET / HTTP/1.1\r\n\r\n";

/// A cluster for kubectl; `None` (and a line saying so) where the machine has no kubectl or can't run a cluster.
async fn prepared() -> Option<TestCluster> {
    if have_kubectl() { cluster().await } else { None }
}

fn manifest(says: &str, replicas: i32) -> String {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving(says)]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]}});
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

fn rolled_out(kubectl: &Kubectl, what: &str) {
    let said = kubectl.ok(&format!("rollout status {what} --timeout=60s"), "");
    assert!(said.contains("successfully rolled out") || said.contains("roll out complete"), "{said}");
}

fn says(kubectl: &Kubectl) -> String {
    let answer = kubectl.forward("service/web", 80).ask(REQUEST).expect("the pod answers");
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_from_apply_to_delete() {
    let Some(c) = prepared().await else { return };
    kubectl::run(c.dir.path(), |kubectl| {
        kubectl.ok("apply -f -", &manifest("one", 2));
        rolled_out(kubectl, "deployment/web");
        kubectl.ok("wait --for=condition=Available deployment/web --timeout=60s", "");
        kubectl.ok("wait --for=condition=Ready pod -l app=web --timeout=60s", "");
        kubectl.ok("wait --for=jsonpath={.status.readyReplicas}=2 deployment/web --timeout=60s", "");
        assert!(kubectl.ok("get deployment web", "").contains("2/2"));
        let wide = kubectl.ok("get pods -o wide", "");
        assert!(wide.contains("Running") && wide.contains("local") && wide.contains("1/1"), "{wide}");
        assert!(kubectl.ok("get nodes", "").contains("Ready"));
        let told = kubectl.ok("describe deployment web", "");
        assert!(told.contains("2 desired | 2 updated | 2 total | 2 available | 0 unavailable"), "{told}");
        let told = kubectl.ok("describe pod -l app=web", "");
        assert!(told.contains("Status:           Running") && told.contains("Ready:          True"), "{told}");
        let told = kubectl.ok("describe service web", "");
        assert!(told.contains("Endpoints:") && told.contains(&format!(":{PORT}")), "{told}");
        assert_eq!(says(kubectl), "one");

        kubectl.ok("scale deployment web --replicas=3", "");
        rolled_out(kubectl, "deployment/web");
        kubectl.ok("set env deployment/web SERVE=two", "");
        rolled_out(kubectl, "deployment/web");
        assert_eq!(says(kubectl), "two");
        let history = kubectl.ok("rollout history deployment/web", "");
        assert_eq!(history.lines().filter(|line| line.starts_with(['1', '2'])).count(), 2, "{history}");
        assert!(kubectl.ok("rollout history deployment/web --revision=1", "").contains("one"));
        kubectl.ok("rollout undo deployment/web", "");
        rolled_out(kubectl, "deployment/web");
        assert_eq!(says(kubectl), "one");
        kubectl.ok("rollout restart deployment/web", "");
        rolled_out(kubectl, "deployment/web");
        assert_eq!(kubectl.ok("get deployment web -o jsonpath={.status.readyReplicas}", ""), "3");

        kubectl.ok("delete deployment,service web --timeout=60s", "");
        // What it owned goes in the background.
        let patience = Instant::now() + Duration::from_secs(60);
        while !kubectl.ok("get all -l app=web -o name", "").is_empty() {
            assert!(Instant::now() < patience, "{}", kubectl.ok("get all -l app=web", ""));
        }
    })
    .await;
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_from_within_and_server_side_apply() {
    let Some(c) = prepared().await else { return };
    kubectl::run(c.dir.path(), |kubectl| {
        let applied = kubectl.ok("apply --server-side -f -", &manifest("one", 1));
        assert_eq!(applied, "deployment.apps/web serverside-applied\nservice/web serverside-applied\n");
        rolled_out(kubectl, "deployment/web");
        kubectl.ok("scale deployment web --replicas=2", "");
        let conflict = kubectl.run("apply --server-side -f -", &manifest("one", 1));
        assert!(!conflict.ok && conflict.err.contains(".spec.replicas"), "{}", conflict.err);
        kubectl.ok("apply --server-side --force-conflicts -f -", &manifest("one", 1));
        rolled_out(kubectl, "deployment/web");

        let listens = format!("one listens on {PORT}");
        assert!(kubectl.ok("logs deployment/web", "").contains(&listens));
        assert!(kubectl.ok("logs -l app=web --tail=1 --prefix", "").contains("[pod/web-"));
        assert_eq!(kubectl.ok("exec -i deployment/web -- cat", "typed"), "typed");
        let failed = kubectl.run("exec deployment/web -- sh -c exit\t7", "");
        assert!(!failed.ok && failed.err.contains("exit code 7"), "{}", failed.err);
        let port = kubectl.forward("deployment/web", PORT);
        assert!(port.ask(REQUEST).expect("an answer").ends_with("one"));

        assert_eq!(kubectl.ok("auth can-i create deployments", ""), "yes\n");
        assert!(kubectl.ok("api-resources", "").contains("deployments"));
        assert!(kubectl.ok("explain deployment.spec.replicas", "").contains("replicas <integer>"));
        assert!(kubectl.ok("get events", "").contains("pod/web-"));
        kubectl.ok("delete deployment web --wait=false", "");
        kubectl.ok("wait --for=delete pod -l app=web --timeout=60s", "");
    })
    .await;
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_and_daemon_sets_and_jobs() {
    let Some(c) = prepared().await else { return };
    kubectl::run(c.dir.path(), |kubectl| {
        for (kind, spec) in [
            ("StatefulSet", json!({"replicas": 2, "serviceName": "db", "podManagementPolicy": "Parallel"})),
            ("DaemonSet", json!({})),
        ] {
            let mut spec = spec;
            spec["selector"] = json!({"matchLabels": {"app": kind}});
            spec["template"] = json!({"metadata": {"labels": {"app": kind}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving("one")]}});
            let set = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "db"}, "spec": spec});
            kubectl.ok("apply -f -", &set.to_string());
            let what = format!("{}/db", kind.to_lowercase());
            rolled_out(kubectl, &what);
            kubectl.ok(&format!("set env {what} SERVE=two"), "");
            rolled_out(kubectl, &what);
            kubectl.ok(&format!("rollout undo {what}"), "");
            rolled_out(kubectl, &what);
            let image = format!("get {what} -o jsonpath={{.spec.template.spec.containers[0].env[0].value}}");
            assert_eq!(kubectl.ok(&image, ""), "one", "{kind}");
            let history = kubectl.ok(&format!("rollout history {what}"), "");
            assert_eq!(history.lines().filter(|line| line.starts_with(['2', '3'])).count(), 2, "{history}");
        }
        let work = json!({"name": "work", "image": "busybox", "command": ["/bin/sh", "-c", "echo worked"]});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [work]}}}});
        kubectl.ok("apply -f -", &job.to_string());
        kubectl.ok("wait --for=condition=Complete job/work --timeout=60s", "");
        assert_eq!(kubectl.ok("logs job/work", ""), "worked\n");
        kubectl.ok("delete statefulset,daemonset,job --all --timeout=60s", "");
    })
    .await;
    c.cluster.shutdown().await;
}
