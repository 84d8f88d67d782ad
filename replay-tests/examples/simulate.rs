//! Runs seeds of the simulator: `--seeds N` from `--from S` on (10,000 from 0), or one with `--seed S`; `--steps N` in each.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fsm_replay_tests::simulator::{Story, Violation, simulate};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(place + 1).and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage()))
    };
    let steps = value("--steps").unwrap_or(250) as u32;
    let (from, seeds) = match value("--seed") {
        Some(seed) => (seed, 1),
        None => (value("--from").unwrap_or(0), value("--seeds").unwrap_or(10_000)),
    };
    let begun = Instant::now();
    let (next, failed, whole) =
        (AtomicU64::new(from), Mutex::new(Vec::<Violation>::new()), Mutex::new(Story::default()));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    match simulate(seed, steps) {
                        Ok(story) => *whole.lock().expect("no thread panics with it") += story,
                        Err(violation) => {
                            eprintln!("{violation}");
                            failed.lock().expect("no thread panics with it").push(violation);
                        }
                    }
                }
            });
        }
    });
    let took = begun.elapsed().as_secs_f64();
    let failed = failed.lock().map_or(1, |failed| failed.len());
    println!(
        "{seeds} seeds of {steps} steps in {took:.1} s ({:.0} a minute on {threads} threads), {failed} violations",
        seeds as f64 / took * 60.0
    );
    let story = whole.lock().map(|story| *story).unwrap_or_default();
    for (what, times) in story.counts() {
        println!("{times:>10} {what}");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ! {
    eprintln!("usage: simulate [--seed S | --from S --seeds N] [--steps N]");
    std::process::exit(2);
}
