//! Why connections are not short-circuited: what a socket in a sockmap does to its application, shown without any program.

use crate::{
    abi::{AF_INET, ListenerKey},
    bpffs::Bpffs,
    interceptor::loader,
    listeners::Listener,
    objects,
    tables::Tables,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

const SENT: usize = 16 << 20;

/// How often a blocking `recv` fails with EAGAIN while another thread sends and then half-closes.
fn recv_without_data(place: &mut impl FnMut(&TcpStream)) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    place(&client);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let received = std::io::copy(&mut server, &mut std::io::sink()).unwrap();
            assert_eq!(received, SENT as u64);
            server.write_all(b"answer").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| {
            // The other thread is most likely in `recv` by then; whether it is changes the count only.
            std::thread::sleep(Duration::from_millis(5));
            (&client).write_all(&vec![b'x'; SENT]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let (mut answer, mut failed) = (Vec::new(), 0);
        let mut buffer = [0; 64];
        loop {
            match (&client).read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => failed += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(answer, b"answer");
        failed
    })
}

/// If this says that no call failed, the kernel has learnt to wait, and the shortcut can be built.
#[test]
fn applications_would_see_eagain_on_blocking_sockets() {
    let Ok(bpffs) = Bpffs::private() else { return println!("skipped: needs root and eBPF") };
    let mut sockets = loader(&bpffs).load(objects::sockets()).unwrap();
    let mut tables = Tables::take(&mut sockets).unwrap();
    let plain: usize = (0..5).map(|_| recv_without_data(&mut |_| {})).sum();
    assert_eq!(plain, 0);
    let mut netns = 0;
    let mut in_sockmap = |socket: &TcpStream| {
        netns += 1;
        let key = ListenerKey { netns, family: AF_INET, port: 1, pad: 0 };
        let socket = OwnedFd::from(socket.try_clone().unwrap()).into();
        tables.add_listeners(&[Listener { socket, keys: (key, None) }]).unwrap();
    };
    let failed: usize = (0..5).map(|_| recv_without_data(&mut in_sockmap)).sum();
    println!("in a sockmap {failed} blocking calls of 5 connections failed with EAGAIN");
}
