//! The figures of docs/performance.md about the log: `cargo bench -p fsm-replay-tests --bench figures`
//!
//! `FSM_BENCH_RECORDS=100000` for a smaller history; `FSM_BENCH_DIR` for another disk than that of the temporary directory;
//! `FSM_BENCH_PARTS=starts,recomputation` for some of the parts only; `FSM_BENCH_FSM=target/release/fsm` to time commands too;
//! `FSM_BENCH_LOG=DIR` to write the history there and keep it, or to use the one that was kept.

mod commands;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fsm_actors::core::{Skips, rebuild};
use fsm_actors::snapshots;
use fsm_actors::{Core, Fact};
use fsm_replay_tests::recorded;
use fsm_store::{Durability, Entry, EventLog, Options, Record, Seq, SledLog, TraceContext};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Size of a fact in the figures about appending.
const FACT_BYTES: usize = 1_500;
const APPENDERS: usize = 256;
const APPENDS_EACH: usize = 60;
/// Facts that one watch hands in at once, in the long history.
const COMMIT: usize = 64;
/// How long a commit takes at least on a disk: what comes meanwhile goes into the next one together.
const COMMIT_US: u64 = 1_000;

fn main() -> anyhow::Result<()> {
    // `cargo test` asks whether there is anything to test.
    if std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let base = std::env::var_os("FSM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("fsm-figures-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let done = runtime.block_on(figures(&dir));
    fs::remove_dir_all(&dir)?;
    done
}

async fn figures(dir: &Path) -> anyhow::Result<()> {
    let records = std::env::var("FSM_BENCH_RECORDS").ok().map_or(Ok(1_000_000), |text| text.parse())?;
    let parts = std::env::var("FSM_BENCH_PARTS");
    let wanted = |part| parts.as_ref().map_or(true, |parts| parts.split(',').any(|wanted| wanted == part));
    if wanted("appending") {
        appending(dir).await?;
    }
    if wanted("disk") {
        disk_use(dir).await?;
    }
    let of_history = ["starts", "recomputation", "commands"].map(wanted);
    if of_history == [false; 3] {
        return Ok(());
    }
    let place = std::env::var_os("FSM_BENCH_LOG").map_or_else(|| dir.join("history"), PathBuf::from);
    println!("\na history of {records} records: the churn again and again under new names");
    if !place.exists() {
        write_history(&place, records).await?;
    }
    let [starts, recomputation, commands] = of_history;
    if starts {
        time_starts(&place).await?;
    }
    let log = SledLog::open(&place, Options::default())?;
    if starts {
        time_travel(&log, records).await?;
    }
    if recomputation {
        let core = rebuild(&log, log.last(), Skips::new()).await?;
        on_one_core(recompute(&log, &core))?;
    }
    if commands {
        let asked = commands::question(&log, Seq(records as u64 / 120)).await?;
        drop(log);
        commands::time(&place, records, asked)?;
    }
    Ok(())
}

/// How often a figure is taken; what is printed is the median.
pub(crate) const RUNS: usize = 5;

/// The median and the slowest.
pub(crate) fn median(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let slowest = times.last().copied().unwrap_or_default();
    (times[times.len() / 2].as_secs_f64(), slowest.as_secs_f64())
}

pub(crate) fn row(what: &str, figure: impl std::fmt::Display) {
    println!("{what:86} {figure}");
}

/// A fact that does not compress to nothing: text with numbers in it.
fn fact(number: usize) -> Entry {
    let mut body = String::with_capacity(FACT_BYTES + 16);
    let mut state = number as u64;
    while body.len() < FACT_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.push_str(&format!("\"field-{}\":\"{:x}\",", state >> 60, state >> 40));
    }
    body.truncate(FACT_BYTES);
    Entry {
        topic: "object".into(),
        key: format!("v1/Pod shop/web-{number}").into(),
        body: body.into(),
        trace: TraceContext::default(),
    }
}

