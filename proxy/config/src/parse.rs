//! From messages to plain data: every field is checked here, on its own, before anything is joined.

use std::net::IpAddr;
use std::time::Duration;

use crate::identity::SpiffeId;
use crate::model::{InboundPort, Protocol, Service, ServicePort, Settings, Workload};
use crate::names::{Names, canonical};
use crate::observe::{AccessLog, RemoteLog, Share, Tracing};
use crate::proto;
use crate::resource::{InvalidResource, Resource, ResourceName};
use crate::route::{HttpMatch, Pattern, RouteGroup};
use crate::traffic;

/// The largest compiled expression that is accepted, in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Checks one resource on its own, as [`Snapshot::compile`](crate::Snapshot::compile) does: the controller calls it
/// for what it is about to publish, so that one bad expression does not stop a proxy from taking anything new.
pub fn check(name: &ResourceName, resource: &Resource) -> Result<()> {
    let at = At(name);
    match resource {
        Resource::Settings(message) => settings(at, message).map(drop),
        Resource::Workload(message) => workload(at, message).map(drop),
        Resource::TrustBundle(_) => Ok(()),
        Resource::Service(message) => service(at, message).map(drop),
        Resource::Endpoints(message) => endpoints(at, message).map(drop),
        Resource::Split(_) => Ok(()),
        Resource::RouteGroup(message) => route_group(at, message).map(drop),
        Resource::TcpRoute(message) => tcp_route(at, message).map(drop),
        Resource::InboundPolicy(message) => sources(at, message).map(drop),
        Resource::TrafficPolicy(message) => {
            traffic::parse::applies_to(at)?;
            traffic::parse::policy(at, message).map(drop)
        }
    }
}

/// The resource whose fields are being read; names it in errors.
#[derive(Clone, Copy)]
pub(crate) struct At<'a>(pub &'a ResourceName);

impl At<'_> {
    pub fn invalid(self, field: impl Into<String>, reason: impl ToString) -> InvalidResource {
        InvalidResource::Field { resource: self.0.clone(), field: field.into(), reason: reason.to_string() }
    }
}

pub(crate) type Result<T> = std::result::Result<T, InvalidResource>;

pub(crate) fn settings(at: At<'_>, message: &proto::Settings) -> Result<Settings> {
    let millis = |value: u32| (value > 0).then(|| Duration::from_millis(value.into()));
    Ok(Settings {
        mesh_name: message.mesh_name.clone(),
        trust_domain: message.trust_domain.clone(),
        permissive: message.permissive,
        egress: message.egress,
        connect_timeout: millis(message.connect_timeout_ms).unwrap_or(Settings::DEFAULT_CONNECT_TIMEOUT),
        idle_timeout: millis(message.idle_timeout_ms),
        dial_pod_ip: message.dial_pod_ip,
        names: message.names.as_ref().map(|message| names(at, message)).transpose()?.unwrap_or_default(),
        access_log: message.access_log.as_ref().map(|message| access_log(at, message)).transpose()?,
        remote_log: message.remote_log.as_ref().map(|message| remote_log(at, message)).transpose()?,
        tracing: message.tracing.as_ref().map(|message| tracing(at, message)).transpose()?,
    })
}

fn access_log(at: At<'_>, message: &proto::AccessLog) -> Result<AccessLog> {
    let format = proto::LogFormat::try_from(message.format).map_err(|_| {
        at.invalid("access_log.format", format!("{} is no format that this proxy knows", message.format))
    })?;
    Ok(AccessLog {
        format: format.into(),
        sampled: Share::per_million(message.sampled_per_million),
        errors_always: message.errors_always,
    })
}

fn tracing(at: At<'_>, message: &proto::Tracing) -> Result<Tracing> {
    let endpoint = Some(&message.endpoint).filter(|endpoint| !endpoint.is_empty());
    if let Some(text) = endpoint.filter(|text| !is_url(text, &["http", "https"])) {
        return Err(at.invalid("tracing.endpoint", format!("\"{text}\" is not http://host:port")));
    }
    Ok(Tracing { endpoint: endpoint.cloned(), sampled: Share::per_million(message.sampled_per_million) })
}

