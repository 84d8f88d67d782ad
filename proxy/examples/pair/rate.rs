//! Requests at a fixed rate, whether the earlier ones were answered or not. Each is timed from when it was due, so a
//! server that falls behind is not given time to recover.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// `address connections per_second seconds`; prints JSON. A thread for each connection, as their clocks are finer than
/// a runtime's timers.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let [address, connections, per_second, seconds] = arguments else {
        anyhow::bail!("usage: pair rate ADDRESS CONNECTIONS PER_SECOND SECONDS");
    };
    let (address, connections) = ((*address).to_owned(), connections.parse::<u32>()?);
    let (per_second, seconds) = (per_second.parse::<f64>()?, seconds.parse::<f64>()?);
    let interval = Duration::from_secs_f64(f64::from(connections) / per_second);
    let start = Instant::now() + Duration::from_millis(200);
    let threads: Vec<_> = (0..connections)
        .map(|index| {
            let (address, first) =
                (address.clone(), start + interval.mul_f64(f64::from(index) / f64::from(connections)));
            let end = start + Duration::from_secs_f64(seconds);
            std::thread::spawn(move || one(&address, first, interval, end))
        })
        .collect();
    let (mut latencies, mut errors) = (Vec::new(), 0);
    for thread in threads {
        match thread.join() {
            Ok(Ok(mut some)) => latencies.append(&mut some),
            _ => errors += 1,
        }
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(0, Duration::as_micros);
    println!(
        "{{\"requests\":{},\"per_s\":{:.0},\"errors\":{errors},\"p50_us\":{},\"p90_us\":{},\"p99_us\":{},\"p999_us\":{}}}",
        latencies.len(),
        latencies.len() as f64 / seconds,
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
    );
    Ok(())
}

fn one(address: &str, first: Instant, interval: Duration, end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let (mut due, mut latencies, mut buffer) = (first, Vec::new(), vec![0; 16 * 1024]);
    while due < end {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.write_all(REQUEST)?;
        answer(&mut connection, &mut buffer)?;
        latencies.push(due.elapsed());
        due += interval;
    }
    Ok(latencies)
}

/// Reads one answer with a `content-length`.
fn answer(connection: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut read = 0;
    loop {
        let more = connection.read(&mut buffer[read..])?;
        ensure!(more > 0, "the connection was closed");
        read += more;
        let Some(head) = buffer[..read].windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        ensure!(text.starts_with("http/1.1 200"), "answered {}", text.lines().next().unwrap_or_default());
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("an answer without content-length")?.trim().parse()?;
        if read == head + 4 + length {
            return Ok(());
        }
    }
}
