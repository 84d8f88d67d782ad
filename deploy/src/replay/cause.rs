//! A record as the cause of something: what it says, who did it, and its trace.

use fsm_actors::Core;
use fsm_actors::replay::managers::{Manager, who_changed};
use fsm_actors::replay::objects::{ObjectStep, Objects, steps};
use fsm_store::{Record, Seq};
use serde::Serialize;

use super::paint::Paint;
use crate::log::{summary_of, time_text, trace_id};

/// A record that changed something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Cause {
    pub(super) seq: Seq,
    pub(super) time: String,
    pub(super) topic: String,
    /// What the record is about: an object's kind and name, a proxy, …
    pub(super) about: String,
    /// What happened to it, in a word or two.
    pub(super) what: String,
    /// Who did it, as far as Kubernetes knows: it doesn't say who deletes.
    pub(super) by: Vec<Manager>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
}

/// The objects on the way through history, to know what each record did to them.
#[derive(Clone)]
pub(super) struct Trail {
    objects: Objects,
}

impl Trail {
    /// From this state on.
    pub(super) fn new(core: &Core) -> Self {
        Self { objects: core.catalog().objects().clone() }
    }

    /// What a record did to objects. `core` is the state with it.
    pub(super) fn step(&mut self, core: &Core, record: &Record) -> Vec<ObjectStep> {
        let steps = steps(&self.objects, core.catalog(), record);
        self.objects = core.catalog().objects().clone();
        steps
    }
}

impl Cause {
    /// A record that did this to objects.
    pub(super) fn new(record: &Record, steps: &[ObjectStep]) -> Self {
        let step = steps.first().filter(|_| record.entry.topic == "object");
        let (what, by) = match step.map(|step| (&step.before, &step.after)) {
            Some((before, Some(after))) => {
                let what = if before.is_some() { "changed" } else { "created" };
                (what.to_owned(), who_changed(before.as_ref().map(|object| object.json.get()), after.json.get()))
            }
            Some((_, None)) => ("deleted".to_owned(), Vec::new()),
            None => (summary_of(record), Vec::new()),
        };
        Self {
            seq: record.seq,
            time: time_text(record.time),
            topic: record.entry.topic.to_string(),
            about: record.entry.key.to_string(),
            what,
            by,
            trace_id: trace_id(&record.entry.trace),
        }
    }

    /// The columns of a table: seq, time, object, what, who, trace.
    pub(super) fn row(&self, paint: Paint) -> Vec<String> {
        vec![
            paint.bold(self.seq),
            paint.dim(&self.time),
            paint.name(self.short_about()),
            self.what.clone(),
            self.who(),
            paint.dim(self.trace_id.as_deref().map_or_else(String::new, |id| format!("trace {id}"))),
        ]
    }

    /// `Kind namespace/name` instead of `group/version/Kind namespace/name`.
    pub(super) fn short_about(&self) -> String {
        short_object(&self.about)
    }

    fn who(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for manager in &self.by {
            let part = manager.subresource.as_ref().map_or_else(String::new, |part| format!(" ({part})"));
            let name = format!("{}{part}", manager.manager);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() { String::new() } else { format!("by {}", names.join(", ")) }
    }
}

/// `Kind namespace/name` of `group/version/Kind namespace/name`.
pub(super) fn short_object(text: &str) -> String {
    match text.split_once(' ') {
        Some((gvk, name)) => format!("{} {name}", gvk.rsplit('/').next().unwrap_or(gvk)),
        None => text.to_owned(),
    }
}
