//! The admin port: what this proxy has, does and would do. On loopback only, and never shows a key. All that it changes is the log level.
//!
//! [`pages`] lists what there is.

mod clusters;
mod pages;
mod query;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use fsm_proxy_config::Snapshot;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::State;
use crate::Snapshots;
use crate::telemetry::LogLevel;
use crate::tls::{Identity, MeshTls};
use crate::upstream::{CircuitState, MemberState};
use pages::Answer;

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
    /// What is under way to a service port, as far as that is bounded; none if nothing went there yet.
    fn circuit(&self, service: &str, port: u16) -> Option<CircuitState>;
}

/// Where the answers come from.
#[derive(Clone)]
pub struct Admin {
    pub tls: MeshTls,
    pub snapshots: Snapshots,
    pub state: watch::Receiver<State>,
    pub data_path: Arc<dyn DataPath>,
    /// None if something else has set up the log.
    pub log: Option<LogLevel>,
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
                let response = admin.answer(&request).into_response();
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

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Answer {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        match *request.method() {
            Method::GET | Method::HEAD => self.page(path, query, request.headers()),
            Method::POST if path == "/logging" => self.set_log_level(query),
            _ => Answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "the admin port only reads: use GET; POST is for /logging?level=… only",
            ),
        }
    }

    fn page(&self, path: &str, query: &str, headers: &HeaderMap) -> Answer {
        let snapshot = self.snapshots.load_full();
        let ok = |value| Answer::json(StatusCode::OK, value);
        match path {
            "/" => pages::index(headers),
            "/config_dump" => with(snapshot, |snapshot| ok(snapshot.set().to_json())),
            "/clusters" => with(snapshot, |snapshot| ok(clusters::json(snapshot, &*self.data_path))),
            "/listeners" => ok(self.data_path.listeners()),
            "/stats" => {
                let control = serde_json::to_value(&*self.state.borrow()).unwrap_or_default();
                ok(json!({ "control": control, "data": self.data_path.stats() }))
            }
            "/ready" => self.ready(snapshot.as_deref()),
            "/certs" => match self.tls.identity() {
                Some(identity) => ok(certificate(&identity)),
                None => Answer::json(
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({ "error": "no certificate yet", "reason": self.state.borrow().certificate_error }),
                ),
            },
            "/decide" => {
                let text = pages::accepts(headers, "text/plain");
                with(snapshot, |snapshot| query::decide(snapshot, query, text))
            }
            "/logging" => ok(json!({ "level": self.log.as_ref().map(LogLevel::get) })),
            _ => pages::not_found(path),
        }
    }

    fn set_log_level(&self, query: &str) -> Answer {
        let Some(level) = query::parameter(query, "level") else {
            let text = "parameter \"level\" is missing: info, or info,fsm_proxy=debug";
            return Answer::error(StatusCode::BAD_REQUEST, text);
        };
        match self.log.as_ref().map(|log| log.set(&level)) {
            Some(Ok(())) => Answer::json(StatusCode::OK, json!({ "level": level })),
            Some(Err(error)) => Answer::error(StatusCode::BAD_REQUEST, error),
            None => {
                Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the log of this process is not the proxy's to change")
            }
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
        Answer::json(
            status,
            json!({ "ready": missing.is_empty(), "missing": missing, "seq": snapshot.map(Snapshot::seq) }),
        )
    }
}

fn with(snapshot: Option<Arc<Snapshot>>, page: impl FnOnce(&Snapshot) -> Answer) -> Answer {
    match snapshot {
        Some(snapshot) => page(&snapshot),
        None => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet: see /ready"),
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
