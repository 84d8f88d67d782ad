//! The live view: who asks, who answers, what changed, and how fast it went round.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Gauge, Paragraph, Row, Sparkline, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::bookstore::Bookstore;
use super::latency::Propagated;
use super::report::{Mtls, Report, Sales};
use super::story::{Story, V1, V2};

const REFRESH: Duration = Duration::from_millis(250);
/// Width of the history, in refreshes.
const HISTORY: usize = 240;
/// Story lines kept.
const TOLD: usize = 64;

/// What is on the screen.
#[derive(Default)]
struct Scene {
    v1: VecDeque<u64>,
    v2: VecDeque<u64>,
    denied: VecDeque<u64>,
    /// The last counters; none before the first look.
    buyer: Option<Sales>,
    thief: Sales,
    mtls: Mtls,
    changes: Vec<Propagated>,
    told: Vec<String>,
    ended: bool,
}

/// Tells the story on a terminal; afterwards stays until a key is pressed, if asked to. None if the reader left before its end.
pub async fn show(bookstore: &Bookstore, story: &Story<'_>, stay: bool) -> anyhow::Result<Option<Report>> {
    let scene = Arc::new(Mutex::new(Scene::default()));
    let told = scene.clone();
    let say = move |line: &str| {
        let mut scene = lock(&told);
        if scene.told.len() == TOLD {
            scene.told.remove(0);
        }
        scene.told.push(line.to_owned());
    };
    let mut terminal = ratatui::try_init().context("cannot use this terminal; try --no-ui")?;
    let mut report = None;
    let told = async {
        report = Some(story.tell(&say).await?);
        say(if stay {
            "That was the story. The mesh stays up: change it with kubectl; q ends it."
        } else {
            "The end."
        });
        lock(&scene).ended = true;
        if stay {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        told = told => told,
        left = watch(&mut terminal, bookstore, &scene) => left,
    };
    ratatui::restore();
    outcome.map(|()| report)
}

fn lock(scene: &Mutex<Scene>) -> MutexGuard<'_, Scene> {
    scene.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Draws until the reader wants to leave.
async fn watch(terminal: &mut DefaultTerminal, bookstore: &Bookstore, scene: &Mutex<Scene>) -> anyhow::Result<()> {
    let kubeconfig = bookstore.kubeconfig().display().to_string();
    let mut last = Instant::now();
    loop {
        sample(bookstore, scene, last.elapsed()).await;
        last = Instant::now();
        terminal.draw(|frame| draw(frame, &lock(scene), &kubeconfig))?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && is_leave(key)
            {
                return Ok(());
            }
        }
        tokio::time::sleep(REFRESH).await;
    }
}

fn is_leave(key: KeyEvent) -> bool {
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
}

