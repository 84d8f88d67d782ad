//! `/decide`: the decision for a request that was not made, with its steps.
//!
//! | parameter | means | default |
//! | --- | --- | --- |
//! | `direction` | `outbound` or `inbound` | `outbound` |
//! | `to` | outbound: the address and port dialled; inbound: the port | required |
//! | `peer` | inbound: the caller's SPIFFE ID | no certificate |
//! | `tcp` | `true`: an opaque connection, not a request | `false` |
//! | `method`, `path`, `host` | the request's head | `GET`, `/`, the address in `to` |
//! | `header` | `name:value`, any number of times | none |
//! | `format` | `json`, or `text` for people | what the Accept header says, else `json` |

use std::net::SocketAddr;

use fsm_proxy_config::{Connection, RequestHead, Snapshot, explain};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::pages::{Answer, Body};

/// `text`: the question is a person's, unless it says otherwise itself.
pub(super) fn decide(snapshot: &Snapshot, query: &str, text: bool) -> Answer {
    match Question::parse(query) {
        Ok(question) if question.text.unwrap_or(text) => {
            Answer { status: StatusCode::OK, body: Body::Text(question.tell(snapshot)) }
        }
        Ok(question) => Answer::json(StatusCode::OK, question.ask(snapshot).0),
        Err(error) => Answer::error(StatusCode::BAD_REQUEST, error),
    }
}

/// The last value of a parameter.
pub(super) fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.rfind(|(name, _)| *name == wanted).map(|(_, value)| percent_decoded(value))
}

/// What is wrong with a question.
#[derive(Debug, thiserror::Error)]
enum InvalidQuestion {
    #[error("parameter \"{0}\" is unknown; known: direction, to, peer, tcp, method, path, host, header, format")]
    Unknown(String),
    #[error("parameter \"to\" is missing: the address and port dialled, or for direction=inbound the port")]
    NoDestination,
    #[error("{parameter}=\"{value}\" is not {expected}")]
    Value { parameter: &'static str, value: String, expected: &'static str },
}

struct Question {
    connection: Connection,
    opaque: bool,
    method: String,
    path: String,
    host: String,
    headers: HeaderMap,
    text: Option<bool>,
}

impl Question {
    fn parse(query: &str) -> Result<Self, InvalidQuestion> {
        let (mut inbound, mut to, mut peer, mut opaque) = (false, None, None, false);
        let (mut method, mut path, mut host) = ("GET".to_owned(), "/".to_owned(), None);
        let (mut headers, mut text) = (HeaderMap::new(), None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decoded(value);
            match name {
                "direction" => inbound = either("direction", value, "outbound", "inbound")?,
                "to" => to = Some(value),
                "peer" => peer = Some(parsed("peer", value, "a SPIFFE ID")?),
                "tcp" => opaque = either("tcp", value, "false", "true")?,
                "method" => method = value,
                "path" => path = value,
                "host" => host = Some(value),
                "format" => text = Some(either("format", value, "json", "text")?),
                "header" => {
                    let (name, value) = header(value)?;
                    headers.append(name, value);
                }
                other => return Err(InvalidQuestion::Unknown(other.to_owned())),
            }
        }
        let to = to.ok_or(InvalidQuestion::NoDestination)?;
        let host = host.unwrap_or_else(|| to.clone());
        let connection = match inbound {
            true => Connection::Inbound { port: parsed("to", to, "a port")?, peer },
            false => Connection::Outbound { destination: parsed::<SocketAddr>("to", to, "an address and port")? },
        };
        Ok(Self { connection, opaque, method, path, host, headers, text })
    }

    /// The answer, and its steps.
    fn ask(&self, snapshot: &Snapshot) -> (Value, Vec<String>) {
        let head = RequestHead {
            method: &self.method,
            authority: &self.host,
            path: &self.path,
            headers: &self.headers,
            flaw: None,
        };
        let (decision, steps) = explain(snapshot, &self.connection, (!self.opaque).then_some(&head));
        let mut answer = decision.to_json();
        answer["seq"] = snapshot.seq().into();
        answer["steps"] = steps.clone().into();
        (answer, steps)
    }

    /// The question in a line, then the steps, of which the last one is the decision.
    fn tell(&self, snapshot: &Snapshot) -> String {
        let what = match self.opaque {
            true => "an opaque connection".to_owned(),
            false => format!("{} {} of host {}", self.method, self.path, self.host),
        };
        let way = match &self.connection {
            Connection::Outbound { destination } => format!("from this pod to {destination}"),
            Connection::Inbound { port, peer: Some(peer) } => format!("from {peer} to port {port} of this pod"),
            Connection::Inbound { port, peer: None } => format!("without a certificate to port {port} of this pod"),
        };
        let mut text = format!("{what}, {way}, by the configuration of seq {}:\n", snapshot.seq());
        for (index, step) in self.ask(snapshot).1.iter().enumerate() {
            text.push_str(&format!("{:>3}. {step}\n", index + 1));
        }
        text
    }
}

fn parsed<T: std::str::FromStr>(
    parameter: &'static str,
    value: String,
    expected: &'static str,
) -> Result<T, InvalidQuestion> {
    value.parse().map_err(|_| InvalidQuestion::Value { parameter, value, expected })
}

fn either(parameter: &'static str, value: String, no: &str, yes: &str) -> Result<bool, InvalidQuestion> {
    match value.as_str() {
        value if value == yes => Ok(true),
        value if value == no => Ok(false),
        _ => Err(InvalidQuestion::Value { parameter, value, expected: "one of its two values" }),
    }
}

fn header(text: String) -> Result<(HeaderName, HeaderValue), InvalidQuestion> {
    let parts = text.split_once(':').and_then(|(name, value)| {
        Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    parts.ok_or(InvalidQuestion::Value { parameter: "header", value: text, expected: "name:value" })
}

/// Decodes `%XX` and `+`, as HTML forms encode them; what is not a code stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, after) = match (first, code) {
            (b'%', Some(byte)) => (byte, &tail[2..]),
            (b'+', _) => (b' ', tail),
            (other, _) => (*other, tail),
        };
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_decoded() {
        assert_eq!(percent_decoded("/a%3Fb%20c+d%zz%"), "/a?b c d%zz%");
    }

    #[test]
    fn a_wrong_question_names_the_parameter() {
        for (query, expected) in [
            ("", "parameter \"to\" is missing"),
            ("to=1.2.3.4", "to=\"1.2.3.4\" is not an address and port"),
            ("to=1.2.3.4:80&colour=red", "parameter \"colour\" is unknown"),
            ("to=80&direction=sideways", "direction=\"sideways\""),
            ("to=80&direction=inbound&peer=me", "peer=\"me\" is not a SPIFFE ID"),
            ("to=1.2.3.4:80&header=x", "header=\"x\" is not name:value"),
        ] {
            let error = Question::parse(query).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{query}: {error}");
        }
    }
}
