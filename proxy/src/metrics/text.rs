//! The counters in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Connections, Counter, Direction, Metrics};

/// What is told about the proxy besides its counters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The seq of the configuration in use; none before the first one.
    pub seq: Option<u64>,
    /// When the certificate ends; none before the first one.
    pub certificate_not_after: Option<SystemTime>,
    /// `namespace`, pod.
    pub workload: Option<(String, String)>,
    /// Kind and name of what controls the pod.
    pub owner: (String, String),
}

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

impl Metrics {
    /// The page of `/stats/prometheus`.
    pub fn text(&self, state: &State) -> String {
        let mut page = Page(String::with_capacity(16 * 1024));
        page.single("sidecar_server_live", "gauge", "1 while the proxy runs.", 1);
        self.write_state(&mut page, state);
        self.write_connections(&mut page);
        self.write_refusals(&mut page);
        self.write_requests(&mut page);
        self.write_fsm_requests(&mut page, state);
        self.write_traffic(&mut page);
        page.0
    }

    fn write_state(&self, page: &mut Page, state: &State) {
        if let Some(seq) = state.seq {
            page.single("fsm_proxy_config_seq", "gauge", "The seq of the configuration in use.", seq);
        }
        if let Some(not_after) = state.certificate_not_after {
            let name = "fsm_proxy_certificate_not_after_seconds";
            let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            page.single(name, "gauge", "When the certificate ends, in seconds since 1970.", seconds);
        }
    }

    fn write_connections(&self, page: &mut Page) {
        let families: [(&str, &str, &str, &Connections); 6] = [
            ("outbound", "capture", "none", &self.captured),
            ("inbound", "mesh", "mtls", &self.mesh_inbound),
            ("outbound", "mesh", "mtls", &self.mesh_outbound),
            ("outbound", "direct", "plaintext", &self.plain_outbound),
            ("inbound", "tunnel", "mtls", &self.tunnels_inbound),
            ("outbound", "tunnel", "mtls", &self.tunnels_outbound),
        ];
        let name = "fsm_proxy_connections_total";
        page.family(
            name,
            "counter",
            "Connections: captured from the application, with other proxies, direct, tunnels.",
        );
        for (direction, kind, security, connections) in families {
            let labels = [("direction", direction), ("kind", kind), ("security", security)];
            page.sample(name, &labels, connections.total.get());
        }
        let name = "fsm_proxy_connections_open";
        page.family(name, "gauge", "The same, those that are open.");
        for (direction, kind, security, connections) in families {
            let labels = [("direction", direction), ("kind", kind), ("security", security)];
            page.sample(name, &labels, connections.open.load(Ordering::Relaxed));
        }
    }

    fn write_refusals(&self, page: &mut Page) {
        let counters: [(&str, &str, &Counter); 3] = [
            (
                "fsm_proxy_plaintext_refused_total",
                "Plain connections from outside the mesh, refused.",
                &self.plaintext_refused,
            ),
            (
                "fsm_proxy_handshakes_failed_total",
                "Connections from other proxies without a TLS handshake.",
                &self.handshakes_failed,
            ),
            ("fsm_proxy_retries_total", "Requests that were sent again.", &self.retries),
        ];
        for (name, help, counter) in counters {
            page.single(name, "counter", help, counter.get());
        }
        let name = "fsm_proxy_refused_total";
        page.family(name, "counter", "Requests and connections that the proxy answered itself, by reason.");
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        for ((direction, reason), counter) in &*refused {
            page.sample(name, &[("direction", direction.as_str()), ("reason", reason)], counter.get());
        }
    }

    fn write_requests(&self, page: &mut Page) {
        let name = "fsm_proxy_requests_total";
        page.family(
            name,
            "counter",
            "Requests by service, by backend or source, and by the class of the response's status.",
        );
        for (direction, other_label) in [(Direction::Inbound, "source"), (Direction::Outbound, "backend")] {
            for ((service, other), stats) in self.requests.sorted(direction) {
                for (class, count) in stats.by_class().filter(|(_, count)| *count > 0) {
                    let class = if class == 0 { "none".to_owned() } else { format!("{class}xx") };
                    let labels = [
                        ("direction", direction.as_str()),
                        ("service", &service),
                        (other_label, &other),
                        ("class", &class),
                    ];
                    page.sample(name, &labels, count);
                }
            }
        }
        let name = "fsm_proxy_requests_open";
        page.family(name, "gauge", "Requests under way.");
        for (direction, other_label) in [(Direction::Inbound, "source"), (Direction::Outbound, "backend")] {
            for ((service, other), stats) in self.requests.sorted(direction) {
                let labels = [("direction", direction.as_str()), ("service", &service), (other_label, &other)];
                page.sample(name, &labels, stats.open());
            }
        }
    }

    fn write_traffic(&self, page: &mut Page) {
        for (name, family) in self.traffic.families() {
            let name = format!("sidecar_cluster_{name}");
            page.family(&name, "counter", family.help);
            for ((service, port), value) in family.values {
                page.sample(&name, &[("sidecar_cluster_name", &service), ("port", &port.to_string())], value);
            }
        }
    }

    /// The series that FSM's dashboards read. A cluster is the backend service of outbound requests.
    fn write_fsm_requests(&self, page: &mut Page, state: &State) {
        let outbound = self.requests.sorted(Direction::Outbound);
        let name = "sidecar_cluster_upstream_rq_total";
        page.family(name, "counter", "Requests to a backend service.");
        for ((service, backend), stats) in &outbound {
            page.sample(name, &[("sidecar_cluster_name", backend), ("service", service)], stats.total());
        }
        let name = "sidecar_cluster_upstream_rq_retry";
        page.family(name, "counter", "Requests to a backend service that were sent again.");
        for ((service, backend), stats) in &outbound {
            page.sample(name, &[("sidecar_cluster_name", backend), ("service", service)], stats.retries());
        }
        let name = "sidecar_cluster_upstream_rq_xx";
        page.family(name, "counter", "Requests to a backend service, by the first digit of the status.");
        for ((service, backend), stats) in &outbound {
            for (class, count) in stats.by_class().filter(|(class, count)| *class > 0 && *count > 0) {
                let class = class.to_string();
                let labels = [
                    ("sidecar_cluster_name", backend.as_str()),
                    ("service", service),
                    ("sidecar_response_code_class", &class),
                ];
                page.sample(name, &labels, count);
            }
        }
        let name = "fsm_request_duration_ms";
        page.family(name, "histogram", "From a request's head to the end of its response, in milliseconds.");
        let (namespace, pod) = state.workload.clone().unwrap_or_default();
        for ((service, backend), stats) in &outbound {
            let (to_namespace, to_name) = backend.split_once('/').unwrap_or(("", backend));
            let base = [
                ("source_namespace", namespace.as_str()),
                ("source_kind", state.owner.0.as_str()),
                ("source_name", state.owner.1.as_str()),
                ("source_pod", pod.as_str()),
                ("destination_namespace", to_namespace),
                ("destination_kind", "Service"),
                ("destination_name", to_name),
                ("service", service),
            ];
            let mut count = 0;
            for (bound, cumulative) in stats.duration().cumulative() {
                let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
                let mut labels = base.to_vec();
                labels.push(("le", &bound));
                page.sample("fsm_request_duration_ms_bucket", &labels, cumulative);
                count = cumulative;
            }
            page.sample("fsm_request_duration_ms_sum", &base, stats.duration().sum_ms());
            page.sample("fsm_request_duration_ms_count", &base, count);
        }
    }
}
