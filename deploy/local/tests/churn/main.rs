//! Pods, Jobs, Services and namespaces come and go, crash and roll, and at the end the machine is as it was. In a process of its
//! own, so that whatever is counted is this cluster's.
//!
//! Half a minute long; `FSM_CHURN_SECONDS=300` makes it five.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod census;
#[path = "../cluster/helpers.rs"]
#[expect(dead_code, reason = "shared with the other tests of the cluster, which use all of it")]
mod helpers;
mod round;
#[path = "../cluster/server.rs"]
mod server;

use std::time::{Duration, Instant};

use census::Census;

const DEFAULT_SECONDS: u64 = 30;
/// Rounds before the first count: what is made once and kept is made in them.
const WARM_UP: usize = 2;
/// By so much the memory in use may have grown, at all and with each round: the API server remembers the last changes of each
/// resource for watches that resume, and a round makes some hundred.
const MEMORY_KB: u64 = 32 << 10;
const MEMORY_KB_A_ROUND: u64 = 4 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn after_much_coming_and_going_nothing_is_left() {
    let Some(c) = helpers::cluster().await else { return };
    let seconds = std::env::var("FSM_CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let long = Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS));
    for number in 0..WARM_UP {
        round::run(&c, number).await;
    }
    let before = Census::settled(&c, None).await;
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < long {
        round::run(&c, WARM_UP + rounds).await;
        rounds += 1;
    }
    let after = Census::settled(&c, Some(&before)).await;
    println!("{rounds} rounds in {:.0?}\nbefore {before}\nafter  {after}", start.elapsed());
    assert!(after.is_within(&before), "something is left after {rounds} rounds:\nbefore {before}\nafter  {after}");
    let limit = before.memory_kb + MEMORY_KB + rounds as u64 * MEMORY_KB_A_ROUND;
    assert!(after.memory_kb < limit, "{} kB after {rounds} rounds, before {} kB", after.memory_kb, before.memory_kb);
    c.cluster.shutdown().await;
}
