//! Tables: what `kubectl get` shows.

use serde_json::{Value, json};

use super::object::{name, text};
use super::reading::partial;
use super::resource::Resource;

mod columns;

/// How much of each object its row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// One column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `date` …
    pub kind: String,
    pub format: String,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i64,
}

impl Column {
    pub fn new(name: &str, kind: &str, priority: i64) -> Self {
        let format = if name == "Name" { "name" } else { "" };
        Self { name: name.into(), kind: kind.into(), format: format.into(), priority }
    }
}

/// The table of some objects.
pub fn of(resource: &Resource, objects: &[Value], metadata: Value, include: Include) -> Value {
    let columns = columns::of(resource);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(column, _)| {
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": "", "priority": column.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|(_, cell)| cell(object)).collect();
            let mut row = json!({"cells": cells});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows})
}

/// How long ago an object was made, as kubectl shows ages.
pub fn age(object: &Value) -> Value {
    json!(since(text(object, &["metadata", "creationTimestamp"])))
}

/// How long ago an instant was: `5s`, `3m20s`, `2h`, `9d`.
pub fn since(instant: &str) -> String {
    let Ok(instant) = instant.parse::<jiff::Timestamp>() else { return "<unknown>".into() };
    human(jiff::Timestamp::now().duration_since(instant).as_secs().max(0))
}

/// A duration in seconds, in the two units that matter.
fn human(seconds: i64) -> String {
    let pair = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

fn name_of(object: &Value) -> Value {
    json!(name(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_kubectl_does() {
        let shown: Vec<String> = [0, 119, 120, 325, 700, 10_800, 11_000, 30_000, 180_000, 864_000].map(human).into();
        assert_eq!(shown, ["0s", "119s", "2m", "5m25s", "11m", "3h", "3h3m", "8h", "2d2h", "10d"]);
    }
}
