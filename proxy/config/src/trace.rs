//! The steps of a decision, for people. The data path traces into nothing, which compiles to nothing.

/// Receives the steps of a decision.
pub(crate) trait Trace {
    /// One step; the sentence is only made if somebody wants it.
    fn step(&mut self, sentence: impl FnOnce() -> String);
}

/// Nobody wants the steps.
pub(crate) struct NoTrace;

impl Trace for NoTrace {
    #[inline(always)]
    fn step(&mut self, _sentence: impl FnOnce() -> String) {}
}

/// Keeps the steps in order.
#[derive(Default)]
pub(crate) struct Steps(pub Vec<String>);

impl Trace for Steps {
    fn step(&mut self, sentence: impl FnOnce() -> String) {
        self.0.push(sentence());
    }
}
