//! OpenAPI v2, without a schema. kubectl asks for it before it sends a `List`, and leaves the checks to the server where it finds no
//! schema there; everything else it asks of version 3.

use serde_json::{Value, json};

/// What kubectl asks for, and nothing else.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.36.2";

/// The document as `Accept` wants it.
pub enum Document {
    Json(Value),
    /// Its media type, and the bytes.
    Protobuf(&'static str, Vec<u8>),
}

/// `/openapi/v2` for a client that accepts these media types.
pub fn document(accept: Option<&str>) -> Document {
    if accept.is_some_and(|accept| accept.contains("com.github.proto-openapi.spec.v2")) {
        return Document::Protobuf(PROTOBUF, protobuf());
    }
    Document::Json(json!({"swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": {}}))
}

/// The same as a `Document` of gnostic's OpenAPIv2.proto: `swagger` = 1, `info` = 2 (`title` = 1, `version` = 2), `paths` = 8.
fn protobuf() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b"")].concat()
}

/// A field of bytes (wire type 2) that are fewer than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, bytes.len() as u8 & 0x7f];
    field.extend(bytes);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_in_the_form_that_is_asked_for() {
        let Document::Json(json) = document(Some("application/json")) else { panic!("JSON is wanted") };
        assert_eq!(json["swagger"], "2.0");
        let Document::Protobuf(_, bytes) = document(Some(PROTOBUF)) else { panic!("protobuf is wanted") };
        assert_eq!(bytes, b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.2\x42\x00");
    }
}
