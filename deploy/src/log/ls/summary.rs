//! A record in a few words.

use fsm_actors::fact::{Fact, ObjectChange, ProxyPhase, RelistPhase};
use fsm_store::Record;
use serde_json::Value;

use crate::log::moment::time_text;

/// What the record says, beside its topic and key.
pub(crate) fn of(record: &Record) -> String {
    match Fact::parse(&record.entry) {
        Ok(fact) => words(&fact),
        Err(error) => error.to_string(),
    }
}

fn words(fact: &Fact) -> String {
    match fact {
        Fact::Object(fact) => {
            let object: Value = serde_json::from_str(fact.object.get()).unwrap_or_default();
            let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            let change = match fact.change {
                ObjectChange::Applied => "applied",
                ObjectChange::Deleted => "deleted",
            };
            version.map_or_else(|| change.to_owned(), |version| format!("{change}, resource version {version}"))
        }
        Fact::Relist(fact) => match fact.phase {
            RelistPhase::Begin => "a complete list begins".into(),
            RelistPhase::End => "the list is complete".into(),
        },
        Fact::Proxy(fact) => match fact.phase {
            ProxyPhase::Connected => format!("connected as {}, running {}", fact.identity, fact.running_seq),
            ProxyPhase::Disconnected => "disconnected".into(),
        },
        Fact::Ack(fact) => format!("runs {}, digest {}", fact.seq, start_of(&fact.digest.to_string())),
        Fact::Nack(fact) => format!("refused {}: {}", fact.seq, fact.error),
        Fact::CertificateIssued(fact) => {
            format!("certificate {} until {}", start_of(&fact.fingerprint), time_text(fact.not_after))
        }
        Fact::PodAdmitted(fact) => match &fact.reason {
            Some(reason) => format!("{}: {reason}", fact.outcome),
            None => fact.outcome.clone(),
        },
        Fact::ControllerStarted(fact) => format!("version {}, trust domain {}", fact.version, fact.trust_domain),
        Fact::ControllerStopped(_) => "ended in good order".to_owned(),
        Fact::StateDigest(fact) => format!("{} state machines at {}", fact.digests.len(), fact.seq),
        Fact::Unknown { topic } => format!("{topic}: of a newer version"),
    }
}

/// Enough of a digest to tell it from others.
fn start_of(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
