//! What of a request's body was sent, so that it can be sent again.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// More than this of a body is not kept.
const MOST: usize = 64 * 1024;

/// The beginning of a body, kept until the response begins. A server that ends may leave out requests that were on
/// their way to it, and says so; they can be sent to another one.
#[derive(Debug)]
pub struct Kept(Mutex<Option<Beginning>>);

#[derive(Debug, Default)]
struct Beginning {
    data: Vec<Bytes>,
    len: usize,
    /// There is no more of the body.
    complete: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self(Mutex::new(Some(Beginning::default())))
    }
}

impl Kept {
    /// `data` is about to be sent. It shares its bytes with the message.
    pub fn add(&self, data: &Bytes) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(beginning) = &mut *kept {
            beginning.len += data.len();
            beginning.data.push(data.clone());
            if beginning.len > MOST {
                *kept = None;
            }
        }
    }

    /// The body has come to its end.
    pub fn complete(&self) {
        if let Some(beginning) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            beginning.complete = true;
        }
    }

    /// The whole body; none if it was not kept, or has not come to its end.
    pub fn whole(&self) -> Option<Vec<Bytes>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|beginning| beginning.complete).map(|beginning| beginning.data.clone())
    }

    /// It will not be sent again.
    pub fn forget(&self) {
        self.take();
    }

    /// All that was sent; none if that was not kept.
    pub fn take(&self) -> Option<Vec<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|beginning| beginning.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_beginning_is_kept_and_a_long_one_is_not() {
        let kept = Kept::default();
        kept.add(&Bytes::from_static(b"a"));
        kept.add(&Bytes::from_static(b"b"));
        assert_eq!(kept.whole(), None);
        kept.complete();
        assert_eq!(kept.whole().unwrap(), ["a", "b"]);
        assert_eq!(kept.take().unwrap(), ["a", "b"]);
        assert_eq!(kept.take(), None);
        let kept = Kept::default();
        for _ in 0..=MOST / 1024 {
            kept.add(&Bytes::from_static(&[0; 1024]));
        }
        assert_eq!(kept.take(), None);
    }
}
