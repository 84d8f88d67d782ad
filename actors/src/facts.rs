//! Where facts go in.

use std::sync::Arc;

use fsm_store::{Error, EventLog, Seq, TraceContext};

use crate::fact::Fact;

/// Appends facts to the log. Clones append to the same log.
#[derive(Clone)]
pub struct FactSink {
    log: Arc<dyn EventLog>,
}

impl FactSink {
    /// Appends to this log.
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log }
    }

    /// Appends one fact, which belongs to the change `trace`; gives its seq once it is durable.
    pub async fn append(&self, fact: &Fact, trace: TraceContext) -> Result<Seq, Error> {
        self.log.append(vec![fact.to_entry(trace)]).await
    }

    /// Appends facts that belong together: all or none, next to each other. Gives the seq of the last once they are durable.
    pub async fn append_all(&self, facts: &[Fact], trace: TraceContext) -> Result<Seq, Error> {
        self.log.append(facts.iter().map(|fact| fact.to_entry(trace)).collect()).await
    }

    /// Appends a fact without waiting for it; its place in the order is taken at once.
    pub fn append_later(&self, fact: Fact) {
        let appended = self.log.append(vec![fact.to_entry(TraceContext::default())]);
        let watched = async move {
            if let Err(error) = appended.await {
                tracing::error!(%error, "a fact was not recorded");
            }
        };
        // Actors that end with their runtime still record it: the log takes entries even if nobody waits.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(watched);
        }
    }
}
