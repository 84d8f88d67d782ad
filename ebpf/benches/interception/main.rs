//! What interception costs between an application and its proxy: `cargo bench -p fsm-ebpf`, as root.
//!
//! A pod with two processes, of which one is the proxy, in cgroups and a network namespace of their own. In turn nothing
//! intercepts (the application dials the proxy), eBPF does, nftables does, and iptables does with rules like those of
//! FSM's init container. The rounds are interleaved, so that what else the machine does falls on all alike. Prints medians
//! and ratios, and one line of JSON. A harness of its own, because the figures come from processes in other cgroups and
//! each is of a whole second. `FSM_BENCH_ROUNDS` (default 5) is how many rounds there are.

#![expect(clippy::unwrap_used, reason = "a bench that meets an error has no figures")]

mod app;
mod pod;
mod proxy;

use fsm_ebpf::{Interceptor, Mechanism, Rules};
use pod::Pod;
use serde_json::{Value, json};
use std::{collections::BTreeMap, env};

/// Which part of the bench this process is.
const ROLE: &str = "FSM_BENCH_ROLE";

fn main() {
    match env::var(ROLE).as_deref() {
        Ok("app") => return app::main(),
        Ok("proxy") => return proxy::main(),
        _ => {}
    }
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let rounds = env::var("FSM_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let mut results: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    let ways = ways();
    for round in 0..rounds {
        for (number, (name, way)) in ways.iter().enumerate() {
            eprintln!("round {} of {rounds}: {name}", round + 1);
            for (figure, value) in one_run(way) {
                results.entry((number, figure)).or_default().push(value);
            }
        }
    }
    print(&ways, &results, rounds);
}

enum Way {
    None,
    With(Mechanism),
    Iptables,
}

fn ways() -> Vec<(&'static str, Way)> {
    let mut ways = vec![("none", Way::None)];
    let table = fsm_ebpf::probe();
    match table.missing_for_ebpf() {
        None => ways.push(("ebpf", Way::With(Mechanism::Ebpf(Interceptor::load().unwrap())))),
        Some(missing) => println!("without ebpf: needs {missing}"),
    }
    match table.missing_for_nftables() {
        None => ways.push(("nftables", Way::With(Mechanism::Nftables))),
        Some(missing) => println!("without nftables: needs {missing}"),
    }
    match std::process::Command::new("iptables-restore").arg("--version").output() {
        Ok(_) => ways.push(("iptables", Way::Iptables)),
        Err(_) => println!("without iptables: needs iptables-restore (package iptables)"),
    }
    ways
}

fn one_run(way: &Way) -> Vec<(&'static str, f64)> {
    let pod = Pod::new();
    let attached = match way {
        Way::None => None,
        Way::With(mechanism) => Some(mechanism.attach(&pod.spec(Rules::default())).unwrap()),
        Way::Iptables => {
            pod.iptables();
            None
        }
    };
    let proxy = pod.start("proxy", &[]);
    proxy.wait_for("listening");
    let direct = if matches!(way, Way::None) { "1" } else { "" };
    let app = pod.start("app", &[("FSM_BENCH_DIRECT", direct), ("FSM_BENCH_PROXY", &proxy.id().to_string())]);
    let figures: BTreeMap<String, f64> = serde_json::from_str(&app.wait_for("{")).unwrap();
    drop((app, proxy));
    if let Some(attached) = attached {
        attached.detach().unwrap();
    }
    app::FIGURES.iter().map(|(name, _, _)| (*name, figures[*name])).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(ways: &[(&str, Way)], results: &BTreeMap<(usize, &'static str), Vec<f64>>, rounds: usize) {
    print!("| median of {rounds} |");
    ways.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n| --- |{}", " --- |".repeat(ways.len()));
    let mut all = serde_json::Map::new();
    for (figure, title, digits) in app::FIGURES {
        print!("| {title} |");
        let none = median(&results[&(0, figure)]);
        for (number, (name, _)) in ways.iter().enumerate() {
            let values = &results[&(number, figure)];
            let value = median(values);
            print!(" {value:.digits$} ({:.2} ×) |", value / none);
            let entry = all.entry(figure).or_insert_with(|| json!({}));
            entry[*name] = json!({"median": value, "all": values});
        }
        println!();
    }
    println!("{}", Value::Object(all));
}