fn remote_log(at: At<'_>, message: &proto::RemoteLog) -> Result<RemoteLog> {
    let url = &message.url;
    if !is_url(url, &["http"]) {
        return Err(at.invalid("remote_log.url", format!("\"{url}\" is not http://host:port/path")));
    }
    Ok(RemoteLog { url: url.clone(), sampled: Share::per_million(message.sampled_per_million) })
}

fn is_url(text: &str, schemes: &[&str]) -> bool {
    let known = |uri: &http::Uri| uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    text.parse::<http::Uri>().is_ok_and(|uri| known(&uri) && uri.host().is_some())
}

fn names(at: At<'_>, message: &proto::Names) -> Result<Names> {
    let addresses = |field: &str, texts: &[String]| -> Result<Vec<IpAddr>> {
        let numbered = texts.iter().enumerate();
        numbered.map(|(index, text)| address(at, || format!("names.{field}[{index}]"), text)).collect()
    };
    let record = |record: &proto::NameRecord| {
        Ok((canonical(&record.name), addresses(&format!("records.{}", record.name), &record.addresses)?))
    };
    Ok(Names {
        upstreams: addresses("upstreams", &message.upstreams)?,
        records: message.records.iter().map(record).collect::<Result<_>>()?,
        wildcard: addresses("wildcard", &message.wildcard)?,
        replaced: addresses("replaced", &message.replaced)?.into_iter().collect(),
        mapped: message.mapped,
    })
}

pub(crate) fn workload(at: At<'_>, message: &proto::Workload) -> Result<Workload> {
    let ports = message.ports.iter().enumerate().map(|(index, one)| {
        Ok(InboundPort {
            port: port(at, || format!("ports[{index}].port"), one.port)?,
            protocol: protocol(at, || format!("ports[{index}].protocol"), one.protocol)?,
            services: one.services.clone(),
        })
    });
    Ok(Workload {
        ports: ports.collect::<Result<_>>()?,
        namespace: message.namespace.clone(),
        pod: message.pod.clone(),
        service_account: message.service_account.clone(),
        node: message.node.clone(),
        zone: message.zone.clone(),
    })
}

pub(crate) fn service(at: At<'_>, message: &proto::Service) -> Result<Service> {
    let vips = message.vips.iter().enumerate().map(|(index, vip)| address(at, || format!("vips[{index}]"), vip));
    let ports = message.ports.iter().enumerate().map(|(index, one)| {
        Ok(ServicePort {
            number: port(at, || format!("ports[{index}].port"), one.port)?,
            name: one.name.clone(),
            protocol: protocol(at, || format!("ports[{index}].protocol"), one.protocol)?,
        })
    });
    Ok(Service {
        name: at.0.name.to_string(),
        vips: vips.collect::<Result<_>>()?,
        hosts: message.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        ports: ports.collect::<Result<_>>()?,
    })
}

