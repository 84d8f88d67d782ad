//! A history that was not, for people.

use fsm_store::Seq;

use super::probes::Brief;
use super::whatif::{DecisionDiffers, ProxyDiffers, WhatIf};
use crate::replay::cause::short_object;
use crate::replay::columns::columns;
use crate::replay::differing;
use crate::replay::paint::Paint;
use crate::replay::request::verdict;

pub(super) fn lines(paint: Paint, report: &WhatIf) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}", paint.warn("HYPOTHETICAL"), paint.bold("what would have been, and was not")),
        paint.dim(format!("from seq {} to seq {} ({})", report.from, report.to, report.time)),
        String::new(),
    ];
    let left_out = report.without.iter().map(|cause| [vec![paint.bad("without")], cause.row(paint)].concat());
    lines.extend(columns("  ", &left_out.collect::<Vec<_>>()));
    for with in &report.with {
        let object = paint.name(short_object(&with.object));
        lines.push(format!("  {}  {object}  of {}, after record {}", paint.good("with"), with.file, with.after));
        if let Some(problem) = &with.problem {
            lines.push(format!("        {}", paint.bad(format!("it would not be used: {problem}"))));
        }
    }
    lines.push(String::new());
    if report.identical {
        lines.push("no proxy would have been told anything else, and no request answered differently".to_owned());
        return lines;
    }
    lines.push(paint.bold("DECISIONS THAT WOULD HAVE BEEN OTHERS"));
    if report.decisions.is_empty() {
        lines.push("  none of the requests that were tried".to_owned());
    }
    decision_lines(paint, &report.decisions, report.to, &mut lines);
    if report.decisions_incomplete {
        lines.push(paint.dim("  (compared at the first moments only: choose a shorter stretch with --from and --to)"));
    }
    lines.extend([String::new(), paint.bold("CONFIGURATIONS THAT WOULD HAVE BEEN OTHERS")]);
    for proxy in &report.proxies {
        proxy_lines(paint, proxy, &mut lines);
    }
    lines.extend([String::new(), paint.dim("-o json has every request and all of each resource")]);
    lines
}

fn decision_lines(paint: Paint, decisions: &[DecisionDiffers], end: Seq, lines: &mut Vec<String>) {
    // Requests of one client that are answered alike at the same time stand in one row.
    let mut rows: Vec<([String; 2], String, Vec<&str>)> = Vec::new();
    for decision in decisions {
        for span in &decision.spans {
            let who = [paint.dim(stretch(span.from, span.to, end)), paint.name(&decision.client)];
            let answer = format!("{} → {}", brief(paint, span.real.as_ref()), brief(paint, span.hypothetical.as_ref()));
            match rows.iter_mut().find(|row| (&row.0, &row.1) == (&who, &answer)) {
                Some(row) => row.2.push(&decision.request),
                None => rows.push((who, answer, vec![&decision.request])),
            }
        }
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|([when, client], answer, requests)| {
            let more = match requests.len() - 1 {
                0 => String::new(),
                more => paint.dim(format!(" and {more} more")),
            };
            vec![when, client, format!("{}{more}", requests[0]), answer]
        })
        .collect();
    lines.extend(columns("  ", &rows));
}

fn proxy_lines(paint: Paint, proxy: &ProxyDiffers, lines: &mut Vec<String>) {
    let spans: Vec<String> = proxy.spans.iter().map(|span| words(span.from, span.to)).collect();
    lines.extend([
        String::new(),
        format!("  {}  {}", paint.warn(format!("~ {}", proxy.proxy)), paint.dim(spans.join(", "))),
    ]);
    for resource in &proxy.resources {
        // What a resource says that only one of the two histories has is said in `fsm replay config`.
        match (resource.real.is_null(), resource.hypothetical.is_null()) {
            (true, _) => lines.push(paint.good(format!("    + {}", resource.name))),
            (_, true) => lines.push(paint.bad(format!("    - {}", resource.name))),
            (false, false) => {
                lines.push(format!("    {}", paint.warn(format!("~ {}", resource.name))));
                let diff = differing::lines(&resource.real, &resource.hypothetical);
                lines.extend(diff.iter().map(|line| format!("      {}", differing::painted(paint, line))));
            }
        }
    }
    if proxy.resources.is_empty() {
        lines.push(paint.dim("    the same again at the end"));
    }
}

fn stretch(from: Seq, to: Option<Seq>, end: Seq) -> String {
    match to {
        Some(to) if to == from => format!("after record {from}"),
        Some(to) => format!("after records {from} to {to}"),
        None if from == end => format!("after record {from}"),
        None => format!("after record {from} and on"),
    }
}

fn words(from: Seq, to: Option<Seq>) -> String {
    match to {
        Some(to) => format!("another from record {from} to {to}"),
        None => format!("another from record {from} on"),
    }
}

fn brief(paint: Paint, brief: Option<&Brief>) -> String {
    let Some(brief) = brief else { return "nobody there".to_owned() };
    let backends: Vec<String> = match brief.backends.as_slice() {
        [] => Vec::new(),
        [(one, _)] => vec![one.clone()],
        several => several.iter().map(|(service, weight)| format!("{service} {weight}")).collect(),
    };
    let to = if backends.is_empty() { String::new() } else { format!(" ({})", backends.join(", ")) };
    format!("{}{to}", verdict(paint, brief.verdict))
}
