//! The proxy's part: echoes what was meant for port 7, swallows what was meant for port 9.

use crate::app::{ECHO, NOTHING, SINK};
use socket2::SockRef;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

pub fn main() {
    let captured = TcpListener::bind(("127.0.0.1", fsm_ebpf::OUTBOUND_PORT)).unwrap();
    // Dialled when nothing intercepts.
    let direct = [ECHO, SINK, NOTHING].map(|port| (TcpListener::bind(("127.0.0.1", 20_000 + port)).unwrap(), port));
    for (listener, port) in direct {
        thread::spawn(move || accept(&listener, |_| port));
    }
    println!("listening");
    accept(&captured, |stream| SockRef::from(stream).original_dst_v4().unwrap().as_socket_ipv4().unwrap().port());
}

fn accept(listener: &TcpListener, meant_for: impl Fn(&TcpStream) -> u16) {
    loop {
        let (stream, _) = listener.accept().unwrap();
        let port = meant_for(&stream);
        // What is closed at once is not worth a thread: most of the time would be spent on making it.
        if port == ECHO || port == SINK {
            thread::spawn(move || serve(stream, port));
        }
    }
}

fn serve(mut stream: TcpStream, port: u16) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 1 << 18];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if port == ECHO && stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
