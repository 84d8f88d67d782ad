//! Sidecars that take each other's place, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio_util::sync::CancellationToken;

use super::wire::{Answer, Hello, Line, VERSION};
use super::*;
use crate::accept::{Inherited, Role};
use crate::sidecar::tests::app::{self, describe};
use crate::sidecar::tests::client::{collect, connect1, fetch};
use crate::sidecar::tests::mesh::{CLIENT, Mesh, Pair, Pod, pod_ip};
use crate::sidecar::{Config, Handle, Sidecar, Sources};

const WORKLOAD: &str = "spiffe://cluster.local/ns/shop/sa/buyer in shop/buyer-1";

/// A name that no other test uses.
fn name() -> String {
    format!("{NAME}/{}/{}", std::process::id(), pod_ip())
}

/// A pair whose client answers queries for names too, and how the client is set up.
async fn pair() -> (Pair, Config) {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    let ip = pod_ip();
    let mut config = Config::default();
    let client = mesh.pod_with(CLIENT, ip, &pair.client_resources, |set_up| {
        set_up.addresses.names = vec![SocketAddr::new(ip, 15053)];
        // After this, connections on which nothing is under way are ended.
        set_up.limits.drain_timeout = Duration::from_secs(2);
        config = set_up.clone();
    });
    (Pair { client, ..pair }, config)
}

/// Offers the sockets of `pod` at `name` until a successor serves, and then ends it.
fn giving(name: &str, pod: Pod) -> tokio::task::JoinHandle<bool> {
    let giver = Giver::new(name, WORKLOAD, &mut Inherited::default()).unwrap();
    give(giver, pod.handle)
}

fn give(giver: Giver, handle: Handle) -> tokio::task::JoinHandle<bool> {
    tokio::spawn(async move {
        giver.handed_over(|| handle.sockets(), || handle.is_ready()).await;
        handle.hand_over().await
    })
}

/// Takes the place of the one who gives at `name`, as a process that starts does.
async fn succeed(name: &str, config: &Config, sources: &Sources) -> (Giver, Handle) {
    let (mut predecessor, mut inherited) = Predecessor::find(name, WORKLOAD).await.unwrap().unwrap();
    assert!(predecessor.is_ready());
    let prepared = Sidecar::prepare(config.clone(), sources.clone(), &mut inherited).unwrap();
    let giver = Giver::new(name, WORKLOAD, &mut inherited).unwrap();
    assert!(prepared.handle().is_ready());
    let handle = prepared.serve();
    predecessor.retire().await;
    (giver, handle)
}

/// Clients that send all the time: on kept connections, on new ones, and queries for names. Gives how many were answered, in
/// turns of each; every answer must be good.
struct Load {
    answered: Arc<AtomicUsize>,
    ended: CancellationToken,
    clients: tokio::task::JoinSet<()>,
}

