use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;

/// The recorded log of the demo, on a screen of this size.
struct Screen {
    app: App,
    terminal: Terminal<TestBackend>,
}

impl Screen {
    async fn new(width: u16, height: u16) -> Self {
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/bookstore.ndjson.zst");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bookstore.ndjson");
        std::fs::write(&path, zstd::decode_all(std::fs::File::open(packed).unwrap()).unwrap()).unwrap();
        let film = load(&History::open(path).unwrap()).await.unwrap();
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        Self { app: App::new("bookstore.ndjson".into(), film), terminal }
    }

    /// Presses the keys one after the other; `⏎` is enter, `⇥` is tab, `↓` and `↑` are arrows.
    fn press(&mut self, keys: &str) -> String {
        self.draw();
        for key in keys.chars() {
            let code = match key {
                '⏎' => KeyCode::Enter,
                '⇥' => KeyCode::Tab,
                '↓' => KeyCode::Down,
                '↑' => KeyCode::Up,
                '⎋' => KeyCode::Esc,
                character => KeyCode::Char(character),
            };
            self.app.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        self.draw()
    }

    fn draw(&mut self) -> String {
        self.terminal.draw(|frame| draw::draw(frame, &mut self.app)).unwrap();
        self.terminal.backend().to_string()
    }

    fn seq(&self) -> u64 {
        self.app.film.scenes[self.app.scene()].seq.0
    }
}

#[tokio::test]
async fn a_change_of_a_split_on_a_wide_screen() {
    let mut screen = Screen::new(140, 30).await;
    insta::assert_snapshot!(screen.press(":131⏎"));
}

#[tokio::test]
async fn what_a_proxy_is_told_on_a_small_screen() {
    let mut screen = Screen::new(80, 30).await;
    insta::assert_snapshot!(screen.press(":131⏎3"));
}

#[tokio::test]
async fn objects_with_the_one_that_changed_first() {
    let mut screen = Screen::new(140, 20).await;
    insta::assert_snapshot!(screen.press(":136⏎⇥"));
}

#[tokio::test]
async fn keys_lead_through_time() {
    let mut screen = Screen::new(120, 30).await;
    assert_eq!(screen.seq(), 169, "it begins at the end");
    screen.press("g");
    assert_eq!(screen.seq(), 1);
    screen.press("↓↓↑");
    assert_eq!(screen.seq(), 2);
    screen.press("3:126⏎");
    // The proxy that is shown is the first that was told something.
    let mut changes = Vec::new();
    for _ in 0..3 {
        screen.press("n");
        changes.push(screen.seq());
    }
    screen.press("N");
    assert_eq!(screen.seq(), changes[1]);
    screen.press("/trafficsplit⏎G");
    assert_eq!((screen.seq(), screen.app.listed.len()), (163, 4));
    screen.press("⎋");
    assert_eq!((screen.seq(), screen.app.listed.len()), (163, 169));
    assert!(screen.press(":soon⏎").contains("neither a seq"));
    assert!(screen.press("/nothing like it⏎").contains("no record has"));
    screen.press(":2026-11-23T03:47:37.245Z⏎");
    assert_eq!(screen.seq(), 131);
    screen.press("q");
    assert!(screen.app.left);
}

#[tokio::test]
async fn every_state_is_the_same_from_both_sides() {
    let mut screen = Screen::new(80, 24).await;
    let digests = |screen: &mut Screen, index: usize| screen.app.film.still(index).unwrap().after.digests();
    let forward: Vec<_> = (0..169).map(|index| digests(&mut screen, index)).collect();
    let backward: Vec<_> = (0..169).rev().map(|index| digests(&mut screen, index)).collect();
    assert!(forward.iter().eq(backward.iter().rev()));
}
