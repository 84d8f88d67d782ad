//! What the reader looks at, and what keys do.

use fsm_actors::catalog::ObjectName;
use fsm_store::Seq;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::detail::{Detail, detail};
use super::film::Film;
use crate::log::Moment;

/// What is shown beside the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Record,
    Objects,
    Proxy,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Record, Self::Objects, Self::Proxy];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Record => "1 record",
            Self::Objects => "2 objects",
            Self::Proxy => "3 proxy",
        }
    }
}

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Find(String),
    GoTo(String),
}

pub(super) struct App {
    pub(super) place: String,
    pub(super) film: Film,
    /// The scenes that are listed.
    pub(super) listed: Vec<usize>,
    /// The chosen one of them.
    pub(super) chosen: usize,
    pub(super) view: View,
    /// The proxy whose configuration is shown.
    pub(super) proxy: Option<ObjectName>,
    pub(super) detail: Detail,
    /// Lines of the detail that are scrolled away.
    pub(super) scrolled: usize,
    /// How many lines of the detail there was room for.
    pub(super) room: usize,
    pub(super) rows: usize,
    pub(super) find: String,
    pub(super) prompt: Option<Prompt>,
    pub(super) note: Option<String>,
    pub(super) left: bool,
}

impl App {
    /// A film that has at least one scene.
    pub(super) fn new(place: String, film: Film) -> Self {
        let mut app = Self {
            place,
            listed: (0..film.scenes.len()).collect(),
            film,
            chosen: 0,
            view: View::Record,
            proxy: None,
            detail: Detail::default(),
            scrolled: 0,
            room: 1,
            rows: 1,
            find: String::new(),
            prompt: None,
            note: None,
            left: false,
        };
        app.choose(app.listed.len() - 1);
        app
    }

    /// The index of the scene that is looked at.
    pub(super) fn scene(&self) -> usize {
        self.listed.get(self.chosen).copied().unwrap_or(0)
    }

    /// Looks at a record, or the last one before it.
    pub(super) fn go_to(&mut self, seq: Seq) {
        let index = self.film.index_of(seq);
        self.choose(self.listed.partition_point(|listed| *listed <= index).saturating_sub(1));
    }

