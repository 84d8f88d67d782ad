//! Origins for people.

use fsm_actors::replay::inputs::Role;

use super::origins::Origins;
use crate::replay::cause::Cause;
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
            table(paint, &format!("{title}{more}"), of_role.map(|origin| &origin.record), &mut lines);
        }
    }
    table(paint, "IT CAME AND CHANGED WITH", origins.history.iter(), &mut lines);
    lines
}

fn table<'a>(paint: Paint, title: &str, causes: impl Iterator<Item = &'a Cause>, lines: &mut Vec<String>) {
    let rows: Vec<Vec<String>> = causes.map(|cause| cause.row(paint)).collect();
    if !rows.is_empty() {
        lines.extend([String::new(), paint.bold(title)]);
        lines.extend(columns("  ", &rows));
    }
}
