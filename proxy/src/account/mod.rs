//! The account of one request: what is told of it when it has ended, in the access log and as a span.
//!
//! Most of the time neither is on, or the request is not one of those sampled. An [`Account`] is nothing then, and costs the look at three
//! settings.

mod batches;
mod bodies;
mod entry;
mod export;
mod json;
mod observers;
mod place;
mod remote;
mod span;
mod text;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fsm_proxy_config::{AccessLog, Allow, Backend, Endpoint, Snapshot};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Response, StatusCode, Version};

use crate::headers;
use crate::metrics::{Direction, RequestStats};
use crate::reply::Reply;
use crate::stream::{Body, End, Meter, Metered, Passed, Way};
use crate::trace::Heard;

use bodies::Bodies;
use entry::{Asked, Entry};

pub use batches::Sent;
pub use observers::Observers;
pub use writer::{Lines, Output};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What is kept of a text that a client chose: it must not fill the log.
const LONGEST: usize = 4096;

/// The account of one request or connection. What was not told otherwise when it is dropped is told then.
#[derive(Default)]
pub struct Account(Option<Box<Watched>>);

/// A request that somebody may want to know about.
struct Watched {
    observers: Arc<Observers>,
    snapshot: Arc<Snapshot>,
    /// How to write it down, and whether in any case or only as an error.
    log: Option<(AccessLog, bool)>,
    /// Whether it is sent away too.
    remote: bool,
    begun: Instant,
    entry: Entry,
    bodies: Arc<Bodies>,
    /// What a connection has carried: an opaque one, or one that switched to another protocol.
    carried: Option<Arc<Passed>>,
}

/// What an account begins with.
enum Head<'h> {
    Request(&'h mut Parts),
    /// What the two proxies say to each other about it.
    Connection(&'h mut HeaderMap),
}

impl Head<'_> {
    fn headers(&mut self) -> &mut HeaderMap {
        match self {
            Self::Request(parts) => &mut parts.headers,
            Self::Connection(headers) => headers,
        }
    }
}

impl Account {
    /// Of a request that has just come. Its headers are made to say that what follows belongs to this proxy's span.
    #[inline]
    pub fn of_request(
        observers: &Arc<Observers>,
        snapshot: &Arc<Snapshot>,
        direction: Direction,
        begun: Instant,
        parts: &mut Parts,
    ) -> Self {
        if !snapshot.settings().tells() {
            return Self::default();
        }
        Self::watch(observers, snapshot, direction, begun, Head::Request(parts))
    }

    /// Of an opaque connection. `told` is what the proxy before this one said of it, and is made to say that what follows belongs to this
    /// proxy's span.
    pub fn of_connection(
        observers: &Arc<Observers>,
        snapshot: &Arc<Snapshot>,
        direction: Direction,
        told: &mut HeaderMap,
    ) -> Self {
        if !snapshot.settings().tells() {
            return Self::default();
        }
        Self::watch(observers, snapshot, direction, Instant::now(), Head::Connection(told))
    }

    fn watch(
        observers: &Arc<Observers>,
        snapshot: &Arc<Snapshot>,
        direction: Direction,
        begun: Instant,
        mut head: Head<'_>,
    ) -> Self {
        let settings = snapshot.settings();
        let heard = Heard::of(head.headers());
        let trace = settings.tracing.as_ref().and_then(|tracing| heard.join(head.headers(), tracing.sampled));
        // The same for all proxies that a trace comes through, so that its lines are all there or none is.
        let draw = trace.map(|trace| trace.span).or(heard.parent).map_or_else(|| fastrand::u64(..), |span| span.draw());
        let log = settings.access_log.and_then(|log| {
            let sampled = log.sampled.takes(draw);
            (sampled || log.errors_always).then_some((log, sampled))
        });
        let remote = settings.remote_log.as_ref().is_some_and(|log| log.sampled.takes(draw));
        if log.is_none() && !remote && !trace.is_some_and(|trace| trace.sampled) {
            return Self::default();
        }
        let entry = Entry {
            start: SystemTime::now().checked_sub(begun.elapsed()).unwrap_or_else(SystemTime::now),
            direction,
            seq: snapshot.seq(),
            request: match head {
                Head::Request(parts) => Some(asked(parts)),
                Head::Connection(_) => None,
            },
            status: None,
            reason: String::new(),
            details: String::new(),
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            first_byte: None,
            service: String::new(),
            backend: String::new(),
            split: String::new(),
            policy: String::new(),
            route: String::new(),
            source: String::new(),
            upstream: None,
            pod: String::new(),
            retries: 0,
            trace,
        };
        Self(Some(Box::new(Watched {
            observers: Arc::clone(observers),
            snapshot: Arc::clone(snapshot),
            log,
            remote,
            begun,
            entry,
            bodies: Arc::default(),
            carried: None,
        })))
    }

