//! Media types: what a client accepts, and how a body is read.

use serde_json::Value;

use super::protobuf;
use super::status::ApiError;

/// The form in which an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The object, the list or the watch as it is.
    Whole,
    /// A `Table`, as `kubectl get` shows.
    Table,
    /// `PartialObjectMetadata`, or a list of it.
    Metadata,
    /// Aggregated discovery.
    Discovery,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub form: Form,
    pub yaml: bool,
}

const ACCEPTED: &str = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The first of the `Accept` header's media types that this server can give. No header is JSON.
pub fn accepted(header: Option<&str>) -> Result<Accepted, ApiError> {
    let header = header.filter(|h| !h.trim().is_empty()).unwrap_or("application/json");
    for choice in header.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let yaml = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" | "application/*" => false,
            "application/yaml" => true,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let parameter = |name: &str| parameters.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let form = match (parameter("as"), parameter("g"), parameter("v")) {
            (None, ..) => Form::Whole,
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1")) => {
                Form::Metadata
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Form::Discovery,
            // A client that knows only the beta form gets the legacy one.
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => Form::Whole,
            _ => continue,
        };
        return Ok(Accepted { form, yaml });
    }
    Err(ApiError::new(406, "NotAcceptable", ACCEPTED))
}

/// Reads a request body as JSON, YAML, or the protobuf that kubectl sends. Without a content type it is JSON.
pub fn read_body(content_type: Option<&str>, body: &[u8]) -> Result<Value, ApiError> {
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match media {
        "" | "application/json" => read_json(body),
        "application/yaml" => read_yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::read(body).map_err(|error| {
            let remedy = "send JSON or YAML: `kubectl apply -f` and `kubectl create -f` do";
            ApiError::new(415, "UnsupportedMediaType", format!("{error}; {remedy}"))
        }),
        other => Err(ApiError::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml (it was {other})"
            ),
        )),
    }
}

pub fn read_json(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Err(ApiError::bad_request("Required value: the body of the request is empty"));
    }
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type JSON): {error}"))
    })
}

pub fn read_yaml(body: &[u8]) -> Result<Value, ApiError> {
    serde_yaml::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the object provided is unrecognized (must be YAML): {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let form = |header: &str| accepted(Some(header)).map(|a| a.form);
        assert_eq!(form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").unwrap(), Form::Table);
        assert_eq!(form("application/json;as=Table;v=v9;g=meta.k8s.io,application/json").unwrap(), Form::Whole);
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json").unwrap(), Form::Whole);
        assert_eq!(form("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(accepted(None).unwrap().form, Form::Whole);
    }
}
