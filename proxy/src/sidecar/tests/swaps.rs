//! A configuration that never rests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fsm_proxy_config::proto::Protocol;
use http::Response;

use super::app;
use super::client::{collect, connect1, get};
use super::mesh::{CLIENT, Mesh, Resources, SERVER, http_policy, pod_ip};

/// Ten milliseconds apart: a hundred a second.
const SWAPS: usize = 200;
const APART: Duration = Duration::from_millis(10);
const CLIENTS: usize = 8;

/// Two servers take turns as the only endpoint, and their policies are written anew. A request that no change has come in between with is
/// answered by the server of that moment; every other one by either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_configurations_a_second_cost_no_request_and_misroute_none() {
    let mesh = Mesh::new();
    let mut servers = Vec::new();
    for number in 0..2 {
        let app = app::http1(move |_request| async move {
            Response::builder().header("x-server", number).body(app::text("book")).unwrap()
        })
        .await;
        let ip = pod_ip();
        let resources = http_policy(Resources::new("store", &[(app.address.port(), Protocol::Http)]));
        servers.push((mesh.pod(SERVER, ip, &resources), resources, std::net::SocketAddr::new(ip, app.address.port())));
    }
    let told = |number: usize| {
        Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Http).endpoints(
            "shop/store",
            &[servers[number % 2].2],
            SERVER,
        )
    };
    let client = mesh.pod(CLIENT, pod_ip(), &told(0));
    let (begun, done, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let swapping = async {
        for number in 1..=SWAPS {
            tokio::time::sleep(APART).await;
            begun.store(number, Ordering::SeqCst);
            client.configure(&told(number));
            for (server, resources, _) in &servers {
                server.configure(resources);
            }
            done.store(number, Ordering::SeqCst);
        }
        ended.store(true, Ordering::SeqCst);
    };
    let requests = Arc::new(AtomicUsize::new(0));
    let asking = futures::future::join_all((0..CLIENTS).map(async |_| {
        let mut send = connect1(client.outbound()).await;
        while !ended.load(Ordering::SeqCst) {
            send.ready().await.unwrap();
            let before = done.load(Ordering::SeqCst);
            let answered = collect(send.send_request(get("/books")).await.unwrap()).await;
            let after = begun.load(Ordering::SeqCst);
            assert_eq!((answered.status, answered.text.as_str()), (200, "book"));
            if before == after {
                assert_eq!(answered.headers["x-server"], ["0", "1"][before % 2]);
            }
            requests.fetch_add(1, Ordering::SeqCst);
        }
    }));
    tokio::join!(swapping, asking);
    let requests = requests.load(Ordering::SeqCst);
    assert!(requests > SWAPS, "{requests} requests only: nothing is shown");
}
