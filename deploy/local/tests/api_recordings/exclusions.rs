//! Exchanges whose answers are known to differ.
//!
//! A line names a case, its exchanges (`3,5,8-10`; `5?` for one whose answer depends on who is faster; `*` for a case that is not run
//! at all), and the reason. In the sessions of clients several connections are at work at once: whatever is listed for one of them differs
//! sometimes.

use std::collections::{BTreeMap, BTreeSet};

use super::pack::directory;

/// Those of one case.
#[derive(Debug, Clone, Default)]
pub struct Exclusions {
    pub whole: bool,
    numbers: BTreeSet<u64>,
    /// Those of them that differ sometimes.
    unsure: BTreeSet<u64>,
    /// Whether the case is the session of a client.
    session: bool,
}

impl Exclusions {
    pub fn has(&self, number: u64) -> bool {
        self.whole || self.numbers.contains(&number)
    }

    /// Whether it is no news that the answer does not differ.
    pub fn is_unsure(&self, number: u64) -> bool {
        self.session || self.unsure.contains(&number)
    }
}

pub struct All(BTreeMap<String, Exclusions>);

impl All {
    pub fn of(&self, case: &str) -> Exclusions {
        self.0.get(case).cloned().unwrap_or_default()
    }
}

pub fn read() -> All {
    let text = std::fs::read_to_string(directory().join("known-differences.txt")).expect("the list can be read");
    let mut all: BTreeMap<String, Exclusions> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let (case, numbers) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        assert!(words.next().is_some_and(|reason| reason.len() > 5), "no reason is given: {line}");
        let own = all.entry(case.to_owned()).or_default();
        own.session = ["kubectl-", "kube-rs-"].iter().any(|client| case.starts_with(client));
        if numbers == "*" {
            own.whole = true;
            continue;
        }
        for piece in numbers.split(',') {
            if let Some(number) = piece.strip_suffix('?') {
                own.unsure.insert(number.parse().unwrap_or_else(|_| panic!("no number of an exchange: {line}")));
            }
            let piece = piece.trim_end_matches('?');
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let number =
                |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("no number of an exchange: {line}"));
            own.numbers.extend(number(first)..=number(last));
        }
    }
    All(all)
}
