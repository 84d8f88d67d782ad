//! The story: seven phases, each a change and what must follow from it.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::bookstore::Bookstore;
use super::report::{Percentiles, Phase, Replayed, Report, Sales, Thefts};

/// Requests that a phase looks at, at least.
const SAMPLE: u64 = 120;
/// How long a phase waits for that many.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Story<'a> {
    bookstore: &'a Bookstore,
    /// How long a reader may look at each phase.
    pause: Duration,
}

/// Where the story's lines go.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// What a phase must find true of the requests in it.
type Expectation = fn(&Sales) -> bool;

const PHASES: u32 = 7;

impl<'a> Story<'a> {
    /// A story that takes at least `duration`.
    pub fn new(bookstore: &'a Bookstore, duration: Duration) -> Self {
        Self { bookstore, pause: duration / PHASES }
    }

    /// Tells it, and reports what was found.
    pub async fn tell(&self, say: Say<'_>) -> anyhow::Result<Report> {
        let store = self.bookstore;
        let mut phases = Vec::new();
        let mut add = |phase: Phase| {
            say(&format!("{} {}: {}", if phase.ok { "✓" } else { "✗" }, phase.name, summary(&phase.measured)));
            phases.push(phase);
        };

        say("every book comes from v1: the TrafficSplit says 100/0");
        add(self.watch("v1-only", |seen| seen.ok == seen.total && seen.of(V2) == 0 && seen.of(V1) > 0).await?);

        say("half of the buyers are sent to v2: 50/50");
        store.split(50, 50).await?;
        add(self
            .watch("split-50-50", |seen| seen.ok == seen.total && (0.35..0.65).contains(&share_of_v2(seen)))
            .await?);

        say("v2 has proved itself: 0/100");
        store.split(0, 100).await?;
        add(self.watch("v2-only", |seen| seen.ok == seen.total && seen.of(V1) == 0 && seen.of(V2) > 0).await?);

        say("the buyer's TrafficTargets are deleted");
        store.remove_access().await?;
        add(self.watch("access-removed", |seen| seen.denied == seen.total && seen.total > 0).await?);

        say("and given back");
        store.restore_access().await?;
        add(self.watch("access-restored", |seen| seen.ok == seen.total && seen.total > 0).await?);

        say("the controller is killed; nobody should notice");
        add(self.controller_restart().await?);

        say("everything that every proxy was ever told is computed again from the log");
        let (phase, replay) = self.replay()?;
        add(phase);

        self.report(phases, replay).await
    }

    /// Watches the buyer for one phase.
    async fn watch(&self, name: &'static str, expected: Expectation) -> anyhow::Result<Phase> {
        let seen = self.sample(self.in_flight_done().await?).await?;
        Ok(phase(name, expected(&seen), &seen))
    }

    /// The buyer's counters once the requests that were under way at the change have been answered.
    async fn in_flight_done(&self) -> anyhow::Result<Sales> {
        let before = self.bookstore.sales("bookbuyer").await?;
        self.until(|now| now.total > before.total + 1).await
    }

