//! What a resource is made of, and the records that it comes from.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Context;
use fsm_actors::catalog::{ObjectKey, ObjectName};
use fsm_actors::publish::Followed;
use fsm_actors::replay::inputs::{Role, inputs};
use fsm_proxy_config::{Kind, Resource, ResourceName};
use fsm_store::Seq;
use serde::Serialize;
use serde_json::Value;

use crate::log::{History, time_text};
use crate::replay::cause::{Cause, Trail};
use crate::replay::past::{Past, Seen, oldest, replay};

/// Where a resource comes from.
#[derive(Debug, Serialize)]
pub(super) struct Origins {
    pub(super) seq: Seq,
    pub(super) time: String,
    pub(super) proxy: ObjectName,
    pub(super) resource: String,
    /// The record that last changed it.
    pub(super) version: u64,
    pub(super) config: Value,
    /// The objects without which it would be another one, or not told to this proxy, each with the record that made the object what
    /// it is here.
    pub(super) inputs: Vec<Origin>,
    /// All records that changed what this proxy is told of it, the first one first.
    pub(super) history: Vec<Cause>,
}

/// An object that takes part.
#[derive(Debug, Serialize)]
pub(super) struct Origin {
    /// Its kind and name.
    pub(super) object: String,
    pub(super) role: Role,
    /// Those that are marked like this stand in for one another.
    pub(super) alternative: bool,
    /// The record that the object was last seen in.
    pub(super) seen: Seq,
    /// The last record that changed anything about the object that the mesh looks at. None if it is dropped with the history before the
    /// oldest snapshot.
    pub(super) record: Option<Cause>,
}

/// What is noted on the way through history.
struct Noted {
    trail: Trail,
    /// The last record that changed what the mesh sees of an object.
    last: BTreeMap<ObjectKey, Cause>,
    /// The last record that changed the settings that a controller brings along.
    controller: Option<Cause>,
    told: Vec<Cause>,
}

impl Origins {
    /// Of a resource that the proxy is told at that moment.
    pub(super) async fn find(
        history: &History,
        past: &Past,
        proxy: ObjectName,
        name: ResourceName,
    ) -> anyhow::Result<Self> {
        let begin = |past: &mut Past| {
            past.core.follow(Followed::These([proxy.clone()].into()));
            Noted { trail: Trail::new(&past.core), last: BTreeMap::new(), controller: None, told: Vec::new() }
        };
        let (_, noted) = replay(
            history,
            oldest(history).await?.min(past.core.seq()),
            past.core.seq(),
            begin,
            |noted, core, Seen { record, effect }| {
                let steps = noted.trail.step(core, record);
                if !effect.delta.is_empty() {
                    let cause = Cause::new(record, &steps);
                    if record.entry.topic == "controller" && effect.delta.mesh.is_some() {
                        noted.controller = Some(cause.clone());
                    }
                    for step in &steps {
                        noted.last.insert(step.key.clone(), cause.clone());
                    }
                }
                let told = core
                    .take_updates()
                    .into_iter()
                    .any(|update| update.update.changed.contains_key(&name) || update.update.removed.contains(&name));
                if told {
                    noted.told.push(Cause::new(record, &steps));
                }
                ControlFlow::Continue(())
            },
        )
        .await?;
        let config = past.core.config_of(&proxy).context("the proxy is there")?;
        let entry = config.resources.get(&name).context("the proxy is told the resource")?;
        let mut found = Vec::new();
        for input in inputs(&past.core, &proxy, &name).unwrap_or_default() {
            // What made an object what it is before the oldest snapshot is gone.
            let record = noted.last.get(&input.key).cloned();
            let object = format!("{} {}", input.key.0, input.key.1);
            let (role, alternative, seen) = (input.role, input.alternative, input.object.seq);
            found.push(Origin { object, role, alternative, seen, record });
        }
        if let Some(record) = noted.controller.filter(|_| matches!(name.kind, Kind::Settings | Kind::TrustBundle)) {
            let (object, role, seen) = ("controller".to_owned(), Role::Content, record.seq);
            found.push(Origin { object, role, alternative: false, seen, record: Some(record) });
        }
        let last = |origin: &Origin| origin.record.as_ref().map_or(origin.seen, |record| record.seq);
        found.sort_by_key(|origin| (origin.role, std::cmp::Reverse(last(origin))));
        Ok(Self {
            seq: past.core.seq(),
            time: time_text(past.time),
            proxy,
            resource: name.to_string(),
            version: entry.version,
            config: Resource::decode(name.kind, &entry.bytes)?.to_json(),
            inputs: found,
            history: noted.told,
        })
    }
}