/// Looks at the mesh. What cannot be reached just now keeps its last value.
async fn sample(bookstore: &Bookstore, scene: &Mutex<Scene>, elapsed: Duration) {
    let (buyer, thief, mtls) =
        tokio::join!(bookstore.sales("bookbuyer"), bookstore.sales("bookthief"), bookstore.mtls());
    let changes = bookstore.observer.look(|propagation| {
        let skip = propagation.done.len().saturating_sub(50);
        propagation.done[skip..].to_vec()
    });
    let mut scene = lock(scene);
    if let Ok(buyer) = buyer {
        // What was bought before the first look has no rate.
        let since = buyer.since(scene.buyer.as_ref().unwrap_or(&buyer));
        let per_second = |count: u64| (count as f64 / elapsed.as_secs_f64()).round() as u64;
        push(&mut scene.v1, per_second(since.of(V1)));
        push(&mut scene.v2, per_second(since.of(V2)));
        push(&mut scene.denied, per_second(since.denied));
        scene.buyer = Some(buyer);
    }
    if let Ok(thief) = thief {
        scene.thief = thief;
    }
    if let Ok(mtls) = mtls {
        scene.mtls = mtls;
    }
    scene.changes = changes;
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

fn draw(frame: &mut Frame<'_>, scene: &Scene, kubeconfig: &str) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(10), Constraint::Length(1)]).areas(frame.area());
    let [left, right] = Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(body);
    let [v1, v2, refused, shares] =
        Layout::vertical([Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(1), Constraint::Length(6)])
            .areas(left);
    let [story, changes] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(right);

    let title = Line::from(vec![" FSM ".bold().black().on_cyan(), "  the bookstore, in a mesh on this machine".into()]);
    frame.render_widget(title, head);
    rate(frame, v1, "bookstore-v1", &scene.v1, Color::Green, scene);
    rate(frame, v2, "bookstore-v2", &scene.v2, Color::Blue, scene);
    rate(frame, refused, "refused", &scene.denied, Color::Red, scene);
    draw_shares(frame, shares, scene);
    draw_story(frame, story, scene);
    draw_changes(frame, changes, &scene.changes);
    frame.render_widget(Line::from(format!(" q ends it    export KUBECONFIG={kubeconfig}")).dim(), foot);
}

fn panel(title: impl Into<Line<'static>>) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().dark_gray()).title(title)
}

fn rate(frame: &mut Frame<'_>, area: Rect, name: &str, history: &VecDeque<u64>, color: Color, scene: &Scene) {
    let now = history.iter().rev().take(4).sum::<u64>() / 4;
    let title = Line::from(vec![
        Span::styled(format!(" {name} "), Style::new().fg(color).add_modifier(Modifier::BOLD)),
        format!("{now}/s for bookbuyer ").into(),
    ]);
    let width = area.width.saturating_sub(2) as usize;
    let shown: Vec<u64> = history.iter().skip(history.len().saturating_sub(width)).copied().collect();
    // One scale for all, so that they can be compared.
    let most = [&scene.v1, &scene.v2, &scene.denied].into_iter().flatten().copied().max().unwrap_or(1).max(1);
    frame.render_widget(Sparkline::default().block(panel(title)).data(shown).max(most).style(color), area);
}

fn draw_shares(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let [mtls, thief] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(2)]).areas(area);
    let all = scene.mtls.connections + scene.mtls.plaintext;
    let share = if all == 0 { 0.0 } else { scene.mtls.connections as f64 / all as f64 };
    let gauge = Gauge::default()
        .block(panel(" mTLS connections "))
        .gauge_style(Style::new().fg(Color::Cyan))
        .ratio(share)
        .label(format!("{:.0} % of {all}", share * 100.0));
    frame.render_widget(gauge, mtls);
    let text = vec![
        Line::from(format!("bookbuyer   {}", served(scene.buyer.as_ref().unwrap_or(&Sales::default())))),
        Line::from(format!("bookthief   {}", served(&scene.thief))),
        match &scene.thief.last_refusal {
            Some(refusal) => Line::from(refusal.trim().to_owned()).dim(),
            None => Line::default(),
        },
    ];
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(panel(" since the start ")), thief);
}

fn served(sales: &Sales) -> String {
    let mut text = format!("{} served, {} refused", sales.ok, sales.denied);
    if sales.failed > 0 {
        text.push_str(&format!(", {} failed", sales.failed));
    }
    text
}

fn draw_story(frame: &mut Frame<'_>, area: Rect, scene: &Scene) {
    let height = area.height.saturating_sub(2) as usize;
    let lines = scene.told.iter().map(|line| {
        let style = match line.chars().next() {
            Some('✓') => Style::new().green(),
            Some('✗') => Style::new().red().bold(),
            _ => Style::new().bold(),
        };
        Line::styled(line.clone(), style)
    });
    let story = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: true });
    let width = area.width.saturating_sub(2);
    let hidden = story.line_count(width).saturating_sub(height);
    let title = if scene.ended { " the story, told " } else { " the story " };
    frame.render_widget(story.scroll((u16::try_from(hidden).unwrap_or(0), 0)).block(panel(title)), area);
}

/// A record's key without what the eye can do without: the kind's group and version, the object's namespace.
fn short(key: &str) -> String {
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    match key.split_once(' ') {
        Some((kind, name)) => format!("{} {}", last(kind), last(name)),
        None => last(key),
    }
}

fn draw_changes(frame: &mut Frame<'_>, area: Rect, changes: &[Propagated]) {
    let height = area.height.saturating_sub(3) as usize;
    let rows = changes.iter().rev().take(height).map(|change| {
        Row::new([
            change.seq.to_string(),
            short(&change.key),
            change.proxies.to_string(),
            format!("{:.1} ms", change.millis),
        ])
    });
    let widths = [Constraint::Length(6), Constraint::Fill(1), Constraint::Length(7), Constraint::Length(10)];
    let header = Row::new(["seq", "what changed", "proxies", "all in"]).style(Style::new().dim());
    frame.render_widget(Table::new(rows, widths).header(header).block(panel(" from change to acknowledgement ")), area);
}