    /// What the buyer saw since `before`, for at least [`SAMPLE`] requests and the reader's pause.
    async fn sample(&self, before: Sales) -> anyhow::Result<Sales> {
        let began = Instant::now();
        let enough = self.until(|now| now.total >= before.total + SAMPLE).await?;
        let left = self.pause.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(enough.since(&before));
        }
        sleep(left).await;
        Ok(self.bookstore.sales("bookbuyer").await?.since(&before))
    }

    async fn until(&self, reached: impl Fn(&Sales) -> bool) -> anyhow::Result<Sales> {
        let began = Instant::now();
        loop {
            let now = self.bookstore.sales("bookbuyer").await?;
            if reached(&now) {
                return Ok(now);
            }
            anyhow::ensure!(began.elapsed() < SAMPLE_TIMEOUT, "bookbuyer makes no requests: {now:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn controller_restart(&self) -> anyhow::Result<Phase> {
        let before = self.bookstore.sales("bookbuyer").await?;
        let began = Instant::now();
        self.bookstore.kill_controller().await?;
        let back = began.elapsed();
        // The successor must lead the mesh, not only be there: a change has to arrive.
        let changed = self.bookstore.split(50, 50).await.context("after the restart");
        let seen = self.sample(before).await?;
        let ok = changed.is_ok() && seen.ok == seen.total && seen.total > 0;
        let mut phase = phase("controller-restart", ok, &seen);
        phase.measured.insert("ready_again_ms".into(), json!(back.as_millis() as u64));
        if let Err(error) = changed {
            phase.measured.insert("error".into(), json!(format!("{error:#}")));
        }
        Ok(phase)
    }

    fn replay(&self) -> anyhow::Result<(Phase, Replayed)> {
        let records = self.bookstore.observer.records();
        let verified = fsm_actors::replay::verify(&records);
        let replayed =
            Replayed { versions_checked: verified.versions_checked, identical: verified.differences.is_empty() };
        let mut measured = Map::new();
        measured.insert("records".into(), json!(records.len()));
        measured.insert("versions_checked".into(), json!(replayed.versions_checked));
        if let Some(difference) = verified.differences.first() {
            measured.insert("first_difference".into(), json!(difference.to_string()));
        }
        let ok = replayed.identical && replayed.versions_checked > 0;
        Ok((Phase { name: "replay", ok, measured }, replayed))
    }

    async fn report(&self, mut phases: Vec<Phase>, replay: Replayed) -> anyhow::Result<Report> {
        let store = self.bookstore;
        let thief = store.sales("bookthief").await?;
        let stole = thief.ok > 0 || thief.total == 0;
        if let Some(first) = phases.first_mut().filter(|_| stole) {
            first.ok = false;
            first.measured.insert("error".into(), json!(format!("bookthief was served, or never tried: {thief:?}")));
        }
        let millis = store.observer.look(|propagation| propagation.done.iter().map(|change| change.millis).collect());
        Ok(Report {
            phases,
            bookbuyer: store.sales("bookbuyer").await?,
            bookthief: Thefts { total: thief.total, ok: thief.ok, denied: thief.denied },
            mtls: store.mtls().await?,
            propagation_ms: Percentiles::of(millis),
            interception: store.interception().to_owned(),
            log: store.log_size().await?,
            replay,
        })
    }
}

pub const V1: &str = "bookstore-v1";
pub const V2: &str = "bookstore-v2";

fn share_of_v2(seen: &Sales) -> f64 {
    seen.of(V2) as f64 / (seen.of(V1) + seen.of(V2)).max(1) as f64
}

pub fn phase(name: &'static str, ok: bool, seen: &Sales) -> Phase {
    let mut measured = Map::new();
    for (key, count) in
        [("requests", seen.total), ("served", seen.ok), ("denied", seen.denied), ("failed", seen.failed)]
    {
        measured.insert(key.into(), json!(count));
    }
    measured.insert("by_backend".into(), json!(seen.by_backend));
    if let (false, Some(refusal)) = (ok, &seen.last_refusal) {
        measured.insert("last_refusal".into(), json!(refusal));
    }
    Phase { name, ok, measured }
}

/// What a phase measured, in one line: numbers with their names, those that are 0 left out.
fn summary(measured: &Map<String, Value>) -> String {
    let flat = measured.iter().flat_map(|(name, value)| match value {
        Value::Object(inner) => inner.iter().map(|(backend, count)| (format!("by {backend}"), count)).collect(),
        value => vec![(name.replace('_', " "), value)],
    });
    let parts = flat.filter(|(_, value)| **value != json!(0)).map(|(name, value)| match value {
        Value::String(text) => format!("{name}: {}", text.trim()),
        count => format!("{count} {name}"),
    });
    parts.collect::<Vec<_>>().join(", ")
}
