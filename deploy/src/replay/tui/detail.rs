//! What stands beside the list of records.

use fsm_actors::catalog::{ObjectKey, ObjectName};
use fsm_proxy_config::{ConfigSet, ResourceName};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::app::View;
use super::film::{Scene, Still};
use crate::log::time_text;
use crate::replay::cause::short_object;
use crate::replay::differing::{self, essence, resource_json, yaml};

/// A title, and lines below it.
#[derive(Default)]
pub(super) struct Detail {
    pub(super) title: String,
    pub(super) lines: Vec<Line<'static>>,
}

/// What a view shows of a scene.
pub(super) fn detail(view: View, scene: &Scene, still: &Still, proxy: Option<&ObjectName>) -> Detail {
    match view {
        View::Record => record(scene, still),
        View::Objects => objects(scene, still),
        View::Proxy => configuration(scene, still, proxy),
    }
}

fn record(scene: &Scene, still: &Still) -> Detail {
    let cause = &still.cause;
    let mut lines = vec![
        field("time", time_text(scene.time)),
        field("topic", cause.topic.clone()),
        field("about", cause.about.clone()),
        field("what", cause.what.clone()),
    ];
    for manager in &cause.by {
        let part = manager.subresource.as_ref().map_or_else(String::new, |part| format!(" of its {part}"));
        let time = manager.time.clone().unwrap_or_default();
        lines.push(field("by", format!("{}, {}{part}, {time}", manager.manager, manager.operation)));
    }
    if let Some(trace) = &cause.trace_id {
        lines.push(field("trace", trace.clone()));
    }
    let told: Vec<String> = scene.told.iter().map(ToString::to_string).collect();
    if !told.is_empty() {
        lines.push(field("told", told.join(", ")));
    }
    lines.push(Line::default());
    if still.steps.is_empty() {
        let body: Value = serde_json::from_slice(&still.record.entry.body).unwrap_or(Value::Null);
        lines.extend(yaml(&body).lines().map(|line| Line::from(line.to_owned())));
    }
    for step in &still.steps {
        let [before, after] = [&step.before, &step.after]
            .map(|object| object.as_ref().map_or(Value::Null, |object| essence(object.json.get())));
        if still.steps.len() > 1 {
            lines.push(Line::from(format!("{} {}", step.key.0, step.key.1)).bold());
        }
        let diff = differing::lines(&before, &after);
        if diff.is_empty() {
            lines.push(Line::from("seen again, without a change").dim());
        }
        lines.extend(diff.iter().map(|line| painted(line)));
    }
    Detail { title: format!("record {}", scene.seq), lines }
}

fn objects(scene: &Scene, still: &Still) -> Detail {
    let mut lines = Vec::new();
    for step in still.steps.iter().filter(|step| step.after.is_none()) {
        lines.push(Line::styled(format!("- {}", short(&step.key)), Style::new().fg(Color::Red)));
    }
    for (key, object) in still.after.catalog().objects().iter() {
        let changed = still.steps.iter().find(|step| step.key == *key);
        let text = format!("{}  {}", short(key), object.seq);
        lines.push(match changed {
            Some(step) if step.before.is_none() => Line::styled(format!("+ {text}"), Style::new().fg(Color::Green)),
            Some(_) => Line::styled(format!("~ {text}"), Style::new().fg(Color::Yellow)),
            None => Line::from(format!("  {text}")),
        });
    }
    // What this record changed is what one looks for.
    lines.sort_by_key(|line| line.spans.first().is_none_or(|span| span.content.starts_with("  ")));
    let count = still.after.catalog().objects().len();
    Detail { title: format!("{count} objects after record {}, each with its last record", scene.seq), lines }
}

fn configuration(scene: &Scene, still: &Still, proxy: Option<&ObjectName>) -> Detail {
    let seq = scene.seq;
    let Some(proxy) = proxy else { return Detail { title: format!("no proxy after record {seq}"), lines: Vec::new() } };
    let title = format!("what {proxy} is told after record {seq}");
    let (before, after) = (still.before.config_of(proxy), still.after.config_of(proxy));
    let Some(after) = after else {
        let gone = if before.is_some() { "it left with this record" } else { "it was not there" };
        return Detail { title, lines: vec![Line::from(gone).dim()] };
    };
    let before = before.unwrap_or_default();
    let mut lines = vec![field("digest", after.digest().to_string())];
    if let Some((acked, digest)) = still.after.catalog().proxies().get(proxy).and_then(|status| status.acked) {
        let same = if digest == after.digest() { "this very configuration" } else { "an earlier configuration" };
        lines.push(field("acked", format!("seq {acked}, {same}")));
    }
    lines.push(Line::default());
    changed(&before, &after, &mut lines);
    for (name, entry) in &after.resources {
        let spans = vec![
            Span::from(format!("  {:>6}  ", entry.version)).dim(),
            Span::from(name.to_string()),
            Span::from(format!("  {} B", entry.bytes.len())).dim(),
        ];
        lines.push(Line::from(spans));
    }
    Detail { title, lines }
}

/// What this record changed in a configuration.
fn changed(before: &ConfigSet, after: &ConfigSet, lines: &mut Vec<Line<'static>>) {
    let names = before.resources.keys().chain(after.resources.keys());
    let names: std::collections::BTreeSet<&ResourceName> = names.collect();
    let start = lines.len();
    for name in names {
        let [one, two] = [before, after].map(|set| set.resources.get(name).map(|entry| &entry.bytes));
        if one == two {
            continue;
        }
        let (sign, color) = match (one, two) {
            (None, _) => ('+', Color::Green),
            (_, None) => ('-', Color::Red),
            _ => ('~', Color::Yellow),
        };
        lines.push(Line::styled(format!("{sign} {name}"), Style::new().fg(color).bold()));
        if before.resources.is_empty() {
            // All is new: the list below says it.
            continue;
        }
        let diff = differing::lines(&resource_json(name, one), &resource_json(name, two));
        lines.extend(diff.iter().map(|line| painted(&format!("    {line}"))));
    }
    if lines.len() == start {
        lines.push(Line::from("this record changed nothing of it").dim());
    }
    lines.push(Line::default());
}

fn short(key: &ObjectKey) -> String {
    short_object(&format!("{} {}", key.0, key.1))
}

fn field(name: &str, value: String) -> Line<'static> {
    Line::from(vec![Span::from(format!("{name:<7}")).dim(), Span::from(value)])
}

fn painted(line: &str) -> Line<'static> {
    let style = match line.trim_start().as_bytes().first() {
        Some(b'-') if line.trim_start().starts_with("- ") => Style::new().fg(Color::Red),
        Some(b'+') => Style::new().fg(Color::Green),
        _ => Style::new().dim(),
    };
    Line::styled(line.to_owned(), style)
}
