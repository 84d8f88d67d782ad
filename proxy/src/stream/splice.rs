//! Two connections joined into one.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::accept::Rewind;

/// What one read may take: a TLS record's worth.
const BUFFER: usize = 16 * 1024;

/// A connection that can be ended so that its peer sees that it broke, rather than that it ended.
pub trait Abort {
    /// Makes the end that follows a reset.
    fn abort(&mut self);
}

impl Abort for TcpStream {
    fn abort(&mut self) {
        // With no time to linger, closing sends RST instead of FIN.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

impl<T: Abort> Abort for Rewind<T> {
    fn abort(&mut self) {
        self.get_mut().abort();
    }
}

/// Ends a connection with a reset.
pub fn reset(mut connection: impl Abort) {
    connection.abort();
}

/// Carries bytes both ways until both directions have ended. Each direction ends by itself (half-close); when one
/// breaks, both connections are reset.
pub async fn splice<A, B>(mut one: A, mut other: B) -> std::io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let carried = copy_bidirectional_with_sizes(&mut one, &mut other, BUFFER, BUFFER).await;
    if carried.is_err() {
        one.abort();
        other.abort();
    }
    carried
}
