//! What becomes of one request on its whole way: what the client's proxy decides, and then the proxy of every endpoint that it may
//! be sent to. Every question goes through the functions that the data path calls.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::Authority;
use serde::Serialize;
use serde_json::{Value, json};

use crate::decide::{Connection, Decision, RequestHead, explain};
use crate::first::FirstBytes;
use crate::head;
use crate::model::Endpoint;
use crate::snapshot::Snapshot;

/// A request, or an opaque connection, that an application might make.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The address that the application dials.
    pub destination: SocketAddr,
    /// The head as the application sends it; none for an opaque connection.
    pub head: Option<Parts>,
}

/// The way of one request, or of one connection.
#[derive(Clone, Debug, Serialize)]
pub struct Journey {
    /// Its bytes are carried as they are: nobody looks for requests in them.
    pub opaque: bool,
    pub client: Told,
    /// Where it may go; none if the client's proxy refuses it, or lets it through untouched.
    pub backends: Vec<BackendPart>,
}

/// A decision with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// As [`Decision::to_json`] has it.
    pub decision: Value,
    /// What led to it, and it, in sentences.
    pub steps: Vec<String>,
    #[serde(skip)]
    pub refused: bool,
}

/// One of the services that a request may go to.
#[derive(Clone, Debug, Serialize)]
pub struct BackendPart {
    /// `ns/name`.
    pub service: String,
    pub port: u16,
    /// Its share, of the sum of all weights.
    pub weight: u32,
    pub endpoints: Vec<EndpointPart>,
}

/// One endpoint, and what is decided there.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointPart {
    pub address: SocketAddr,
    /// `ns/name`, empty if there is none.
    pub pod: String,
    pub server: Server,
}

/// The server's side.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Server {
    /// The endpoint has no proxy: it gets plain text, and nobody judges.
    Plain,
    /// There is no such proxy, or it has no configuration to serve with.
    NotServing,
    /// Its certificate would not be the one that the client's proxy asks for.
    WrongIdentity { expected: String, found: String },
    /// Its proxy judges.
    Judged(Told),
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Wherever it goes it is served.
    Allowed,
    /// Nowhere.
    Denied,
    /// That depends on where it goes.
    Mixed,
}

impl Journey {
    /// Follows a request. `servers` gives the configuration of a pod's proxy (`ns/name`).
    pub fn follow(client: &Snapshot, asked: &Asked, mut servers: impl FnMut(&str) -> Option<Arc<Snapshot>>) -> Self {
        let opaque = asked.head.is_none() || FirstBytes::of(client, asked.destination) == FirstBytes::Opaque;
        let head = asked.head.as_ref().filter(|_| !opaque);
        let connection = Connection::Outbound { destination: asked.destination };
        let (decision, steps) = explain(client, &connection, head.map(RequestHead::of).as_ref());
        let mut backends = Vec::new();
        if let Decision::Forward(forward) = &decision {
            backends.extend(forward.backends().map(|(backend, weight)| {
                BackendPart {
                    service: backend.service.to_owned(),
                    port: backend.port,
                    weight,
                    endpoints: backend
                        .endpoints
                        .iter()
                        .map(|endpoint| EndpointPart {
                            address: endpoint.address,
                            pod: endpoint.pod.clone(),
                            server: at_endpoint(client, endpoint, head, servers(&endpoint.pod)),
                        })
                        .collect(),
                }
            }));
        }
        Self { opaque, client: Told::new(&decision, steps), backends }
    }

    /// All endpoints, with their backends.
    pub fn endpoints(&self) -> impl Iterator<Item = (&BackendPart, &EndpointPart)> {
        self.backends.iter().flat_map(|backend| backend.endpoints.iter().map(move |endpoint| (backend, endpoint)))
    }

    /// The answer in a word.
    pub fn verdict(&self) -> Verdict {
        if self.client.refused {
            return Verdict::Denied;
        }
        let (mut served, mut refused) = (0, 0);
        for (_, endpoint) in self.endpoints() {
            *(if endpoint.server.serves() { &mut served } else { &mut refused }) += 1;
        }
        match (served, refused) {
            // Let through untouched, or served everywhere.
            (_, 0) => Verdict::Allowed,
            (0, _) => Verdict::Denied,
            _ => Verdict::Mixed,
        }
    }
}

impl Told {
    fn new(decision: &Decision<'_>, steps: Vec<String>) -> Self {
        Self { decision: decision.to_json(), steps, refused: matches!(decision, Decision::Refuse(_)) }
    }

    /// The decision itself: the last step.
    pub fn sentence(&self) -> &str {
        self.steps.last().map_or("", String::as_str)
    }
}

impl Server {
    /// Whether a request is served there.
    pub fn serves(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::NotServing | Self::WrongIdentity { .. } => false,
            Self::Judged(told) => !told.refused,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("no proxy there: plain text, and nobody judges"),
            Self::NotServing => f.write_str("its proxy is not there, or has no configuration yet"),
            Self::WrongIdentity { expected, found } => {
                write!(f, "its certificate says {found}, and the client's proxy asks for {expected}")
            }
            Self::Judged(told) => f.write_str(told.sentence()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Mixed => "mixed",
        })
    }
}

fn at_endpoint(client: &Snapshot, endpoint: &Endpoint, head: Option<&Parts>, server: Option<Arc<Snapshot>>) -> Server {
    let Some(expected) = &endpoint.identity else { return Server::Plain };
    let Some(server) = server.filter(|server| server.is_complete()) else { return Server::NotServing };
    let text = |identity: Option<&crate::SpiffeId>| identity.map_or_else(|| "nothing".into(), ToString::to_string);
    if server.identity() != Some(expected) {
        return Server::WrongIdentity { expected: expected.to_string(), found: text(server.identity()) };
    }
    let head = head.map(|head| at_server(head, endpoint.address));
    let connection = Connection::Inbound { port: endpoint.address.port(), peer: client.identity().cloned() };
    let (decision, steps) = explain(&server, &connection, head.as_ref().map(RequestHead::of).as_ref());
    Server::Judged(Told::new(&decision, steps))
}

/// The head that the server's proxy judges: the way between two proxies is HTTP/2, but for requests that switch to another
/// protocol.
fn at_server(head: &Parts, endpoint: SocketAddr) -> Parts {
    let mut head = head.clone();
    if !head::hand_on(&mut head)
        && let Ok(fallback) = Authority::try_from(endpoint.to_string())
    {
        head::into_http2(&mut head, || fallback);
    }
    head::for_application(&mut head);
    head
}

impl Decision<'_> {
    /// `{"decision": "forward", service, split, backends: [{service, weight, endpoints}]}`, `{"decision": "passthrough"}`,
    /// `{"decision": "allow", policy, rule}` or `{"decision": "refuse", status, kind, reason}`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Forward(forward) => {
                let backends = forward.backends().map(|(backend, weight)| {
                    let endpoints: Vec<SocketAddr> = backend.endpoints.iter().map(|one| one.address).collect();
                    json!({ "service": backend.service, "weight": weight, "endpoints": endpoints })
                });
                let backends: Vec<Value> = backends.collect();
                json!({ "decision": "forward", "service": forward.service.name, "split": forward.split, "backends": backends })
            }
            Self::Passthrough(_) => json!({ "decision": "passthrough" }),
            Self::Allow(allow) => json!({ "decision": "allow", "policy": allow.policy, "rule": allow.rule }),
            Self::Refuse(refusal) => json!({
                "decision": "refuse",
                "status": refusal.status().as_u16(),
                "kind": refusal.kind.as_str(),
                "reason": refusal.reason,
            }),
        }
    }
}