async fn appending(dir: &Path) -> anyhow::Result<()> {
    println!("\nappending facts of {FACT_BYTES} bytes");
    let mut file = File::create(dir.join("plain"))?;
    let (count, begun) = (400, Instant::now());
    for number in 0..count {
        file.write_all(&fact(number).body)?;
        file.sync_data()?;
    }
    let plain = rate(count, begun.elapsed());
    row("one write and one fdatasync for each, plain file", format_args!("{plain:.0}/s"));

    for (name, durability) in [("power", Durability::Power), ("process", Durability::Process)] {
        let log = SledLog::open(dir.join(name), Options { durability, ..Options::default() })?;
        let begun = Instant::now();
        let appenders = (0..APPENDERS).map(|appender| {
            let log = &log;
            async move {
                for number in 0..APPENDS_EACH {
                    log.append(vec![fact(appender * APPENDS_EACH + number)]).await?;
                }
                Ok::<_, fsm_store::Error>(())
            }
        });
        join_all(appenders).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let group = rate(APPENDERS * APPENDS_EACH, begun.elapsed());
        row(
            &format!("{APPENDERS} at once, each waiting for its own; durability {name}"),
            format_args!("{group:.0}/s, {:.1} x", group / plain),
        );
    }
    Ok(())
}

/// Everything below a directory, as the disk counts it.
fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

async fn disk_use(dir: &Path) -> anyhow::Result<()> {
    println!("\ndisk use of the recorded churn scenario");
    let churn = recorded("churn").records;
    let raw: usize = churn.iter().map(|record| record.entry.body.len()).sum();
    row("records, bytes of their JSON", format_args!("{}, {:.1} MB", churn.len(), raw as f64 / 1e6));
    let as_recorded = churn.chunk_by(|one, next| next.time.0 - one.time.0 < COMMIT_US).collect();
    let cases: [(String, Vec<&[Record]>); 4] = [
        ("1 record a commit".into(), churn.chunks(1).collect()),
        ("a commit for what came less than 1 ms after another".into(), as_recorded),
        ("8 records a commit".into(), churn.chunks(8).collect()),
        (format!("{COMMIT} records a commit"), churn.chunks(COMMIT).collect()),
    ];
    for (number, (name, commits)) in cases.into_iter().enumerate() {
        let place = dir.join(format!("churn-{number}"));
        let log = SledLog::open(&place, Options::default())?;
        for batch in commits {
            log.append(batch.iter().map(|record| record.entry.clone()).collect()).await?;
        }
        snapshots::take(&log).await?;
        drop(log);
        let bytes = disk_bytes(&place)?;
        row(
            &format!("whole directory, {name}"),
            format_args!("{:.1} MB, {:.3} x", bytes as f64 / 1e6, bytes as f64 / raw as f64),
        );
    }
    Ok(())
}

/// The churn again and again, in other namespaces each time.
struct Endless {
    churn: Vec<Record>,
    next: usize,
}

impl Endless {
    fn entry(&mut self) -> Entry {
        let (round, place) = (self.next / self.churn.len(), self.next % self.churn.len());
        self.next += 1;
        let entry = &self.churn[place].entry;
        let name = format!("r{round:03}-");
        let body = String::from_utf8_lossy(&entry.body).replace("shop-", &name).into();
        Entry { key: entry.key.replace("shop-", &name).into(), body, ..entry.clone() }
    }
}

async fn write_history(place: &Path, count: usize) -> anyhow::Result<()> {
    let mut endless = Endless { churn: recorded("churn").records, next: 0 };
    let log = SledLog::open(place, Options::default())?;
    let begun = Instant::now();
    let every = snapshots::Policy::default().every_records as usize;
    let mut raw = 0;
    let (mut written, mut taking) = (0, Duration::ZERO);
    while written < count {
        let entries: Vec<Entry> = (0..COMMIT.min(count - written)).map(|_| endless.entry()).collect();
        written += entries.len();
        raw += entries.iter().map(|entry| entry.body.len()).sum::<usize>();
        log.append(entries).await?;
        if written / every != (written - COMMIT.min(written)) / every {
            let begun = Instant::now();
            snapshots::take(&log).await?;
            taking += begun.elapsed();
        }
    }
    row(
        "JSON of it, on disk with its snapshots",
        format_args!("{:.2} GB, {:.2} GB", raw as f64 / 1e9, disk_bytes(place)? as f64 / 1e9),
    );
    row(
        "written in, of this for snapshots",
        format_args!("{:.1} s, {:.1} s", begun.elapsed().as_secs_f64(), taking.as_secs_f64()),
    );
    Ok(())
}

