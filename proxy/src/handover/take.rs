//! The successor's side.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use tokio::net::UnixStream;

use super::wire::{Answer, Hello, Line, VERSION, Word};
use super::{HandoverError, Other, address, other};
use crate::accept::Inherited;

/// How long a predecessor may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A proxy that runs, and serves until its successor is ready.
pub struct Predecessor {
    line: Line,
    ready: bool,
}

impl Predecessor {
    /// Finds the proxy of `workload` that serves in this network namespace, and gets its sockets. None: there is none.
    ///
    /// # Errors
    ///
    /// When there is one that does not hand over: its ports cannot be bound either.
    pub async fn find(name: &str, workload: &str) -> Result<Option<(Self, Inherited)>, HandoverError> {
        let failed = |source| HandoverError::Socket { name: name.to_owned(), source };
        let stream = match StdStream::connect_addr(&address(name).map_err(failed)?) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        if let Other::Stranger(why) = other(&stream)? {
            tracing::warn!(why, "something else listens where a predecessor would; it is not asked for sockets");
            return Ok(None);
        }
        let mut line = Line::new(stream);
        line.send(&Hello { version: VERSION, workload: workload.to_owned() }, &[]).await?;
        let answer = tokio::time::timeout(PATIENCE, line.receive::<Answer>()).await;
        match answer.map_err(std::io::Error::from)?? {
            Some((Answer::Offer { version: VERSION, roles, ready }, sockets)) if roles.len() == sockets.len() => {
                let inherited = Inherited::new(roles.into_iter().zip(sockets).collect());
                Ok(Some((Self { line, ready }, inherited)))
            }
            Some((Answer::Offer { version, .. }, _)) => {
                Err(HandoverError::Refused(format!("its offer, of version {version}, is not understood")))
            }
            Some((Answer::Refused { reason }, _)) => Err(HandoverError::Refused(reason)),
            // It is ending by itself.
            None => Ok(None),
        }
    }

    /// Whether it has what it needs to serve, so that its successor should have it too.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Waits until it has ended by itself.
    pub async fn gone(&mut self) {
        while let Ok(Some(_)) = self.line.receive::<Answer>().await {}
    }

    /// Tells it that its successor serves. It may have ended in the meantime. As long as it has not, it serves again if this value
    /// is dropped without [`ended`](Self::ended).
    pub async fn retire(&mut self) {
        if let Err(error) = self.line.send(&Word::Ready, &[]).await {
            tracing::info!(%error, "the predecessor has ended already");
        }
    }

    /// Tells it that its successor is about to end, and needs nobody in its place.
    pub async fn ended(mut self) {
        // Mostly it has ended long ago.
        let _ = self.line.send(&Word::Ended, &[]).await;
    }
}
