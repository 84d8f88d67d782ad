//! `fsm replay --tui`: step through time.

mod app;
mod detail;
mod draw;
mod film;
mod reels;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};

use anyhow::{Context, ensure};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use self::app::App;
use self::film::Film;
use super::past::{nothing_yet, upto};
use crate::log::{History, HistoryArgs, Moment};

/// Shows history on the terminal until the reader has seen enough.
pub(super) async fn run(args: &HistoryArgs, at: Option<Moment>) -> anyhow::Result<()> {
    ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "--tui needs a terminal; fsm replay state, config, diff and why print what it shows"
    );
    let history = args.open()?;
    let begin_at = upto(&history, at).await?;
    let film = load(&history).await?;
    let mut app = App::new(history.place(), film);
    app.go_to(begin_at);
    let mut terminal = ratatui::try_init().context("this terminal can't be used")?;
    let left = show(&mut terminal, &mut app);
    ratatui::restore();
    left
}

async fn load(history: &History) -> anyhow::Result<Film> {
    let film = Film::load(history).await?;
    ensure!(!film.is_empty(), "{}", nothing_yet(history, None).await?);
    Ok(film)
}

fn show(terminal: &mut DefaultTerminal, app: &mut App) -> anyhow::Result<()> {
    while !app.left {
        terminal.draw(|frame| draw::draw(frame, app))?;
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            app.press(key);
        }
    }
    Ok(())
}
