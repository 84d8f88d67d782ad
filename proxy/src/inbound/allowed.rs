//! What an inbound policy has allowed for as long as it holds: opaque connections, and requests that switched to
//! another protocol. A new configuration judges them again.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::http::request::Parts;
use ::http::{HeaderMap, Method, Uri};
use fsm_proxy_config::{Connection, Decision, RequestHead, Snapshot, decide};
use tokio_util::sync::CancellationToken;

use super::Caller;

/// Everything that is open.
#[derive(Default)]
pub struct Allowed {
    open: Mutex<Vec<Weak<Open>>>,
}

/// One open connection, until dropped.
pub struct Open {
    caller: Arc<Caller>,
    port: u16,
    /// The request that switched; none for an opaque connection.
    head: Option<Head>,
    revoked: CancellationToken,
}

struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    fn of(parts: &Parts) -> Self {
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers: parts.headers.clone() }
    }
}

impl Open {
    /// Cancelled when no policy allows it any more.
    pub fn revoked(&self) -> CancellationToken {
        self.revoked.clone()
    }

    fn is_allowed(&self, snapshot: &Snapshot) -> bool {
        let connection = Connection::Inbound { port: self.port, peer: Some(self.caller.identity.clone()) };
        let head = self.head.as_ref().map(|head| RequestHead {
            method: head.method.as_str(),
            authority: head.headers.get(::http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
            headers: &head.headers,
            flaw: None,
        });
        !matches!(decide(snapshot, &connection, head.as_ref()), Decision::Refuse(_))
    }
}

impl Allowed {
    /// Remembers a connection to `port` that was allowed; `head` as it was judged, if it is a request.
    pub fn remember(&self, caller: &Arc<Caller>, port: u16, head: Option<&Parts>) -> Arc<Open> {
        let open = Arc::new(Open {
            caller: Arc::clone(caller),
            port,
            head: head.map(Head::of),
            revoked: CancellationToken::new(),
        });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&open));
        open
    }

    /// Judges everything again; what is not allowed any more is ended. Gives how many were.
    pub fn judge(&self, snapshot: &Snapshot) -> usize {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = 0;
        open.retain(|one| {
            let Some(one) = one.upgrade() else { return false };
            let allowed = one.is_allowed(snapshot);
            if !allowed {
                one.revoked.cancel();
                ended += 1;
            }
            allowed
        });
        ended
    }
}
