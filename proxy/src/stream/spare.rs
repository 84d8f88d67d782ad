//! Large buffers that each thread keeps for whoever needs one next, so that an idle connection has none.

use std::cell::RefCell;

/// The length of each, in bytes.
pub const LEN: usize = 64 * 1024;
/// Buffers that a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer; what is in it means nothing.
pub fn take() -> Box<[u8]> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LEN].into())
}

/// Keeps a buffer that is not needed any more.
pub fn give_back(buffer: Box<[u8]>) {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < KEPT {
            buffers.push(buffer);
        }
    });
}
