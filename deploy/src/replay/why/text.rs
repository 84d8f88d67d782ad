//! Origins for people.

use fsm_actors::replay::inputs::Role;

use super::origins::{Origin, Origins};
use crate::replay::cause::short_object;
use crate::replay::columns::columns;
use crate::replay::differing::yaml;
use crate::replay::paint::Paint;

pub(super) fn lines(paint: Paint, origins: &Origins) -> Vec<String> {
    let mut lines = vec![
        paint.bold(&origins.resource),
        format!(
            "as proxy {} was told it at seq {} ({}), unchanged since record {}",
            paint.name(&origins.proxy),
            origins.seq,
            origins.time,
            paint.bold(origins.version)
        ),
        String::new(),
    ];
    lines.extend(yaml(&origins.config).lines().map(|line| format!("  {}", paint.dim(line))));
    for (role, title) in [
        (Role::Content, "IT IS MADE OF"),
        (Role::Audience, "IT IS TOLD TO THIS PROXY BECAUSE OF"),
        (Role::Proxy, "THERE IS THIS PROXY BECAUSE OF"),
    ] {
        for (alternative, more) in [(false, ""), (true, " SOME OF THESE")] {
            let of_role =
                origins.inputs.iter().filter(|origin| origin.role == role && origin.alternative == alternative);
            table(paint, &format!("{title}{more}"), of_role.map(|origin| row(paint, origin)), &mut lines);
        }
    }
    table(paint, "IT CAME AND CHANGED WITH", origins.history.iter().map(|cause| cause.row(paint)), &mut lines);
    lines
}

fn row(paint: Paint, origin: &Origin) -> Vec<String> {
    match &origin.record {
        Some(record) => record.row(paint),
        None => {
            let object = paint.name(short_object(&origin.object));
            vec![
                paint.bold(origin.seen),
                String::new(),
                object,
                paint.dim("seen there; what made it so was dropped with old history"),
            ]
        }
    }
}

fn table(paint: Paint, title: &str, rows: impl Iterator<Item = Vec<String>>, lines: &mut Vec<String>) {
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        lines.extend([String::new(), paint.bold(title)]);
        lines.extend(columns("  ", &rows));
    }
}
