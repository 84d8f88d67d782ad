//! An answer for people: the steps on the client's side, then each backend with its share and its endpoints.

use fsm_proxy_config::Verdict;
use fsm_proxy_config::journey::{BackendPart, EndpointPart, Server};

use super::{Answer, Question};
use crate::replay::paint::Paint;
use crate::replay::past::Past;

pub(super) fn lines(paint: Paint, question: &Question, answer: &Answer, past: &Past) -> Vec<String> {
    let mut lines = vec![
        paint.bold(question.title()),
        paint.dim(format!("from {}, at {}", answer.client, past.moment())),
        String::new(),
        format!("{}  {}", verdict(paint, answer.verdict), summary(answer)),
        String::new(),
    ];
    let identity = answer.client_identity.as_deref().unwrap_or("nobody yet");
    let acknowledged =
        answer.acknowledged.map_or_else(|| "nothing acknowledged".into(), |seq| format!("seq {seq} acknowledged"));
    lines.push(format!("client {}  {}", paint.name(&answer.client), paint.dim(format!("{identity}, {acknowledged}"))));
    let mut steps = vec![answer.resolved.clone()];
    if answer.journey.opaque && question.head.is_some() {
        steps.push("the connection is carried as it is: nobody looks for requests in it".into());
    }
    steps.extend(answer.journey.client.steps.iter().cloned());
    if !answer.journey.backends.is_empty() {
        // The last step names all backends and endpoints: they follow, with what is decided there.
        steps.pop();
    }
    numbered(paint, "  ", &steps, answer.journey.client.refused, &mut lines);
    if let Some(hint) = &answer.hint {
        lines.push(format!("  {} {hint}", paint.dim("·")));
    }
    let total: u64 = answer.journey.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    for backend in &answer.journey.backends {
        lines.push(String::new());
        lines.push(backend_line(paint, backend, total));
        for group in groups(&backend.endpoints) {
            endpoint_lines(paint, &group, &mut lines);
        }
    }
    lines
}

pub(in crate::replay) fn verdict(paint: Paint, verdict: Verdict) -> String {
    match verdict {
        Verdict::Allowed => paint.good("ALLOWED"),
        Verdict::Denied => paint.bad("DENIED"),
        Verdict::Mixed => paint.warn("MIXED"),
    }
}

/// The answer in one sentence.
pub(in crate::replay) fn summary(answer: &Answer) -> String {
    let journey = &answer.journey;
    if journey.backends.is_empty() {
        return journey.client.sentence().to_owned();
    }
    let all: Vec<&EndpointPart> = journey.endpoints().map(|(_, endpoint)| endpoint).collect();
    let served = all.iter().filter(|endpoint| endpoint.server.serves()).count();
    let split = journey.client.decision["split"].as_str();
    let way = split.map_or_else(String::new, |split| format!(", divided by TrafficSplit {split}"));
    match all.as_slice() {
        [one] => match &one.server {
            Server::Judged(told) => {
                let before = told.steps.len().saturating_sub(1);
                format!("{}{way}", without_repetition(told.sentence(), &told.steps[..before]))
            }
            other => format!("{other}{way}"),
        },
        _ => format!("{served} of {} endpoints serve it{way}", all.len()),
    }
}

fn backend_line(paint: Paint, backend: &BackendPart, total: u64) -> String {
    let share = match total {
        0 => String::new(),
        total => format!("weight {} ({:.0} %)", backend.weight, f64::from(backend.weight) * 100.0 / total as f64),
    };
    let several = u64::from(backend.weight) != total;
    let share = if several { format!("  {}", paint.bold(share)) } else { String::new() };
    format!("backend {}:{}{share}", paint.name(&backend.service), backend.port)
}

/// Endpoints at which the same is decided for the same reasons.
fn groups(endpoints: &[EndpointPart]) -> Vec<Vec<&EndpointPart>> {
    let mut groups: Vec<Vec<&EndpointPart>> = Vec::new();
    for endpoint in endpoints {
        match groups.iter_mut().find(|group| group[0].server == endpoint.server) {
            Some(group) => group.push(endpoint),
            None => groups.push(vec![endpoint]),
        }
    }
    groups
}

fn endpoint_lines(paint: Paint, group: &[&EndpointPart], lines: &mut Vec<String>) {
    let server = &group[0].server;
    let word = if server.serves() { paint.good("serves") } else { paint.bad("refuses") };
    for endpoint in group {
        let pod = if endpoint.pod.is_empty() { "no pod" } else { &endpoint.pod };
        lines.push(format!("  {}  {pod}  {word}", paint.name(endpoint.address)));
    }
    match server {
        Server::Judged(told) => numbered(paint, "    ", &told.steps, told.refused, lines),
        other => lines.push(format!("    {other}")),
    }
}

/// Steps with numbers; the last one is the decision.
fn numbered(paint: Paint, indent: &str, steps: &[String], refused: bool, lines: &mut Vec<String>) {
    for (index, step) in steps.iter().enumerate() {
        let last = index + 1 == steps.len();
        let step = if last && refused { paint.bad(without_repetition(step, &steps[..index])) } else { step.clone() };
        lines.push(format!("{indent}{} {step}", paint.dim(index + 1)));
    }
}

/// A refusal repeats the steps that led to it, for those who see nothing else: here they stand above it.
fn without_repetition<'a>(sentence: &'a str, steps: &[String]) -> &'a str {
    let repeated = steps.iter().filter_map(|step| sentence.find(step.as_str())).min();
    repeated.map_or(sentence, |at| sentence[..at].trim_end_matches([' ', ':']))
}
