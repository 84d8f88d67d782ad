//! What is wrong with a MeshConfig, and what it asks for that this version doesn't do.

use std::net::IpAddr;

use ipnet::IpNet;

use super::observability::is_host;
use super::{LocalDnsProxy, MeshConfig, ObservabilitySpec, RemoteLoggingSpec, SidecarSpec, TrafficSpec, millionths};
use crate::duration::parse_duration;
use crate::report::{Report, Validate};

/// Levels of `fsmLogLevel` and of the sidecar's `logLevel`.
const LOG_LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "error", "fatal", "panic", "disabled"];

impl Validate for MeshConfig {
    fn validate(&self) -> Report {
        let mut report = Report::new("MeshConfig", &self.metadata.namespace, &self.metadata.name);
        let spec = &self.spec;
        traffic(&mut report, &spec.traffic);
        sidecar(&mut report, &spec.sidecar);
        certificate(&mut report, self);
        observability(&mut report, &spec.observability);
        other_sections(&mut report, self);
        feature_flags(&mut report, self);
        report
    }
}

fn traffic(report: &mut Report, traffic: &TrafficSpec) {
    one_of(report, "spec.traffic.interceptionMode", &traffic.interception_mode, &["PodLevel", "NodeLevel"]);
    one_of(report, "spec.traffic.serviceAccessMode", &traffic.service_access_mode, &["ip", "domain", "mixed"]);
    ports(report, "spec.traffic.inboundPortExclusionList", &traffic.inbound_port_exclusion_list);
    ports(report, "spec.traffic.outboundPortExclusionList", &traffic.outbound_port_exclusion_list);
    cidrs(report, "spec.traffic.outboundIPRangeExclusionList", &traffic.outbound_ip_range_exclusion_list);
    cidrs(report, "spec.traffic.outboundIPRangeInclusionList", &traffic.outbound_ip_range_inclusion_list);
    if traffic.inbound_external_authorization.enable {
        report.error(
            "spec.traffic.inboundExternalAuthorization.enable",
            "external authorization is not done by this version, so requests would pass unchecked: set it to false",
        );
    }
    report.warn_if(
        traffic.interception_mode == "NodeLevel",
        "spec.traffic.interceptionMode",
        "this version puts a sidecar in every pod and intercepts with eBPF in both modes: NodeLevel works as PodLevel",
    );
    report.warn_if(
        traffic.http1_per_request_load_balancing || traffic.http2_per_request_load_balancing == Some(false),
        "spec.traffic",
        "http1PerRequestLoadBalancing and http2PerRequestLoadBalancing have no effect: every HTTP request is balanced on its own",
    );
    report.warn_if(
        !traffic.network_interface_exclusion_list.is_empty(),
        "spec.traffic.networkInterfaceExclusionList",
        "has no effect: interception is by socket, not by interface; exclude ports or IP ranges instead",
    );
    report.warn_if(
        traffic.service_access_mode != "mixed" && !traffic.service_access_mode.is_empty(),
        "spec.traffic.serviceAccessMode",
        "has no effect in this version: services are reached by name and by address (mixed)",
    );
    report.warn_if(
        traffic.service_access_names != super::ServiceAccessNames::default(),
        "spec.traffic.serviceAccessNames",
        "has no effect in this version: services are reached by all their names, with and without port",
    );
}

