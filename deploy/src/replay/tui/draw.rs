//! The screen: a list of records, and beside or below it what the chosen one did.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Paragraph};

use super::app::{App, Prompt, View};
use crate::log::time_text;

/// Narrower than this, the detail goes below the list.
const BESIDE: u16 = 110;

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(6), Constraint::Length(1)]).areas(frame.area());
    let [list, detail] = if body.width >= BESIDE {
        Layout::horizontal([Constraint::Percentage(46), Constraint::Percentage(54)]).areas(body)
    } else {
        Layout::vertical([Constraint::Percentage(42), Constraint::Percentage(58)]).areas(body)
    };
    draw_head(frame, head, app);
    draw_list(frame, list, app);
    draw_detail(frame, detail, app);
    draw_foot(frame, foot, app);
}

fn panel(title: Line<'static>) -> Block<'static> {
    Block::bordered().border_type(BorderType::Rounded).border_style(Style::new().dark_gray()).title(title)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let scenes = &app.film.scenes;
    let (first, last) = (&scenes[0], &scenes[scenes.len() - 1]);
    let here = &scenes[app.scene()];
    let spans = vec![
        " FSM replay ".bold().black().on_cyan(),
        format!("  record {} ", here.seq).bold(),
        format!("of {} to {}  {}  {}", first.seq, last.seq, time_text(here.time), app.place).into(),
    ];
    frame.render_widget(Line::from(spans), area);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, app: &mut App) {
    let title = match app.find.as_str() {
        "" => Line::from(" records "),
        find => Line::from(format!(" {} records with \"{find}\" ", app.listed.len())),
    };
    let block = panel(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    app.rows = usize::from(inner.height).max(1);
    // The chosen one stays in the middle, as far as there are others around it.
    let most = app.listed.len().saturating_sub(app.rows);
    let offset = app.chosen.saturating_sub(app.rows / 2).min(most);
    let shown = app.listed.iter().enumerate().skip(offset).take(app.rows);
    let lines: Vec<Line<'_>> = shown.map(|(place, index)| row(app, *index, place == app.chosen, inner.width)).collect();
    frame.render_widget(Paragraph::new(lines), inner);
}

/// So much of what happened in a record is seen in the list at least.
const WHAT: usize = 12;

fn row(app: &App, index: usize, chosen: bool, width: u16) -> Line<'static> {
    let scene = &app.film.scenes[index];
    let told = match scene.told.len() {
        0 => String::new(),
        count => format!(" →{count}"),
    };
    let time = time_text(scene.time);
    let begin = format!("{:>6} {} ", scene.seq.0, time.get(11..23).unwrap_or_default());
    let room = usize::from(width).saturating_sub(begin.chars().count() + told.chars().count());
    // What happened has its room, however long the name is that it happened to.
    let about = shortened(&scene.about, room.saturating_sub(1 + scene.what.chars().count().min(WHAT)));
    let text = fitted(&format!("{about} {}", scene.what), room);
    let style = match scene.topic.as_str() {
        "object" | "relist" => Style::new(),
        "nack" => Style::new().fg(Color::Red),
        "controller" | "controller-end" => Style::new().fg(Color::Cyan),
        _ => Style::new().dim(),
    };
    let line = Line::from(vec![
        Span::from(begin).dim(),
        Span::styled(text, style),
        Span::styled(told, Style::new().fg(Color::Yellow)),
    ]);
    if chosen { line.reversed() } else { line }
}

/// A text in exactly this width.
fn fitted(text: &str, width: usize) -> String {
    format!("{:width$}", shortened(text, width))
}

/// A text in this width at most; `…` stands for what has no room.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width == 0 { kept } else { format!("{kept}…") }
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, app: &mut App) {
    let mut title = vec![Span::from(" ")];
    for view in View::ALL {
        let name = format!(" {} ", view.title());
        title.push(if view == app.view { name.bold().black().on_cyan() } else { name.dim() });
    }
    title.push(Span::from(" "));
    let block = panel(Line::from(title));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    app.room = usize::from(body.height);
    let more = app.detail.lines.len().saturating_sub(app.scrolled + app.room);
    let more = match more {
        0 => String::new(),
        1 => "  (1 more line: d)".to_owned(),
        more => format!("  ({more} more lines: d)"),
    };
    let head_line = Line::from(vec![Span::from(app.detail.title.clone()).bold(), Span::from(more).dim()]);
    frame.render_widget(head_line, head);
    let lines: Vec<Line<'_>> = app.detail.lines.iter().skip(app.scrolled).take(app.room).cloned().collect();
    frame.render_widget(Paragraph::new(lines), body);
}

const KEYS: &str = " ↑↓ step   n/N next/last change of a configuration   tab or 1 2 3 view   p/P proxy   d/u scroll   / find   : go to   q leave";
/// The same where there is less room.
const FEW_KEYS: &str = " ↑↓ step  n/N change  tab view  p proxy  d/u scroll  / find  : go to  q";

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let line = match (&app.prompt, &app.note) {
        (Some(Prompt::Find(text)), _) => Line::from(format!(" find: {text}▏  (enter: list these, esc: never mind)")),
        (Some(Prompt::GoTo(text)), _) => Line::from(format!(" go to seq, time or -5m: {text}▏")),
        (None, Some(note)) => Line::from(format!(" {note}")).yellow(),
        (None, None) => Line::from(if usize::from(area.width) < KEYS.chars().count() { FEW_KEYS } else { KEYS }).dim(),
    };
    frame.render_widget(line, area);
}
