//! `fsm demo`: a whole mesh on this machine, and the story of a bookstore in it.

pub mod apps;
mod bookstore;
mod fetch;
mod folder;
mod latency;
mod observer;
mod report;
mod story;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;

use bookstore::Bookstore;
use report::Report;
use story::Story;

/// Start a one-machine mesh, run the bookstore in it, shift its traffic, break it, and replay what happened.
#[derive(Clone, Debug, Parser)]
pub struct DemoArgs {
    /// How long the story takes, e.g. 30s or 2m. Without it, the mesh stays up after the story until Ctrl-C.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Verify every phase of the story, print the outcome as JSON, and fail if a phase fails.
    #[arg(long)]
    pub check: bool,
    /// Print lines instead of the live view.
    #[arg(long)]
    pub no_ui: bool,
    /// Where the cluster keeps its state; emptied at the start.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Port of the Kubernetes API on 127.0.0.1 (default: a free one).
    #[arg(long)]
    pub api_port: Option<u16>,
}

/// How long the story takes when it is shown and no duration is given.
const STORY: Duration = Duration::from_secs(60);

pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let data_dir = args.data_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("fsm-demo"));
    let show = !args.check && !args.no_ui && std::io::stdout().is_terminal();
    let say = |line: &str| eprintln!("{line}");
    let mut stop = std::pin::pin!(stop_signal()?);

    let started = Bookstore::start(&args, &data_dir, &say);
    let bookstore = tokio::select! {
        started = started => started?,
        () = &mut stop => bail!("stopped while the mesh was starting; what it had made is gone"),
    };
    let ended = tokio::select! {
        told = tell(&args, &bookstore, show) => told,
        () = &mut stop => Ok(None),
    };
    let kept = bookstore.stop(!args.check).await;
    if let (Ok(_), Ok(Some(log)), false) = (&ended, &kept, args.check) {
        say(&format!(
            "\nThe mesh is gone; its memory is kept. Look back with:\n  fsm log ls --data-dir {0}\n  fsm replay state TrafficSplit --at -1m --data-dir {0}",
            log.display()
        ));
    }
    let report = ended?;
    kept?;
    match report {
        Some(report) if args.check => {
            println!("{}", serde_json::to_string(&report)?);
            report.verdict()
        }
        _ => Ok(()),
    }
}

/// None if the story was not heard to its end.
async fn tell(args: &DemoArgs, bookstore: &Bookstore, show: bool) -> anyhow::Result<Option<Report>> {
    if args.check {
        return Story::new(bookstore, Duration::ZERO).tell(&|line| eprintln!("{line}")).await.map(Some);
    }
    let story = Story::new(bookstore, args.duration.unwrap_or(STORY));
    if show {
        return view::show(bookstore, &story, args.duration.is_none()).await;
    }
    let report = story.tell(&|line| eprintln!("{line}")).await?;
    if args.duration.is_none() {
        eprintln!("The story is told; the mesh stays up. Change it with kubectl, end it with Ctrl-C.");
        std::future::pending::<()>().await;
    }
    Ok(Some(report))
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("\"{text}\" is not a duration: write for example 30s or 2m");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(super::parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(super::parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["30", "s", "", "1h", "-3s"] {
            assert!(super::parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
