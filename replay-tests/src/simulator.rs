//! A whole control plane in one thread and virtual time: everything that could happen comes from a seed.
//!
//! A simulated cluster changes at random. Watchers of its kinds lag behind each other, are cut off, see events twice and
//! have to list again. Facts wait for commits of any size; commits fail, with the frame stored or not. The controller crashes and
//! starts again from snapshots, good or damaged, or from the whole log; single state machines are rebuilt as after a panic.
//! Proxies connect, answer late, refuse versions, lose their streams, restart with what they had or with nothing.
//!
//! The real state machines, watches, deliveries and snapshots run in it; only sockets, disks and clocks are simulated. What must
//! always hold (`docs/architecture.md`) is checked at every step, and at the end, when everybody has calmed down.

mod cluster;
mod controller;
mod convergence;
mod log;
mod proxy;
mod watcher;

use std::collections::BTreeMap;
use std::fmt;

use fastrand::Rng;
use fsm_actors::catalog::ObjectName;

use cluster::Cluster;
use controller::Controller;
use proxy::Proxy;
use watcher::Watcher;

/// Something that must hold and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub seed: u64,
    pub step: u32,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, what } = self;
        write!(
            f,
            "seed {seed}, step {step}: {what}\nrun it again with: cargo run --release -p fsm-replay-tests --example simulate -- --seed {seed}"
        )
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub records: u64,
    pub versions_acknowledged: u64,
    pub relists: u64,
    pub crashes: u64,
    pub disk_faults: u64,
    pub rebuilt_actors: u64,
    pub snapshots: u64,
    pub compactions: u64,
    pub refusals: u64,
    pub reconnects: u64,
}

impl Story {
    /// Everything by its name.
    pub fn counts(&self) -> [(&'static str, u64); 10] {
        [
            ("records", self.records),
            ("acknowledged versions", self.versions_acknowledged),
            ("lists", self.relists),
            ("crashes", self.crashes),
            ("disk faults", self.disk_faults),
            ("rebuilt actors", self.rebuilt_actors),
            ("snapshots", self.snapshots),
            ("compactions", self.compactions),
            ("refused versions", self.refusals),
            ("reconnections", self.reconnects),
        ]
    }
}

impl std::ops::AddAssign for Story {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.versions_acknowledged += other.versions_acknowledged;
        self.relists += other.relists;
        self.crashes += other.crashes;
        self.disk_faults += other.disk_faults;
        self.rebuilt_actors += other.rebuilt_actors;
        self.snapshots += other.snapshots;
        self.compactions += other.compactions;
        self.refusals += other.refusals;
        self.reconnects += other.reconnects;
    }
}

/// What a step may break.
type Outcome = Result<(), String>;

/// Runs one seed for so many steps, then lets everything settle and compares.
pub fn simulate(seed: u64, steps: u32) -> Result<Story, Violation> {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step().map_err(|what| Violation { seed, step, what })?;
    }
    world.settle().map_err(|what| Violation { seed, step: steps, what })?;
    Ok(world.story)
}

struct World {
    rng: Rng,
    /// Virtual time, microseconds.
    now: u64,
    cluster: Cluster,
    watchers: Vec<Watcher>,
    controller: Controller,
    proxies: BTreeMap<ObjectName, Proxy>,
    story: Story,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut cluster = Cluster::default();
        for _ in 0..rng.u32(20..80) {
            cluster.change(&mut rng);
        }
        let mut controller = Controller::default();
        controller.begin();
        Self {
            watchers: Watcher::for_all_kinds(),
            rng,
            now: 1_700_000_000_000_000,
            cluster,
            controller,
            proxies: BTreeMap::new(),
            story: Story::default(),
        }
    }

    fn step(&mut self) -> Outcome {
        self.now += self.rng.u64(1..200_000);
        match self.rng.u32(0..100) {
            0..18 => self.cluster.change(&mut self.rng),
            18..48 => self.watch(),
            48..66 => self.commit()?,
            66..90 => self.proxy_moves()?,
            90..92 => self.take_snapshot()?,
            92..93 => self.compact(),
            93..95 => {
                self.controller.rebuild_actors(&mut self.rng)?;
                self.story.rebuilt_actors += 1;
            }
            95 => self.restart(false)?,
            96 => self.disk_fault()?,
            _ => self.controller.record_digests(),
        }
        self.follow_pods();
        self.controller.check()
    }

    /// Some kinds' streams go on by an event, or break.
    fn watch(&mut self) {
        for _ in 0..self.rng.u32(1..12) {
            let chosen = self.rng.usize(0..self.watchers.len());
            let watcher = &mut self.watchers[chosen];
            let facts = watcher.step(&self.cluster, &mut self.rng, &mut self.story);
            self.controller.append(facts);
        }
    }

    fn commit(&mut self) -> Outcome {
        let size = self.rng.usize(1..30);
        self.controller.commit(size, self.now)
    }

    /// The disk is full, or gone: nobody is told that the frame is stored, and the process ends.
    fn disk_fault(&mut self) -> Outcome {
        self.story.disk_faults += 1;
        let stored = self.rng.bool();
        self.controller.fail_commit(stored, self.now);
        self.restart(true)
    }

    fn restart(&mut self, torn: bool) -> Outcome {
        self.story.crashes += 1;
        self.controller.restart(&mut self.rng, torn)?;
        for watcher in &mut self.watchers {
            watcher.restart(self.controller.catalog());
        }
        for proxy in self.proxies.values_mut() {
            proxy.lose_stream();
        }
        Ok(())
    }

    fn take_snapshot(&mut self) -> Outcome {
        self.story.snapshots += 1;
        let damaged = self.rng.u32(0..5) == 0;
        self.controller.take_snapshot(damaged)
    }

    fn compact(&mut self) {
        self.story.compactions += u64::from(self.controller.compact());
    }

    /// Proxies come and go with their pods.
    fn follow_pods(&mut self) {
        let pods = self.cluster.pods_with_proxies();
        self.proxies.retain(|name, proxy| pods.get(name) == Some(proxy.incarnation()));
        for (name, incarnation) in pods {
            self.proxies.entry(name).or_insert_with_key(|name| Proxy::new(name.clone(), incarnation));
        }
        self.controller.drop_sessions_but(|name, stream| {
            self.proxies.get(name).is_some_and(|proxy| proxy.stream() == Some(stream))
        });
    }

    fn proxy_moves(&mut self) -> Outcome {
        if self.proxies.is_empty() {
            return Ok(());
        }
        for _ in 0..self.rng.u32(1..8) {
            let chosen = self.rng.usize(0..self.proxies.len());
            if let Some(proxy) = self.proxies.values_mut().nth(chosen) {
                proxy.step(&mut self.controller, &mut self.rng, &mut self.story)?;
            }
        }
        Ok(())
    }
}
