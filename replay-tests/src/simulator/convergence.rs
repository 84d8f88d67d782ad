//! The end of a run: everything that is broken is mended, everybody catches up, and all must agree.

use std::collections::BTreeMap;

use fsm_actors::Core;
use fsm_actors::replay::verify;
use fsm_proxy_config::{ConfigSet, ResourceName};

use super::cluster::KINDS;
use super::controller::Controller;
use super::watcher::Watcher;
use super::{Cluster, Outcome, Story, World};

/// More rounds than any run needs to become quiet.
const ROUNDS: usize = 10_000;

impl World {
    /// Lets all that waits come to its end, and compares.
    pub(super) fn settle(&mut self) -> Outcome {
        self.cluster.mend_mesh_config();
        // Whoever refused something is told it again when it connects anew.
        self.proxies.values_mut().filter(|proxy| proxy.has_refused()).for_each(|proxy| proxy.lose_stream());
        for _ in 0..ROUNDS {
            let watched = self.watch_all();
            let idle = self.controller.is_idle();
            self.now += 1_000;
            self.controller.commit(usize::MAX, self.now)?;
            self.follow_pods();
            let quiet = self.exchange()?;
            if watched && idle && quiet {
                return self.compare();
            }
        }
        Err("it does not become quiet".to_owned())
    }

    fn watch_all(&mut self) -> bool {
        let mut all = true;
        for watcher in &mut self.watchers {
            if !watcher.is_up_to_date(&self.cluster) {
                all = false;
                let facts = watcher.step(&self.cluster, &mut self.rng, &mut self.story);
                self.controller.append(facts);
            }
        }
        all
    }

    /// Every proxy takes and answers what is on its way; whether there was nothing.
    fn exchange(&mut self) -> Result<bool, String> {
        let mut quiet = true;
        for (name, proxy) in &mut self.proxies {
            match proxy.stream().filter(|stream| self.controller.has(name, *stream)) {
                None => {
                    proxy.lose_stream();
                    proxy.connect(&mut self.controller, &mut self.story)?;
                    quiet &= proxy.stream().is_none();
                }
                Some(stream) => {
                    let before = proxy.config().clone();
                    proxy.receive(stream, &mut self.controller, false, &mut self.story)?;
                    proxy.answer(&mut self.controller, &mut self.story)?;
                    quiet &= *proxy.config() == before && self.controller.is_idle();
                }
            }
        }
        Ok(quiet)
    }

    fn compare(&mut self) -> Outcome {
        self.knows_the_cluster()?;
        let fresh = fresh_controller(&self.cluster, self.now)?;
        for name in self.controller.core().proxies() {
            let told = told(self.controller.core().config_of(name));
            if told != told_by(&fresh, name) {
                return Err(format!(
                    "{name} is told something else than by a controller that comes new:\n{}",
                    difference(&told, &told_by(&fresh, name))
                ));
            }
            let Some(proxy) = self.proxies.get(name) else { continue };
            if proxy.stream().is_some() && contents(proxy.config()) != told {
                return Err(format!(
                    "{name} runs something else than it should:\n{}",
                    difference(&contents(proxy.config()), &told)
                ));
            }
        }
        if fresh.core().proxies().ne(self.controller.core().proxies()) {
            return Err("a controller that comes new knows other proxies".to_owned());
        }
        self.proves_itself()
    }

    fn knows_the_cluster(&self) -> Outcome {
        let edition = |object: &serde_json::Value| object["metadata"]["resourceVersion"].to_string();
        let there: BTreeMap<String, String> = self
            .cluster
            .objects
            .iter()
            .map(|((kind, name), object)| (format!("{} {name}", KINDS[*kind].gvk()), edition(object)))
            .collect();
        let known = self.controller.catalog().objects().iter().map(|((gvk, name), object)| {
            let object: serde_json::Value = serde_json::from_str(object.json.get()).unwrap_or_default();
            (format!("{gvk} {name}"), edition(&object))
        });
        let known: BTreeMap<String, String> = known.collect();
        if known == there { Ok(()) } else { Err(format!("the catalog knows {known:?}, the cluster has {there:?}")) }
    }

    /// All that was recorded and acknowledged comes out again, from the first record on, one record at a time.
    fn proves_itself(&mut self) -> Outcome {
        self.controller.record_digests();
        self.controller.commit(usize::MAX, self.now)?;
        let records = &self.controller.log.records;
        self.story.records = records.len() as u64;
        let report = verify(records);
        match report.differences.first() {
            Some(difference) => Err(format!("history does not prove itself: {difference}")),
            None => Ok(()),
        }
    }
}

type Told = BTreeMap<ResourceName, Vec<u8>>;

fn contents(config: &ConfigSet) -> Told {
    config.resources.iter().map(|(name, entry)| (name.clone(), entry.bytes.to_vec())).collect()
}

fn told(config: Option<ConfigSet>) -> Told {
    config.as_ref().map(contents).unwrap_or_default()
}

fn told_by(controller: &Controller, proxy: &fsm_actors::catalog::ObjectName) -> Told {
    told(controller.core().config_of(proxy))
}

fn difference(one: &Told, other: &Told) -> String {
    let names = one.keys().chain(other.keys());
    let differing = names.filter(|name| one.get(name) != other.get(name));
    let lines = differing.map(|name| format!("  {name}: {} and {}", state(one.get(name)), state(other.get(name))));
    lines.collect::<Vec<_>>().join("\n")
}

fn state(bytes: Option<&Vec<u8>>) -> String {
    bytes.map_or_else(|| "not there".to_owned(), |bytes| format!("{} bytes", bytes.len()))
}

/// A controller without a past that lists the cluster as it is.
fn fresh_controller(cluster: &Cluster, now: u64) -> Result<Controller, String> {
    let mut controller = Controller::default();
    controller.begin();
    let (mut rng, mut story) = (fastrand::Rng::with_seed(0), Story::default());
    for mut watcher in Watcher::for_all_kinds() {
        while !watcher.is_up_to_date(cluster) {
            let facts = watcher.step(cluster, &mut rng, &mut story);
            controller.append(facts);
        }
    }
    controller.commit(usize::MAX, now)?;
    debug_assert!(Core::default().seq() < controller.core().seq());
    Ok(controller)
}
