//! The API server under load: 20,000 Pods, 2,000 watches.
//!
//! `cargo bench -p fsm-local --bench api` (`OBJECTS=… WATCHES=…` for other numbers). The server is a process of its own, so its memory and
//! its time are its own; half of the watches have a label selector that one Pod in ten matches.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fsm_local::api::{ApiConfig, ApiServer, HostDialer, listen};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

/// So many requests are under way at once.
const AT_ONCE: usize = 32;
/// So many Pods are changed while the watches look on.
const CHANGES: usize = 100;
/// What a watch tells.
type Events = futures::stream::BoxStream<'static, kube::Result<WatchEvent<Pod>>>;

/// How long the server remembers changes here.
const HISTORY: Duration = Duration::from_secs(10);

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match std::env::var_os("SERVE_IN") {
        Some(dir) => runtime.block_on(serve(dir.into())),
        None => runtime.block_on(measure()),
    }
}

/// The server's process: it says where its kubeconfig is, and ends with its standard input.
async fn serve(dir: std::path::PathBuf) {
    let config = ApiConfig {
        data_dir: dir.join("api"),
        listeners: vec![listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")],
        extra_names: Vec::new(),
        dialer: Arc::new(HostDialer),
        rbac: false,
        dual_stack: false,
        history: HISTORY,
    };
    let server = ApiServer::start(config).await.expect("the API server starts");
    std::fs::write(dir.join("kubeconfig"), server.kubeconfig_yaml()).expect("a kubeconfig");
    println!("ready");
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    end.await.expect("it ends").expect("standard input can be read");
    server.stop().await;
}

struct Server {
    process: Child,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut process = Command::new(std::env::current_exe().expect("this program"))
            .env("SERVE_IN", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut said = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut said)
            .expect("the server says that it is ready");
        Self { process, dir }
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.dir.path().join("kubeconfig")).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// Resident memory in MB.
    fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    /// The processor time that was used.
    fn time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("the server runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0);
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn pod(i: usize) -> Pod {
    let tenth = if i.is_multiple_of(10) { "yes" } else { "no" };
    let container = |name: &str| {
        json!({"name": name, "image": format!("example.com/{name}:1"), "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "LEVEL", "value": "info"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}})
    };
    let pod = json!({"metadata": {"name": format!("pod-{i}"), "labels": {"app": format!("app-{}", i % 100), "tenth": tenth}},
        "spec": {"containers": [container("app"), container("proxy")]}});
    serde_json::from_value(pod).expect("a pod")
}

/// The middle, the 99th percentile and the largest.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| {
        times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms", ms(at(50)), ms(at(99)), ms(at(100)))
}

async fn measure() {
    let (objects, watches) = (number("OBJECTS", 20_000), number("WATCHES", 2_000));
    let server = Server::start();
    let client = server.client().await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    println!("idle: {:.0} MB", server.memory());

    let begun = Instant::now();
    futures::stream::iter(0..objects)
        .for_each_concurrent(AT_ONCE, async |i| {
            pods.create(&PostParams::default(), &pod(i)).await.expect("a pod is made");
        })
        .await;
    let took = begun.elapsed();
    println!(
        "{objects} pods made in {:.1} s, {:.0}/s: {:.0} MB",
        took.as_secs_f64(),
        objects as f64 / took.as_secs_f64(),
        server.memory()
    );
    lists(&client, &server).await;
    let gets = futures::stream::iter(0..1000).then(async |i| {
        let begun = Instant::now();
        pods.get(&format!("pod-{}", i % objects)).await.expect("a pod");
        begun.elapsed()
    });
    println!("get: {}", spread(gets.collect().await));
    fan_out(&server, &pods, objects, watches).await;

    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("all are deleted");
    println!("all deleted: {:.0} MB", server.memory());
    tokio::time::sleep(HISTORY * 3).await;
    println!("{} s later: {:.0} MB", (HISTORY * 3).as_secs(), server.memory());
}

async fn lists(client: &Client, server: &Server) {
    let path = "/api/v1/namespaces/default/pods";
    for (what, query) in [
        ("whole", ""),
        ("by label, a tenth", "?labelSelector=tenth%3Dyes"),
        ("by a field, none", "?fieldSelector=spec.nodeName%3Dnone"),
        ("a page of 500", "?limit=500"),
    ] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..5 {
            let begun = Instant::now();
            let request = http::Request::get(format!("{path}{query}")).body(Vec::new()).expect("a request");
            bytes = client.request_text(request).await.expect("a list").len();
            times.push(begun.elapsed());
        }
        println!("list, {what}: {}, {:.1} MB, then {:.0} MB", spread(times), bytes as f64 / 1e6, server.memory());
    }
}

/// Changes Pods, one after the other, and waits until every watch has been told.
async fn fan_out(server: &Server, pods: &Api<Pod>, objects: usize, watches: usize) {
    let from =
        pods.list(&ListParams::default().limit(1)).await.expect("a list").metadata.resource_version.expect("a version");
    let (told, mut hears) = mpsc::unbounded_channel::<(usize, Instant)>();
    let mut opening = Vec::new();
    for i in 0..watches {
        // Every watch has a connection of its own.
        let own: Api<Pod> = Api::default_namespaced(server.client().await);
        let parameters = if i % 2 == 0 { WatchParams::default() } else { WatchParams::default().labels("tenth=yes") };
        let (told, from) = (told.clone(), from.clone());
        opening.push(async move { (own.watch(&parameters, &from).await.expect("a watch").boxed(), told) });
    }
    let listen = |(mut events, told): (Events, mpsc::UnboundedSender<(usize, Instant)>)| {
        tokio::spawn(async move {
            while let Ok(Some(event)) = events.try_next().await {
                if let WatchEvent::Modified(pod) = event {
                    let change = pod.annotations().get("change").and_then(|text| text.parse().ok()).unwrap_or(0);
                    let _ = told.send((change, Instant::now()));
                }
            }
        })
    };
    let watching: Vec<_> = futures::stream::iter(opening).buffer_unordered(AT_ONCE).map(listen).collect().await;
    println!("{watches} watches: {:.0} MB", server.memory());

    let (mut first, mut last) = (Vec::new(), Vec::new());
    let (begun, time) = (Instant::now(), server.time());
    let mut deliveries = 0;
    for change in 0..CHANGES {
        // Every tenth change is of a Pod that all watches are told of.
        let i = change % objects;
        let wanted = if i.is_multiple_of(10) { watches } else { watches.div_ceil(2) };
        let sent = Instant::now();
        let patch = json!({"metadata": {"annotations": {"change": change.to_string()}}});
        pods.patch(&format!("pod-{i}"), &PatchParams::default(), &Patch::Merge(patch)).await.expect("a change");
        for n in 0..wanted {
            let (of, at) = hears.recv().await.expect("a watch is told");
            assert_eq!(of, change, "changes come in order");
            if n == 0 {
                first.push(at - sent);
            }
            if n + 1 == wanted {
                last.push(at - sent);
            }
        }
        deliveries += wanted;
    }
    let took = begun.elapsed();
    println!("first watch told after: {}", spread(first));
    println!("last watch told after: {}", spread(last));
    println!(
        "{:.0} events/s to {watches} watches, {:.0} µs of the server's time each: {:.0} MB",
        deliveries as f64 / took.as_secs_f64(),
        (server.time() - time).as_secs_f64() * 1e6 / deliveries as f64,
        server.memory()
    );
    watching.iter().for_each(tokio::task::JoinHandle::abort);
}