async fn time_starts(place: &Path) -> anyhow::Result<()> {
    let mut starts = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let log = SledLog::open(place, Options::default())?;
        rebuild(&log, log.last(), Skips::new()).await?;
        starts.push(begun.elapsed());
    }
    let (middle, slowest) = median(starts);
    row(
        &format!("a controller's start, open the log, rebuild from the last snapshot: median of {RUNS}, slowest"),
        format_args!("{middle:.3} s, {slowest:.3} s"),
    );
    Ok(())
}

async fn time_travel(log: &SledLog, count: usize) -> anyhow::Result<()> {
    let places: Vec<u64> = (1..=24).map(|place| (count as u64 * place / 24 * 9_973) % count as u64 + 1).collect();
    let mut times = Vec::new();
    for place in &places {
        let begun = Instant::now();
        rebuild(log, Seq(*place), Skips::new()).await?;
        times.push(begun.elapsed());
    }
    let (middle, slowest) = median(times);
    row(
        &format!("the state at any of {} seqs: median, slowest", places.len()),
        format_args!("{middle:.3} s, {slowest:.3} s"),
    );
    Ok(())
}

/// Runs it, and whatever it has done in the background, on one core only: records that go from one core to another cost both of them.
fn on_one_core(work: impl Future<Output = anyhow::Result<()>> + Send) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            let mut core = CpuSet::new();
            core.set(1)?;
            if sched_setaffinity(Pid::from_raw(0), &core).is_err() {
                row("recomputation on one core", "no: this machine has no second core, or keeps it");
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
        });
        pinned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// All of it again, from the first record on.
async fn recompute(log: &SledLog, expected: &Core) -> anyhow::Result<()> {
    let (mut walls, mut cpus, mut count) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        let (begun, cpu) = (Instant::now(), cpu_time());
        let mut core = Core::default();
        let mut batches = log.read(Seq::ZERO);
        count = 0;
        while let Some(batch) = batches.next().await {
            for record in batch?.iter() {
                core.apply_one(record);
                count += 1;
            }
        }
        walls.push(begun.elapsed());
        cpus.push(cpu_time() - cpu);
        anyhow::ensure!(core.digests() == expected.digests(), "recomputed, the state is another one");
    }
    let each_second = |times: Vec<Duration>| format!("{:.0}/s", count as f64 / median(times).0);
    row("recomputed from the first record: all concerns, one record at a time, median of 3", each_second(walls));
    row("the same for each second of CPU", each_second(cpus));

    let cpu = cpu_time();
    let read: Vec<usize> = log.read(Seq::ZERO).map_ok(|batch| batch.len()).try_collect().await?;
    row(
        "of this, reading and unpacking the log, each second of CPU",
        format_args!("{:.0}/s", rate(read.iter().sum(), cpu_time() - cpu)),
    );
    let sample: Vec<Record> = recorded("churn").records;
    let begun = Instant::now();
    let facts = sample.iter().filter(|record| Fact::parse(&record.entry).is_ok()).count();
    row("of this, reading facts, each second", format_args!("{:.0}/s", rate(facts, begun.elapsed())));
    Ok(())
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// CPU time of this process so far, user and system.
fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |usage| {
        let time = |value: nix::sys::time::TimeVal| Duration::new(value.tv_sec() as u64, value.tv_usec() as u32 * 1000);
        time(usage.user_time()) + time(usage.system_time())
    })
}
