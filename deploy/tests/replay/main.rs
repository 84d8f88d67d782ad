//! `fsm replay` on the recorded log of a demo: what it prints, and how it ends.
#![allow(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod bisect;
mod diff;
mod places;
mod request;
mod run;
mod why;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The recorded log, as a file of records.
struct Recording {
    dir: tempfile::TempDir,
}

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// Runs `fsm replay` with these words on the history in a place.
fn replay(place: [&str; 2], words: &str) -> Ended {
    let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
    let mut fsm = Command::new(env!("CARGO_BIN_EXE_fsm"));
    let output = fsm.args(["replay", command]).args(place).args(rest.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

impl Recording {
    fn bookstore() -> Self {
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/bookstore.ndjson.zst");
        let dir = tempfile::tempdir().unwrap();
        let records = zstd::decode_all(fs::File::open(packed).unwrap()).unwrap();
        fs::write(dir.path().join("bookstore.ndjson"), records).unwrap();
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bookstore.ndjson")
    }

    /// Runs `fsm replay` with these words, on the recording.
    fn replay(&self, words: &str) -> Ended {
        let path = self.path().display().to_string();
        let Ended { code, out, err } = replay(["--data-dir", &path], words);
        Ended { code, out: out.replace(&path, "LOG"), err: err.replace(&path, "LOG") }
    }

    /// What it prints, if all goes well.
    fn prints(&self, words: &str) -> String {
        let ended = self.replay(words);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{words}\n{}", ended.out);
        ended.out
    }

    fn prints_json(&self, words: &str) -> serde_json::Value {
        serde_json::from_str(&self.prints(&format!("{words} -o json"))).unwrap()
    }

    /// The message of what goes wrong.
    fn fails(&self, words: &str) -> String {
        let ended = self.replay(words);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{words}\n{}", ended.err);
        ended.err
    }

    /// The message about what makes no sense.
    fn is_misuse(&self, words: &str) -> String {
        let ended = self.replay(words);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{words}\n{}", ended.err);
        ended.err
    }
}
