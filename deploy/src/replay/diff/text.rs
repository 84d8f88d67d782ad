//! Differences for people.

use std::fmt::Display;

use serde_json::Value;

use super::changes::{Changes, Kind};
use crate::replay::cause::{Cause, short_object};
use crate::replay::columns::columns;
use crate::replay::differing;
use crate::replay::paint::Paint;

/// Causes of one change that are shown: the last ones.
const CAUSES: usize = 5;

/// Lines of something new or gone that are shown.
const LINES: usize = 7;

pub(super) fn lines(paint: Paint, changes: &Changes) -> Vec<String> {
    let (from, to) = (&changes.from, &changes.to);
    let mut lines = vec![paint.bold(format!("from seq {} ({}) to seq {} ({})", from.seq, from.time, to.seq, to.time))];
    if let Some(proxy) = &changes.proxy {
        lines.push(format!("what proxy {} is told", paint.name(proxy)));
    }
    let objects = changes.objects.as_deref().unwrap_or_default();
    if changes.proxies.is_empty() && changes.resources.is_empty() && objects.is_empty() {
        lines.extend([String::new(), "nothing differs".to_owned()]);
    }
    section(paint, "proxies", !changes.proxies.is_empty(), &mut lines);
    for proxy in &changes.proxies {
        one(paint, proxy.change, &proxy.proxy, "", &proxy.causes, &[], &mut lines);
    }
    section(paint, "configurations", !changes.resources.is_empty() && changes.proxy.is_none(), &mut lines);
    for resource in &changes.resources {
        let told = match changes.proxy {
            Some(_) => String::new(),
            None => told(&resource.proxies),
        };
        let diff = differing::lines(&resource.before, &resource.after);
        one(paint, resource.change, &resource.name, &told, &resource.causes, &diff, &mut lines);
    }
    section(paint, "objects", !objects.is_empty(), &mut lines);
    for object in objects {
        let (before, after) = (without_status(&object.before), without_status(&object.after));
        // A whole object is no difference; and what only its controller reports is left to -o json.
        let diff = if object.change == Kind::Changed { differing::lines(&before, &after) } else { Vec::new() };
        let what = if object.change == Kind::Changed && diff.is_empty() { "only its status" } else { "" };
        one(paint, object.change, short_object(&object.object), what, &object.causes, &diff, &mut lines);
    }
    lines
}

fn section(paint: Paint, title: &str, there: bool, lines: &mut Vec<String>) {
    if there {
        lines.extend([String::new(), paint.bold(title.to_uppercase())]);
    }
}

fn one(
    paint: Paint,
    change: Kind,
    name: impl Display,
    note: &str,
    causes: &[Cause],
    diff: &[String],
    lines: &mut Vec<String>,
) {
    let title = match change {
        Kind::Added => paint.good(format!("+ {name}")),
        Kind::Changed => paint.warn(format!("~ {name}")),
        Kind::Removed => paint.bad(format!("- {name}")),
    };
    let note = if note.is_empty() { String::new() } else { format!("  {}", paint.dim(note)) };
    lines.extend([String::new(), format!("{title}{note}")]);
    let earlier = causes.len().saturating_sub(CAUSES);
    if earlier > 0 {
        lines.push(paint.dim(format!("    {earlier} earlier records")));
    }
    let rows: Vec<Vec<String>> = causes[earlier..].iter().map(|cause| cause.row(paint)).collect();
    lines.extend(columns("    ", &rows));
    // What is wholly new or gone is only begun: no comparison is lost.
    let shown = if change == Kind::Changed { diff.len() } else { diff.len().min(LINES) };
    lines.extend(diff[..shown].iter().map(|line| format!("      {}", differing::painted(paint, line))));
    if shown < diff.len() {
        lines.push(paint.dim(format!("      … {} more lines", diff.len() - shown)));
    }
}

fn told(proxies: &[fsm_actors::catalog::ObjectName]) -> String {
    match proxies {
        [] => String::new(),
        [one] => format!("told to {one}"),
        [first, rest @ ..] if rest.len() < 4 => {
            format!("told to {first}, {}", rest.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        [first, rest @ ..] => format!("told to {first} and {} others", rest.len()),
    }
}

fn without_status(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}
