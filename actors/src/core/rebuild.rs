//! From a log to the state at one of its seqs: the newest good snapshot, and the records after it.

use fsm_store::{EventLog, Seq};
use futures::StreamExt;

use super::{Core, Panicked, Skips, snapshot};

/// The name of this crate's snapshots in a log.
pub const SNAPSHOT: &str = "core";

/// Why a state can't be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Log(#[from] fsm_store::Error),
    #[error(
        "the log begins with seq {first}, and no snapshot that this version can read says what was before: \
         ask for a later moment, or use the newer fsm that wrote the snapshots"
    )]
    NoBeginning { first: Seq },
}

/// The state after all records up to and including `upto`.
///
/// It begins with a snapshot that is good ([`beginning`]); one that can't be read, or that comes to another state than it was taken of,
/// is named and passed over for an older one, and in the end for the whole history.
///
/// A record that makes a state machine panic is left out for that state machine, as in the running control plane; which ones
/// these are is in the core that comes back. `skips` are known already.
pub async fn rebuild(log: &dyn EventLog, upto: Seq, mut skips: Skips) -> Result<Core, RebuildError> {
    loop {
        let core = beginning(log, upto, &skips).await?;
        match go_on(log, core, upto).await? {
            Ok(core) => return Ok(core),
            Err(Panicked { machine, seq }) => {
                skips.insert((machine, seq));
                tracing::error!(actor = machine, seq = seq.0, "record left out: it makes this state machine panic");
            }
        }
    }
}

/// Applies the records after the core's last one, up to and including `upto`.
async fn go_on(log: &dyn EventLog, mut core: Core, upto: Seq) -> Result<Result<Core, Panicked>, fsm_store::Error> {
    let from = if core.seq() == Seq::ZERO { Seq::ZERO } else { core.seq().next() };
    let mut batches = log.read(from);
    while let Some(batch) = batches.next().await {
        for record in batch?.iter() {
            if record.seq > upto {
                return Ok(Ok(core));
            }
            if let Err(panicked) = core.try_apply_one(record) {
                return Ok(Err(panicked));
            }
        }
    }
    Ok(Ok(core))
}

/// Where to begin on the way to `upto`: at a good snapshot that is not after it, or before the first record. `skips` are known already.
///
/// It is the newest one if that is good, or the one before. A version that computes another state than the one that wrote the log can use
/// none: so it looks twice as far back each time, and tries a few of hundreds.
pub async fn beginning(log: &dyn EventLog, upto: Seq, skips: &Skips) -> Result<Core, RebuildError> {
    let mut search = Search { before: upto, last: None, leaps: true };
    let mut different = None;
    loop {
        let Some(found) = log.latest_snapshot(SNAPSHOT, search.before).await? else {
            // Without the first records there is no other beginning than a snapshot.
            if log.first() > Seq(1) && search.turn_back() {
                continue;
            }
            break;
        };
        let seq = found.seq.0;
        match snapshot::restore(&found.bytes) {
            Ok(mut restored) => {
                let unknown = skips.iter().any(|skip| skip.1 <= found.seq && !restored.core.skips.contains(skip));
                restored.core.skips.extend(skips);
                if unknown {
                    tracing::info!(seq, "a snapshot was taken before a record was left out: using an older one");
                } else if restored.differing.is_empty() {
                    return Ok(restored.core);
                } else {
                    let machines = restored.differing.join(", ");
                    tracing::warn!(
                        seq,
                        machines,
                        "a snapshot leads to another state than it was taken of: using an older one"
                    );
                    different.get_or_insert(restored.core);
                }
            }
            Err(error) => tracing::warn!(seq, %error, "a snapshot can't be used: using an older one"),
        }
        if !search.go_back(found.seq) {
            break;
        }
    }
    if log.first() <= Seq(1) {
        return Ok(Core::leaving_out(skips.clone()));
    }
    let core = different.ok_or(RebuildError::NoBeginning { first: log.first() })?;
    tracing::warn!(
        seq = core.seq().0,
        "what was before is dropped: this version's state of the snapshot counts from here on"
    );
    Ok(core)
}

/// The way back from snapshot to snapshot.
struct Search {
    /// The next one is the newest that is not after this.
    before: Seq,
    last: Option<Seq>,
    /// Whether snapshots may be passed over.
    leaps: bool,
}

impl Search {
    /// The snapshot at `seq` is of no use; false if there can be none before it.
    fn go_back(&mut self, seq: Seq) -> bool {
        let distance = self.last.filter(|_| self.leaps).map_or(1, |last| 2 * (last.0 - seq.0));
        self.last = Some(seq);
        self.before = Seq(seq.0.saturating_sub(distance));
        seq > Seq::ZERO
    }

    /// There is none so far back: takes all of them from the last one on; false if none was passed over.
    fn turn_back(&mut self) -> bool {
        match self.last {
            Some(last) if std::mem::replace(&mut self.leaps, false) => {
                self.before = Seq(last.0.saturating_sub(1));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The snapshots that are tried if none is of use.
    fn tried(snapshots: &BTreeSet<u64>, upto: u64, turn_back: bool) -> Vec<u64> {
        let (mut search, mut tried) = (Search { before: Seq(upto), last: None, leaps: true }, Vec::new());
        loop {
            match snapshots.range(..=search.before.0).next_back() {
                Some(seq) => {
                    tried.push(*seq);
                    if !search.go_back(Seq(*seq)) {
                        return tried;
                    }
                }
                None if turn_back && search.turn_back() => {}
                None => return tried,
            }
        }
    }

    proptest! {
        #[test]
        fn few_snapshots_are_tried_and_the_oldest_if_it_has_to_be(
            snapshots in prop::collection::btree_set(1..1_000_000_u64, 1..300),
            upto in any::<prop::sample::Index>(),
        ) {
            let newest_first: Vec<u64> = snapshots.iter().rev().copied().collect();
            let upto = newest_first[upto.index(newest_first.len())];
            let few = tried(&snapshots, upto, false);
            prop_assert!(few.len() <= 22, "{few:?}");
            prop_assert!(few.is_sorted_by(|one, next| one > next) && few[0] == upto);
            prop_assert_eq!(few.get(1), newest_first.iter().find(|seq| **seq < upto));
            let all = tried(&snapshots, upto, true);
            prop_assert!(all.is_sorted_by(|one, next| one > next));
            prop_assert!(all.contains(&newest_first[newest_first.len() - 1]));
        }
    }
}
