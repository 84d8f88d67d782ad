//! Active health checks: endpoints of services whose policy says so are asked how they are, each by a task of its own.
//!
//! A check goes the way of a request, through mutual TLS to the endpoint's proxy, as this workload; so the application's
//! policies have to allow it, and what it says is what a request would meet.

mod probe;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use fsm_proxy_config::traffic::HealthCheck;
use fsm_proxy_config::{Backend, Endpoint, Snapshot};
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;
use crate::upstream::Watched;

/// The checks that are under way.
#[derive(Default)]
pub struct Checks(HashMap<Key, Running>);

/// Service, port and address.
type Key = (Arc<str>, u16, SocketAddr);

struct Running {
    subject: Subject,
    /// Ended with this.
    _task: AbortOnDropHandle<()>,
}

/// What is checked, and how.
#[derive(Clone, PartialEq)]
struct Subject {
    /// `ns/name`.
    service: Arc<str>,
    endpoint: Endpoint,
    check: HealthCheck,
}

impl Checks {
    /// Begins the checks that `snapshot` asks for and that are not there, and ends those that it does not ask for.
    pub fn follow(&mut self, context: &Arc<Context>, snapshot: &Snapshot) {
        let mut before = std::mem::take(&mut self.0);
        for backend in snapshot.backends() {
            let Some(check) = &backend.policy.health_check else { continue };
            let service: Arc<str> = backend.service.into();
            for (index, endpoint) in backend.siblings.iter().enumerate() {
                let key = (Arc::clone(&service), backend.port, endpoint.address);
                let subject =
                    Subject { service: Arc::clone(&service), endpoint: endpoint.clone(), check: check.clone() };
                let kept = before.remove(&key).filter(|running| running.subject == subject);
                self.0.insert(key, kept.unwrap_or_else(|| begin(context, &backend, index, subject)));
            }
        }
    }
}

fn begin(context: &Arc<Context>, backend: &Backend<'_>, index: usize, subject: Subject) -> Running {
    let watched = context.balancer.pool(backend).watch(index);
    let task = tokio::spawn(watch(Arc::downgrade(context), watched, subject.clone()));
    Running { subject, _task: AbortOnDropHandle::new(task) }
}

async fn watch(context: Weak<Context>, watched: Watched, subject: Subject) {
    let Subject { endpoint, check, .. } = &subject;
    loop {
        let Some(context) = context.upgrade() else { return };
        let asked = tokio::time::timeout(check.timeout, probe::ask(&context, &subject)).await;
        drop(context);
        let failure = match asked {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(_elapsed) => Some(format!("no answer within {} ms", check.timeout.as_millis())),
        };
        if let Some(failure) = &failure {
            tracing::debug!(address = %endpoint.address, %failure, "a health check failed");
        }
        watched.checked(check, failure);
        // Not all proxies at the same time.
        tokio::time::sleep(check.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}
