//! From the application to services of the mesh, and to the world.

mod attempts;
mod http;
mod leg;
mod opaque;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::FirstBytes;
use tokio::net::TcpStream;

use crate::accept::{Accepted, OriginalDst, Rewind, Sniffed, sniff};
use crate::context::Context;
use crate::metrics::Direction;
use crate::serve::{serve_http1, serve_http2};
use crate::stream::reset;

use http::Outbound;
use opaque::Opened;

/// Serves one connection that the application made. What comes after another has a place of its own, so that an idle
/// connection takes no more room than what it waits for.
pub async fn connection(context: Arc<Context>, original_dst: OriginalDst, accepted: Accepted) {
    let Accepted { mut stream, peer, permit: _permit } = accepted;
    let _open = context.metrics.captured.open();
    let destination = match original_dst.of(&stream) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::warn!(%error, "an outbound connection is refused");
            context.metrics.refused(Direction::Outbound, "no_original_destination");
            return reset(stream);
        }
    };
    let (first, idle) = match &*context.snapshots.load() {
        Some(snapshot) => (FirstBytes::of(snapshot, destination), snapshot.settings().idle_timeout),
        None => (FirstBytes::Undeclared, None),
    };
    let (sniffed, head) = match wait(first, context.limits.sniff_timeout) {
        None => (Sniffed::Opaque, Bytes::new()),
        Some(timeout) => match begun(&context, sniff(&mut stream, timeout)).await {
            Ok((Sniffed::Opaque, head)) if head.is_empty() => {
                match Box::pin(silent(&context, &mut stream, peer.ip(), destination)).await {
                    Some(Late::Client(sniffed, head)) => (sniffed, head),
                    Some(Late::Opaque(opened, heard)) => {
                        return Box::pin(opened.carry(Rewind::new(Bytes::new(), stream), heard)).await;
                    }
                    None => return,
                }
            }
            Ok(sniffed) => sniffed,
            Err(_gone) => return,
        },
    };
    let stream = Rewind::new(head, stream);
    let answer = Outbound::new(Arc::clone(&context), peer.ip(), destination);
    match sniffed {
        // Where HTTP is declared, what is like it but isn't is refused as bad HTTP, and reaches no application as raw bytes.
        Sniffed::Opaque if first == FirstBytes::Http => {
            Box::pin(serve_http1(stream, answer, idle, &context.limits, &context.drain)).await;
        }
        Sniffed::Http1 => Box::pin(serve_http1(stream, answer, idle, &context.limits, &context.drain)).await,
        Sniffed::Http2 => Box::pin(serve_http2(stream, answer, &context.limits, &context.drain)).await,
        Sniffed::Tls | Sniffed::Opaque => Box::pin(opaque::connection(&context, stream, peer.ip(), destination)).await,
    }
}

/// Waits for a client to begin. One that has not begun when the drain wants its connection is not waited for.
async fn begun<T>(context: &Context, first: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::select! {
        first = first => first,
        () = context.drain.idle_ended() => Err(std::io::ErrorKind::ConnectionAborted.into()),
    }
}

/// What a connection turned out to be whose client was silent at first.
enum Late {
    /// The client spoke first after all: it had connected ahead of its first request.
    Client(Sniffed, Bytes),
    /// The server spoke first, or the client has nothing to say.
    Opaque(Opened, Bytes),
}

/// Waits for the first bytes of either end. None: the client is gone.
///
/// The server is connected to without knowing what for, as it may be the one who speaks first; if it may not be reached
/// that way, the client still may have a request that is allowed.
async fn silent(context: &Context, stream: &mut TcpStream, source: IpAddr, destination: SocketAddr) -> Option<Late> {
    let Ok(mut opened) = opaque::open(context, source, destination).await else {
        let (sniffed, head) = begun(context, sniff(stream, None)).await.ok()?;
        return Some(Late::Client(sniffed, head));
    };
    tokio::select! {
        heard = opened.first_bytes() => Some(Late::Opaque(opened, heard.unwrap_or_default())),
        readable = stream.readable() => {
            readable.ok()?;
            let (sniffed, head) = sniff(stream, Some(context.limits.sniff_timeout)).await.ok()?;
            if head.is_empty() {
                return Some(Late::Opaque(opened, head));
            }
            opened.close();
            Some(Late::Client(sniffed, head))
        }
    }
}

/// Whether to look at the first bytes, and how long to wait for them.
fn wait(first: FirstBytes, undeclared: Duration) -> Option<Option<Duration>> {
    match first {
        FirstBytes::Opaque => None,
        FirstBytes::Http => Some(None),
        FirstBytes::Undeclared => Some(Some(undeclared)),
    }
}
