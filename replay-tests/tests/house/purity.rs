//! State machines take everything from the log: no clock, no randomness, no waiting, no order that differs from run to run.

use std::fs;
use std::path::{Path, PathBuf};

use super::root;

/// Words that do not occur in a state machine, and why.
const FORBIDDEN: [(&str, &str); 13] = [
    ("SystemTime", "time comes in records"),
    ("Instant", "time comes in records"),
    ("Timestamp::now", "time comes in records"),
    ("rand", "randomness comes in records"),
    ("Uuid", "randomness comes in records"),
    ("HashMap", "its order differs from process to process; BTreeMap has one order"),
    ("HashSet", "its order differs from process to process; BTreeSet has one order"),
    ("async", "a state machine never waits"),
    ("await", "a state machine never waits"),
    ("tokio", "a state machine never waits"),
    ("thread", "a state machine is one thing after another"),
    ("std::env", "the environment is not in the log"),
    ("std::fs", "files are not in the log"),
];

/// The files of the state machines.
fn state_machines() -> Vec<PathBuf> {
    let source = root().join("actors/src");
    let mut files = vec![source.join("fact.rs"), source.join("publish/publisher.rs")];
    for concern in fs::read_dir(source.join("concern")).unwrap() {
        let state = concern.unwrap().path().join("state.rs");
        if state.exists() {
            files.push(state);
        }
    }
    let shells = ["actor.rs", "tests.rs"];
    let catalog = fs::read_dir(source.join("catalog")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(catalog.filter(|path| {
        path.extension().is_some_and(|extension| extension == "rs")
            && !shells.contains(&path.file_name().unwrap().to_str().unwrap())
    }));
    files.sort();
    files
}

/// The lines of code with a forbidden word in them. Comments, and what follows `#[cfg(test)]`, may say anything.
fn offences(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let mut found = Vec::new();
    for (number, line) in code {
        let line = line.split("//").next().unwrap_or_default();
        for (word, reason) in FORBIDDEN {
            if contains_word(line, word) {
                found.push(format!("{}:{}: {word}: {reason}", path.display(), number + 1));
            }
        }
    }
    found
}

fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[test]
fn state_machines_take_everything_from_the_log() {
    let files = state_machines();
    assert!(files.len() > 10, "found only {files:?}");
    let offences: Vec<String> = files.iter().flat_map(|path| offences(path)).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn only_whole_words_count() {
    assert!(contains_word("use std::collections::HashMap;", "HashMap"));
    assert!(!contains_word("let operand = 1;", "rand"));
    assert!(!contains_word("MyHashMap", "HashMap"));
}
