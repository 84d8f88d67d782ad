//! What the kernel knows of this process, under the names that Prometheus' own libraries use.

use std::time::{Duration, SystemTime};

use super::page::Page;

/// Ticks in which the kernel counts a process' time: 100 a second on every architecture that Linux is built for today.
const TICKS_PER_SECOND: f64 = 100.0;

pub fn write(page: &mut Page) {
    if let Some([user, system]) = stat(["utime", "stime"]) {
        let seconds = (user + system) as f64 / TICKS_PER_SECOND;
        page.single("process_cpu_seconds_total", "counter", "Processor time of the proxy, in seconds.", seconds);
    }
    if let Some(kib) = status("VmRSS:") {
        page.single("process_resident_memory_bytes", "gauge", "Memory of the proxy.", kib * 1024);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        page.single("process_open_fds", "gauge", "Open file descriptors.", open.count().saturating_sub(1));
    }
    if let Some(started) = started() {
        page.single("process_start_time_seconds", "gauge", "When the proxy started, in seconds since 1970.", started);
    }
}

/// Fields of `/proc/self/stat`; see proc_pid_stat(5).
fn stat<const N: usize>(names: [&str; N]) -> Option<[u64; N]> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let mut values = [0; N];
    for (value, name) in values.iter_mut().zip(names) {
        let index = match name {
            "utime" => 11,
            "stime" => 12,
            _ => 19,
        };
        *value = fields.get(index)?.parse().ok()?;
    }
    Some(values)
}

fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The kernel counts from its own start.
fn started() -> Option<u64> {
    let [ticks] = stat(["starttime"])?;
    let up: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64((up - ticks as f64 / TICKS_PER_SECOND).max(0.0)).ok()?;
    let since = (SystemTime::now() - age).duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}