fn sidecar(report: &mut Report, sidecar: &SidecarSpec) {
    if sidecar.sidecar_disabled_mtls {
        report.error(
            "spec.sidecar.sidecarDisabledMTLS",
            "sidecars always speak mTLS to each other, since identity is the peer's certificate: set it to false; \
             to leave traffic out of the mesh, exclude its port",
        );
    }
    if !(1..=86_400).contains(&sidecar.sidecar_timeout) {
        report.error(
            "spec.sidecar.sidecarTimeout",
            format!("{} is not a timeout in seconds: write 1 to 86400", sidecar.sidecar_timeout),
        );
    }
    one_of(report, "spec.sidecar.logLevel", &sidecar.log_level, &LOG_LEVELS);
    report.warn_if(
        sidecar.max_data_plane_connections != 0,
        "spec.sidecar.maxDataPlaneConnections",
        "has no effect in this version: every injected sidecar may connect",
    );
    let resync = &sidecar.config_resync_interval;
    duration(report, "spec.sidecar.configResyncInterval", resync);
    report.warn_if(
        !resync.is_empty() && parse_duration(resync).is_ok_and(|interval| !interval.is_zero()),
        "spec.sidecar.configResyncInterval",
        "has no effect: sidecars hold a stream over which every change comes at once and is acknowledged",
    );
    report.warn_if(
        sidecar.enable_privileged_init_container || !sidecar.init_resources.is_empty(),
        "spec.sidecar",
        "enablePrivilegedInitContainer and initResources have no effect: interception needs no init container",
    );
    report.warn_if(
        !sidecar.healthcheck_resources.is_empty(),
        "spec.sidecar.healthcheckResources",
        "has no effect: the sidecar relays probes itself, without a helper container",
    );
    report.warn_if(
        !sidecar.hold_application_until_proxy_starts,
        "spec.sidecar.holdApplicationUntilProxyStarts",
        "has no effect: the sidecar is a native sidecar container, which Kubernetes always starts first",
    );
    report.warn_if(
        !sidecar.graceful_exit_until_downstream_ends,
        "spec.sidecar.gracefulExitUntilDownstreamEnds",
        "has no effect: the sidecar is a native sidecar container, which Kubernetes always ends last",
    );
    report.warn_if(
        !sidecar.compress_config,
        "spec.sidecar.compressConfig",
        "has no effect: configurations are streamed, not stored as files",
    );
    report.warn_if(
        !sidecar.cipher_suites.is_empty() || !sidecar.ecdh_curves.is_empty(),
        "spec.sidecar",
        "cipherSuites and ecdhCurves have no effect in this version: sidecars use TLS 1.3 with its own suites",
    );
    report.warn_if(
        !sidecar.tls_min_protocol_version.is_empty() || !sidecar.tls_max_protocol_version.is_empty(),
        "spec.sidecar",
        "tlsMinProtocolVersion and tlsMaxProtocolVersion have no effect in this version: sidecars choose the TLS version",
    );
    local_dns_proxy(report, &sidecar.local_dns_proxy);
    report.warn_if(
        sidecar.xnet_dns_proxy.enable,
        "spec.sidecar.xnetDNSProxy.enable",
        "has no effect in this version: pods use the cluster's DNS",
    );
}

fn local_dns_proxy(report: &mut Report, proxy: &LocalDnsProxy) {
    let field = |path: &str| format!("spec.sidecar.localDNSProxy.{path}");
    let mut address = |path: String, ip: &str, family: &str| {
        let of_family = ip.parse().is_ok_and(|ip: IpAddr| match family {
            "IPv4" => ip.is_ipv4(),
            "IPv6" => ip.is_ipv6(),
            _ => true,
        });
        if !ip.is_empty() && !of_family {
            report.error(path, format!("\"{ip}\" is not an {family} address"));
        }
    };
    address(field("primaryUpstreamDNSServerIPAddr"), &proxy.primary_upstream_dns_server_ip_addr, "IP");
    address(field("secondaryUpstreamDNSServerIPAddr"), &proxy.secondary_upstream_dns_server_ip_addr, "IP");
    let tables = proxy.db.iter().enumerate().map(|(index, entry)| (format!("db[{index}].ips"), &entry.ips));
    let of_wildcard =
        [("wildcard.ips".to_owned(), &proxy.wildcard.ips), ("wildcard.los".to_owned(), &proxy.wildcard.los)];
    for (path, ips) in tables.chain(of_wildcard) {
        for (index, ip) in ips.iter().enumerate() {
            address(field(&format!("{path}[{index}].ipv4")), &ip.ipv4, "IPv4");
            address(field(&format!("{path}[{index}].ipv6")), &ip.ipv6, "IPv6");
        }
    }
    for (index, entry) in proxy.db.iter().enumerate() {
        if entry.dn.is_empty() || entry.ips.is_empty() {
            let path = field(&format!("db[{index}]"));
            report.error(path, "a record needs a name (dn) and at least one address (ips)".to_owned());
        }
    }
    if proxy.wildcard.enable && proxy.wildcard.ips.is_empty() {
        report.error(field("wildcard.ips"), "names can only be answered with addresses: give at least one".to_owned());
    }
}

