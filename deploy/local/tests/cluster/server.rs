//! A small HTTP server for containers: this test program, called by another name.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// The test cluster is told that this test program is `fsm`.
pub const IMAGE: &str = "flomesh/fsm";
/// The port it serves, unless `PORT` says otherwise.
pub const PORT: u16 = 8080;

/// The container's arguments that lead the test program here.
pub const ARGS: [&str; 4] = ["--exact", "server::serves_when_called_as_a_container", "--nocapture", "--test-threads=1"];

/// Not a test of anything by itself: inside a container (recognised by `SERVE`) it serves until it is killed.
#[test]
fn serves_when_called_as_a_container() {
    let Ok(name) = std::env::var("SERVE") else { return };
    let port = std::env::var("PORT").map_or(PORT, |port| port.parse().unwrap());
    // Both families at once.
    let listener = TcpListener::bind(("::", port)).unwrap();
    let datagrams = UdpSocket::bind(("::", port)).unwrap();
    let own = name.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, client)) = datagrams.recv_from(&mut buffer) {
            datagrams.send_to(own.as_bytes(), client).unwrap();
        }
    });
    println!("{name} listens on {port}");
    for stream in listener.incoming() {
        let name = name.clone();
        std::thread::spawn(move || answer(stream.unwrap(), &name));
    }
}

/// `GET /file/NAME` is 200 if the file exists in the container's /tmp, else 503; `/client` is 200 with the client's address, and anything
/// else 200 with the name.
fn answer(mut stream: TcpStream, name: &str) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    reader.read_line(&mut request).unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let found = path.strip_prefix("/file/").is_none_or(|file| std::path::Path::new("/tmp").join(file).exists());
    let client = stream.peer_addr().unwrap().ip().to_canonical().to_string();
    let name = if path == "/client" { &client } else { name };
    let status = if found { "200 OK" } else { "503 Service Unavailable" };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}", name.len()).unwrap();
}
