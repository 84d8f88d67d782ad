//! Requests that ask to switch protocols: WebSocket and the like.

use http::{Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::headers;
use crate::stream::{Abort, Body, Until};

impl Abort for TokioIo<Upgraded> {
    fn abort(&mut self) {
        // Dropping it closes the connection that was upgraded.
    }
}

/// Sends an upgrade request over a connection of its own, and joins both sides if the other end agrees.
///
/// `downstream` is the side that asked; `until` ends what follows the switch.
pub async fn forward_upgrade<T>(
    io: T,
    mut request: Request<Body>,
    downstream: OnUpgrade,
    until: Until,
) -> Result<Response<Body>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut parts, body) = request.into_parts();
    headers::into_http1(&mut parts);
    request = Request::from_parts(parts, body);
    let (mut send, connection) =
        hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection for an upgrade ended");
        }
    });
    let mut response = send.send_request(request).await?;
    let upgrades = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    headers::strip_but_upgrade(response.headers_mut(), upgrades);
    if upgrades {
        let upstream = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            match tokio::try_join!(downstream, upstream) {
                Ok((downstream, upstream)) => {
                    let _ = crate::stream::splice(TokioIo::new(downstream), TokioIo::new(upstream), until).await;
                }
                Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
            }
        });
    }
    Ok(response.map(Body::from))
}
