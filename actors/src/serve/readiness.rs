//! What the controller waits for before it says that it is ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named conditions; the controller is ready when all are met. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// Adds a condition that is not met yet.
    pub fn expect(&self, condition: impl Into<String>) {
        self.lock().entry(condition.into()).or_insert(false);
    }

    /// The condition is met.
    pub fn met(&self, condition: &str) {
        self.set(condition, true);
    }

    /// The condition is no longer met.
    pub fn lost(&self, condition: &str) {
        self.set(condition, false);
    }

    /// What is still waited for; nothing if the controller is ready.
    pub fn waiting_for(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, met)| !**met).map(|(name, _)| name.clone()).collect()
    }

    fn set(&self, condition: &str, met: bool) {
        let before = self.lock().insert(condition.to_owned(), met);
        if met && before != Some(true) && self.waiting_for().is_empty() {
            tracing::info!("ready");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
