//! What a user waits for: commands of `fsm` on the whole history.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fsm_actors::core::{Skips, rebuild};
use fsm_proxy_config::resource::Resource;
use fsm_store::{Seq, SledLog};

use crate::{RUNS, median, row};

/// A request that is answered at one moment of history.
pub(crate) struct Question {
    at: Seq,
    client: String,
    server: String,
    backend: String,
}

/// Some proxy that is told of some service with endpoints, after a record.
pub(crate) async fn question(log: &SledLog, at: Seq) -> anyhow::Result<Option<Question>> {
    let core = rebuild(log, at, Skips::new()).await?;
    for proxy in core.proxies() {
        let config = core.config_of(proxy).unwrap_or_default();
        let resources = config
            .resources
            .iter()
            .filter_map(|(name, entry)| Some((name.name.to_string(), Resource::decode(name.kind, &entry.bytes).ok()?)));
        let resources: Vec<(String, Resource)> = resources.collect();
        // What is split goes elsewhere.
        let is_split = |name: &str| {
            resources.iter().any(|(_, resource)| matches!(resource, Resource::Split(split) if split.service == name))
        };
        let served = resources.iter().find_map(|(_, resource)| match resource {
            Resource::Endpoints(message) if !message.endpoints.is_empty() && !is_split(&message.service) => {
                Some(message.service.clone())
            }
            _ => None,
        });
        let port = resources.iter().find_map(|(name, resource)| match resource {
            Resource::Service(service) if Some(name) == served.as_ref() => Some(service.ports.first()?.port),
            _ => None,
        });
        if let (Some(backend), Some(port)) = (served, port)
            && let Some((namespace, name)) = backend.split_once('/')
        {
            let (client, server) = (proxy.to_string(), format!("{name}.{namespace}:{port}"));
            return Ok(Some(Question { at, client, server, backend }));
        }
    }
    Ok(None)
}

/// Times commands on a log's directory, if there is an `fsm` to time.
pub(crate) fn time(dir: &Path, count: usize, question: Option<Question>) -> anyhow::Result<()> {
    let Some(fsm) = std::env::var_os("FSM_BENCH_FSM") else {
        row("commands", "skipped: FSM_BENCH_FSM names no fsm");
        return Ok(());
    };
    let run = |words: &[&str], code: i32| -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut command = Command::new(&fsm);
        command.args(["replay", words[0], "--data-dir"]).arg(dir).args(&words[1..]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        anyhow::ensure!(status.code() == Some(code), "fsm replay {} ended with {status}", words.join(" "));
        Ok(begun.elapsed())
    };
    let many = |code: i32, words: &dyn Fn(usize) -> Vec<String>| -> anyhow::Result<String> {
        let times: anyhow::Result<Vec<Duration>> =
            (0..RUNS).map(|number| run(&words(number).iter().map(String::as_str).collect::<Vec<_>>(), code)).collect();
        let (middle, slowest) = median(times?);
        Ok(format!("{middle:.3} s, {slowest:.3} s"))
    };
    let states = many(0, &|number| {
        let seq = count * (2 * number + 1) / (2 * RUNS);
        ["state", "--at", &seq.to_string(), "namespaces"].map(str::to_owned).to_vec()
    })?;
    row(&format!("fsm replay state --at, at {RUNS} places: median, slowest"), states);
    let Some(Question { at, client, server, backend }) = question else { return Ok(()) };
    let (at, found) = (at.to_string(), format!("backend={backend}"));
    let bisect = |expect: &str, how: &[&str]| -> Vec<String> {
        let words = ["bisect", "--from", &at, "--expect", expect, "--client", &client, "--server", &server];
        words.iter().chain(how).map(ToString::to_string).collect()
    };
    // No service is called like that, so the answer is the same at both ends.
    for (what, code, expect, how) in [
        ("answers differ at the ends", 0, found.as_str(), &[][..]),
        ("the same, for the very first change (--first)", 0, found.as_str(), &["--first"][..]),
        ("answers are the same at the ends", 1, "backend=nowhere", &[][..]),
    ] {
        let times = many(code, &|_| bisect(expect, how))?;
        row(&format!("fsm replay bisect over all of it, {what}: median of {RUNS}, slowest"), times);
    }
    Ok(())
}
