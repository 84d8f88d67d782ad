//! `fsm replay run --without … --with …`: a history that was not, beside the one that was.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use anyhow::ensure;
use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_proxy_config::{ConfigSet, ResourceName};
use fsm_store::Seq;
use serde::Serialize;
use serde_json::Value;

use super::fork::{Fork, Hypothesis, Span};
use super::probes::Brief;
use crate::log::{History, time_text};
use crate::replay::cause::Cause;
use crate::replay::differing::resource_json;
use crate::replay::past::replay;

/// What would have been different.
#[derive(Debug, Serialize)]
pub(super) struct WhatIf {
    /// Always true: nothing of this happened.
    pub(super) hypothetical: bool,
    pub(super) from: Seq,
    pub(super) to: Seq,
    /// The time of the last real record.
    pub(super) time: String,
    pub(super) without: Vec<Cause>,
    pub(super) with: Vec<With>,
    /// Whether no proxy would ever have been told anything else.
    pub(super) identical: bool,
    pub(super) proxies: Vec<ProxyDiffers>,
    pub(super) decisions: Vec<DecisionDiffers>,
    /// Decisions were not compared at every moment: there were too many.
    pub(super) decisions_incomplete: bool,
}

/// An object that was applied.
#[derive(Debug, Serialize)]
pub(super) struct With {
    pub(super) file: String,
    pub(super) object: String,
    /// The real record after which it was applied.
    pub(super) after: Seq,
    /// Why it would not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// A proxy that would have been told something else.
#[derive(Debug, Serialize)]
pub(super) struct ProxyDiffers {
    pub(super) proxy: ObjectName,
    pub(super) spans: Vec<Stretch>,
    /// What is different at the end.
    pub(super) resources: Vec<ResourceDiffers>,
}

/// From the first record after which something differed to the last; no end: it still does.
#[derive(Debug, Serialize)]
pub(super) struct Stretch {
    pub(super) from: Seq,
    pub(super) to: Option<Seq>,
}

#[derive(Debug, Serialize)]
pub(super) struct ResourceDiffers {
    pub(super) name: String,
    pub(super) real: Value,
    pub(super) hypothetical: Value,
}

/// A request that would have been answered differently.
#[derive(Debug, Serialize)]
pub(super) struct DecisionDiffers {
    pub(super) client: String,
    pub(super) request: String,
    pub(super) spans: Vec<Answers>,
}

#[derive(Debug, Serialize)]
pub(super) struct Answers {
    pub(super) from: Seq,
    pub(super) to: Option<Seq>,
    /// None: nobody is there to ask.
    pub(super) real: Option<Brief>,
    pub(super) hypothetical: Option<Brief>,
}

impl WhatIf {
    /// Replays both histories up to `to`.
    pub(super) async fn compute(history: &History, hypothesis: &Hypothesis, to: Seq) -> anyhow::Result<Self> {
        let first = hypothesis.without.first().map_or(Seq(u64::MAX), |seq| Seq(seq.0.saturating_sub(1)));
        let from = first.min(hypothesis.with_after).min(to);
        let begin = |past: &mut crate::replay::past::Past| (past.core.seq(), Fork::new(hypothesis, &mut past.core));
        let (mut past, (from, mut fork)) = replay(history, from, to, begin, |(_, fork), core, seen| {
            fork.see(core, seen);
            if fork.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        fork.finish(&mut past.core)?;
        let seen: BTreeSet<Seq> = fork.left_out.iter().map(|cause| cause.seq).collect();
        for seq in &hypothesis.without {
            ensure!(seen.contains(seq), "--without {seq}: there is no such record up to {}", past.moment());
        }
        Ok(Self::new(from, &past.core, time_text(past.time), fork))
    }

    fn new(from: Seq, real: &Core, time: String, fork: Fork<'_>) -> Self {
        let with = fork.hypothesis.with.iter().map(|manifest| With {
            file: manifest.file.display().to_string(),
            object: format!("{} {}", manifest.info.gvk(), manifest.name),
            after: fork.hypothesis.with_after.min(real.seq()),
            problem: manifest.problem(&fork.core),
        });
        let proxies = fork.configs.iter().map(|(proxy, spans)| ProxyDiffers {
            proxy: proxy.clone(),
            spans: spans.iter().map(|Span { from, to, how: () }| Stretch { from: *from, to: *to }).collect(),
            resources: resources(real.config_of(proxy), fork.core.config_of(proxy)),
        });
        Self {
            hypothetical: true,
            from,
            to: real.seq(),
            time,
            with: with.collect(),
            identical: fork.configs.is_empty(),
            proxies: proxies.collect(),
            decisions: decisions(fork.decisions),
            decisions_incomplete: fork.incomplete,
            without: fork.left_out,
        }
    }
}

fn decisions(found: BTreeMap<super::probes::Probe, Vec<Span<[Option<Brief>; 2]>>>) -> Vec<DecisionDiffers> {
    let differing = found.into_iter().map(|(probe, spans)| DecisionDiffers {
        client: probe.client,
        request: probe.request,
        spans: spans
            .into_iter()
            .map(|Span { from, to, how: [real, hypothetical] }| Answers { from, to, real, hypothetical })
            .collect(),
    });
    differing.collect()
}

fn resources(real: Option<ConfigSet>, other: Option<ConfigSet>) -> Vec<ResourceDiffers> {
    let (real, other) = (real.unwrap_or_default(), other.unwrap_or_default());
    let names: BTreeSet<&ResourceName> = real.resources.keys().chain(other.resources.keys()).collect();
    let differing = names.into_iter().filter_map(|name| {
        let [one, two] = [&real, &other].map(|set| set.resources.get(name).map(|entry| &entry.bytes));
        (one != two).then(|| ResourceDiffers {
            name: name.to_string(),
            real: resource_json(name, one),
            hypothetical: resource_json(name, two),
        })
    });
    differing.collect()
}
