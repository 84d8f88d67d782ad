//! Two connections joined into one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::idle::{Activity, Watched};
use super::meter::Passed;
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

impl<A: Abort, B: Abort> Abort for Either<A, B> {
    fn abort(&mut self) {
        match self {
            Self::Left(one) => one.abort(),
            Self::Right(other) => other.abort(),
        }
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

/// What ends a joined connection besides its two peers.
#[derive(Clone, Default)]
pub struct Until {
    /// No byte for this long, in either direction.
    pub idle: Option<Duration>,
    /// Cancelled when the policy that allowed the connection is gone.
    pub revoked: CancellationToken,
    /// Counts the bytes until then.
    pub passed: Option<Arc<Passed>>,
}

/// Carries bytes both ways until both directions have ended. Each direction ends by itself (half-close); when one
/// breaks, or `until` ends it, both connections are reset.
pub async fn splice<A, B>(mut one: A, mut other: B, until: Until) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let activity = Activity::new(until.passed.clone());
    let mut watched = Watched::new(&mut one, &activity);
    let ended = tokio::select! {
        ended = copy_bidirectional_with_sizes(&mut watched, &mut other, BUFFER, BUFFER) => ended.map(drop),
        reason = ended_by(&until, &activity) => Err(reason),
    };
    if ended.is_err() {
        one.abort();
        other.abort();
    }
    ended
}

/// Waits until a connection is ended by something else than its peers, and says by what.
pub(super) async fn ended_by(until: &Until, activity: &Activity) -> io::Error {
    tokio::select! {
        () = until.revoked.cancelled() => {
            io::Error::new(io::ErrorKind::PermissionDenied, "the policy that allowed this connection is gone")
        }
        () = activity.none_for(until.idle.unwrap_or_default()), if until.idle.is_some() => {
            io::ErrorKind::TimedOut.into()
        }
    }
}
