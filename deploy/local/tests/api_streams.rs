//! exec, attach and port-forward, as kube-rs and kubectl use them.

mod api_support;

use std::sync::Arc;
use std::time::Duration;

use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, PostParams, TerminalSize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use api_support::TestServer;
use api_support::kubectl::have_kubectl;
use api_support::node::ThisMachine;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a node and a running pod `p` on it.
async fn with_pod() -> (TestServer, Api<Pod>) {
    let server = api_support::start().await;
    server.api.set_node(Arc::new(ThisMachine));
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("as usual")).await.expect("as usual");
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("p", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(running))
        .await
        .expect("as usual");
    (server, pods)
}

/// A port that sends back what it reads, in capitals, until it reads an end of file.
async fn shouting_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("as usual");
    let port = listener.local_addr().expect("as usual").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read].to_ascii_uppercase()).await.ok();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn commands_read_write_and_end_with_a_code() {
    let (server, pods) = with_pod().await;
    let parameters = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("p", ["sh", "-c", "cat; echo oops >&2; exit 3"], &parameters).await.unwrap();
    let (mut stdin, mut stdout, mut stderr) =
        (process.stdin().unwrap(), process.stdout().unwrap(), process.stderr().unwrap());
    let status = process.take_status().unwrap();
    let talk = async {
        stdin.write_all(b"hello").await.unwrap();
        // The end of the input is what ends `cat`.
        stdin.shutdown().await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        stdout.read_to_string(&mut out).await.unwrap();
        stderr.read_to_string(&mut err).await.unwrap();
        (out, err, status.await.unwrap())
    };
    let (out, err, status) = tokio::time::timeout(PATIENCE, talk).await.expect("the command ends");
    assert_eq!((out.as_str(), err.as_str()), ("hello", "oops\n"));
    assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("Failure"), Some("NonZeroExitCode")));
    server.api.stop().await;
}

#[tokio::test]
async fn a_terminal_tells_its_size() {
    let (server, pods) = with_pod().await;
    let parameters = AttachParams::interactive_tty();
    let mut process = pods.attach("p", &parameters).await.unwrap();
    let (mut stdout, mut sizes) = (process.stdout().unwrap(), process.terminal_size().unwrap());
    sizes.send(TerminalSize { width: 120, height: 40 }).await.unwrap();
    let mut told = [0; 7];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut told)).await.expect("in time").unwrap();
    assert_eq!(&told, b"120x40\n");
    server.api.stop().await;
}

#[tokio::test]
async fn what_can_not_be_run_is_refused_before_or_within_the_stream() {
    let (server, pods) = with_pod().await;
    let refused = pods.exec("p", ["true"], &AttachParams::default().container("none")).await;
    assert!(matches!(refused, Err(kube::Error::Api(s)) if s.code == 400 && s.message.contains("not valid for pod p")));
    let refused = pods.exec("none", ["true"], &AttachParams::default()).await;
    assert!(matches!(refused, Err(kube::Error::Api(s)) if s.code == 404));
    let mut process = pods.exec("p", ["/no/such/program"], &AttachParams::default()).await.unwrap();
    let status = process.take_status().unwrap();
    let status = tokio::time::timeout(PATIENCE, status).await.expect("in time").unwrap();
    assert_eq!((status.status.as_deref(), status.code), (Some("Failure"), Some(500)));
    server.api.stop().await;
}

#[tokio::test]
async fn ports_are_forwarded_and_a_closed_one_is_told() {
    let (server, pods) = with_pod().await;
    let open = shouting_port().await;
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let mut forward = pods.portforward("p", &[open, closed]).await.unwrap();
    let error = forward.take_error(closed).unwrap();
    let mut stream = forward.take_stream(open).unwrap();
    let talk = async {
        stream.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HELLO");
        error.await.unwrap()
    };
    let told = tokio::time::timeout(PATIENCE, talk).await.expect("in time");
    assert!(told.contains("refused"), "{told}");
    server.api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_runs_commands_and_forwards_ports() {
    if !have_kubectl() {
        return;
    }
    let (server, _) = with_pod().await;
    std::fs::write(server.dir.path().join("kubeconfig"), server.api.kubeconfig_yaml()).expect("a kubeconfig");
    let port = shouting_port().await;
    server
        .kubectl(move |kubectl| {
            assert_eq!(kubectl.ok("logs p", ""), "p/c says hello\n");
            assert_eq!(kubectl.ok("exec -i p -- cat", "typed"), "typed");
            let failed = kubectl.run("exec p -c c -- sh -c exit\t7", "");
            assert!(!failed.ok && failed.err.contains("exit code 7"), "{}", failed.err);
            let forward = kubectl.forward("pod/p", port);
            for text in ["first", "second"] {
                assert_eq!(forward.ask(text).unwrap(), text.to_uppercase());
            }
        })
        .await;
    server.api.stop().await;
}
