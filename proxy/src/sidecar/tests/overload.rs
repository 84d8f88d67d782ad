//! More than may be at once.

use fsm_proxy_config::proto::Protocol;
use http::Response;
use tokio::sync::{Semaphore, mpsc};

use super::app;
use super::client::fetch;
use super::mesh::{CLIENT, Mesh, Resources, SERVER, pod_ip};

#[tokio::test]
async fn a_request_too_many_is_told_to_come_again_and_others_go_on() {
    static RELEASED: Semaphore = Semaphore::const_new(0);
    let (seen, mut arrived) = mpsc::channel(8);
    let app = app::http1(move |_request| {
        let seen = seen.clone();
        async move {
            seen.send(()).await.unwrap();
            RELEASED.acquire().await.unwrap().forget();
            Response::new(app::text("book"))
        }
    })
    .await;
    let mesh = Mesh::new();
    let ip = pod_ip();
    let endpoint = std::net::SocketAddr::new(ip, app.address.port());
    let _server = mesh.pod(SERVER, ip, &Resources::new("store", &[(endpoint.port(), Protocol::Http)]));
    let resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Http);
    let resources = resources.endpoints("shop/store", &[endpoint], SERVER);
    let client = mesh.pod_with(CLIENT, pod_ip(), &resources, |config| config.limits.requests = 2);
    let outbound = client.outbound();
    let first = [tokio::spawn(fetch(outbound, "/1")), tokio::spawn(fetch(outbound, "/2"))];
    arrived.recv().await.unwrap();
    arrived.recv().await.unwrap();
    let refused = fetch(outbound, "/3").await;
    assert_eq!((refused.status, &refused.headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(refused.headers["fsm-denied"], "overloaded");
    RELEASED.add_permits(3);
    for request in first {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(fetch(outbound, "/4").await.status, 200);
}
