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
/// It begins with the newest snapshot that is good; one that can't be read, or that comes to another state than it was taken of,
/// is named and passed over for the one before, and in the end for the whole history.
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

/// Where to begin on the way to `upto`: at the newest good snapshot that is not after it, or before the first record. `skips` are known
/// already.
pub async fn beginning(log: &dyn EventLog, upto: Seq, skips: &Skips) -> Result<Core, RebuildError> {
    let mut before = upto;
    let mut different = None;
    while let Some(found) = log.latest_snapshot(SNAPSHOT, before).await? {
        let seq = found.seq.0;
        match snapshot::restore(&found.bytes) {
            Ok(mut restored) => {
                let unknown = skips.iter().any(|skip| skip.1 <= found.seq && !restored.core.skips.contains(skip));
                restored.core.skips.extend(skips);
                if unknown {
                    tracing::info!(seq, "a snapshot was taken before a record was left out: using the one before");
                } else if restored.differing.is_empty() {
                    return Ok(restored.core);
                } else {
                    let machines = restored.differing.join(", ");
                    tracing::warn!(
                        seq,
                        machines,
                        "a snapshot leads to another state than it was taken of: using the one before"
                    );
                    different.get_or_insert(restored.core);
                }
            }
            Err(error) => tracing::warn!(seq, %error, "a snapshot can't be used: using the one before"),
        }
        let Some(earlier) = seq.checked_sub(1) else { break };
        before = Seq(earlier);
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
