//! What there is on the admin port, and the forms in which it is answered.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// Path and content of every page.
pub const PAGES: [(&str, &str); 9] = [
    ("/", "this list"),
    ("/ready", "200 once there are a certificate and a configuration, else 503 with what is missing"),
    ("/config_dump", "the configuration: seq, digest and every resource"),
    ("/clusters", "services with their endpoints, as load balancing sees them"),
    ("/listeners", "what is listened on"),
    ("/certs", "the certificate: identity, serial number, validity; the trust bundle"),
    (
        "/stats",
        "counters, and the state of the connection to the controller; in detail on port 15010, /stats/prometheus",
    ),
    ("/decide?to=ADDRESS:PORT", "what would be done with a request, and why; also with &format=text"),
    ("/logging", "the log level; POST /logging?level=debug changes it"),
];

/// An answer: JSON, or a text for people.
pub struct Answer {
    pub status: StatusCode,
    pub body: Body,
}

pub enum Body {
    Json(Value),
    Text(String),
}

impl Answer {
    pub fn json(status: StatusCode, value: Value) -> Self {
        Self { status, body: Body::Json(value) }
    }

    /// What is wrong with a question, as `{"error": …}`.
    pub fn error(status: StatusCode, error: impl ToString) -> Self {
        Self::json(status, json!({ "error": error.to_string() }))
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let (text, kind) = match self.body {
            Body::Json(value) => (format!("{value:#}\n"), "application/json"),
            Body::Text(text) => (text, "text/plain; charset=utf-8"),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// The list of pages, for people unless a program asks for JSON.
pub fn index(headers: &HeaderMap) -> Answer {
    if accepts(headers, "application/json") {
        let pages: serde_json::Map<String, Value> =
            PAGES.iter().map(|(path, content)| ((*path).to_owned(), json!(content))).collect();
        return Answer::json(StatusCode::OK, json!({ "version": env!("CARGO_PKG_VERSION"), "pages": pages }));
    }
    let mut text = format!("FSM's proxy, version {}\n\n", env!("CARGO_PKG_VERSION"));
    for (path, content) in PAGES {
        text.push_str(&format!("{path:<26}{content}\n"));
    }
    Answer { status: StatusCode::OK, body: Body::Text(text) }
}

pub fn not_found(path: &str) -> Answer {
    let paths: Vec<&str> = PAGES.iter().map(|(path, _)| path.split('?').next().unwrap_or(path)).collect();
    Answer::json(StatusCode::NOT_FOUND, json!({ "error": format!("no page {path}"), "pages": paths }))
}

/// Whether a kind of content is named in the Accept header.
pub fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.split(',').any(|one| one.split(';').next().map(str::trim) == Some(kind)))
}
