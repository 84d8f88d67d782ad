//! One kind's watch: it lags, breaks, resumes, sees things twice and has to list again.

use fastrand::Rng;
use fsm_actors::Fact;
use fsm_actors::catalog::Catalog;
use fsm_actors::watch::{KindWatch, Seen};
use serde_json::Value;

use super::Story;
use super::cluster::{Cluster, KINDS};

pub struct Watcher {
    kind: usize,
    watch: KindWatch,
    state: State,
}

enum State {
    /// Has to list.
    Behind,
    /// What of the list is still to come, and the place in history that it was made at.
    Listing { rest: Vec<Value>, at: usize },
    /// Has seen all events before this place.
    Following { at: usize },
}

impl Watcher {
    pub fn for_all_kinds() -> Vec<Self> {
        (0..KINDS.len()).map(|kind| Self { kind, watch: KindWatch::new(KINDS[kind]), state: State::Behind }).collect()
    }

    /// The controller started again: all that it knows is what is in the catalog.
    pub fn restart(&mut self, catalog: &Catalog) {
        self.watch = KindWatch::new(KINDS[self.kind]);
        self.state = State::Behind;
        let gvk = KINDS[self.kind].gvk();
        for ((_, _), object) in catalog.objects().iter().filter(|((kind, _), _)| *kind == gvk) {
            if let Ok(object) = serde_json::from_str(object.json.get()) {
                self.watch.know(&object);
            }
        }
    }

    /// The next thing that the watch shows, as facts.
    pub fn step(&mut self, cluster: &Cluster, rng: &mut Rng, story: &mut Story) -> Vec<Fact> {
        match &mut self.state {
            State::Behind => {
                story.relists += 1;
                let mut rest = cluster.list(self.kind);
                rng.shuffle(&mut rest);
                self.state = State::Listing { rest, at: cluster.history.len() };
                self.watch.see(Seen::ListBegin)
            }
            // The connection breaks in the middle of the list.
            State::Listing { .. } if rng.u32(0..20) == 0 => {
                self.state = State::Behind;
                Vec::new()
            }
            State::Listing { rest, at } => {
                let some = rest.split_off(rest.len().saturating_sub(rng.usize(1..6)));
                let mut facts: Vec<Fact> =
                    some.into_iter().flat_map(|object| self.watch.see(Seen::Listed(bare(object)))).collect();
                if rest.is_empty() {
                    self.state = State::Following { at: *at };
                    facts.extend(self.watch.see(Seen::ListEnd));
                }
                facts
            }
            // "410 Gone": what was missed can't be had any more.
            State::Following { .. } if rng.u32(0..60) == 0 => {
                self.state = State::Behind;
                Vec::new()
            }
            State::Following { at } => {
                let twice = rng.u32(0..10) == 0;
                let mut facts = Vec::new();
                for _ in 0..rng.u32(1..4) {
                    let Some(next) =
                        (*at..cluster.history.len()).find(|place| cluster.history[*place].kind == self.kind)
                    else {
                        break;
                    };
                    let event = &cluster.history[next];
                    let seen = || {
                        if event.deleted {
                            Seen::Deleted(event.object.clone())
                        } else {
                            Seen::Applied(event.object.clone())
                        }
                    };
                    facts.extend(self.watch.see(seen()));
                    if twice {
                        facts.extend(self.watch.see(seen()));
                    }
                    *at = next + 1;
                }
                facts
            }
        }
    }

    /// Whether it has seen all of the kind's history.
    pub fn is_up_to_date(&self, cluster: &Cluster) -> bool {
        match self.state {
            State::Following { at } => cluster.history[at..].iter().all(|event| event.kind != self.kind),
            State::Behind | State::Listing { .. } => false,
        }
    }
}

/// Items of lists carry no type.
fn bare(mut object: Value) -> Value {
    if let Some(members) = object.as_object_mut() {
        members.remove("apiVersion");
        members.remove("kind");
    }
    object
}
