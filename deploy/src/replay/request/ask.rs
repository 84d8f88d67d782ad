//! A request as it is asked about, and the answer of the proxies at a moment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use fsm_actors::Core;
use fsm_actors::catalog::{Audience, ObjectName};
use fsm_proxy_config::{Asked, Journey, Snapshot, Verdict};
use fsm_store::Seq;
use http::HeaderValue;
use http::header::{HOST, HeaderName};
use http::request::Parts;
use serde::Serialize;

use super::address::{Authority, Resolved};
use crate::replay::misuse::Misuse;
use crate::replay::past::Past;
use crate::replay::proxies;

/// What kind of request.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::replay) struct RequestFlags {
    /// The method.
    #[arg(long, default_value = "GET", value_name = "METHOD")]
    method: String,
    /// Path and query.
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,
    /// A header; may be given more than once.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// An opaque connection instead of an HTTP request.
    #[arg(long, conflicts_with_all = ["method", "path", "header"])]
    tcp: bool,
}

impl RequestFlags {
    /// An HTTP request.
    pub(in crate::replay) fn plain(method: &str, path: &str, headers: Vec<(String, String)>) -> Self {
        let header = headers.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        Self { method: method.to_owned(), path: path.to_owned(), header, tcp: false }
    }
}

/// A request that a workload might make.
#[derive(Clone, Debug, Serialize)]
pub(in crate::replay) struct Question {
    pub(in crate::replay) from: String,
    pub(in crate::replay) to: String,
    #[serde(skip)]
    authority: Authority,
    /// None: an opaque connection.
    #[serde(serialize_with = "head_as_json", rename = "http")]
    pub(in crate::replay) head: Option<Parts>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(in crate::replay) struct Answer {
    pub(in crate::replay) verdict: Verdict,
    /// The proxy of the pod that asks.
    #[serde(rename = "proxy")]
    pub(in crate::replay) client: ObjectName,
    #[serde(rename = "identity")]
    pub(in crate::replay) client_identity: Option<String>,
    /// The last version that its proxy had acknowledged.
    pub(in crate::replay) acknowledged: Option<Seq>,
    pub(in crate::replay) destination: std::net::SocketAddr,
    /// Why it is that address.
    pub(in crate::replay) resolved: String,
    /// What the client's proxy can't say: why it isn't told of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::replay) hint: Option<String>,
    #[serde(flatten)]
    pub(in crate::replay) journey: Journey,
}

impl Question {
    /// A request from a workload to a host and port.
    pub(in crate::replay) fn new(from: &str, to: &str, flags: &RequestFlags) -> Result<Self, Misuse> {
        let head = if flags.tcp { None } else { Some(head(to, flags)?) };
        Ok(Self { from: from.to_owned(), to: to.to_owned(), authority: Authority::parse(to)?, head })
    }

    /// The answer at that moment; an error if there is nobody who asks.
    pub(in crate::replay) fn ask(&self, past: &Past) -> anyhow::Result<Answer> {
        let client = proxies::find(past, &self.from)?;
        self.ask_as(&Decider::new(&past.core), &client)
            .ok_or_else(|| anyhow!("proxy {client} had no configuration at {}", past.moment()))?
    }

    /// The answer for a proxy; none if there is no such proxy.
    pub(in crate::replay) fn ask_as(
        &self,
        decider: &Decider<'_>,
        client: &ObjectName,
    ) -> Option<anyhow::Result<Answer>> {
        let core = decider.core;
        let Resolved { address, how, service } = self.authority.resolve(core.catalog(), client.namespace());
        let snapshot = match decider.snapshot(client)? {
            Ok(snapshot) => snapshot,
            Err(error) => return Some(Err(anyhow!("proxy {client} refuses its configuration: {error}"))),
        };
        let asked = Asked { destination: address, head: self.head.clone() };
        let journey = Journey::follow(&snapshot, &asked, |pod| decider.snapshot(&pod.parse().ok()?)?.ok());
        let status = core.catalog().proxies().get(client);
        Some(Ok(Answer {
            verdict: journey.verdict(),
            client: client.clone(),
            client_identity: snapshot.identity().map(ToString::to_string),
            acknowledged: status.and_then(|status| status.acked).map(|(seq, _)| seq),
            destination: address,
            resolved: how,
            hint: service.filter(|_| journey.client.refused).and_then(|service| why_not_told(core, client, &service)),
            journey,
        }))
    }

    /// The hosts that it names: where it is sent, and what its head says.
    pub(in crate::replay) fn hosts(&self) -> impl Iterator<Item = &str> {
        fn without_port(host: &str) -> &str {
            host.rsplit_once(':').map_or(host, |(host, _)| host)
        }
        let named = self.head.iter().flat_map(|head| head.headers.get_all(HOST)).filter_map(|host| host.to_str().ok());
        [self.authority.host.as_str()].into_iter().chain(named.map(without_port))
    }

