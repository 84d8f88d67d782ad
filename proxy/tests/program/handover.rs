//! Processes that take each other's place, and what it costs when one is killed meanwhile.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::process::{beside, enter, fetch, inside, namespace, started, wait_for};

const STARTED: &str = "the sidecar has started";
const GETS_SOCKETS: &str = "a successor gets the sockets";
const TOOK_PLACE: &str = "this proxy has taken the place of the other one";
/// Nobody waits for so long.
const FOREVER: Duration = Duration::from_secs(60);

/// A client that connects all the time, one connection after the other, to the ports of metrics and of administration.
struct Client {
    /// Of each connection, whether it came to a whole answer.
    answers: Receiver<bool>,
    thread: JoinHandle<()>,
    broken: usize,
}

impl Client {
    /// In the namespace of `pid`. No connection is ever to be refused or left waiting: that ends the thread with a panic.
    fn begin(pid: u32) -> Self {
        let (namespace, (tell, answers)) = (namespace(pid), channel());
        let thread = std::thread::spawn(move || {
            enter(namespace);
            for (port, path) in [(15010, "/stats/prometheus"), (15000, "/stats")].into_iter().cycle() {
                let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection is refused");
                stream.set_read_timeout(Some(FOREVER)).unwrap();
                let whole = match fetch(stream, path) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nobody answers on port {port}"),
                    answer => answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")),
                };
                if tell.send(whole).is_err() {
                    break;
                }
            }
        });
        Self { answers, thread, broken: 0 }
    }

    /// Waits until it has got so many more answers.
    fn goes_on(&mut self, more: usize) {
        self.broken += self.answers.try_iter().filter(|whole| !whole).count();
        let mut answered = 0;
        while answered < more {
            match self.answers.recv().expect("the client goes on") {
                true => answered += 1,
                false => self.broken += 1,
            }
        }
    }

    /// How many of its connections broke.
    fn end(mut self) -> usize {
        self.goes_on(2);
        drop(self.answers);
        self.thread.join().unwrap();
        self.broken
    }
}

/// A connection on which a client may send another request at any time, in the namespace of `pid`.
fn kept(pid: u32) -> TcpStream {
    inside(pid, || {
        let mut stream = TcpStream::connect(("127.0.0.1", 15010)).unwrap();
        write!(stream, "GET /stats/prometheus HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    })
}

#[test]
fn processes_take_each_others_place_and_no_connection_is_refused() {
    let Some(mut child) = started("--drain-seconds 5") else { return };
    let mut log = child.log();
    wait_for(&mut log, STARTED);
    let (pid, client) = (child.id(), Client::begin(child.id()));
    // One that is gone after it got the sockets.
    inside(pid, || {
        let address = SocketAddr::from_abstract_name("fsm-proxy/handover").unwrap();
        let mut stream = UnixStream::connect_addr(&address).unwrap();
        let workload = "spiffe://cluster.local/ns/shop/sa/store in shop/store-1";
        writeln!(stream, "{{\"version\":2,\"workload\":\"{workload}\"}}").unwrap();
        let mut offer = String::new();
        BufReader::new(stream).read_line(&mut offer).unwrap();
        assert!(offer.contains("\"roles\":[\"outbound\""), "{offer}");
    });
    wait_for(&mut log, "a successor has not taken over: this proxy serves on");
    // One of another workload.
    let mut stranger = beside(pid, &[("POD_NAME", "store-2")]);
    wait_for(&mut stranger.log(), "does not hand over: it is the proxy of");
    assert_eq!(stranger.code(), Some(1));
    for _ in 0..3 {
        let mut next = beside(child.id(), &[]);
        let mut its_log = next.log();
        wait_for(&mut its_log, TOOK_PLACE);
        wait_for(&mut log, "ended");
        assert_eq!(child.code(), Some(0));
        (child, log) = (next, its_log);
    }
    assert_eq!(client.end(), 0);
    child.terminate();
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
}

/// At any moment: from the one at which it is about to get the sockets to that at which it serves alone.
#[test]
fn a_successor_that_is_killed_leaves_the_other_one_serving() {
    let Some(mut child) = started("--drain-seconds 600") else { return };
    let mut log = child.log();
    wait_for(&mut log, STARTED);
    let (pid, mut client) = (child.id(), Client::begin(child.id()));
    let mut held = kept(pid);
    let mut killed = 0;
    for moment in [Some(0), Some(1), Some(3), Some(8), Some(20), Some(60), None] {
        let mut next = beside(pid, &[]);
        let mut its_log = next.log();
        wait_for(&mut log, GETS_SOCKETS);
        match moment {
            Some(answers) => client.goes_on(answers),
            None => wait_for(&mut its_log, TOOK_PLACE),
        }
        next.kill();
        killed += 1;
        // The sentence depends on how far it had come; the last one was through.
        let ends = if moment.is_some() { "this proxy serves" } else { "has died: this proxy serves again" };
        wait_for(&mut log, ends);
        client.goes_on(10);
        // What the first one had under way it still has, or has told the client to close.
        if moment.is_none() {
            held.shutdown(std::net::Shutdown::Write).unwrap();
            held.read_to_end(&mut Vec::new()).unwrap();
        }
    }
    // As good as new: a successor that lives takes over.
    let mut next = beside(pid, &[]);
    let mut its_log = next.log();
    wait_for(&mut its_log, TOOK_PLACE);
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
    let broken = client.end();
    assert!(broken <= killed, "{broken} connections broke, and {killed} proxies were killed");
    next.terminate();
    wait_for(&mut its_log, "ended");
}

#[test]
fn when_the_one_before_is_killed_its_successor_serves() {
    let Some(mut child) = started("--drain-seconds 600") else { return };
    let mut log = child.log();
    wait_for(&mut log, STARTED);
    let mut client = Client::begin(child.id());
    let mut held = kept(child.id());
    // It has the sockets, and may or may not serve yet.
    let mut next = beside(child.id(), &[]);
    let mut its_log = next.log();
    wait_for(&mut its_log, "a proxy serves here already");
    child.kill();
    wait_for(&mut its_log, STARTED);
    client.goes_on(10);
    // Broken: with this it has an end.
    let _ = held.read_to_end(&mut Vec::new());
    let broken = client.end();
    assert!(broken <= 1, "{broken} connections broke");
    next.terminate();
    wait_for(&mut its_log, "ended");
    assert_eq!(next.code(), Some(0));
}

#[test]
fn one_that_only_finishes_is_in_nobodys_way() {
    let Some(mut child) = started("--drain-seconds 600") else { return };
    let mut log = child.log();
    wait_for(&mut log, STARTED);
    let held = kept(child.id());
    let mut next = beside(child.id(), &[]);
    wait_for(&mut next.log(), TOOK_PLACE);
    next.terminate();
    wait_for(&mut log, "nobody takes its place");
    assert_eq!(next.code(), Some(0));
    let mut another = beside(child.id(), &[]);
    wait_for(&mut another.log(), STARTED);
    drop(held);
    wait_for(&mut log, "ended");
    assert_eq!(child.code(), Some(0));
    another.terminate();
    assert_eq!(another.code(), Some(0));
}