fn certificate(report: &mut Report, config: &MeshConfig) {
    let certificate = &config.spec.certificate;
    let field = "spec.certificate.serviceCertValidityDuration";
    let validity = &certificate.service_cert_validity_duration;
    duration(report, field, validity);
    if !validity.is_empty() && parse_duration(validity).is_ok_and(|time| !(300..=31_536_000).contains(&time.as_secs()))
    {
        report.error(field, format!("\"{validity}\" is out of range: write 5m to 8760h"));
    }
    report.warn_if(
        certificate.cert_key_bit_size != 0,
        "spec.certificate.certKeyBitSize",
        "has no effect: workload keys are ECDSA P-256, made in the proxies",
    );
    report.warn_if(
        certificate.ingress_gateway.is_some(),
        "spec.certificate.ingressGateway",
        "has no effect in this version: no certificates are issued to ingress gateways",
    );
}

fn observability(report: &mut Report, spec: &ObservabilitySpec) {
    let field = |path: &str| format!("spec.observability.{path}");
    one_of(report, "spec.observability.fsmLogLevel", &spec.fsm_log_level, &LOG_LEVELS);
    one_of(report, "spec.observability.accessLog.format", &spec.access_log.format, &["json", "text"]);
    let (tracing, remote) = (&spec.tracing, &spec.remote_logging);
    for (path, fraction) in [
        ("accessLog.sampledFraction", &spec.access_log.sampled_fraction),
        ("tracing.sampledFraction", &tracing.sampled_fraction),
        ("remoteLogging.sampledFraction", &remote.sampled_fraction),
    ] {
        if millionths(fraction).is_none() {
            report.error(
                field(path),
                format!("\"{fraction}\" is no fraction: write a number from 0 to 1, such as \"0.01\""),
            );
        }
    }
    for (section, address, port) in
        [("tracing", &tracing.address, tracing.port), ("remoteLogging", &remote.address, remote.port)]
    {
        if !(0..=65_535).contains(&port) {
            report.error(field(&format!("{section}.port")), format!("{port} is no port: write 1 to 65535"));
        }
        if !is_host(address) {
            let text = format!("\"{address}\" is no host: write a name or an address, without scheme and port");
            report.error(field(&format!("{section}.address")), text);
        }
    }
    report.warn_if(
        tracing.enable && !tracing.endpoint.is_empty(),
        &field("tracing.endpoint"),
        "has no effect: spans are sent by OTLP over gRPC, which has no path, and not in Zipkin's format",
    );
    report.warn_if(
        tracing.enable && tracing.port == 9411,
        &field("tracing.port"),
        "9411 is usually Zipkin's port: spans are sent by OTLP over gRPC, which collectors take on 4317",
    );
    remote_logging(report, remote);
}

fn remote_logging(report: &mut Report, spec: &RemoteLoggingSpec) {
    let field = |name: &str| format!("spec.observability.remoteLogging.{name}");
    if !spec.enable {
        return;
    }
    if spec.address.is_empty() {
        report.error(field("address"), "names no server: write its host, or set enable to false");
    } else if is_host(&spec.address) && spec.url().is_none() && (0..=65_535).contains(&spec.port) {
        let text = format!("\"{}\" is no path of a URL: write one like \"/logs?source=mesh\"", spec.endpoint);
        report.error(field("endpoint"), text);
    }
    for (name, set) in [("authorization", !spec.authorization.is_empty()), ("secretName", !spec.secret_name.is_empty())]
    {
        report.warn_if(
            set,
            &field(name),
            "has no effect: a credential would stand in the log and in every sidecar's configuration, so none is sent; \
             put a collector of logs before the server that adds it",
        );
    }
    report.warn_if(
        spec.level != 0,
        &field("level"),
        "has no effect: headers of traces are added with spec.observability.tracing, and never by logging",
    );
}