    /// `GET shop.shop:80/path`, or `TCP shop.shop:80`
    pub(in crate::replay) fn title(&self) -> String {
        match &self.head {
            Some(head) => format!("{} {}{}", head.method, self.to, head.uri),
            None => format!("TCP {}", self.to),
        }
    }
}

/// Answers questions at one moment; compiles every proxy's configuration once.
pub(in crate::replay) struct Decider<'a> {
    core: &'a Core,
    compiled: RefCell<BTreeMap<ObjectName, Option<Compiled>>>,
}

type Compiled = Result<Arc<Snapshot>, String>;

impl<'a> Decider<'a> {
    /// At the moment of this state.
    pub(in crate::replay) fn new(core: &'a Core) -> Self {
        Self { core, compiled: RefCell::default() }
    }

    /// The proxy that a text means, if there is one.
    pub(in crate::replay) fn client(&self, text: &str) -> Option<ObjectName> {
        proxies::find_if_there(self.core, text)
    }

    /// What a proxy decides by, or why it refuses it; none if there is no such proxy.
    fn snapshot(&self, proxy: &ObjectName) -> Option<Compiled> {
        let compile = || {
            let config = self.core.config_of(proxy)?;
            Some(Snapshot::compile(config).map(Arc::new).map_err(|error| error.to_string()))
        };
        self.compiled.borrow_mut().entry(proxy.clone()).or_insert_with(compile).clone()
    }
}

/// Why a proxy isn't told of a service that is there.
fn why_not_told(core: &Core, client: &ObjectName, service: &ObjectName) -> Option<String> {
    let catalog = core.catalog();
    let account = &catalog.pods().get(client)?.account;
    if catalog.mesh_service(service).is_none() {
        return Some(format!("service {service} is not in the mesh"));
    }
    match catalog.audience_of_service(service) {
        Audience::Accounts(accounts) if !accounts.contains(account) => {
            let told: Vec<String> = accounts.iter().map(ToString::to_string).collect();
            let told = if told.is_empty() { "nobody".into() } else { told.join(", ") };
            Some(format!(
                "only those whom a TrafficTarget names as sources are told of service {service}: {told}, not {account}"
            ))
        }
        _ => None,
    }
}

fn head(to: &str, flags: &RequestFlags) -> Result<Parts, Misuse> {
    let method = http::Method::from_bytes(flags.method.as_bytes())
        .map_err(|_| Misuse(format!("--method {}: no HTTP method", flags.method)))?;
    let begins = flags.path.starts_with('/') || flags.path == "*";
    let path = if begins { flags.path.clone() } else { format!("/{}", flags.path) };
    let request = http::Request::builder().method(method).uri(&path).body(());
    let request = request.map_err(|_| Misuse(format!("--path {}: no path of a URL", flags.path)))?;
    let mut head = request.into_parts().0;
    for text in &flags.header {
        let (name, value) = header(text)
            .ok_or_else(|| Misuse(format!("--header {text}: write NAME:VALUE, for example 'x-user: alice'")))?;
        head.headers.append(name, value);
    }
    if !head.headers.contains_key(HOST) {
        let host = HeaderValue::from_str(to).map_err(|_| Misuse(format!("--to {to}: no host")))?;
        head.headers.insert(HOST, host);
    }
    Ok(head)
}

fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}

fn head_as_json<S: serde::Serializer>(head: &Option<Parts>, serializer: S) -> Result<S::Ok, S::Error> {
    let head = head.as_ref().map(|head| {
        let headers: Vec<(&str, String)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        serde_json::json!({ "method": head.method.as_str(), "path": head.uri.to_string(), "headers": headers })
    });
    head.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> RequestFlags {
        RequestFlags::plain("GET", "/", Vec::new())
    }

    #[test]
    fn the_host_is_sent_unless_another_one_is_asked_for() {
        let plain = Question::new("a/b", "shop:80", &RequestFlags { path: "books?new".into(), ..flags() }).unwrap();
        assert_eq!(plain.title(), "GET shop:80/books?new");
        assert_eq!(plain.head.unwrap().headers[HOST], "shop:80");
        let named = RequestFlags { header: vec!["Host: other".into()], ..flags() };
        assert_eq!(Question::new("a/b", "shop:80", &named).unwrap().head.unwrap().headers[HOST], "other");
        let tcp = RequestFlags { tcp: true, ..flags() };
        assert_eq!(Question::new("a/b", "shop:80", &tcp).unwrap().title(), "TCP shop:80");
    }

    #[test]
    fn what_is_no_request_names_the_flag() {
        for (flags, named) in [
            (RequestFlags { method: "G T".into(), ..flags() }, "--method"),
            (RequestFlags { header: vec!["x".into()], ..flags() }, "--header x"),
            (RequestFlags { path: "/ ".into(), ..flags() }, "--path"),
        ] {
            let error = Question::new("a/b", "shop:80", &flags).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
