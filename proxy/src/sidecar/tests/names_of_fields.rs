//! How names of header fields arrive.

use fsm_proxy_config::proto::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, App};
use super::mesh::{CLIENT, Mesh, Pair, SERVER, pod_ip};
use crate::FieldNames;

/// An application that answers each request with its head as it came; an upgrade it agrees to.
async fn mirror() -> App {
    app::listen(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let upgrades = String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: chat");
        let begin = match upgrades {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n".to_owned(),
            false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n", head.len()),
        };
        let _ = stream.write_all(&[begin.as_bytes(), b"X-REPLY-id: 1\r\n\r\n", &head].concat()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

/// All that comes back for a request with `fields`.
async fn sent(pair: &Pair, fields: &str) -> String {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: store\r\nX-FOO-bar: 1\r\nSOAPAction: 2\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn pair(field_names: FieldNames) -> Pair {
    let (mesh, app) = (Mesh::new(), mirror().await);
    let ip = pod_ip();
    let listens = std::net::SocketAddr::new(ip, app.address.port());
    let pair = mesh.pair(app.address, Protocol::Http);
    let client = pair.client_resources.clone().endpoints("shop/store", &[listens], SERVER);
    let server = mesh.pod_with(SERVER, ip, &pair.server_resources, |config| config.field_names = field_names);
    let client = mesh.pod_with(CLIENT, pod_ip(), &client, |config| config.field_names = field_names);
    Pair { client, server, ..pair }
}

#[tokio::test]
async fn names_arrive_in_lower_case_or_in_title_case() {
    for (field_names, request, other, reply) in [
        (FieldNames::Lower, "x-foo-bar: 1\r\n", "soapaction: 2\r\n", "x-reply-id: 1\r\n"),
        (FieldNames::Title, "X-Foo-Bar: 1\r\n", "Soapaction: 2\r\n", "X-Reply-Id: 1\r\n"),
    ] {
        let answer = sent(&pair(field_names).await, "Connection: close\r\n").await;
        for line in [request, other, reply] {
            assert!(answer.contains(line), "{field_names:?}: no {line} in {answer}");
        }
    }
}

/// An exchange that asks for an upgrade travels in HTTP/1.1 all the way.
#[tokio::test]
async fn names_of_an_upgrade_keep_their_case() {
    let answer = sent(&pair(FieldNames::Lower).await, "Connection: Upgrade\r\nUpgrade: chat\r\n").await;
    for line in ["X-FOO-bar: 1\r\n", "SOAPAction: 2\r\n", "X-REPLY-id: 1\r\n"] {
        assert!(answer.contains(line), "no {line} in {answer}");
    }
}
