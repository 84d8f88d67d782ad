//! The page, as a scraper reads it.

mod exposition;

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use super::text::State;
use super::*;
use crate::stream::{End, Metered as _, Way};
use exposition::{Exposition, Kind};

fn counted() -> (Metrics, State) {
    let metrics = Metrics::default();
    let _open = metrics.captured.open();
    metrics.refused(Direction::Outbound, "no_backend");
    for status in [200, 204, 404, 503, 999] {
        let stats = metrics.requests(Direction::Outbound, "shop/store", "shop/store-v2");
        stats.passed(Way::Request, 10, End::Whole);
        stats.passed(Way::Response, 100, End::Whole);
        let mut timer = stats.begin(Instant::now());
        timer.answered(StatusCode::from_u16(status).unwrap());
    }
    drop(metrics.requests(Direction::Outbound, "shop/store", "shop/store-v2").begin(Instant::now()));
    drop(metrics.requests(Direction::Outbound, "odd\"na\\me\n", "passthrough").connect());
    metrics.requests(Direction::Outbound, "shop/store", "shop/store-v2").failed(Failure::TimedOut);
    let mut timer = metrics.requests(Direction::Inbound, "shop/cart", "shop/buyer").begin(Instant::now());
    timer.answered(StatusCode::OK);
    drop(timer);
    let state = State {
        seq: Some(12),
        certificate_not_after: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
        workload: Some(("shop".into(), "web-1".into())),
        owner: ("Deployment".into(), "web".into()),
    };
    (metrics, state)
}

#[test]
fn every_form_of_the_page_can_be_read() {
    let (metrics, state) = counted();
    let prometheus = Exposition::parse(&metrics.page(&state, Form::Prometheus), Form::Prometheus);
    let open = Exposition::parse(&metrics.page(&state, Form::OpenMetrics), Form::OpenMetrics);
    assert_eq!(prometheus.samples.len(), open.samples.len());
    assert_eq!(open.kinds["fsm_request"], Kind::Counter);
    assert_eq!(open.kinds["sidecar_cluster_upstream_rq_xx"], Kind::Unknown);
    assert_eq!(prometheus.kinds["fsm_request_total"], Kind::Counter);
    // Before there is anything to tell, too.
    Exposition::parse(&Metrics::default().text(&State::default()), Form::Prometheus);
}

#[test]
fn each_side_names_the_parties_that_it_knows_for_certain() {
    let (metrics, state) = counted();
    let page = Exposition::parse(&metrics.text(&state), Form::Prometheus);
    let outbound = [
        ("source_namespace", "shop"),
        ("source_kind", "Deployment"),
        ("source_name", "web"),
        ("source_pod", "web-1"),
        ("destination_namespace", "shop"),
        ("destination_kind", "Service"),
        ("destination_name", "store-v2"),
        ("service", "shop/store"),
    ];
    for (code, count) in [("200", 1.0), ("204", 1.0), ("404", 1.0), ("503", 1.0), ("0", 2.0)] {
        let mut labels = outbound.to_vec();
        labels.push(("response_code", code));
        assert_eq!(page.value("fsm_request_total", &labels), Some(count), "{code}");
    }
    assert_eq!(page.value("fsm_request_duration_ms_count", &outbound), Some(6.0));
    let inbound = [
        ("source_namespace", "shop"),
        ("source_kind", "ServiceAccount"),
        ("source_name", "buyer"),
        ("destination_namespace", "shop"),
        ("destination_kind", "Deployment"),
        ("destination_name", "web"),
        ("destination_pod", "web-1"),
        ("service", "shop/cart"),
        ("response_code", "200"),
    ];
    assert_eq!(page.value("fsm_inbound_request_total", &inbound), Some(1.0));
    let cluster = [("sidecar_cluster_name", "shop/store-v2"), ("service", "shop/store")];
    for (name, value) in [
        ("rq_total", 6.0),
        ("rq_completed", 4.0),
        ("rq_active", 0.0),
        ("cx_tx_bytes_total", 50.0),
        ("cx_rx_bytes_total", 500.0),
        ("cx_connect_fail", 1.0),
        ("cx_connect_timeout", 1.0),
        ("rq_tx_reset", 1.0),
    ] {
        assert_eq!(page.value(&format!("sidecar_cluster_upstream_{name}"), &cluster), Some(value), "{name}");
    }
    let odd = [("sidecar_cluster_name", "passthrough"), ("service", "odd\"na\\me\n")];
    assert_eq!(page.value("sidecar_cluster_upstream_cx_destroy", &odd), Some(1.0));
}

#[test]
fn the_form_is_the_one_that_is_asked_for() {
    for (accept, form) in [
        (None, Form::Prometheus),
        (Some("*/*"), Form::Prometheus),
        (Some("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"), Form::Prometheus),
        (Some("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"), Form::OpenMetrics),
        (Some("application/openmetrics-text; version=2.0.0, text/plain"), Form::Prometheus),
    ] {
        assert_eq!(Form::wanted(accept), form, "{accept:?}");
    }
}
