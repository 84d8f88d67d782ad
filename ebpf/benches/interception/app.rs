//! The application's part: makes connections and requests, and says how long it took.

use serde_json::json;
use socket2::SockRef;
use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

pub const ECHO: u16 = 7;
pub const SINK: u16 = 9;
/// Accepted, asked for its destination, and closed.
pub const NOTHING: u16 = 11;

/// Name, title and digits of each figure.
pub const FIGURES: [(&str, &str, usize); 7] = [
    ("connect_us", "`connect`, µs", 1),
    ("rr1", "round trips of 64 B each second, 1 connection", 0),
    ("rr1_cpu_us", "CPU of both processes for each, µs", 2),
    ("rr8", "round trips of 64 B each second, 8 connections", 0),
    ("rr8_cpu_us", "CPU of both processes for each, µs", 2),
    ("bulk_gbit", "64 kB writes, Gbit/s", 1),
    ("bulk_cpu_ms", "CPU of both processes for each Gbit, ms", 2),
];

const CONNECTIONS: usize = 2000;
const SPAN: Duration = Duration::from_secs(1);

pub fn main() {
    let direct = env::var("FSM_BENCH_DIRECT").is_ok_and(|direct| !direct.is_empty());
    let proxy: u32 = env::var("FSM_BENCH_PROXY").unwrap().parse().unwrap();
    let at = |port: u16| -> SocketAddr {
        if direct { ([127, 0, 0, 1], 20_000 + port).into() } else { ([10, 77, 0, 3], port).into() }
    };
    let connect_us = connects(at(NOTHING));
    let (rr1, rr1_cpu) = measured(proxy, || round_trips(at(ECHO), 1));
    let (rr8, rr8_cpu) = measured(proxy, || round_trips(at(ECHO), 8));
    let (bytes, bulk_cpu) = measured(proxy, || bulk(at(SINK)));
    let gbit = bytes * 8.0 / 1e9;
    let seconds = SPAN.as_secs_f64();
    let figures = json!({
        "connect_us": connect_us,
        "rr1": rr1 / seconds, "rr1_cpu_us": rr1_cpu * 1e6 / rr1,
        "rr8": rr8 / seconds, "rr8_cpu_us": rr8_cpu * 1e6 / rr8,
        "bulk_gbit": gbit / seconds, "bulk_cpu_ms": bulk_cpu * 1e3 / gbit,
    });
    println!("{figures}");
}

/// Median duration of `connect(2)`. The proxy takes the connections one by one, so none waits in a queue.
fn connects(to: SocketAddr) -> f64 {
    let mut each: Vec<f64> = (0..CONNECTIONS)
        .map(|_| {
            let started = Instant::now();
            let stream = TcpStream::connect(to).unwrap();
            let taken = started.elapsed().as_secs_f64() * 1e6;
            // Ends it without TIME_WAIT, which would fill the range of ports.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            taken
        })
        .collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 2]
}

/// What `work` counts, and the seconds of CPU that both processes spend on it.
fn measured(proxy: u32, work: impl FnOnce() -> f64) -> (f64, f64) {
    let both = || cpu(std::process::id()) + cpu(proxy);
    let before = both();
    let count = work();
    (count, both() - before)
}

/// Seconds of CPU of a process with its threads, those of its socket calls in the kernel included.
fn cpu(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn round_trips(to: SocketAddr, connections: usize) -> f64 {
    let workers: Vec<_> = (0..connections)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(to).unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut buffer, mut count, started) = ([7u8; 64], 0u32, Instant::now());
                while started.elapsed() < SPAN {
                    stream.write_all(&buffer).unwrap();
                    stream.read_exact(&mut buffer).unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    workers.into_iter().map(|worker| f64::from(worker.join().unwrap())).sum()
}

fn bulk(to: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(to).unwrap();
    let (buffer, mut bytes, started) = (vec![7u8; 1 << 16], 0.0, Instant::now());
    while started.elapsed() < SPAN {
        stream.write_all(&buffer).unwrap();
        bytes += buffer.len() as f64;
    }
    bytes
}
