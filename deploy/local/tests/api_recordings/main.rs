//! What a real kube-apiserver answered, asked again of this one.
//!
//! The cases are in `recordings/cases.jsonl.zst`, one a line: requests with their answers, webhooks with what they were asked and
//! answered, watches with their events (`recordings/pack.py` made it). Exchanges whose answers are known to differ are listed in
//! `recordings/known-differences.txt` with the reason; they are sent all the same, and a test fails when one of them no longer
//! differs. `CASE=http/table-builtin cargo test -p fsm-local --test api_recordings` runs the cases whose names begin so.

#[path = "../api_support/mod.rs"]
mod api_support;
mod compare;
mod exclusions;
mod pack;
mod replay;
mod reviews;
mod stage;
mod watches;
mod webhooks;

use std::collections::BTreeMap;
use std::time::Duration;

use exclusions::Exclusions;
use futures::StreamExt;
use serde_json::Value;

/// So many cases are run at once, each with a server of its own.
const AT_ONCE: usize = 8;

/// A case that takes longer waits for something that doesn't come.
const AT_MOST: Duration = Duration::from_mins(3);

/// What came of one case.
#[derive(Default)]
pub struct Outcome {
    pub exchanges: usize,
    pub excluded: usize,
    pub problems: Vec<String>,
}

impl Outcome {
    /// Of a case that is not run.
    pub fn left_out(exchanges: usize) -> Self {
        Self { exchanges, excluded: exchanges, problems: Vec::new() }
    }

    fn unfinished(name: &str) -> Self {
        let problems = vec![format!("{name} did not end within {AT_MOST:?}")];
        Self { exchanges: 1, excluded: 0, problems }
    }

    /// Of a case that is compared as a whole.
    pub fn of_one(case: &Value, exchanges: usize, exclusions: &Exclusions, problems: Vec<String>) -> Self {
        if exclusions.has(1) {
            let listed = format!("{} is listed as a known difference and does not differ", name(case));
            let problems = if problems.is_empty() { vec![listed] } else { Vec::new() };
            return Self { exchanges, excluded: exchanges, problems };
        }
        let problems = problems.into_iter().map(|problem| format!("{} 1 {problem}", name(case))).collect();
        Self { exchanges, excluded: 0, problems }
    }
}

/// What came of some cases.
#[derive(Default)]
struct Sum {
    cases: usize,
    /// Those of which nothing was excluded and nothing differed.
    passed: usize,
    exchanges: usize,
    compared: usize,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.cases += 1;
        self.passed += usize::from(outcome.excluded == 0 && outcome.problems.is_empty());
        self.exchanges += outcome.exchanges;
        self.compared += outcome.exchanges - outcome.excluded;
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cases, passed, exchanges, compared } = self;
        write!(f, "{passed} of {cases} recorded cases pass, {compared} of {exchanges} exchanges are compared")
    }
}

async fn run_case(case: Value, exclusions: Exclusions) -> Outcome {
    match name(&case).split_once('/') {
        Some(("watch", _)) => watches::run(case, exclusions).await,
        Some(("reactions", _)) => webhooks::run(case, exclusions).await,
        Some(("reviews", _)) => reviews::run(case, exclusions).await,
        _ => replay::run(case, exclusions).await,
    }
}

pub fn name(case: &Value) -> &str {
    case["case"].as_str().expect("a case has a name")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_cases_are_answered_as_by_a_real_server() {
    let exclusions = exclusions::read();
    let only = std::env::var("CASE").ok();
    let cases: Vec<Value> = pack::cases()
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|only| name(case).starts_with(only)))
        .collect();
    let run = async |case: &Value| {
        let outcome = tokio::time::timeout(AT_MOST, run_case(case.clone(), exclusions.of(name(case)))).await;
        outcome.unwrap_or_else(|_| Outcome::unfinished(name(case)))
    };
    let mut running = futures::stream::iter(&cases).map(async |case| (case, run(case).await)).buffer_unordered(AT_ONCE);
    let (mut all, mut groups) = (Sum::default(), BTreeMap::<String, Sum>::new());
    let mut problems = Vec::new();
    while let Some((case, mut outcome)) = running.next().await {
        if !outcome.problems.is_empty() {
            // What is done in the background may have been late on a busy machine: what differs twice differs.
            println!("once: {}", outcome.problems.join("\nonce: "));
            outcome = run(case).await;
        }
        let group = name(case).split_once('/').map_or(name(case), |(group, _)| group);
        groups.entry(group.to_owned()).or_default().add(&outcome);
        all.add(&outcome);
        problems.extend(outcome.problems);
    }
    for (group, sum) in &groups {
        println!("{group}: {sum}");
    }
    println!("{all}");
    problems.sort();
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
    if only.is_none() {
        let page = pack::directory().join("../../../../docs/local-cluster.md");
        let page = std::fs::read_to_string(page).expect("the page about the local cluster");
        let said = page.split_whitespace().collect::<Vec<_>>().join(" ").contains(&all.to_string());
        assert!(said, "docs/local-cluster.md does not say that {all}");
    }
}