    fn note(&mut self, note: impl FnOnce(&mut Entry)) {
        if let Some(watched) = &mut self.0 {
            note(&mut watched.entry);
        }
    }

    /// Outbound: it goes to a backend of a service.
    pub fn forwarded(&mut self, service: &str, split: Option<&str>, backend: &Backend<'_>) {
        self.note(|entry| {
            entry.service = service.to_owned();
            entry.backend = backend.service.to_owned();
            entry.split = split.unwrap_or_default().to_owned();
        });
    }

    /// Outbound: it leaves the mesh, or goes to a pod without a proxy.
    pub fn passed_through(&mut self, destination: SocketAddr) {
        self.note(|entry| {
            entry.backend = "passthrough".to_owned();
            entry.upstream = Some(destination);
        });
    }

    /// Outbound: it is sent to this endpoint.
    pub fn sent_to(&mut self, endpoint: &Endpoint) {
        self.note(|entry| {
            entry.upstream = Some(endpoint.address);
            entry.pod.clone_from(&endpoint.pod);
        });
    }

    /// It is sent again.
    pub fn retried(&mut self) {
        self.note(|entry| entry.retries += 1);
    }

    /// Inbound: who sent it, and for which service.
    pub fn called(&mut self, source: &impl ToString, service: &str) {
        self.note(|entry| {
            entry.source = source.to_string();
            entry.service = service.to_owned();
        });
    }

    /// Inbound: what allowed it.
    pub fn allowed(&mut self, allow: &Allow<'_>, application: SocketAddr) {
        self.note(|entry| {
            entry.policy = allow.policy.unwrap_or_default().to_owned();
            entry.route = match allow.rule {
                Some((group, "")) => group.to_owned(),
                Some((group, rule)) => format!("{group} {rule}"),
                None => String::new(),
            };
            entry.upstream = Some(application);
        });
    }

    /// The proxy answers by itself.
    pub fn refused(&mut self, reply: &Reply) {
        self.note(|entry| {
            entry.status = Some(reply.status.as_u16());
            entry.reason = reply.reason.to_owned();
            entry.details.clone_from(&reply.text);
            entry.bytes_sent = reply.body_bytes();
        });
    }

    /// An opaque connection to `destination` comes to nothing.
    pub fn closed(&mut self, reason: &str, destination: SocketAddr, why: &impl ToString) {
        self.note(|entry| {
            entry.reason = reason.to_owned();
            entry.details = why.to_string();
            entry.upstream.get_or_insert(destination);
        });
    }

    /// Has the bytes of a connection counted, opaque or one that switches to another protocol. `reads` is what is read from its first end.
    pub fn carries(&mut self, stats: &Arc<RequestStats>, reads: Way) -> Arc<Passed> {
        let passed = Passed::new(Arc::clone(stats) as Arc<dyn Metered>, reads);
        if let Some(watched) = &mut self.0 {
            watched.carried = Some(Arc::clone(&passed));
        }
        passed
    }

