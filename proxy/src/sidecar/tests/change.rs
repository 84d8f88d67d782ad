//! What changes while requests are under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::proto::{Protocol, TrafficPolicy};
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::app::{self, describe};
use super::client::fetch;
use super::fleet::Fleet;
use super::mesh::{CLIENT, Mesh, SERVER};

#[tokio::test]
async fn a_request_to_an_endpoint_that_is_removed_comes_to_its_end_and_the_next_goes_elsewhere() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (reached, opened) = (Arc::clone(&arrived), Arc::clone(&gate));
    let mut fleet = Fleet::new(2, TrafficPolicy::default(), move |number, request| {
        let (reached, opened) = (Arc::clone(&reached), Arc::clone(&opened));
        async move {
            if request.uri() == "/slow" {
                reached.add_permits(1);
                opened.acquire().await.unwrap().forget();
            }
            super::fleet::number(number, request).await
        }
    })
    .await;
    let slow = tokio::spawn(fetch(fleet.client.outbound(), "/slow"));
    arrived.acquire().await.unwrap().forget();
    let removed = fleet.counts().iter().position(|count| *count == 1).unwrap();
    fleet.remove(removed);
    for _ in 0..10 {
        assert_eq!(fetch(fleet.client.outbound(), "/").await.text, (1 - removed).to_string());
    }
    gate.add_permits(1);
    let slow = slow.await.unwrap();
    assert_eq!((slow.status, slow.text), (200, removed.to_string()));
}

#[tokio::test]
async fn renewed_certificates_cost_no_connection_and_are_used_by_the_next_one() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
    for (pod, identity) in [(&pair.client, CLIENT), (&pair.server, SERVER)] {
        let before = pod.sources.tls.identity().unwrap();
        mesh.renew(pod, identity);
        assert_ne!(pod.sources.tls.identity().unwrap().serial(), before.serial());
        assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
    }
    assert_eq!(pair.client.handle.metrics().summary().connections.mtls, 1);
    // Both ends have certificates that the first connection has not seen.
    let next = mesh.pod(CLIENT, super::mesh::pod_ip(), &pair.client_resources);
    assert_eq!(fetch(next.outbound(), "/").await.status, 200);
    assert_eq!(pair.server.handle.metrics().summary().connections.mtls, 2);
}

/// RFC 9113, section 6.8: what has begun is finished, and nothing else begins.
#[tokio::test]
async fn a_drain_says_goaway_and_finishes_the_streams_of_http2() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (reached, opened) = (Arc::clone(&arrived), Arc::clone(&gate));
    let app = app::listen(move |stream| {
        let (reached, opened) = (Arc::clone(&reached), Arc::clone(&opened));
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_request, mut respond))) = connection.accept().await {
                let (reached, opened) = (Arc::clone(&reached), Arc::clone(&opened));
                tokio::spawn(async move {
                    reached.add_permits(1);
                    opened.acquire().await.unwrap().forget();
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(Bytes::from_static(b"finished"), true).unwrap();
                });
            }
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get("http://store/").body(()).unwrap();
    let (response, _) = send.send_request(request(), true).unwrap();
    arrived.acquire().await.unwrap().forget();
    let (client, server) = (pair.client, pair.server);
    let drains = tokio::spawn(async move { (client.handle.drain().await, server.handle.drain().await) });
    // The client is told, and may not begin another one.
    let refused = loop {
        if let Err(error) = send.clone().ready().await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(refused.is_go_away() && refused.reason() == Some(h2::Reason::NO_ERROR), "{refused}");
    gate.add_permits(1);
    let mut response = response.await.unwrap();
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "finished");
    drop((send, response));
    assert!(connection.await.unwrap().is_ok());
    let ended = tokio::time::timeout(Duration::from_secs(20), drains).await.unwrap();
    assert_eq!(ended.unwrap(), (true, true));
}