fn other_sections(report: &mut Report, config: &MeshConfig) {
    let spec = &config.spec;
    let unsupported = |what: &str| format!("has no effect in this version, which has no {what}");
    report.warn_if(spec.cluster_set.is_some(), "spec.clusterSet", &unsupported("cluster sets"));
    report.warn_if(
        spec.connector != super::ConnectorSpec::default(),
        "spec.connector",
        &unsupported("connectors to other registries"),
    );
    report.warn_if(spec.egress_gateway.enabled, "spec.egressGateway.enabled", &unsupported("egress gateways"));
    report.warn_if(spec.flb.enabled, "spec.flb.enabled", &unsupported("FLB integration"));
    report.warn_if(spec.gateway_api.enabled, "spec.gatewayAPI.enabled", &unsupported("Gateway API controller"));
    report.warn_if(spec.ingress.enabled, "spec.ingress.enabled", &unsupported("ingress controller"));
    report.warn_if(spec.service_lb.enabled, "spec.serviceLB.enabled", &unsupported("service load balancer"));
    report.warn_if(spec.warmup.enable, "spec.warmup.enable", &unsupported("warm-up of new endpoints"));
    report.warn_if(
        spec.plugin_chains != super::PluginChains::default(),
        "spec.pluginChains",
        &unsupported("plugin chains; the built-in behaviour is always on"),
    );
    report.warn_if(
        spec.repo_server != super::RepoServerSpec::default() || spec.misc != super::MiscSpec::default(),
        "spec.repoServer",
        "repoServer and misc have no effect: sidecars get their configuration from the controller's stream",
    );
    let (image, default) = (&spec.image, super::ImageSpec::default());
    report.warn_if(
        image != &default,
        "spec.image",
        "has no effect in this version: name the sidecar's image in spec.sidecar.sidecarImage",
    );
}

fn feature_flags(report: &mut Report, config: &MeshConfig) {
    let flags = &config.spec.feature_flags;
    let asked = [
        ("dropRouteRuleIfNoAvailableBackends", flags.drop_route_rule_if_no_available_backends),
        ("enableAccessCertPolicy", flags.enable_access_cert_policy),
        ("enableAccessControlPolicy", flags.enable_access_control_policy),
        ("enableAsyncProxyServiceMapping", flags.enable_async_proxy_service_mapping),
        ("enableAutoDefaultRoute", flags.enable_auto_default_route),
        ("enableEgressPolicy", flags.enable_egress_policy),
        ("enableIngressBackendPolicy", flags.enable_ingress_backend_policy),
        ("enablePluginPolicy", flags.enable_plugin_policy),
        ("enableRetryPolicy", flags.enable_retry_policy),
        ("enableSidecarActiveHealthChecks", flags.enable_sidecar_active_health_checks),
        ("enableSidecarPrettyConfig", flags.enable_sidecar_pretty_config),
        ("enableSnapshotCacheMode", flags.enable_snapshot_cache_mode),
        ("enableTrafficWarmupPolicy", flags.enable_traffic_warmup_policy),
        ("enableValidateGRPCRouteHostnames", flags.enable_validate_grpc_route_hostnames),
        ("enableValidateGatewayListenerHostname", flags.enable_validate_gateway_listener_hostname),
        ("enableValidateHTTPRouteHostnames", flags.enable_validate_http_route_hostnames),
        ("enableValidateTLSRouteHostnames", flags.enable_validate_tls_route_hostnames),
        ("useEndpointSlicesForGateway", flags.use_endpoint_slices_for_gateway),
    ];
    let names: Vec<&str> = asked.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    report.warn_if(
        !names.is_empty(),
        "spec.featureFlags",
        &format!("{} have no effect: this version has none of these features to switch", names.join(", ")),
    );
}

fn one_of(report: &mut Report, field: &str, value: &str, allowed: &[&str]) {
    if !value.is_empty() && !allowed.contains(&value) {
        report.error(field, format!("\"{value}\" is not one of {}", allowed.join(", ")));
    }
}

fn duration(report: &mut Report, field: &str, value: &str) {
    if !value.is_empty()
        && let Err(error) = parse_duration(value)
    {
        report.error(field, error.to_string());
    }
}

fn ports(report: &mut Report, field: &str, ports: &[i64]) {
    for (index, port) in ports.iter().enumerate() {
        if !(1..=65535).contains(port) {
            report.error(format!("{field}[{index}]"), format!("{port} is not a port: write 1 to 65535"));
        }
    }
}

fn cidrs(report: &mut Report, field: &str, ranges: &[String]) {
    for (index, range) in ranges.iter().enumerate() {
        if range.parse::<IpNet>().is_err() {
            report.error(
                format!("{field}[{index}]"),
                format!("\"{range}\" is not an IP range: write a CIDR such as 10.0.0.0/8 or fd00::/8"),
            );
        }
    }
}