    pub(super) fn press(&mut self, key: KeyEvent) {
        self.note = None;
        if self.prompt.is_some() {
            return self.typed(key.code);
        }
        let page = self.rows.saturating_sub(1).max(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.left = true,
            KeyCode::Char('q') => self.left = true,
            KeyCode::Esc if !self.find.is_empty() => self.filter(String::new()),
            KeyCode::Esc => self.left = true,
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.chosen + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.chosen.saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.chosen + page),
            KeyCode::PageUp => self.choose(self.chosen.saturating_sub(page)),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Char('n') => self.next_change(true),
            KeyCode::Char('N') => self.next_change(false),
            KeyCode::Char('1') => self.look(View::Record),
            KeyCode::Char('2') => self.look(View::Objects),
            KeyCode::Char('3') => self.look(View::Proxy),
            KeyCode::Tab => {
                let at = View::ALL.iter().position(|view| *view == self.view).unwrap_or(0);
                self.look(View::ALL[(at + 1) % View::ALL.len()]);
            }
            KeyCode::Char('p') => self.other_proxy(true),
            KeyCode::Char('P') => self.other_proxy(false),
            KeyCode::Char('d') | KeyCode::Right => self.scroll(true),
            KeyCode::Char('u') | KeyCode::Left => self.scroll(false),
            KeyCode::Char('/') => self.prompt = Some(Prompt::Find(String::new())),
            KeyCode::Char(':') => self.prompt = Some(Prompt::GoTo(String::new())),
            _ => {}
        }
    }

    fn choose(&mut self, chosen: usize) {
        self.chosen = chosen.min(self.listed.len().saturating_sub(1));
        self.scrolled = 0;
        let index = self.scene();
        let still = match self.film.still(index) {
            Ok(still) => still,
            Err(error) => return self.note = Some(format!("{error:#}")),
        };
        let proxies: Vec<ObjectName> = still.after.proxies().cloned().collect();
        if self.proxy.is_none() {
            self.proxy = self.film.scenes[index].told.first().or(proxies.first()).cloned();
        }
        self.detail = detail(self.view, &self.film.scenes[index], &still, self.proxy.as_ref());
    }

    fn look(&mut self, view: View) {
        self.view = view;
        self.choose(self.chosen);
    }

    fn scroll(&mut self, down: bool) {
        let half = (self.room / 2).max(1);
        let most = self.detail.lines.len().saturating_sub(self.room);
        self.scrolled = if down { (self.scrolled + half).min(most) } else { self.scrolled.saturating_sub(half) };
    }

    /// The next record because of which the proxy that is shown was told something; any proxy, while none is shown.
    fn next_change(&mut self, forward: bool) {
        let proxy = self.proxy.as_ref().filter(|_| self.view == View::Proxy);
        let counts = |index: &usize| {
            let told = &self.film.scenes[*index].told;
            proxy.map_or(!told.is_empty(), |proxy| told.contains(proxy))
        };
        let found = if forward {
            self.listed.iter().skip(self.chosen + 1).position(&counts).map(|more| self.chosen + 1 + more)
        } else {
            self.listed[..self.chosen].iter().rposition(&counts)
        };
        match found {
            Some(chosen) => self.choose(chosen),
            None => {
                let whom = proxy.map_or_else(|| "any proxy".to_owned(), ToString::to_string);
                let where_to = if forward { "after" } else { "before" };
                self.note = Some(format!("nothing {where_to} this changed what {whom} is told"));
            }
        }
    }

    fn other_proxy(&mut self, forward: bool) {
        let index = self.scene();
        let still = self.film.still(index);
        let proxies: Vec<ObjectName> = still.iter().flat_map(|still| still.after.proxies().cloned()).collect();
        if proxies.is_empty() {
            self.note = Some("there was no proxy yet".to_owned());
            return;
        }
        let at = self.proxy.as_ref().and_then(|proxy| proxies.iter().position(|one| one == proxy));
        let next = match at {
            Some(at) if forward => (at + 1) % proxies.len(),
            Some(at) => (at + proxies.len() - 1) % proxies.len(),
            None => 0,
        };
        // The first press shows the proxy that is chosen already.
        if self.view == View::Proxy || at.is_none() {
            self.proxy = proxies.get(next).cloned();
        }
        self.look(View::Proxy);
    }

    fn typed(&mut self, code: KeyCode) {
        let Some(prompt) = &mut self.prompt else { return };
        let (Prompt::Find(text) | Prompt::GoTo(text)) = prompt;
        match code {
            KeyCode::Char(character) => text.push(character),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => self.prompt = None,
            KeyCode::Enter => match self.prompt.take() {
                Some(Prompt::Find(text)) => self.filter(text),
                Some(Prompt::GoTo(text)) => self.jump(&text),
                None => {}
            },
            _ => {}
        }
    }

    /// Lists only the scenes that have this text in them.
    fn filter(&mut self, text: String) {
        let here = self.scene();
        let wanted = text.to_lowercase();
        let has = |index: &usize| {
            let scene = &self.film.scenes[*index];
            let texts = [&scene.about, &scene.what, &scene.topic, &scene.key];
            texts.iter().any(|text| text.to_lowercase().contains(&wanted))
        };
        let listed: Vec<usize> = (0..self.film.scenes.len()).filter(has).collect();
        if listed.is_empty() {
            self.note = Some(format!("no record has \"{text}\" in it"));
            return;
        }
        self.listed = listed;
        self.find = text;
        self.choose(self.listed.partition_point(|index| *index <= here).saturating_sub(1));
    }

    /// To a seq, a time, or a while before the end.
    fn jump(&mut self, text: &str) {
        let end = self.film.scenes.last().map_or(0, |scene| scene.time.0);
        let time = match text.parse::<Moment>() {
            Ok(Moment::Seq(seq)) => return self.go_to(seq),
            Ok(Moment::Time(time)) => time.0,
            Ok(Moment::Ago { micros }) => end.saturating_sub(micros),
            Err(error) => {
                self.note = Some(error.to_string());
                return;
            }
        };
        let index = self.film.scenes.partition_point(|scene| scene.time.0 <= time).saturating_sub(1);
        self.go_to(self.film.scenes[index].seq);
    }
}
