//! `/health/ready`, `/health/alive` and `/metrics`.

use super::node::Summary;
use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fmt::Write,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// An agent that has not looked at its node for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the agent is, as last said.
#[derive(Debug)]
pub struct Health(Mutex<(Instant, Option<Summary>)>);

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), None)))
    }
}

impl Health {
    /// The agent works; without a summary it does not know its pods yet.
    pub fn beat(&self, summary: Option<Summary>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), summary);
    }

    fn answer(&self, path: &str) -> (StatusCode, String) {
        let (beat, summary) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match path {
            "/health/alive" if beat.elapsed() > PATIENCE => {
                (StatusCode::SERVICE_UNAVAILABLE, "the agent hangs\n".to_owned())
            }
            "/health/alive" => (StatusCode::OK, "alive\n".to_owned()),
            "/health/ready" if summary.is_none() => {
                (StatusCode::SERVICE_UNAVAILABLE, "the node's pods are not listed yet\n".to_owned())
            }
            "/health/ready" => (StatusCode::OK, "ready\n".to_owned()),
            "/metrics" => (StatusCode::OK, metrics(&summary.unwrap_or_default())),
            other => (StatusCode::NOT_FOUND, format!("{other} is not served here\n")),
        }
    }
}

/// In the text format of Prometheus.
fn metrics(summary: &Summary) -> String {
    let stats = &summary.stats;
    let connections = [
        ("outbound", "redirected", stats.outbound_redirected),
        ("outbound", "excluded", stats.outbound_excluded),
        ("outbound", "exempt", stats.outbound_exempt),
        ("outbound", "without_proxy", stats.outbound_without_proxy),
        ("inbound", "steered", stats.inbound_steered),
        ("inbound", "excluded", stats.inbound_excluded),
        ("inbound", "without_proxy", stats.inbound_without_proxy),
    ];
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = text.write_fmt(format_args!("{line}\n"));
    };
    line(format_args!("# HELP fsm_interceptor_pods Pods of the mesh on this node."));
    line(format_args!("# TYPE fsm_interceptor_pods gauge"));
    line(format_args!("fsm_interceptor_pods{{state=\"intercepted\"}} {}", summary.attached));
    line(format_args!("fsm_interceptor_pods{{state=\"waiting\"}} {}", summary.waiting));
    line(format_args!("# HELP fsm_interceptor_failures_total Attempts to intercept a pod that failed."));
    line(format_args!("# TYPE fsm_interceptor_failures_total counter"));
    line(format_args!("fsm_interceptor_failures_total {}", summary.failures));
    line(format_args!("# HELP fsm_interceptor_connections Connections of the pods that are intercepted now."));
    line(format_args!("# TYPE fsm_interceptor_connections gauge"));
    for (direction, outcome, count) in connections {
        line(format_args!("fsm_interceptor_connections{{direction=\"{direction}\",outcome=\"{outcome}\"}} {count}"));
    }
    text
}

/// Listens, and gives what serves from then on.
pub async fn serve(listen: SocketAddr, health: Arc<Health>) -> Result<impl Future<Output = Result<()>>> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot serve health on {listen}: give another address with --listen"))?;
    Ok(async move {
        loop {
            let (stream, _) = listener.accept().await.context("accepting a connection for health or metrics")?;
            let health = Arc::clone(&health);
            let answer = service_fn(move |request: Request<Incoming>| {
                let (status, text) = health.answer(request.uri().path());
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                std::future::ready(Ok::<_, Infallible>(response))
            });
            tokio::spawn(async move {
                if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
                    tracing::debug!(%error, "a connection for health or metrics");
                }
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_once_it_knows_its_pods() {
        let health = Health::default();
        assert_eq!(health.answer("/health/alive").0, StatusCode::OK);
        assert_eq!(health.answer("/health/ready").0, StatusCode::SERVICE_UNAVAILABLE);
        health.beat(Some(Summary { attached: 2, ..Summary::default() }));
        assert_eq!(health.answer("/health/ready").0, StatusCode::OK);
        let (_, metrics) = health.answer("/metrics");
        assert!(metrics.contains("fsm_interceptor_pods{state=\"intercepted\"} 2\n"), "{metrics}");
        assert_eq!(health.answer("/").0, StatusCode::NOT_FOUND);
    }
}