impl Load {
    fn begin(outbound: SocketAddr, names: SocketAddr) -> Self {
        let (answered, ended) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..3 {
            let (answered, ended) = (Arc::clone(&answered), ended.clone());
            clients.spawn(async move {
                // One that sends nothing must not hold up anybody either.
                let mut kept = connect1::<Full<Bytes>>(outbound).await;
                while !ended.is_cancelled() {
                    match number {
                        0 => {
                            if kept.ready().await.is_err() {
                                kept = connect1(outbound).await;
                                continue;
                            }
                            let request = Request::post("/").header("host", "store").body(Full::from("x")).unwrap();
                            let answer = collect(kept.send_request(request).await.unwrap()).await;
                            assert_eq!(answer.status, 200, "{}", answer.text);
                            if answer.headers.get("connection").is_some_and(|said| said == "close") {
                                kept = connect1(outbound).await;
                            }
                        }
                        1 => assert_eq!(fetch(outbound, "/").await.status, 200),
                        _ => ask(names).await,
                    }
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { answered, ended, clients }
    }

    /// Waits for some more answers.
    async fn go_on(&mut self) {
        let until = self.answered.load(Ordering::SeqCst) + 60;
        while self.answered.load(Ordering::SeqCst) < until {
            tokio::select! {
                Some(ended) = self.clients.join_next() => ended.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    }

    async fn end(mut self) {
        self.ended.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

/// Asks for a name that no name server is there for: SERVFAIL comes at once.
async fn ask(names: SocketAddr) {
    let socket = UdpSocket::bind(SocketAddr::new(names.ip(), 0)).await.unwrap();
    socket.connect(names).await.unwrap();
    let query = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";
    socket.send(query).await.unwrap();
    let mut answer = [0; 512];
    let answered = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut answer)).await.expect("no answer");
    assert!(answered.unwrap() > 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_refused_or_fails_through_several_handovers() {
    let (Pair { client, server, .. }, config) = pair().await;
    let (name, sources) = (name(), client.sources.clone());
    let (outbound, names) = (client.outbound(), client.handle.bound().names[0]);
    let mut load = Load::begin(outbound, names);
    load.go_on().await;
    let mut giving = giving(&name, client);
    for _ in 0..4 {
        let (giver, handle) = succeed(&name, &config, &sources).await;
        assert_eq!(handle.bound().outbound, [outbound]);
        let served = || handle.metrics().summary().requests["outbound"] > 0;
        while !served() {
            load.go_on().await;
        }
        // The last clients of the one before let go of their connections.
        assert!(giving.await.unwrap(), "the predecessor did not come to its end");
        load.go_on().await;
        giving = give(giver, handle);
    }
    load.end().await;
    giving.abort();
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_ends_before_it_is_ready_changes_nothing() {
    let (Pair { client, server: _server, .. }, config) = pair().await;
    let (name, sources, outbound) = (name(), client.sources.clone(), client.outbound());
    let mut load = Load::begin(outbound, client.handle.bound().names[0]);
    let giving = giving(&name, client);
    for _ in 0..3 {
        let (predecessor, mut inherited) = Predecessor::find(&name, WORKLOAD).await.unwrap().unwrap();
        let prepared = Sidecar::prepare(config.clone(), Sources::default(), &mut inherited).unwrap();
        load.go_on().await;
        assert!(!prepared.handle().is_ready());
        drop((predecessor, inherited, prepared));
        load.go_on().await;
    }
    assert!(!giving.is_finished());
    let (_giver, _handle) = succeed(&name, &config, &sources).await;
    assert!(giving.await.unwrap());
    load.go_on().await;
    load.end().await;
}

#[tokio::test]
async fn a_predecessor_that_ends_by_itself_is_noticed_and_its_connections_wait() {
    let (Pair { client, server: _server, .. }, config) = pair().await;
    let (name, sources, outbound) = (name(), client.sources.clone(), client.outbound());
    let giver = Giver::new(&name, WORKLOAD, &mut Inherited::default()).unwrap();
    let giving = tokio::spawn(async move {
        tokio::select! {
            _ = giver.handed_over(|| client.handle.sockets(), || true) => {}
            () = std::future::pending() => drop(client.handle),
        }
    });
    let (mut predecessor, mut inherited) = Predecessor::find(&name, WORKLOAD).await.unwrap().unwrap();
    let prepared = Sidecar::prepare(config, sources, &mut inherited).unwrap();
    giving.abort();
    predecessor.gone().await;
    // Taken by the kernel while nobody serves.
    let mut waiting = TcpStream::connect(outbound).await.unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n").await.unwrap();
    let _handle = prepared.serve();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_successor_that_dies_is_told_from_one_that_ends() {
    let (Pair { client, .. }, _config) = pair().await;
    let name = name();
    let giver = Giver::new(&name, WORKLOAD, &mut Inherited::default()).unwrap();
    for ends in [false, true, false] {
        let taking = async {
            let (mut predecessor, _sockets) = Predecessor::find(&name, WORKLOAD).await.unwrap().unwrap();
            predecessor.retire().await;
            predecessor
        };
        let (successor, predecessor) = tokio::join!(giver.handed_over(|| client.handle.sockets(), || true), taking);
        if ends {
            predecessor.ended().await;
        } else {
            drop(predecessor);
        }
        assert_eq!(successor.died().await, !ends);
    }
}

#[tokio::test]
async fn strangers_and_other_versions_get_no_socket() {
    let (Pair { client, .. }, _config) = pair().await;
    let name = name();
    let _giving = giving(&name, client);
    let other = Predecessor::find(&name, "spiffe://cluster.local/ns/shop/sa/store in shop/store-1").await;
    let Err(HandoverError::Refused(reason)) = other else { panic!("another workload got the sockets") };
    assert!(reason.contains("sa/buyer in shop/buyer-1") && reason.contains("shop/store-1"), "{reason}");
    let stream = std::os::unix::net::UnixStream::connect_addr(&address(&name).unwrap()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut line = Line::new(UnixStream::from_std(stream).unwrap());
    line.send(&Hello { version: VERSION + 1, workload: WORKLOAD.to_owned() }, &[]).await.unwrap();
    let (answer, sockets) = line.receive::<Answer>().await.unwrap().unwrap();
    let Answer::Refused { reason } = answer else { panic!("{answer:?}") };
    let expected = format!("version {VERSION} of the handover, and the successor {}", VERSION + 1);
    assert!(reason.contains(&expected), "{reason}");
    assert!(sockets.is_empty());
    let free = name.clone() + "/free";
    assert!(Predecessor::find(&free, WORKLOAD).await.unwrap().is_none());
}

#[tokio::test]
async fn every_socket_is_passed_with_its_role() {
    let (Pair { client, .. }, _config) = pair().await;
    let (name, bound) = (name(), client.handle.bound().clone());
    let _giving = giving(&name, client);
    let (_predecessor, mut inherited) = Predecessor::find(&name, WORKLOAD).await.unwrap().unwrap();
    for (role, address) in [
        (Role::Outbound, bound.outbound[0]),
        (Role::Capture, bound.capture[0]),
        (Role::Mesh, bound.mesh[0]),
        (Role::Metrics, bound.metrics[0]),
        (Role::Probes, bound.probes[0]),
    ] {
        assert!(inherited.tcp(role, address).is_some(), "{role:?}");
    }
    assert!(inherited.udp(Role::Names, bound.names[0]).is_some());
    assert!(inherited.any(Role::Handover).is_some());
}
