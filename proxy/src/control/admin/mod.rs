//! The admin port: what this proxy has, does and would do. On loopback only, reads only, and never shows a key.
//!
//! | path | shows |
//! | --- | --- |
//! | `/config_dump` | seq, digest and every resource |
//! | `/clusters` | services with their endpoints and what is under way to each |
//! | `/listeners` | what is listened on |
//! | `/stats` | counters, and the state of the connection to the controller |
//! | `/ready` | 200 once there are a certificate and a configuration, else 503 with what is missing |
//! | `/certs` | the certificate: identity, serial number, validity; the trust bundle |
//! | `/decide` | what would be done with a request, and why; see [`query`] |

mod clusters;
mod query;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fsm_proxy_config::Snapshot;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::State;
use crate::Snapshots;
use crate::tls::{Identity, MeshTls};
use crate::upstream::MemberState;

/// The admin port of every sidecar.
pub const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// What the data path can tell about itself.
pub trait DataPath: Send + Sync + 'static {
    /// The counters, as JSON.
    fn stats(&self) -> Value;
    /// The addresses that are listened on, by purpose.
    fn listeners(&self) -> Value;
    /// An endpoint of a service port as load balancing sees it; none if nothing went to that port yet.
    fn endpoint(&self, service: &str, port: u16, address: SocketAddr) -> Option<MemberState>;
}

/// Where the answers come from.
#[derive(Clone)]
pub struct Admin {
    pub tls: MeshTls,
    pub snapshots: Snapshots,
    pub state: watch::Receiver<State>,
    pub data_path: Arc<dyn DataPath>,
}

/// Serves the admin port for ever.
pub async fn serve(listener: TcpListener, admin: Admin) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: others close theirs in time.
                tracing::warn!(%error, "admin port: a connection could not be taken");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let response = admin.answer(request.method(), request.uri());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin port: connection ended");
            }
        });
    }
}

/// A status and a JSON text.
type Answer = (StatusCode, Value);

impl Admin {
    fn answer(&self, method: &Method, uri: &http::Uri) -> Response<Full<Bytes>> {
        let (status, body) = match method {
            &Method::GET | &Method::HEAD => self.page(uri.path(), uri.query().unwrap_or_default()),
            _ => (StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "the admin port only reads: use GET" })),
        };
        let text = format!("{body:#}\n");
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }

    fn page(&self, path: &str, query: &str) -> Answer {
        let snapshot = self.snapshots.load_full();
        match path {
            "/config_dump" => with(snapshot, |snapshot| (StatusCode::OK, snapshot.set().to_json())),
            "/clusters" => with(snapshot, |snapshot| (StatusCode::OK, clusters::json(snapshot, &*self.data_path))),
            "/listeners" => (StatusCode::OK, self.data_path.listeners()),
            "/stats" => {
                let control = serde_json::to_value(&*self.state.borrow()).unwrap_or_default();
                (StatusCode::OK, json!({ "control": control, "data": self.data_path.stats() }))
            }
            "/ready" => self.ready(snapshot.as_deref()),
            "/certs" => match self.tls.identity() {
                Some(identity) => (StatusCode::OK, certificate(&identity)),
                None => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({ "error": "no certificate yet", "reason": self.state.borrow().certificate_error }),
                ),
            },
            "/decide" => with(snapshot, |snapshot| query::decide(snapshot, query)),
            _ => (
                StatusCode::NOT_FOUND,
                json!({ "error": format!("no page {path}"), "pages": ["/config_dump", "/clusters", "/listeners", "/stats", "/ready", "/certs", "/decide"] }),
            ),
        }
    }

    fn ready(&self, snapshot: Option<&Snapshot>) -> Answer {
        let state = self.state.borrow().clone();
        let missing: Vec<String> = [
            self.tls.server_config().err().map(|error| match &state.certificate_error {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            }),
            (!snapshot.is_some_and(Snapshot::is_complete)).then(|| match (&state.refused, &state.stream_error) {
                (Some(refused), _) => {
                    format!("no configuration yet: that of seq {} cannot be used: {}", refused.seq, refused.reason)
                }
                (None, Some(cause)) => format!("no configuration yet: {cause}"),
                (None, None) => "no configuration yet".to_owned(),
            }),
        ]
        .into_iter()
        .flatten()
        .collect();
        let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, json!({ "ready": missing.is_empty(), "missing": missing, "seq": snapshot.map(Snapshot::seq) }))
    }
}

fn with(snapshot: Option<Arc<Snapshot>>, page: impl FnOnce(&Snapshot) -> Answer) -> Answer {
    match snapshot {
        Some(snapshot) => page(&snapshot),
        None => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "no configuration yet: see /ready" })),
    }
}

fn certificate(identity: &Identity) -> Value {
    let unix = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "identity": identity.spiffe(),
        "serial": identity.serial(),
        "not_before_unix_s": unix(identity.not_before()),
        "not_after_unix_s": unix(identity.not_after()),
        "expired": identity.is_expired(SystemTime::now()),
        "chain_certificates": identity.chain().len(),
        "trust_bundle_pem": identity.trust().pem(),
    })
}

#[cfg(test)]
mod tests;