    /// An opaque connection ended otherwise than by its peers' will.
    pub fn broke_off(&mut self, error: &std::io::Error) {
        self.note(|entry| {
            entry.reason = match error.kind() {
                std::io::ErrorKind::TimedOut => "idle_timeout",
                std::io::ErrorKind::PermissionDenied => "revoked",
                _ => "broke_off",
            }
            .to_owned();
            entry.details = error.to_string();
        });
    }

    /// Nothing is told of it.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// Has the request's body counted.
    pub fn receives(&self, stats: &Arc<RequestStats>, body: &mut Body) {
        if http_body::Body::is_end_stream(body) {
            return;
        }
        body.measure(Meter::new(self.meter(stats), Way::Request));
    }

    /// Has the response's body counted; the account is told with its end.
    pub fn answers(mut self, stats: &Arc<RequestStats>, response: &mut Response<Body>) -> Self {
        if let Some(watched) = &mut self.0 {
            watched.answered(response.status(), response.headers());
        }
        let whole = http_body::Body::is_end_stream(response.body());
        if !whole {
            response.body_mut().measure(Meter::new(self.meter(stats), Way::Response));
        } else if let Some(watched) = &self.0 {
            watched.bodies.ended(End::Whole);
        }
        self
    }

    fn meter(&self, stats: &Arc<RequestStats>) -> Arc<dyn Metered> {
        match &self.0 {
            None => Arc::clone(stats) as Arc<dyn Metered>,
            Some(watched) => {
                watched.bodies.count_in(stats);
                Arc::clone(&watched.bodies) as Arc<dyn Metered>
            }
        }
    }
}

impl Watched {
    fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.entry.status = Some(status.as_u16());
        self.entry.first_byte = Some(self.begun.elapsed());
        if let Some(reason) = headers.get(headers::FSM_DENIED) {
            // The other sidecar has answered, and not the application.
            self.entry.reason = lossy(reason.as_bytes());
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(watched) = self.0.take() {
            watched.tell();
        }
    }
}

impl Watched {
    fn tell(self: Box<Self>) {
        let Self { observers, snapshot, log, remote, begun, mut entry, bodies, carried } = *self;
        entry.duration = begun.elapsed();
        let carried = carried.map_or((0, 0), |carried| carried.totals());
        let (received, sent) = bodies.totals();
        entry.bytes_received = entry.bytes_received.max(received).max(carried.0);
        entry.bytes_sent = entry.bytes_sent.max(sent).max(carried.1);
        if entry.request.is_some() && entry.reason.is_empty() {
            entry.reason = match (entry.status, bodies.response_end()) {
                (None, _) | (Some(_), Some(End::GivenUp)) => "client_gone".to_owned(),
                (Some(_), Some(End::Broken)) => "broke_off".to_owned(),
                (Some(_), _) => String::new(),
            };
        }
        let sampled = entry.trace.filter(|trace| trace.sampled);
        if let (Some(tracing), Some(trace)) = (&snapshot.settings().tracing, sampled) {
            let place = || observers.place(&snapshot);
            observers.exporter.send(span::of(&entry, trace), tracing.endpoint.as_deref(), place);
        }
        let log = log.filter(|(log, sampled)| *sampled || (log.errors_always && entry.is_error()));
        let remote = snapshot.settings().remote_log.as_ref().filter(|_| remote);
        if log.is_none() && remote.is_none() {
            return;
        }
        let entry = Arc::new(entry);
        if let Some(remote) = remote {
            observers.send(Arc::clone(&entry), remote, &snapshot);
        }
        if let Some((log, _)) = log {
            observers.writer.write(entry, log.format);
        }
    }
}

fn asked(parts: &Parts) -> Asked {
    let header = |name| parts.headers.get(name).map(|value| lossy(value.as_bytes())).unwrap_or_default();
    Asked {
        version: match parts.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
        method: lossy(parts.method.as_str().as_bytes()),
        path: lossy(headers::path_of(parts).as_bytes()),
        authority: lossy(headers::authority_of(parts).as_bytes()),
        user_agent: header(http::header::USER_AGENT),
        request_id: header(REQUEST_ID),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned()
}

#[cfg(test)]
mod tests;