/// One EndpointSlice.
pub(crate) struct Slice {
    pub service: String,
    /// Service port and target port.
    pub ports: Vec<(u16, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
}

/// An endpoint, without a port.
pub(crate) struct SliceEndpoint {
    pub address: IpAddr,
    pub identity: Option<SpiffeId>,
    pub pod: String,
    pub zone: String,
    pub weight: u32,
}

pub(crate) fn endpoints(at: At<'_>, message: &proto::Endpoints) -> Result<Slice> {
    let ports = message.ports.iter().enumerate().map(|(index, one)| {
        let service_port = port(at, || format!("ports[{index}].service_port"), one.service_port)?;
        let target_port = port(at, || format!("ports[{index}].target_port"), one.target_port)?;
        Ok((service_port, target_port))
    });
    let endpoints = message.endpoints.iter().enumerate().map(|(index, one)| {
        Ok(SliceEndpoint {
            address: address(at, || format!("endpoints[{index}].address"), &one.address)?,
            identity: match one.identity.as_str() {
                "" => None,
                text => Some(identity(at, || format!("endpoints[{index}].identity"), text)?),
            },
            pod: one.pod.clone(),
            zone: one.zone.clone(),
            weight: one.weight.unwrap_or(1),
        })
    });
    Ok(Slice {
        service: message.service.clone(),
        ports: ports.collect::<Result<_>>()?,
        endpoints: endpoints.collect::<Result<_>>()?,
    })
}

pub(crate) fn route_group(at: At<'_>, message: &proto::RouteGroup) -> Result<RouteGroup> {
    let matches = message.matches.iter().enumerate().map(|(index, one)| http_match(at, index, one));
    Ok(RouteGroup { name: at.0.name.to_string(), matches: matches.collect::<Result<_>>()? })
}

fn http_match(at: At<'_>, index: usize, message: &proto::HttpMatch) -> Result<HttpMatch> {
    let path = match message.path_regex.as_str() {
        "" => None,
        written => {
            let build = |text: &str| regex::RegexBuilder::new(text).size_limit(REGEX_SIZE_LIMIT).build();
            let pattern = pattern(written, build);
            Some(pattern.map_err(|reason| at.invalid(format!("matches[{index}].path_regex"), reason))?)
        }
    };
    let headers = message.headers.iter().enumerate().map(|(header, one)| {
        let invalid = |field, reason: String| at.invalid(format!("matches[{index}].headers[{header}].{field}"), reason);
        let name = http::HeaderName::from_bytes(one.name.as_bytes())
            .map_err(|_| invalid("name", format!("\"{}\" is not a header name", one.name)))?;
        let build = |text: &str| regex::bytes::RegexBuilder::new(text).size_limit(REGEX_SIZE_LIMIT).build();
        let pattern = pattern(&one.value_regex, build).map_err(|reason| invalid("value_regex", reason))?;
        Ok((name, pattern))
    });
    let any_method = message.methods.iter().any(|method| method == "*");
    Ok(HttpMatch {
        name: message.name.clone(),
        path,
        methods: if any_method { Vec::new() } else { message.methods.clone() },
        headers: headers.collect::<Result<_>>()?,
    })
}

/// Compiles an expression so that it must match as a whole.
fn pattern<R>(
    written: &str,
    build: impl Fn(&str) -> std::result::Result<R, regex::Error>,
) -> std::result::Result<Pattern<R>, String> {
    // On its own first: inside the anchors, brackets that do not belong together could close the group (`a)|(?:b`).
    let syntax = regex_syntax::parse(written).map_err(|error| error.to_string());
    let compiled = syntax.and_then(|_| build(&format!(r"\A(?:{written})\z")).map_err(|error| error.to_string()));
    match compiled {
        Ok(anchored) => Ok(Pattern { written: written.to_owned(), anchored }),
        Err(error) => Err(format!(
            "\"{written}\" is not a regular expression that FSM takes (RE2 syntax: no look-around, no back-references): {}",
            error.lines().last().unwrap_or_default()
        )),
    }
}

pub(crate) fn tcp_route(at: At<'_>, message: &proto::TcpRoute) -> Result<Vec<u16>> {
    let ports = message.ports.iter().enumerate();
    ports.map(|(index, number)| port(at, || format!("ports[{index}]"), *number)).collect()
}

pub(crate) fn sources(at: At<'_>, message: &proto::InboundPolicy) -> Result<Vec<SpiffeId>> {
    let sources = message.sources.iter().enumerate();
    sources.map(|(index, text)| identity(at, || format!("sources[{index}]"), text)).collect()
}

fn port(at: At<'_>, field: impl Fn() -> String, number: u32) -> Result<u16> {
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(at.invalid(field(), format!("{number} is not a port: expected 1 to 65535"))),
    }
}

fn protocol(at: At<'_>, field: impl Fn() -> String, number: i32) -> Result<Protocol> {
    proto::Protocol::try_from(number)
        .map(Protocol::from)
        .map_err(|_| at.invalid(field(), format!("{number} is an unknown protocol; upgrade this proxy")))
}

fn address(at: At<'_>, field: impl Fn() -> String, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| at.invalid(field(), format!("\"{text}\" is not an IP address")))
}

fn identity(at: At<'_>, field: impl Fn() -> String, text: &str) -> Result<SpiffeId> {
    text.parse().map_err(|error| at.invalid(field(), error))
}
