//! What applications answer, when it is not what a client could take as it is.

use fsm_proxy_config::proto::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app;
use super::mesh::{Mesh, Pair};

/// A pair whose application answers each connection's first request with `answer`, and closes then.
async fn answering(answer: &'static str) -> Pair {
    let app = app::listen(move |mut stream| async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut asked).await;
    })
    .await;
    Mesh::new().pair(app.address, Protocol::Http)
}

/// All that the client of a pair reads for one request.
async fn asked(pair: &Pair, method: &str) -> String {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let request = format!("{method} / HTTP/1.1\r\nhost: store\r\nte: trailers\r\nconnection: close, te\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn responses_without_a_body_have_none_whatever_their_length_says() {
    for (method, answer, status, length) in [
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", "304", None),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "200", Some("5")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200", None),
    ] {
        let read = asked(&answering(answer).await, method).await;
        assert!(read.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}: {read}");
        assert!(read.ends_with("\r\n\r\n") && read.matches("\r\n\r\n").count() == 1, "{answer}: {read}");
        let said = read.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(said, length, "{answer}: {read}");
    }
}

#[tokio::test]
async fn what_belongs_to_the_servers_connection_stays_there() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 2\r\nContent-Length: 4\r\n\r\nbody";
    let read = asked(&answering(answer).await, "GET").await.to_lowercase();
    assert!(read.contains("x-kept: 2\r\n") && read.ends_with("\r\n\r\nbody"), "{read}");
    for gone in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!read.contains(gone), "{gone} in {read}");
    }
}

#[tokio::test]
async fn a_body_ends_where_its_coding_says_and_trailers_follow_it() {
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
    let read = asked(&answering(answer).await, "GET").await.to_lowercase();
    assert!(read.contains("transfer-encoding: chunked\r\n"), "{read}");
    assert!(read.ends_with("4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n"), "{read}");
    // RFC 9112, section 6.3: the coding counts, and a proxy removes the length.
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let read = asked(&answering(both).await, "GET").await.to_lowercase();
    assert!(read.starts_with("http/1.1 200") && !read.contains("content-length"), "{read}");
    assert!(read.ends_with("4\r\nbody\r\n0\r\n\r\n"), "{read}");
    let until_close = "HTTP/1.1 200 OK\r\n\r\nbody";
    let read = asked(&answering(until_close).await, "GET").await.to_lowercase();
    assert!(read.ends_with("4\r\nbody\r\n0\r\n\r\n"), "{read}");
}

#[tokio::test]
async fn an_answer_that_could_mean_two_things_is_a_502_of_the_proxy() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nContent-Length: 4 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nX Space: 1\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nX-Cut: 1",
        "",
    ] {
        let read = asked(&answering(answer).await, "POST").await;
        assert!(
            read.starts_with("HTTP/1.1 502 ") && read.contains("fsm-denied: upstream_broke_off\r\n"),
            "{answer:?}: {read}"
        );
        assert!(!read.contains("body"), "{answer:?}: {read}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_whole_body() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nx\r\n\r\n",
    ] {
        let pair = answering(answer).await;
        let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut read = Vec::new();
        // The connection may end by a reset.
        let _ = stream.read_to_end(&mut read).await;
        let read = String::from_utf8(read).unwrap().to_lowercase();
        // A 502 if nothing of the answer has gone yet, else no end that the client could take for that of the body.
        let whole = read.ends_with("0\r\n\r\n") || (read.contains("content-length: 4") && read.ends_with("body"));
        assert!(
            read.starts_with("http/1.1 502 ") || (read.starts_with("http/1.1 200 ") && !whole),
            "{answer:?}: {read}"
        );
    }
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_order() {
    let app = app::http1(super::app::describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let mut requests = String::new();
    for number in 0..20 {
        let (method, body) = if number % 2 == 0 { ("GET", "") } else { ("POST", "content-length: 4\r\n") };
        let close = if number == 19 { "connection: close\r\n" } else { "" };
        let text = if body.is_empty() { "" } else { "GET " };
        requests += &format!("{method} /{number} HTTP/1.1\r\nhost: store\r\n{body}{close}\r\n{text}");
    }
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    let answered: Vec<&str> = read.lines().filter(|line| line.contains(" HTTP/1.1 host=store")).collect();
    assert_eq!(answered.len(), 20, "{read}");
    for (number, line) in answered.iter().enumerate() {
        assert!(line.contains(&format!(" /{number} HTTP/1.1")), "{number}: {line}");
    }
}
