//! Commands in containers, and joining their own process. The client's protocol is the API server's business; here it is the node's.

use bytes::Bytes;
use fsm_local::api::{NodeBackend, Output, Purpose, Session, SessionError, SessionRequest, TerminalSize};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use crate::helpers::{TestCluster, cluster, patiently, shell};

/// The client's end of a session.
struct Client {
    stdin: mpsc::Sender<Bytes>,
    output: mpsc::Receiver<Output>,
    size: watch::Sender<Option<TerminalSize>>,
    ended: tokio::task::JoinHandle<Result<(), SessionError>>,
}

fn open(c: &TestCluster, purpose: Purpose, tty: bool) -> Client {
    let request = SessionRequest { container: "main".into(), purpose, stdin: true, stdout: true, stderr: !tty, tty };
    let ((stdin, typed), (output, shown)) = (mpsc::channel(8), mpsc::channel(8));
    let (size, of_terminal) = watch::channel(Some(TerminalSize { width: 91, height: 17 }));
    let session = Session { stdin: typed, output, size: of_terminal };
    let ended = tokio::spawn(c.cluster.backend().session("default", "shell", request, session));
    Client { stdin, output: shown, size, ended }
}

fn exec(c: &TestCluster, script: &str, tty: bool) -> Client {
    open(c, Purpose::Exec(["/bin/sh", "-c", script].map(str::to_owned).into()), tty)
}

impl Client {
    /// Reads until the output contains `text`.
    async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        patiently(async {
            while !seen.contains(text) {
                match self.output.recv().await {
                    Some(Output::Stdout(bytes) | Output::Stderr(bytes)) => {
                        seen.push_str(&String::from_utf8_lossy(&bytes))
                    }
                    None => return,
                }
            }
        })
        .await;
        assert!(seen.contains(text), "{text:?} is not in {seen:?}");
        seen
    }

    /// Ends the input; gives standard output, standard error and how it ended.
    async fn end(self) -> (String, String, Result<(), SessionError>) {
        let Self { stdin, mut output, ended, size } = self;
        drop(stdin);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let read = patiently(async {
            while let Some(chunk) = output.recv().await {
                match chunk {
                    Output::Stdout(bytes) => out.extend(bytes),
                    Output::Stderr(bytes) => err.extend(bytes),
                }
            }
        });
        read.await.expect("the session ends");
        drop(size);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), ended.await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_the_containers_surroundings() {
    let Some(c) = cluster().await else { return };
    let mut pod = shell("shell", "echo inside > /tmp/x; exec sleep 1000");
    pod["spec"]["containers"][0]["env"] = serde_json::json!([{"name": "WHO", "value": "me"}]);
    c.create::<Pod>(pod).await;
    c.ready("shell").await;
    // The container's own command may not have got there yet.
    let script = "until [ -e /tmp/x ]; do sleep 0.05; done; cat /tmp/x; echo $WHO $(hostname) >&2; cat; exit 3";
    let run = exec(&c, script, false);
    run.stdin.send(Bytes::from_static(b"typed")).await.unwrap();
    assert_eq!(run.end().await, ("inside\ntyped".into(), "me shell\n".into(), Err(SessionError::Exit(3))));

    let unknown = open(&c, Purpose::Exec(vec!["no-such-program".into()]), false).end().await;
    let Err(SessionError::Refused(why)) = unknown.2 else { panic!("{unknown:?}") };
    assert!(why.contains("\"no-such-program\" was not found"), "{why}");
    let killed = exec(&c, "kill -9 $$", false).end().await;
    assert_eq!(killed.2, Err(SessionError::Exit(137)));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_clients_size_and_its_keys() {
    let Some(c) = cluster().await else { return };
    c.create::<Pod>(shell("shell", "exec sleep 1000")).await;
    c.ready("shell").await;
    let mut run = exec(
        &c,
        "stty size; tty; read a; stty size; trap 'echo interrupted; exit 5' INT; echo go; while :; do sleep 0.05; done",
        true,
    );
    let first = run.until("/dev/pts/").await;
    assert!(first.starts_with("17 91\r\n"), "{first:?}");
    run.size.send_replace(Some(TerminalSize { width: 120, height: 40 }));
    // The new size is there at the latest when the shell has been told of it; asked again until then.
    run.stdin.send(Bytes::from_static(b"\n")).await.unwrap();
    run.until("go").await;
    run.stdin.send(Bytes::from_static(b"\x03")).await.unwrap();
    run.until("interrupted").await;
    assert_eq!(run.end().await.2, Err(SessionError::Exit(5)));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_ends_its_command_and_not_the_container() {
    let Some(c) = cluster().await else { return };
    c.create::<Pod>(shell("shell", "exec sleep 1000")).await;
    c.ready("shell").await;
    let mut run = exec(&c, "echo $$; exec sleep 1000", false);
    run.until("\n").await;
    let Client { output, ended, .. } = run;
    drop(output);
    assert_eq!(patiently(ended).await.unwrap().unwrap(), Err(SessionError::Exit(137)));
    assert!(c.cluster.container_pid("default", "shell", "main").is_ok());
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_joins_the_containers_own_streams() {
    let Some(c) = cluster().await else { return };
    let mut pod = shell("shell", "while read line; do echo \"got $line\"; done; echo end");
    pod["spec"]["restartPolicy"] = serde_json::json!("Never");
    pod["spec"]["containers"][0]["stdin"] = serde_json::json!(true);
    pod["spec"]["containers"][0]["stdinOnce"] = serde_json::json!(true);
    c.create::<Pod>(pod).await;
    c.ready("shell").await;
    let mut run = open(&c, Purpose::Attach, false);
    run.stdin.send(Bytes::from_static(b"hello\n")).await.unwrap();
    run.until("got hello\n").await;
    let (out, _, ended) = run.end().await;
    assert_eq!((out.as_str(), ended), ("end\n", Ok(())));
    assert_eq!(c.log("shell").await, "got hello\nend\n");
    c.cluster.shutdown().await;
}
