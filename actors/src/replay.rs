//! Time travel: the state machines on the past, and proof that they come to the same.
