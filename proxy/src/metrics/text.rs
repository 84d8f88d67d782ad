//! The families of metrics; `docs/observability.md` lists them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::page::{Form, Page};
use super::{Connections, Counter, Direction, Metrics, RequestStats, process};

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

/// What a family tells of one pair of parties.
type Value<T> = fn(&RequestStats) -> T;

/// Counters by service and the other party.
type ByParties = BTreeMap<(String, String), Arc<RequestStats>>;

impl Metrics {
    /// The page of `/stats/prometheus`.
    pub fn text(&self, state: &State) -> String {
        self.page(state, Form::Prometheus)
    }

    /// The same in either form.
    pub fn page(&self, state: &State, form: Form) -> String {
        let mut page = Page::new(form);
        page.single("sidecar_server_live", "gauge", "1 while the proxy runs.", 1);
        let name = "fsm_proxy_build";
        page.family(name, "gauge", "1, with the version of the proxy.");
        page.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        write_state(&mut page, state);
        process::write(&mut page);
        self.write_connections(&mut page);
        self.write_refusals(&mut page);
        self.write_told(&mut page);
        self.write_requests(&mut page);
        let outbound = self.requests.sorted(Direction::Outbound);
        write_clusters(&mut page, &outbound);
        self.write_traffic(&mut page);
        write_outbound(&mut page, state, &outbound);
        write_inbound(&mut page, state, &self.requests.sorted(Direction::Inbound));
        page.end()
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
        let name = "fsm_proxy_tls_handshakes_total";
        page.family(name, "counter", "Handshakes with other proxies, by how they ended.");
        for (direction, ok, failed) in [
            ("inbound", &self.mesh_inbound.total, &self.handshakes_failed),
            ("outbound", &self.mesh_outbound.total, &*self.dials_failed),
        ] {
            page.sample(name, &[("direction", direction), ("result", "ok")], ok.get());
            page.sample(name, &[("direction", direction), ("result", "failed")], failed.get());
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

    /// The access log and spans.
    fn write_told(&self, page: &mut Page) {
        let name = "fsm_proxy_access_log_lines_total";
        page.family(name, "counter", "Lines of the access log; lost if nobody reads the proxy's output.");
        page.sample(name, &[("result", "written")], self.lines.written.get());
        page.sample(name, &[("result", "lost")], self.lines.lost.get());
        for (name, help, count) in [
            (
                "fsm_proxy_remote_log_entries_total",
                "Entries of the access log for a server; lost if it does not take them.",
                &self.remote_entries,
            ),
            ("fsm_proxy_spans_total", "Spans of requests; lost if no collector takes them.", &self.spans),
        ] {
            page.family(name, "counter", help);
            page.sample(name, &[("result", "sent")], count.sent.get());
            page.sample(name, &[("result", "lost")], count.lost.get());
        }
    }

    /// What policies of services did.
    fn write_traffic(&self, page: &mut Page) {
        for (name, family) in self.traffic.families() {
            let name = format!("sidecar_cluster_{name}");
            page.family(&name, "counter", family.help);
            for ((service, port), value) in family.values {
                page.sample(&name, &[("sidecar_cluster_name", &service), ("port", &port.to_string())], value);
            }
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
}

fn write_state(page: &mut Page, state: &State) {
    if let Some(seq) = state.seq {
        page.single("fsm_proxy_config_seq", "gauge", "The seq of the configuration in use.", seq);
    }
    if let Some(not_after) = state.certificate_not_after {
        let name = "fsm_proxy_certificate_not_after_seconds";
        let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        page.single(name, "gauge", "When the certificate ends, in seconds since 1970.", seconds);
    }
}

/// The series that FSM's dashboards read. A cluster is the backend service of outbound traffic.
fn write_clusters(page: &mut Page, outbound: &ByParties) {
    let families: [(&str, &str, &str, Value<i128>); 13] = [
        ("rq_total", "counter", "Requests to a backend service.", |one| one.total().into()),
        ("rq_active", "gauge", "Requests under way.", |one| one.open().into()),
        ("rq_retry", "counter", "Requests that were sent again.", |one| one.retries().into()),
        ("rq_rx_reset", "counter", "Requests that the other end broke off.", |one| one.failures().broken.get().into()),
        ("rq_tx_reset", "counter", "Requests that the client gave up.", |one| one.failures().given_up.get().into()),
        ("cx_connect_fail", "counter", "Endpoints that could not be reached, when one was needed.", |one| {
            one.failures().unreachable.get().into()
        }),
        ("cx_connect_timeout", "counter", "The same, those that did not answer in time.", |one| {
            one.failures().timed_out.get().into()
        }),
        ("cx_total", "counter", "Opaque connections.", |one| one.connections().0.into()),
        ("cx_active", "gauge", "Opaque connections that are open.", |one| one.connections().1.into()),
        ("cx_destroy", "counter", "Opaque connections that have ended.", |one| {
            let (total, open) = one.connections();
            i128::from(total) - i128::from(open)
        }),
        ("cx_tx_bytes_total", "counter", "Bytes of bodies and of connections, to the backend.", |one| {
            one.received_bytes().into()
        }),
        ("cx_rx_bytes_total", "counter", "Bytes of bodies and of connections, from the backend.", |one| {
            one.sent_bytes().into()
        }),
        ("rq_completed", "counter", "Requests with a response.", |one| {
            i128::from(one.total()) - i128::from(one.without_response())
        }),
    ];
    for (name, kind, help, value) in families {
        let name = format!("sidecar_cluster_upstream_{name}");
        page.family(&name, kind, help);
        for ((service, backend), stats) in outbound {
            page.sample(&name, &[("sidecar_cluster_name", backend), ("service", service)], value(stats));
        }
    }
    let name = "sidecar_cluster_upstream_cx_length_ms";
    page.family(name, "histogram", "How long opaque connections were, in milliseconds.");
    for ((service, backend), stats) in outbound.iter().filter(|(_, stats)| stats.connections().0 > 0) {
        page.histogram(name, &[("sidecar_cluster_name", backend), ("service", service)], stats.connections_length());
    }
    let name = "sidecar_cluster_upstream_rq_xx";
    page.family(name, "counter", "Requests to a backend service, by the first digit of the status.");
    for ((service, backend), stats) in outbound {
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
}

/// As the client's side knows it: this pod, and the service that was asked.
fn write_outbound(page: &mut Page, state: &State, outbound: &ByParties) {
    let (namespace, pod) = state.workload.clone().unwrap_or_default();
    let labels = |parties: &(String, String)| {
        let (to_namespace, to_name) = parties.1.split_once('/').unwrap_or(("", &parties.1));
        [
            ("source_namespace", namespace.clone()),
            ("source_kind", state.owner.0.clone()),
            ("source_name", state.owner.1.clone()),
            ("source_pod", pod.clone()),
            ("destination_namespace", to_namespace.to_owned()),
            ("destination_kind", "Service".to_owned()),
            ("destination_name", to_name.to_owned()),
            ("service", parties.0.clone()),
        ]
    };
    let help = "Requests of this pod, by the service that was asked and by status; 0: no response.";
    write_codes(page, "fsm_request_total", help, outbound, labels);
    let help = "From a request's head to the end of its response, in milliseconds.";
    write_durations(page, "fsm_request_duration_ms", help, outbound, labels);
}

/// As the server's side knows it: the caller's service account, and this pod.
fn write_inbound(page: &mut Page, state: &State, inbound: &ByParties) {
    let (namespace, pod) = state.workload.clone().unwrap_or_default();
    let labels = |parties: &(String, String)| {
        let (of_namespace, of_name) = parties.1.split_once('/').unwrap_or(("", &parties.1));
        [
            ("source_namespace", of_namespace.to_owned()),
            ("source_kind", "ServiceAccount".to_owned()),
            ("source_name", of_name.to_owned()),
            ("destination_namespace", namespace.clone()),
            ("destination_kind", state.owner.0.clone()),
            ("destination_name", state.owner.1.clone()),
            ("destination_pod", pod.clone()),
            ("service", parties.0.clone()),
        ]
    };
    let help = "Requests to this pod, by the caller and by status; 0: no response.";
    write_codes(page, "fsm_inbound_request_total", help, inbound, labels);
    let help = "From a request's head to the end of its response, in milliseconds.";
    write_durations(page, "fsm_inbound_request_duration_ms", help, inbound, labels);
    let families: [(&str, &str, Value<u64>); 3] = [
        ("received_bytes_total", "Bytes of bodies and of connections, from callers.", RequestStats::received_bytes),
        ("sent_bytes_total", "Bytes of bodies and of connections, to callers.", RequestStats::sent_bytes),
        ("connections_total", "Opaque connections to this pod.", |one| one.connections().0),
    ];
    for (name, help, value) in families {
        let name = format!("fsm_inbound_{name}");
        page.family(&name, "counter", help);
        for (parties, stats) in inbound {
            page.sample(&name, &borrowed(&labels(parties)), value(stats));
        }
    }
}

fn write_codes<const N: usize>(
    page: &mut Page,
    name: &str,
    help: &str,
    table: &ByParties,
    labels: impl Fn(&(String, String)) -> [(&'static str, String); N],
) {
    page.family(name, "counter", help);
    for (parties, stats) in table {
        let of_parties = labels(parties);
        for (code, count) in stats.by_code() {
            let (mut labels, code) = (borrowed(&of_parties), code.to_string());
            labels.push(("response_code", &code));
            page.sample(name, &labels, count);
        }
    }
}

fn write_durations<const N: usize>(
    page: &mut Page,
    name: &str,
    help: &str,
    table: &ByParties,
    labels: impl Fn(&(String, String)) -> [(&'static str, String); N],
) {
    page.family(name, "histogram", help);
    // A service with opaque connections only has no requests.
    for (parties, stats) in table.iter().filter(|(_, stats)| stats.total() > 0) {
        page.histogram(name, &borrowed(&labels(parties)), stats.duration());
    }
}

fn borrowed<'l>(labels: &'l [(&'static str, String)]) -> Vec<(&'static str, &'l str)> {
    labels.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
